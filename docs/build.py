"""The documentation site, without Quarto and without network: notebooks -> Sphinx with myst-nb -> _docs/index.html.

  python docs/build.py              pages as committed, plus the 3D views as interactive pages
  python docs/build.py --no-3d      skip the 3D views (they need their notebooks executed, once per change)
  python docs/build.py --mathjax F  use a local copy of MathJax's tex-svg-full.js instead of the public one

A page is its notebook: the committed outputs are shown, nothing is executed for them. Three things are added: a reference of the notebook's
module with every parameter, links from `symbols` to their reference, and under the picture of each 3D view a link to the view itself.
"""
import argparse
import ast
import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import k3d
from nbdev.showdoc import BasicMarkdownRenderer, show_doc

from pages import ROOT, directives, read_page, text_of, title_of

NBS, SOURCE, SITE, CACHE = ROOT/"nbs", ROOT/"_sphinx", ROOT/"_docs", ROOT/"_proc"/"3d"
USES_3D = re.compile(r"show_(scene|points|cameras|voxels|mesh)\(")
STATIC_3D = "_static/3d"


def notebooks():
    "Every notebook, in the order of the site"
    return sorted(p for p in NBS.rglob("*.ipynb") if not any(part[0] in "._" for part in p.relative_to(NBS).parts))


def module_of(path):
    "The module that a notebook exports, or None"
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if found := re.search(r"^#\s*\|\s*default_exp\s+(\S+)", text_of(cell), re.M) if cell["cell_type"] == "code" else None: return found[1]


def public_names(module):
    "`__all__` of an exported module, read without importing it"
    path = ROOT/"mvs_nb"/f"{'/'.join(module.split('.'))}.py"
    if not path.exists(): return []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__": return ast.literal_eval(node.value)
    return []


def symbols():
    "Public functions and classes of the suite: name -> page. A name that two modules use has no link"
    found = {}
    for path in notebooks():
        for name in public_names(module_of(path) or ""): found[name] = None if name in found else path
    return {name: path for name, path in found.items() if path}


def link_symbols(markdown, page, known):
    "Back-ticked own symbols become links, outside code blocks and existing links"
    def link(m):
        target = known.get(m[1])
        if target is None: return m[0]
        where = Path(os.path.relpath(target, page.parent)).as_posix() if target != page else ""
        return f"[`{m[1]}`]({where}#{m[1].lower()})"
    parts = re.split(r"(```.*?```|\$\$.*?\$\$|\[[^\]]*\]\([^)]*\)|^#+ .*$)", markdown, flags=re.S|re.M)
    return "".join(part if i % 2 else re.sub(r"(?<!`)`([A-Za-z_]\w*)`(?!`)", link, part) for i, part in enumerate(parts))


def reference(module):
    "Cells with the signature, parameters and docstring of every public function and class of a module"
    loaded, cells = importlib.import_module(f"mvs_nb.{module}"), []
    for name in public_names(module):
        item = getattr(loaded, name)
        if not callable(item): continue
        text = show_doc(item, renderer=BasicMarkdownRenderer)._repr_markdown_().removeprefix("---").strip()
        cells.append(re.sub(r"^### .*$", f"### {name}", text, count=1, flags=re.M))
    return [dict(cell_type="markdown", metadata={}, source=text) for text in ([f"## Reference: `mvs_nb.{module}`"] if cells else []) + cells]


def has_3d(path):
    "Whether the notebook shows a 3D view (its cells that only define functions do not count)"
    return any(USES_3D.search(text_of(c)) and "export" not in directives(c) for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code")


# kept in the kernel under names that no notebook uses
PREAMBLE = '''
def docs_watch():
    import k3d
    views, make = [], k3d.plot
    def plot(*args, **kwargs):
        views.append(make(*args, **kwargs))
        return views[-1]
    k3d.plot = plot
    return views
docs_views = docs_watch()
'''
COLLECT = '''
def docs_collect(start):
    for i, plot in enumerate(p for p in docs_views if p.objects):
        plot.snapshot_type = "online"
        with open(f"{start}_{i}.html", "w", encoding="utf-8") as f: f.write(plot.get_snapshot())
    docs_views.clear()
'''


def snapshots(path):
    "Execute a notebook and keep each of its 3D views as a page; returns cell id -> pages. Kept until the notebook or the package changes"
    import nbformat
    from nbclient import NotebookClient
    code = b"".join(p.read_bytes() for p in [path, *sorted((ROOT/"mvs_nb").rglob("*.py"))])
    folder = CACHE/f"{path.stem}-{hashlib.sha1(code).hexdigest()[:12]}"
    if not (folder/"done").exists():
        for old in CACHE.glob(f"{path.stem}-*"): shutil.rmtree(old)
        folder.mkdir(parents=True)
        nb = nbformat.read(path, as_version=4)
        client = NotebookClient(nb, timeout=600, kernel_name="python3", store_widget_state=False, resources={"metadata": {"path": str(path.parent)}})
        with client.setup_kernel(env={**os.environ, "PYTHONPATH": str(ROOT)}):
            hidden = lambda text: client.execute_cell(nbformat.v4.new_code_cell(text), 0, store_history=False)
            hidden(PREAMBLE + COLLECT)
            for i, cell in enumerate(nb.cells):
                if cell.cell_type != "code": continue
                shown = any("image/png" in o.get("data", {}) for o in cell.outputs)   # a view in a test is not for the reader
                client.execute_cell(cell, i)
                hidden(f"docs_collect({str(folder/cell.id)!r})" if shown else "docs_views.clear()")
        (folder/"done").touch()
    found = {}
    for page in sorted(folder.glob("*.html")): found.setdefault(page.stem.rsplit("_", 1)[0], []).append(page)
    return found


def place_snapshot(page):
    "Copy a 3D page into the site, with the two scripts taken from the site itself"
    text = page.read_text(encoding="utf-8")
    text, n = re.subn(r'<script src="https://[^"]*/(require|standalone)[^"]*\.js"></script>', r'<script src="\1.js"></script>', text)
    if n != 2: sys.exit(f"{page}: k3d's snapshot has changed its form; adapt docs/build.py")
    out = SOURCE/STATIC_3D/page.name
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    for name in ("require.js", "standalone.js"): shutil.copy(Path(k3d.__file__).parent/"static"/name, out.parent/name)
    return out


def write_page(path, known, views):
    "One notebook as Sphinx source"
    page, cells = read_page(path), []
    here = SOURCE/path.relative_to(NBS)
    for cell in page["cells"]:
        if cell["cell_type"] == "markdown": cell["source"] = link_symbols(cell["source"], path, known)
        cells.append(cell)
        for view in views.get(cell.get("id"), []):
            url = Path(os.path.relpath(place_snapshot(view), here.parent)).as_posix()
            frame = f'<iframe src="{url}" loading="lazy" style="width:100%;height:420px;border:0"></iframe>'
            cells.append(dict(cell_type="markdown", metadata={}, source=f'<details><summary>Turn this view in 3D</summary>\n{frame}\n</details>'))
    module = module_of(path)
    if module and public_names(module): cells += reference(module)
    for i, cell in enumerate(cells):
        cell["id"] = f"c{i}"
        cell["source"] = cell["source"].splitlines(True)
    here.parent.mkdir(parents=True, exist_ok=True)
    here.write_text(json.dumps({**page, "cells": cells}), encoding="utf-8")


def write_index():
    "Tables of contents: one per folder, in the order of the folders"
    index = NBS/"index.ipynb"
    folders, top = {}, []
    for path in notebooks():
        inside = path.relative_to(NBS)
        if len(inside.parts) > 1: folders.setdefault(inside.parts[0], []).append(inside.with_suffix("").as_posix())
        elif path != index: top.append(inside.with_suffix("").as_posix())
    block = lambda caption, pages: f"```{{toctree}}\n:hidden:\n:caption: {caption}\n:maxdepth: 1\n\n" + "\n".join(pages) + "\n```\n"
    trees = [block("Start", top)] * bool(top) + [block(re.sub(r"^\d+_", "", name).replace("_", " "), pages) for name, pages in folders.items()]
    target = SOURCE/"index.ipynb"
    page = json.loads(target.read_text(encoding="utf-8")) if target.exists() else dict(
        cells=[dict(cell_type="markdown", metadata={}, source="# mvs_nb")], metadata={}, nbformat=4, nbformat_minor=5)
    page["cells"].append(dict(cell_type="markdown", id="toc", metadata={}, source="\n".join(trees)))
    target.write_text(json.dumps(page), encoding="utf-8")


def write_conf(mathjax):
    "Sphinx's settings; the site needs no network, except for equations where no local MathJax is given"
    static = SOURCE/"_static"
    static.mkdir(parents=True, exist_ok=True)
    lines = ['project, author, html_title = "mvs_nb", "The mvs_nb authors", "mvs_nb"', 'extensions = ["myst_nb"]', 'nb_execution_mode = "off"',
             'myst_enable_extensions = ["dollarmath", "amsmath", "html_image"]', "myst_heading_anchors = 3", 'html_theme = "sphinx_book_theme"',
             'html_static_path = ["_static"]', 'html_theme_options = dict(show_toc_level=2)', 'suppress_warnings = ["mystnb.unknown_mime_type"]', 'exclude_patterns = ["_static"]']
    if mathjax:
        shutil.copy(mathjax, static/"mathjax.js")
        lines.append('mathjax_path = "mathjax.js"')
    (SOURCE/"conf.py").write_text("\n".join(lines)+"\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-3d", action="store_true", help="do not execute notebooks for their 3D views")
    parser.add_argument("--mathjax", help="local tex-svg-full.js, for a site that needs no network at all")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    for folder in (SOURCE, SITE): shutil.rmtree(folder, ignore_errors=True)
    known = symbols()
    for path in notebooks():
        views = {} if options.no_3d or not has_3d(path) else snapshots(path)
        print(f"{path.relative_to(NBS)}: {title_of(path)[1]}" + (f" ({sum(map(len, views.values()))} 3D views)" if views else ""))
        write_page(path, known, views)
    if (NBS/"images").exists(): shutil.copytree(NBS/"images", SOURCE/"images")
    write_index()
    write_conf(options.mathjax)
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-b", "html", str(SOURCE), str(SITE)], check=True)
    print(f"Open {SITE/'index.html'}")


if __name__ == "__main__": main()
