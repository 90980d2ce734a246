"""A real JupyterLab in a headless Chromium: open a notebook, run it, and look at the pixels it shows.

`Lab` starts a server of its own (own settings, token and port; autosave off, so that a check never rewrites a notebook).
`Browser` starts Chromium with WebGL in software. `Notebook` is one open page: run all cells, then ask for errors, 3D views and sliders.
"""
import base64, io, json, os, secrets, shutil, signal, socket, subprocess, sys, time, urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = float(os.environ.get("MVS_NB_BROWSER_PATIENCE", 300))              # seconds for any single wait

# WebGL by ANGLE on SwiftShader (no graphics card); as root Chromium refuses to start with its sandbox
FLAGS = ["--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
         "--ignore-gpu-blocklist", "--disable-dev-shm-usage", "--force-device-scale-factor=1"]

# JupyterLab: every cell has its elements on the page, nothing is saved, nothing asks for the network
SETTINGS = {"notebook-extension/tracker": {"windowingMode": "none"},
            "docmanager-extension/plugin": {"autosave": False},
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}


def find_chromium():
    "Path of a Chromium or Chrome, or None; the environment variable `MVS_NB_CHROMIUM` decides where it is set"
    names = [os.environ["MVS_NB_CHROMIUM"]] if os.environ.get("MVS_NB_CHROMIUM") else ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    return next((p for p in map(shutil.which, names) if p), None)


class Lab:
    "A JupyterLab server on a free port that serves `root`; a context manager"
    def __init__(self, root: Path, work: Path): self.root, self.work, self.token = root, work, secrets.token_hex(16)

    def __enter__(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.base = f"http://127.0.0.1:{s.getsockname()[1]}"
        for name, value in SETTINGS.items():
            path = self.work/"settings"/"@jupyterlab"/f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))
        env = dict(os.environ, JUPYTER_CONFIG_DIR=str(self.work/"config"), JUPYTER_RUNTIME_DIR=str(self.work/"runtime"),
                   JUPYTER_CONFIG_PATH=str(ROOT/"docs"/"jupyter"),             # as `make lab`: dash, which Open3D brings, must not ask for a rebuild
                   PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
        env.pop("MVS_NB_STATIC", None)                                        # this check is about the live widgets
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port-retries=0", "--expose-app-in-browser",
                   f"--port={self.base.rsplit(':', 1)[1]}", f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={self.root}",
                   f"--LabApp.user_settings_dir={self.work/'settings'}", f"--LabApp.workspaces_dir={self.work/'workspaces'}"]
        self.log = open(self.work/"jupyter.log", "w")
        self.process = subprocess.Popen(command, env=env, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        try: wait_for(self.alive, "JupyterLab to answer")
        except BaseException: self.__exit__(); raise
        return self

    def alive(self):
        if self.process.poll() is not None: raise RuntimeError("JupyterLab ended early:\n"+(self.work/"jupyter.log").read_text()[-2000:])
        try: return urllib.request.urlopen(f"{self.base}/api/status?token={self.token}", timeout=5).status == 200
        except OSError: return False

    def __exit__(self, *_):
        for sig in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGKILL):      # its own process group: the server and its kernels
            try: os.killpg(self.process.pid, sig); self.process.wait(10); break
            except subprocess.TimeoutExpired: continue
            except ProcessLookupError: break
        self.log.close()


@contextmanager
def browser(chromium):
    "A headless Chromium"
    from playwright.sync_api import sync_playwright
    with sync_playwright() as play:
        out = play.chromium.launch(executable_path=chromium, args=FLAGS, headless=True, ignore_default_args=["--headless", "--headless=old"])
        try: yield out
        finally: out.close()


def wait_for(ready, what, pause=0.25, patience=PATIENCE):
    "Call `ready` until it gives something true, and return that; `TimeoutError` after `patience` seconds"
    end = time.monotonic()+patience
    while time.monotonic() < end:
        if out := ready(): return out
        time.sleep(pause)
    raise TimeoutError(f"waited {patience:.0f} s for {what}")


def pixels(png):
    "RGB of PNG bytes as whole numbers [H, W, 3]"
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int16)


def foreground(picture):
    "Where a picture [H, W, 3] differs visibly from its most frequent colour [H, W]"
    colors, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    return np.abs(picture-colors[counts.argmax()]).max(-1) > 12


def change(a, b):
    "Share of pixels that differ visibly between two PNGs; 1 where even the sizes differ"
    a, b = pixels(a), pixels(b)
    return 1. if a.shape != b.shape else float((np.abs(a-b).max(-1) > 12).mean())


def overlap(live, static):
    "Intersection over union of what two PNGs show, compared at the static one's size: both look along the same axis with the same height of view"
    static = foreground(pixels(static))
    h, w = static.shape
    image = Image.fromarray(pixels(live).astype(np.uint8))
    width = round(image.height*w/h)
    image = image.crop(((image.width-width)//2, 0, (image.width-width)//2+width, image.height)).resize((w, h))
    live = foreground(np.asarray(image).astype(np.int16))
    rows = slice(h//10, -h//10 or None)                                       # the static title and foot line are not in the live view
    return float((live & static)[rows].sum()/max((live | static)[rows].sum(), 1))


# What the page is asked. `jupyterapp` is there because of --expose-app-in-browser.
PANEL = "const panel = window.jupyterapp?.shell?.currentWidget, cells = panel?.content?.widgets ?? [];"
KERNEL_READY = f"() => {{ {PANEL} const k = panel?.sessionContext?.session?.kernel; return !!k && panel.sessionContext.isReady && k.status === 'idle' && k.connectionStatus === 'connected'; }}"
ERRORS = f"""() => {{ {PANEL} return cells.flatMap((c, i) => c.model.type !== 'code' ? [] : c.model.outputs.toJSON()
    .filter(o => o.output_type === 'error').map(o => `cell ${{i}}: ${{o.ename}}: ${{o.evalue}}`)); }}"""
FINISHED = f"""() => {{ {PANEL} return panel.sessionContext.session.kernel.status === 'idle'
    && cells.every(c => c.model.type !== 'code' || !c.model.sharedModel.source.trim() || c.model.executionCount !== null); }}"""
TWINS = f"""() => {{ {PANEL} return cells.map((c, i) => [i, (c.model.type === 'code' ? c.model.outputs.toJSON() : [])
    .filter(o => o.data && 'application/vnd.jupyter.widget-view+json' in o.data).map(o => o.data['image/png'] ?? null)]).filter(o => o[1].length); }}"""
RENDERER = """() => { const g = document.createElement('canvas').getContext('webgl2'), e = g && g.getExtension('WEBGL_debug_renderer_info');
    return g && g.getParameter(e ? e.UNMASKED_RENDERER_WEBGL : g.RENDERER); }"""


class Notebook:
    "One notebook in one browser page"
    def __init__(self, lab, browser, path: Path):
        self.page = browser.new_page(viewport=dict(width=1280, height=1400))
        self.page.set_default_timeout(PATIENCE*1000)
        self.page.goto(f"{lab.base}/lab/tree/{path.resolve().relative_to(lab.root.resolve()).as_posix()}?token={lab.token}&reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.page.wait_for_function(KERNEL_READY)                             # a run that starts earlier is dropped without a word
        self.page.wait_for_timeout(1000)
        self.webgl = self.page.evaluate(RENDERER)

    def run(self):
        "Run all cells and return the errors, as text"
        self.page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")   # its promise never returns to the outside
        self.page.wait_for_timeout(500)
        wait_for(lambda: self.page.evaluate(ERRORS) or self.page.evaluate(FINISHED), "all cells to run")
        return self.page.evaluate(ERRORS)

    def twins(self):
        "Number of each cell with live widgets, and the static PNG of each of its widget outputs (None where there is none)"
        return {i: [png and base64.b64decode(png) for png in pngs] for i, pngs in self.page.evaluate(TWINS)}

    def cell(self, i): return self.page.locator(".jp-Notebook .jp-Cell").nth(i)

    def views(self, cell):
        "Screenshots of the k3d views of a cell, once they stand still"
        found = self.cell(cell).locator(".k3d-target:has(canvas)")
        return [self.still(found.nth(i)) for i in range(found.count())]

    def still(self, element, tries=60):
        "A screenshot of an element, once two in a row are the same: WebGL scenes and images arrive late"
        element.scroll_into_view_if_needed()
        last = element.screenshot()
        for _ in range(tries):
            self.page.wait_for_timeout(400)
            now = element.screenshot()
            if change(last, now) == 0: return now
            last = now
        return last

    def settle(self, selector, at_least, quiet=4.):
        "Number of elements on the page, once it has not changed for `quiet` seconds: views are drawn after the kernel is done"
        seen = [-1, time.monotonic()]
        def ready():
            n = self.page.locator(selector).count()
            if n != seen[0]: seen[:] = n, time.monotonic()
            return n >= at_least and time.monotonic()-seen[1] > quiet
        try: wait_for(ready, selector, patience=PATIENCE/4)
        except TimeoutError: pass                                             # the caller compares the count and says what is missing
        return seen[0]

    def slide(self, slider, steps=6):
        "Move slider number `slider` by arrow keys: its value before and after, and its picture before and after"
        handle = self.page.locator(".widget-slider .noUi-handle").nth(slider)
        picture = handle.locator("xpath=ancestor::div[contains(@class, 'jp-OutputArea-output')][1]").locator("img").first
        before, value = self.still(picture), handle.get_attribute("aria-valuetext")
        key = "ArrowLeft" if float(value) >= float(handle.get_attribute("aria-valuemax"))-steps else "ArrowRight"
        handle.focus()
        for _ in range(steps): self.page.keyboard.press(key)
        self.page.wait_for_timeout(500)
        wait_for(lambda: self.page.evaluate(KERNEL_READY), "the kernel to answer the slider")
        return (value, handle.get_attribute("aria-valuetext")), (before, self.still(picture))

    def close(self): self.page.close()
