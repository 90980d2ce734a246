"What README and the documentation site share: reading a notebook and taking out what is only for the machine"
import json
import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIRECTIVE = re.compile(r"^#\s*\|\s*(\w+)(.*)$", re.M)


def text_of(cell):
    "The source of a cell as one string"
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def directives(cell):
    "Names of the `#|` lines of a code cell, such as hide, export, default_exp"
    return {name for name, _ in DIRECTIVE.findall(text_of(cell))} if cell["cell_type"] == "code" else set()


def read_page(path):
    "A notebook without hidden cells and without `#|` lines; exported code stays, because it is what the text explains; `#| echo: false` keeps outputs alone"
    notebook, cells = json.loads(Path(path).read_text(encoding="utf-8")), []
    for cell in notebook["cells"]:
        names = directives(cell)
        if "hide" in names or "include" in names: continue
        if cell["cell_type"] == "code":
            if re.search(r"^#\s*\|\s*echo:\s*false", text_of(cell), re.M): cell["metadata"] = {"tags": ["remove-input"]}
            cell["source"] = DIRECTIVE.sub("", text_of(cell)).strip("\n")
            if not cell["source"].strip(): continue
        else: cell["source"] = text_of(cell)
        cells.append(cell)
    return {**notebook, "cells": cells}


def title_of(path):
    "The H1 of a notebook and the promise in the blockquote under it"
    lines = [line for cell in read_page(path)["cells"][:2] if cell["cell_type"] == "markdown" for line in cell["source"].splitlines()]
    title = next((line[2:].strip() for line in lines if line.startswith("# ")), Path(path).stem)
    return title, next((line[2:].strip() for line in lines if line.startswith("> ")), "")


def move_links(markdown, base):
    "Relative links and pictures of a page in folder `base` (relative to the repository), as seen from the repository's root"
    def move(m):
        target = m[2]
        if re.match(r"[a-z]+:|#|/", target): return m[0]
        path, hash, anchor = target.partition("#")
        return f"{m[1]}({posixpath.normpath(posixpath.join(base, path))}{hash}{anchor})"
    return re.sub(r"(\[[^\]]*\]|\[!\[[^\]]*\]\([^)]*\)\])\(([^)\s]+)\)", move, markdown)
