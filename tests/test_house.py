"The rules of the house, checked on the files themselves: floors, docstrings, notebooks, sizes, links"
import ast
import json
import re
import subprocess
import tokenize
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, NBS = ROOT/"mvs_nb", ROOT/"nbs"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "_modidx.py"))
NOTEBOOKS = sorted(p for p in NBS.rglob("*.ipynb") if not any(part[0] in "._" for part in p.relative_to(NBS).parts))

# A module imports from its own floor or from floors below. A folder stands for all its modules.
FLOORS = [
    {"camera", "scene", "textures", "files"},
    {"warping"},
    {"hypotheses", "kernels", "cost_volume", "normalization", "features", "regularization", "regression", "volumetric", "video.convlstm"},
    {"models", "reconstruction.mesh", "reconstruction.tsdf"},
    {"losses", "selfsup", "video", "reconstruction.fusion"},
    {"metrics", "data", "training"},
    {"reconstruction", "video.online"},
    {"cli", "housekeeping"},
]
SHOWS = {"cli", "training"}  # who may import `show`, which itself imports camera only


def name_of(path):
    "mvs_nb/models/mvsnet.py -> models.mvsnet"
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def floor_of(module):
    "Number of the floor, or None for a module nobody has given one"
    return next((i for key in (module, module.split(".")[0]) for i, names in enumerate(FLOORS) if key in names), None)


def imports(source, module, package=False):
    "Own modules that a module imports, at the top or inside a function"
    found, here = set(), module.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ["mvs_nb", *here][:len(here)+1-node.level] if node.level else []
            base = ".".join(above + ([node.module] if node.module else []))
            names = [base] if node.module else [f"{base}.{a.name}" for a in node.names]
            names += [f"{base}.{a.name}" for a in node.names if (ROOT/Path(*base.split("."))/f"{a.name}.py").exists()]
        else: continue
        found |= {n.removeprefix("mvs_nb.") for n in names if n.startswith("mvs_nb.")}
    return {n for n in found if (PACKAGE/Path(*n.split("."))).with_suffix(".py").exists()} - {module}


def upward(module, imported):
    "What is wrong with one import, or None"
    if imported == "show": return None if module.split(".")[0] in SHOWS else f"{module} imports show"
    if module == "show": return None if imported == "camera" else f"show imports {imported}; it may import camera only"
    mine, other = floor_of(module), floor_of(imported)
    if None in (mine, other): return f"{imported if other is None else module} has no floor: enter it in FLOORS"
    return f"{module} (floor {mine}) imports {imported} (floor {other})" if other > mine else None


def test_imports_run_downward():
    graph = {name_of(p): imports(p.read_text(encoding="utf-8"), name_of(p)) for p in MODULES}
    assert not [m for module, used in graph.items() for i in used if (m := upward(module, i))]
    ready = set()
    while left := {m for m in graph if m not in ready and graph[m] <= ready}: ready |= left
    assert ready == set(graph), f"modules that import each other in a circle: {sorted(set(graph)-ready)}"


def test_an_upward_import_is_found():
    assert imports("from ..training.engine import fit\nfrom ..camera import look_at", "models.mvsnet") == {"training.engine", "camera"}
    assert upward("models.mvsnet", "training.engine") and upward("show", "scene") and upward("losses", "show") and upward("nowhere", "camera")
    assert not upward("training.engine", "models.mvsnet") and not upward("training.engine", "show") and not upward("show", "camera")


# --- docstrings --------------------------------------------------------------------------------
WELL_KNOWN = {"self", "cls", "ctx", "dtype", "device", "generator", "path", "name", "model", "settings", "in_channels", "out_channels"}
OWN_TYPE = re.compile(r"^(?!Tensor\b|Path\b|Any\b|Callable\b|Iterable\b|None\b)([A-Z]\w+(\|None)?$|Literal\[)")  # settings:FitSettings says it all
SHAPE = re.compile(r"\[[^\]]*\]|\((\w+|\.\.\.)(, ?[\w|/*+-]+)+\)|scalar|any shape|same shape|0-d")


def comments(path):
    "Line number -> the comment on that line"
    with tokenize.open(path) as f: return {t.start[0]: t.string.lstrip("# ") for t in tokenize.generate_tokens(f.readline) if t.type == tokenize.COMMENT}


def raises_input_error(node):
    "Whether the body of a function raises `InputError` itself"
    return any(isinstance(n, ast.Raise) and "InputError" in ast.unparse(n.exc or ast.Constant(0)) for n in ast.walk(node))


def parameter_problems(node, notes, told):
    "Parameters without a word, and tensors without a shape; `told` is the docstring that may speak for them"
    a, out = node.args, []
    defaults = dict(zip([*a.posonlyargs, *a.args][::-1], a.defaults[::-1])) | {k: d for k, d in zip(a.kwonlyargs, a.kw_defaults) if d}
    for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])]:
        kind = ast.unparse(arg.annotation).replace(" ", "") if arg.annotation else ""
        if arg.arg in WELL_KNOWN or OWN_TYPE.match(kind): continue
        note = notes.get(getattr(defaults.get(arg), "end_lineno", arg.end_lineno), "") if arg.lineno > node.lineno or node.body[0].lineno > node.lineno else ""
        if not note and not re.search(rf"\b{re.escape(arg.arg)}\b", told): out.append(f"parameter {arg.arg} is not described")
        elif kind in ("Tensor", "Tensor|None") and not SHAPE.search(note + " " + told):
            out.append(f"tensor {arg.arg} has no shape in brackets")
    return out


def doc_problems(node, notes):
    "What the documentation of one public function or class leaves open"
    told = ast.get_docstring(node) or ""
    out = [] if told else ["no docstring"]
    if isinstance(node, ast.FunctionDef):
        if raises_input_error(node) and "InputError" not in told: out.append("raises InputError and does not say so")
        return out + parameter_problems(node, notes, told)
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name in ("__init__", "forward", "__call__"):
            out += [f"{item.name}: {p}" for p in parameter_problems(item, notes, told + " " + (ast.get_docstring(item) or ""))]
        elif isinstance(item, ast.FunctionDef) and not item.name.startswith("_") and not ast.get_docstring(item) and len(item.body) > 3:
            out.append(f"method {item.name} has no docstring")
        elif isinstance(item, ast.AnnAssign) and item.target.id not in WELL_KNOWN and not OWN_TYPE.match(ast.unparse(item.annotation)) and not notes.get(item.end_lineno) and not re.search(rf"\b{item.target.id}\b", told):
            out.append(f"field {item.target.id} is not described")
    return out


def public(tree):
    "Names in `__all__`"
    return next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"), [])


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_names_are_documented(path):
    tree, notes = ast.parse(path.read_text(encoding="utf-8")), comments(path)
    names = set(public(tree))
    found = [f"{n.name}: {p}" for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name in names for p in doc_problems(n, notes)]
    assert not found, "\n" + "\n".join(found)


def test_a_poor_docstring_is_found(tmp_path):
    path = tmp_path/"poor.py"
    path.write_text('def f(\n    a:Tensor, # a picture\n    b=3,\n):\n    "Do"\n    raise InputError("x")\n')
    found = doc_problems(ast.parse(path.read_text()).body[0], comments(path))
    assert found == ["raises InputError and does not say so", "tensor a has no shape in brackets", "parameter b is not described"]
    path.write_text('def f(\n    a:Tensor, # a picture [3, H, W]\n    b=3, # times\n):\n    "Do, or raise `InputError`"\n    raise InputError("x")\n')
    assert not doc_problems(ast.parse(path.read_text()).body[0], comments(path))


# --- notebooks ---------------------------------------------------------------------------------
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(home|root|work|Users|tmp|mnt|opt)/\w|[A-Z]:\\\\?Users|site-packages|ipykernel_\d")
LINK = re.compile(r"\]\(([^)\s]+)\)")
LIMIT_NOTEBOOK, LIMIT_FILE, LIMIT_PNG = 600_000, 5_000_000, 140_000


def text(value): return value if isinstance(value, str) else "".join(value)


def output_problems(cell):
    "What the committed outputs of a cell must not hold"
    for o in cell.get("outputs", []):
        kinds, words = o.get("data", {}), text(o.get("text", "")) + text(o.get("data", {}).get("text/plain", ""))
        if o["output_type"] == "error": yield f"a cell ends in {o['ename']}"
        if any("widget" in k for k in kinds): yield "a live widget in an output: run mvs_nb clean"
        if o.get("name") == "stderr": yield "stderr in an output: run mvs_nb clean"
        if m := MACHINE_PATH.search(words): yield f"machine path in an output: ...{words[max(0, m.start()-20):m.end()+20]!r}"
        if words.count("\n") > 100: yield "an output of more than 100 lines"
        if len(text(kinds.get("image/png", "")))*3/4 > LIMIT_PNG: yield "a PNG of more than 140 kB"


def notebook_problems(path):
    "Everything that is wrong with a committed notebook"
    notebook, out = json.loads(path.read_text(encoding="utf-8")), []
    cells = notebook["cells"]
    markdown = [text(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    if path.stat().st_size > LIMIT_NOTEBOOK: out.append(f"{path.stat().st_size/1000:.0f} kB, more than {LIMIT_NOTEBOOK/1000:.0f}")
    if "widgets" in notebook["metadata"]: out.append("widget state: run mvs_nb clean")
    if not markdown or not re.match(r"# \S", markdown[0]): out.append("does not start with a title")
    if not any(re.search(r"^> \S", m, re.M) for m in markdown[:2]): out.append("no blockquote with the promise under the title")
    if not any("image/png" in o.get("data", {}) for c in cells for o in c.get("outputs", [])): out.append("no picture among its outputs")
    for cell in cells:
        out += output_problems(cell)
        if m := MACHINE_PATH.search(text(cell["source"])): out.append(f"machine path {m[0]!r} in a cell")
    for target in (t for m in markdown for t in LINK.findall(re.sub(r"`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", "", m, flags=re.S))):
        if not re.match(r"[a-z]+:|#", target) and not (path.parent/target.partition("#")[0]).exists(): out.append(f"link to {target} leads nowhere")
    return out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path):
    found = notebook_problems(path)
    assert not found, "\n" + "\n".join(found)


def test_names_are_unique():
    stems = [p.stem for p in NOTEBOOKS]
    assert len(set(stems)) == len(stems), "test reports print bare names: give every notebook its own"


def test_a_bad_notebook_is_found(tmp_path):
    outputs = [dict(output_type="error", ename="ValueError"), dict(output_type="stream", name="stdout", text=["saved /ho" + "me/me/x.png\n"]),
               dict(output_type="display_data", data={"application/vnd.jupyter.widget-view+json": {}})]
    path = tmp_path/"bad.ipynb"
    path.write_text(json.dumps(dict(cells=[dict(cell_type="markdown", source=["no title [x](missing.ipynb)"]), dict(cell_type="code", source=[], outputs=outputs)],
                                    metadata={"widgets": {}})))
    found = "\n".join(notebook_problems(path))
    for words in ("title", "blockquote", "picture", "ends in ValueError", "machine path", "live widget", "widget state", "missing.ipynb leads nowhere"): assert words in found


# --- the whole tree ----------------------------------------------------------------------------
def tracked():
    "Files that are, or would be, in version control"
    try: names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError): pytest.skip("not a git checkout")
    return [ROOT/n for n in names if n and (ROOT/n).is_file()]


def test_files_are_small():
    assert not [(p.name, p.stat().st_size) for p in tracked() if p.stat().st_size > LIMIT_FILE]


def test_no_machine_paths():
    kinds = {".py", ".md", ".ini", ".toml", ".yml", ".txt", ".json", ""}
    found = [p.relative_to(ROOT).as_posix() for p in tracked() if p.suffix in kinds and p.stat().st_size < 1e6
             and p != Path(__file__) and MACHINE_PATH.search(p.read_text(encoding="utf-8", errors="replace").replace("#!/", ""))]
    assert not found


def test_documents_link_to_files_that_exist():
    for page in (p for p in tracked() if p.suffix == ".md"):
        for target in LINK.findall(re.sub(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$", "", page.read_text(encoding="utf-8"), flags=re.S)):
            if not re.match(r"[a-z]+:|#|<", target): assert (page.parent/target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_settings_are_the_only_source():
    settings = (ROOT/"settings.ini").read_text(encoding="utf-8")
    version = re.search(r"^version = (.+)$", settings, re.M)[1]
    assert f'__version__ = "{version}"' in (PACKAGE/"__init__.py").read_text(encoding="utf-8")
    pinned = {m[1].lower(): m[2] for m in re.finditer(r"^([\w-]+)==([\w.]+)", (ROOT/"constraints.txt").read_text(encoding="utf-8"), re.M)}
    ini = ConfigParser(delimiters=["="])
    ini.read_string(settings)
    lines = [line for name, value in ini["DEFAULT"].items() if name.endswith("requirements") for line in value.splitlines()]
    wanted = {re.split(r"[<>=;]", w)[0].lower() for line in lines for w in ([line.strip()] if ";" in line else line.split())}
    assert {"torch", "pytest", "sphinx", "open3d-cpu", "embreex"} <= wanted
    assert not wanted - set(pinned), "settings.ini names packages that constraints.txt does not pin"
