"""The page of a reconstruction in a real browser without a network: it asks for nothing, the canvas is not blank, dragging, wheel, buttons and views move it.

    pytest tests/browser/test_page.py
Needs Chromium and playwright as `test_tour.py` does.
"""
import re

import numpy as np
import pytest
import torch

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
from lab import browser, change, find_chromium, foreground, pixels

if find_chromium() is None: pytest.skip("no Chromium found: apt-get install chromium, or set MVS_NB_CHROMIUM", allow_module_level=True)

from mvs_nb.camera import pixel_grid, unproject
from mvs_nb.files import PointCloud
from mvs_nb.reconstruction.page import LIMIT, PageView, write_page
from mvs_nb.scene import make_views


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    "A page of a made room: one point a pixel"
    views = make_views("room", 4, 96, 128, 2)
    at = pixel_grid(96, 128).reshape(-1, 2)
    points = torch.cat([unproject(at, d.reshape(-1), K, E) for d, K, E in zip(views.depth, views.intrinsics, views.extrinsics)])
    colors = (views.images.flatten(2).mT.reshape(-1, 3)*255).to(torch.uint8)
    shown = [PageView(f"photo <{i}>.jpg", views.images[i], views.intrinsics[i], views.extrinsics[i], views.depth[i], torch.rand(96, 128), views.depth[i], views.depth_range) for i in range(4)]
    path = tmp_path_factory.mktemp("page")/"page.html"
    write_page(path, PointCloud(points.numpy(), colors.numpy()), shown, [("points", f"{len(points):,}")], "A room")
    return path


@pytest.fixture(scope="module")
def page(page_file):
    with browser(find_chromium()) as chromium:
        context = chromium.new_context(offline=True, viewport=dict(width=1000, height=900))
        out = context.new_page()
        out.asked, out.wrong = [], []
        out.on("request", lambda r: out.asked.append(r.url))
        out.on("pageerror", lambda e: out.wrong.append(str(e)))
        out.on("console", lambda m: out.wrong.append(m.text) if m.type == "error" else None)
        out.goto(page_file.as_uri())
        out.wait_for_timeout(500)
        yield out


def shot(page):
    page.wait_for_timeout(200)
    return page.locator("#stage canvas").screenshot()


def test_one_file_is_enough(page, page_file):
    assert page_file.stat().st_size < LIMIT
    assert [a for a in page.asked if not a.startswith(("data:", "blob:"))] == [page_file.as_uri()], "the page asks for other files"
    assert not page.wrong, page.wrong
    assert page.locator("h1").inner_text() == "A room" and page.locator(".view h3").first.inner_text() == "0 photo <0>.jpg"
    loaded = page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert len(loaded) == 16 and all(loaded)


def test_canvas_is_not_blank(page):
    assert page.evaluate("!!document.querySelector('#stage canvas').getContext('webgl')"), "this browser has no WebGL"
    picture = pixels(shot(page))
    assert foreground(picture).mean() > .1
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 500, "points have no colours"


def test_it_moves(page):
    canvas = page.locator("#stage canvas")
    box, start = canvas.bounding_box(), shot(page)
    assert change(start, shot(page)) == 0
    def drag(dx, dy, shift=False):
        if shift: page.keyboard.down("Shift")
        page.mouse.move(box["x"]+box["width"]/2, box["y"]+box["height"]/2); page.mouse.down()
        page.mouse.move(box["x"]+box["width"]/2+dx, box["y"]+box["height"]/2+dy, steps=4); page.mouse.up()
        if shift: page.keyboard.up("Shift")
    for act in (lambda: page.locator("#cameras").uncheck(), lambda: drag(120, 40), lambda: drag(60, 60, shift=True), lambda: page.mouse.wheel(0, -400),
                lambda: page.locator("#size").fill("4"), lambda: page.locator(".view").nth(2).click()):
        before = shot(page)
        act()
        page.wait_for_timeout(700)                                            # the page scrolls back to the top
        assert change(before, shot(page)) > .001                          # thin lines are a thousandth of the view
    page.locator("#size").fill("1.2"); page.locator("#cameras").check(); page.locator("#home").click()
    assert change(start, shot(page)) < .01, "the button leads back to the start"


def test_a_photo_is_seen_from_its_camera(page):
    "A click on a view shows what the photo shows: the colours around the middle agree"
    page.locator("#cameras").uncheck(); page.locator("#size").fill("3")
    page.locator(".view").nth(1).click()
    page.wait_for_timeout(900)
    picture = pixels(shot(page))
    photo = page.evaluate("""() => { const i = document.querySelectorAll('.view')[1].querySelector('img'), c = document.createElement('canvas');
        c.width = i.naturalWidth; c.height = i.naturalHeight; const g = c.getContext('2d'); g.drawImage(i, 0, 0);
        const x = c.width/2|0, y = c.height/2|0; return [...g.getImageData(x-8, y-8, 16, 16).data]; }""")
    middle = np.array(photo).reshape(-1, 4)[:, :3].mean(0)
    h, w = picture.shape[:2]
    seen = picture[h//2-20:h//2+20, w//2-20:w//2+20].reshape(-1, 3).mean(0)
    assert np.abs(seen-middle).max() < 40, (seen, middle)
    assert not page.wrong, page.wrong
    assert re.search(r"photo", page.locator(".view").nth(1).inner_text())
