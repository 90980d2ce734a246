"Run the tour on the shipped data, save it as a web page and say where the results are: what `make demo` does"
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from tqdm import tqdm


def run(notebook, results):
    "Execute `notebook` in its own folder with `MVS_NB_RESULTS` naming the folder for what it writes; returns the page"
    notebook, results = Path(notebook).resolve(), Path(results).resolve()
    results.mkdir(parents=True, exist_ok=True)
    os.environ.update(MVS_NB_RESULTS=str(results), MVS_NB_STATIC="1")
    nb = nbformat.read(notebook, as_version=4)
    bar = tqdm(total=sum(c.cell_type == "code" for c in nb.cells), unit="cell", desc=notebook.stem)
    client = NotebookClient(nb, timeout=1200, kernel_name="python3", store_widget_state=False, resources={"metadata": {"path": str(notebook.parent)}},
                            on_cell_executed=lambda **_: bar.update())
    try: client.execute()
    finally:
        bar.close()
        page = results/f"{notebook.stem}.html"
        page.write_text(HTMLExporter().from_notebook_node(nb)[0], encoding="utf-8")
    return page


if __name__ == "__main__":
    start, results = time.time(), Path(sys.argv[2])
    if not Path(sys.argv[1]).exists(): sys.exit(f"{sys.argv[1]}: no such notebook; run make demo in the repository's root folder")
    try: page = run(sys.argv[1], results)
    except CellExecutionError as e: sys.exit(f"{sys.argv[1]}: a cell failed: {e.ename}: {e.evalue}; the page so far is in {results}")
    print(f"The tour ran in {time.time()-start:.0f} s. Results in {results.resolve()}:")
    for path in sorted(p for p in results.rglob("*") if p.is_file() and not p.name.startswith(".")):
        print(f"  {path.relative_to(results)}  ({path.stat().st_size/1000:.0f} kB)")
    print(f"Open {page} in a browser; .ply clouds open in MeshLab or CloudCompare.")
