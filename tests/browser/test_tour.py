"""Notebooks in a real browser: 3D views are not blank and agree with their static twins, sliders change their pictures, nothing raises.

    pytest tests/browser                                         # the tour and the notebook of pictures
    MVS_NB_BROWSER_NOTEBOOKS=nbs/x.ipynb pytest tests/browser    # others, separated by commas
Needs Chromium (apt-get install chromium, or MVS_NB_CHROMIUM=/path) and playwright; without them all is skipped. Pictures of what was seen are left in pytest's
temporary folder, or in the folder MVS_NB_BROWSER_SHOTS.
"""
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
from lab import ROOT, Lab, Notebook, browser, change, find_chromium, foreground, overlap, pixels

if find_chromium() is None: pytest.skip("no Chromium found: apt-get install chromium, or set MVS_NB_CHROMIUM", allow_module_level=True)

NAMES = os.environ.get("MVS_NB_BROWSER_NOTEBOOKS", "nbs/00_tour.ipynb,nbs/1_geometry/show.ipynb").split(",")
NOTEBOOKS = [ROOT/n for n in NAMES if (ROOT/n).exists()]
SLIDERS = 4                                                                   # at most so many are moved in each notebook


@pytest.fixture(scope="session")
def chromium():
    with browser(find_chromium()) as out: yield out


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    with Lab(ROOT, tmp_path_factory.mktemp("lab")) as out: yield out


@pytest.fixture
def shots(tmp_path, request):
    folder = Path(os.environ.get("MVS_NB_BROWSER_SHOTS", tmp_path))/request.node.name.translate(str.maketrans("[]/.", "____"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path, lab, chromium, shots):
    source = path.read_bytes()
    notebook = Notebook(lab, chromium, path)
    try:
        assert notebook.webgl, "this browser has no WebGL"
        assert not (errors := notebook.run()), errors
        assert notebook.settle(".k3d-target:has(canvas)", 1) >= 1, "no k3d view appeared"
        n_sliders = notebook.settle(".widget-slider .noUi-handle", 1, 1.)
        assert n_sliders >= 1, "no slider appeared"
        for cell, twins in notebook.twins().items():
            assert all(twins), f"cell {cell}: a widget without a static picture in the same output"
            views = notebook.views(cell)
            for i, view in enumerate(views):
                (shots/f"cell_{cell}_view_{i}.png").write_bytes(view)
                share = foreground(pixels(view)).mean()
                assert share > 0.01, f"cell {cell}: the 3D view is blank ({share:.4f} of it is drawn)"
            moved = notebook.cell(cell).locator(".widget-slider").count()      # then the static twin is a strip of several states
            if len(views) == len(twins) and not moved:                        # a plain 3D cell: the static twin shows the same thing from the same place
                for i, (view, twin) in enumerate(zip(views, twins)):
                    (shots/f"cell_{cell}_twin_{i}.png").write_bytes(twin)
                    assert (same := overlap(view, twin)) > 0.5, f"cell {cell}: live view and static picture overlap by {same:.2f} only"
        for i in range(min(n_sliders, SLIDERS)):
            (old, new), (before, after) = notebook.slide(i)
            for name, png in (("before", before), ("after", after)): (shots/f"slider_{i}_{name}.png").write_bytes(png)
            assert new != old, f"slider {i} does not move"
            assert change(before, after) > 0.003, f"slider {i} went from {old} to {new} and the picture stayed"
        notebook.page.screenshot(path=shots/"page.png")
    finally: notebook.close()
    assert path.read_bytes() == source, "the check has rewritten the notebook"


def test_threshold_slider(lab, chromium, shots):
    "Learnt Stereo Machines: a lower threshold draws more voxels, a higher one fewer, in numbers and in pixels"
    notebook = Notebook(lab, chromium, ROOT/"nbs"/"6_volumetric"/"lsm.ipynb")
    try:
        assert not (errors := notebook.run()), errors
        notebook.settle(".k3d-target:has(canvas)", 2)
        label = notebook.page.locator(".widget-label", has_text=re.compile(r"\d+ cells")).first
        output = label.locator("xpath=ancestor::div[contains(@class, 'jp-OutputArea-output')][1]")
        view, handle = output.locator(".k3d-target:has(canvas)").first, output.locator(".noUi-handle").first
        seen = []
        for name, key, steps in (("start", "ArrowLeft", 0), ("lower", "ArrowLeft", 25), ("higher", "ArrowRight", 45)):
            handle.focus()
            for _ in range(steps): notebook.page.keyboard.press(key)
            notebook.page.wait_for_timeout(2000)
            png = notebook.still(view)
            (shots/f"{name}.png").write_bytes(png)
            seen.append((int(re.search(r"(\d+) cells", label.inner_text())[1]), png))
        (n, start), (more, lower), (fewer, higher) = seen
        assert fewer < n < more, f"{n} voxels, {more} at a lower threshold, {fewer} at a higher one"
        assert change(start, lower) > 0.003 and change(lower, higher) > 0.003, "the number of voxels changed, the picture did not"
        assert foreground(pixels(lower)).sum() > foreground(pixels(higher)).sum()
    finally: notebook.close()


@pytest.fixture(scope="session")
def open_cells(chromium, tmp_path_factory):
    "A function: name and cells -> an open notebook made of them"
    root = tmp_path_factory.mktemp("small")
    with Lab(root, tmp_path_factory.mktemp("small_lab")) as lab:
        def make(name, cells):
            kernel = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
            nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells], metadata=kernel), root/name)
            return Notebook(lab, chromium, root/name)
        yield make


BAD = ["import k3d, ipywidgets as W, io\nfrom PIL import Image\nfrom IPython.display import display",
       "k3d.plot(grid_visible=False, menu_visibility=False, axes_helper=0).display()",
       "png = io.BytesIO(); Image.new('RGB', (200, 100), 'red').save(png, 'PNG')\ndisplay(W.VBox([W.IntSlider(4, 0, 20), W.Image(value=png.getvalue())]))",
       "1/0"]


def test_checks_can_fail(open_cells):
    "An empty 3D view counts as blank, a slider that drives nothing as unchanged, a raising cell is reported"
    notebook = open_cells("bad.ipynb", BAD)
    errors = notebook.run()
    assert len(errors) == 1 and "ZeroDivisionError" in errors[0]
    assert notebook.settle(".k3d-target:has(canvas)", 1) == 1
    assert foreground(pixels(notebook.views(1)[0])).mean() < 0.01
    (old, new), (before, after) = notebook.slide(0)
    assert old != new and change(before, after) == 0
    assert any(None in twins for twins in notebook.twins().values())
    notebook.close()


UPRIGHT = ["import torch\nfrom mvs_nb.show import show_cameras\nimage = torch.zeros(3, 60, 80)\nimage[0, :30] = 1\nimage[2, 30:] = 1",
           "show_cameras(torch.tensor([[60., 0, 40], [0, 60, 30], [0, 0, 1]]), torch.eye(4), image, view=(15, 10));"]


def test_images_stand_upright(open_cells):
    "An image that is red above blue, on a camera's pyramid: red above blue in the live view and in the static picture"
    notebook = open_cells("upright.ipynb", UPRIGHT)
    assert not (errors := notebook.run()), errors
    assert notebook.settle(".k3d-target:has(canvas)", 1) == 1
    for png in (*notebook.views(1), *notebook.twins()[1]):
        rgb = pixels(png)
        red, blue = (np.argwhere(rgb[..., a]-rgb[..., b] > 80) for a, b in ((0, 2), (2, 0)))
        assert len(red) > 1000 and len(blue) > 1000 and red[:, 0].mean() < blue[:, 0].mean()
    notebook.close()


def test_pixel_measures():
    "The measures themselves, without a browser"
    import io
    from PIL import Image
    def png(a):
        out = io.BytesIO()
        Image.fromarray(a).save(out, "PNG")
        return out.getvalue()
    white = np.full((100, 140, 3), 255, np.uint8)
    square = white.copy()
    square[40:60, 60:80] = 0
    wide = np.full((100, 300, 3), 255, np.uint8)
    wide[40:60, 140:160] = 0
    assert foreground(white.astype(int)).sum() == 0 and foreground(square.astype(int)).sum() == 400
    assert change(png(white), png(white)) == 0 and abs(change(png(white), png(square))-400/14000) < 1e-9
    assert overlap(png(wide), png(square)) == 1                               # the wider live view shows the same square in the middle
    assert overlap(png(np.roll(wide, 40, 1)), png(square)) == 0
