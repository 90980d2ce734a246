"""README.md from nbs/index.ipynb; never edit README.md by hand.

  python docs/readme.py          write README.md and its pictures (docs/readme_files/)
  python docs/readme.py --check  exit status 1 if they are not what the notebook says
"""
import json
import re
import sys

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

from pages import ROOT, move_links, read_page

PICTURES = "docs/readme_files"


def readme(root=ROOT):
    "The files that README consists of: path -> bytes"
    page = read_page(root/"nbs"/"index.ipynb")
    for cell in page["cells"]:
        if cell["cell_type"] == "markdown": cell["source"] = move_links(cell["source"], "nbs")
    page["metadata"]["language_info"] = {"name": "python"}
    only_outputs = Config(TagRemovePreprocessor=dict(enabled=True, remove_input_tags=["remove-input"]))
    text, extra = MarkdownExporter(config=only_outputs).from_notebook_node(nbformat.reads(json.dumps(page), as_version=4), resources={"output_files_dir": PICTURES})
    note = "<!-- Made from nbs/index.ipynb by docs/readme.py: edit the notebook. -->\n\n"
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.strip().splitlines()))
    return {"README.md": (note + text + "\n").encode(), **extra["outputs"]}


def differences(root=ROOT):
    "Files that are missing, different or left over"
    if not (root/"nbs"/"index.ipynb").exists(): return ["nbs/index.ipynb"]
    wanted = readme(root)
    stale = [p for p in sorted((root/PICTURES).glob("*")) if p.relative_to(root).as_posix() not in wanted]
    return [p for p, data in wanted.items() if not (root/p).exists() or (root/p).read_bytes() != data] + [p.relative_to(root).as_posix() for p in stale]


def write(root=ROOT):
    "Bring README.md and its pictures up to date"
    files = readme(root)
    for name in differences(root):
        path, data = root/name, files.get(name)
        if data is None: path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        print(f"{'removed' if data is None else 'wrote'} {name}")


if __name__ == "__main__":
    if "--check" not in sys.argv[1:]: write()
    elif changed := differences(): sys.exit(f"README.md is not what nbs/index.ipynb says ({', '.join(changed)}): run make readme")
