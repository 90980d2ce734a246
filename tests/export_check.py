"""Notebooks and modules say the same: export and clean a copy of the tree and compare it, file by file, with the tree itself.

Works with uncommitted changes, touches nothing, and finds modules whose notebook is gone: the copy starts without any exported module.
"""
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IGNORE = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "_proc", "_docs", ".*")
FOLDERS = ("nbs", "mvs_nb")


def contents(root):
    "Path -> hash of every file of the notebooks and the package"
    files = [p for folder in FOLDERS for p in (root/folder).rglob("*") if p.is_file()]
    return {p.relative_to(root).as_posix(): hashlib.sha1(p.read_bytes()).hexdigest() for p in files
            if not any(part.startswith(".") or part in ("__pycache__", "_proc", "_docs") for part in p.relative_to(root).parts)}


def exported(root):
    "Copy the tree, forget its modules, export and clean; returns the contents before, and after"
    before = contents(root)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)/"tree"
        for name in FOLDERS: shutil.copytree(root/name, copy/name, ignore=IGNORE)
        for name in ("settings.ini", "pyproject.toml"): shutil.copy(root/name, copy/name)
        for module in (copy/"mvs_nb").rglob("*.py"):
            if module.name != "__init__.py": module.unlink()
        tools, env = Path(sys.executable).parent, {**os.environ, "PYTHONPATH": str(root)}
        subprocess.run([tools/"nbdev_export"], cwd=copy, check=True, env=env)
        subprocess.run([sys.executable, "-c", "from mvs_nb.cli import main; main()", "clean", "nbs"], cwd=copy, check=True, env=env, stdout=subprocess.DEVNULL)
        return before, contents(copy)


def problems(before, after):
    "One line for each file that differs, with the way to mend it"
    out = [f"{p}: its notebook says something else" for p in before if p in after and before[p] != after[p] and p.endswith(".py")]
    out += [f"{p}: not clean" for p in before if p in after and before[p] != after[p] and not p.endswith(".py")]
    out += [f"{p}: no notebook exports it; remove it, or write its notebook" for p in before if p not in after]
    return out + [f"{p}: missing" for p in after if p not in before]


if __name__ == "__main__":
    found = problems(*exported(ROOT))
    sys.path.insert(0, str(ROOT/"docs"))
    from readme import differences
    found += [f"{p}: not what nbs/index.ipynb says" for p in differences(ROOT)]
    if found: sys.exit("\n".join(["Notebooks, modules and README disagree:", *(f"  {line}" for line in found), "Run: make export"]))
    print("Export and clean leave no difference.")
