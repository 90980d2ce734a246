"""Readers under hostile input, and writers on a full disk: more cases than a notebook has time for.

Every reader may do one of two things with any bytes at all: return a value, or raise one `InputError` that names the file.
Run with `pytest tests/test_files_fuzz.py`; derandomised, so the same cases every time, in well under 20 s.
"""
import errno, os, resource, shutil, struct, subprocess, sys, tempfile, warnings, zlib
from pathlib import Path
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from mvs_nb.camera import InputError, intrinsics_from_fov, look_at
from mvs_nb.files import *
from mvs_nb.scene import Views

CASES = settings(derandomize=True, database=None, deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
READERS = dict(pfm=read_pfm, txt=read_cam, pair=read_pair, png=read_image, jpg=read_image, depth=read_depth_png, ply=read_ply, text_ply=read_ply)


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name: yield Path(name)


@pytest.fixture(scope="module")
def good(folder):
    "One valid file of every kind, as bytes"
    rng = np.random.default_rng(0)
    cloud = PointCloud(rng.normal(size=(20, 3)), rng.integers(0, 255, (20, 3)), rng.normal(size=(20, 3)))
    image = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0))
    camera = CameraFile(intrinsics_from_fov(60., 12, 16), look_at([1., 2., 1.], [0., 0., 0.]), .5, .01, 64, 1.13)
    write_pfm(folder/"a.pfm", rng.normal(size=(5, 7)))
    write_cam(folder/"a.txt", camera)
    write_pair(folder/"a.pair", {0: [(1, 2.5), (2, .5)], 1: [(0, 2.5)], 2: [(0, .5)]})
    write_image(folder/"a.png", image), write_image(folder/"a.jpg", image)
    write_depth_png(folder/"a.depth.png", rng.uniform(0, 10, (6, 9)))
    os.replace(folder/"a.depth.png", folder/"a.depth")
    write_ply(folder/"a.ply", cloud), write_ply(folder/"a.text_ply", cloud, text=True)
    return {kind: (folder/f"a.{kind}").read_bytes() for kind in READERS}


def survives(kind, data, folder):
    "Read `data` as `kind`; True if it was taken, False if refused in one line naming the file"
    path = folder/f"fuzz.{kind}"
    path.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            READERS[kind](path)
        return True
    except InputError as e:
        assert path.name in str(e) and "\n" not in str(e) and e.fix, str(e)
        return False


@pytest.mark.parametrize("kind", READERS)
def test_good(kind, good, folder): assert survives(kind, good[kind], folder)


@pytest.mark.parametrize("kind", READERS)
def test_truncation(kind, good, folder):
    "A cut-off file is refused, unless what is missing changes no pixel or lies in the last line of a text"
    data, read = good[kind], READERS[kind]
    (folder/"whole").write_bytes(data)
    whole = read(folder/"whole")
    last_line = data.rstrip().rfind(b"\n")
    for n in sorted({*range(0, len(data), 5), *range(len(data)-30, len(data))}):
        if not survives(kind, data[:n], folder): continue
        if kind in ("txt", "pair", "text_ply"): assert n > last_line, n
        else: assert np.array_equal(np.asarray(read(folder/f"fuzz.{kind}")), np.asarray(whole)), n


@pytest.mark.parametrize("kind", READERS)
def test_garbage(kind, good, folder):
    @CASES
    @given(st.binary(max_size=300))
    def run(data): assert not survives(kind, data, folder)
    run()


@pytest.mark.parametrize("kind", READERS)
def test_damaged(kind, good, folder):
    "A few bytes overwritten, cut out or put in"
    edit = st.tuples(st.integers(0, 10**6), st.sampled_from(["set", "cut", "add"]), st.binary(min_size=1, max_size=8))
    @CASES
    @given(st.lists(edit, min_size=1, max_size=4))
    def run(edits):
        data = good[kind]
        for at, what, new in edits:
            at %= len(data) or 1
            data = data[:at] + (b"" if what == "cut" else new) + data[at+(0 if what == "add" else len(new)):]
        survives(kind, data, folder)
    run()


@pytest.mark.parametrize("kind", ["txt", "pair"])
def test_damaged_words(kind, good, folder):
    "Text files whose numbers are replaced by other words"
    words = good[kind].decode().split("\n")
    @CASES
    @given(st.integers(0, 60), st.sampled_from(["nan", "inf", "-1", "0", "1e999", "1e300", "-0.5", "2.5", "x", "", "9"*400, "\u0663"]))
    def run(k, new):
        lines = [line.split() for line in words]
        flat = [(i, j) for i, line in enumerate(lines) for j in range(len(line))]
        i, j = flat[k % len(flat)]
        lines[i][j] = new
        survives(kind, "\n".join(" ".join(line) for line in lines).encode(), folder)
    run()


HUGE = dict(
    pfm=b"PF\n999999999 999999999\n-1.0\n1234",
    pair=b"999999999999\n0\n1 1 1.0\n",
    ply=b"ply\nformat binary_little_endian 1.0\nelement vertex 99999999999\nproperty float x\nproperty float y\nproperty float z\nend_header\n1234",
    text_ply=b"ply\nformat ascii 1.0\nelement vertex 99999999999\nproperty float x\nproperty float y\nproperty float z\nend_header\n0 0 0\n",
    bmp=b"BM" + (54).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little") + (30000).to_bytes(4, "little")*2
        + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24),
)


def huge_png(side=0x7fffffff):
    chunk = lambda tag, body: struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag+body))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", [*HUGE, "png", "depth", "png_10k"])
def test_huge_header_takes_no_memory(kind, folder):
    data = huge_png(10000) if kind == "png_10k" else HUGE.get(kind, huge_png())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not survives({"bmp": "png", "png_10k": "png"}.get(kind, kind), data, folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000 # kB


def test_round_trips(folder):
    @CASES
    @given(st.integers(1, 9), st.integers(1, 9), st.booleans(), st.booleans(), st.integers(0, 2**32-1))
    def pfm(h, w, colour, big, seed):
        a = np.random.default_rng(seed).integers(0, 2**32, (h, w, 3) if colour else (h, w), dtype=np.uint32).view(np.float32)
        write_pfm(folder/"r.pfm", a, big_endian=big)
        b = read_pfm(folder/"r.pfm")
        assert b.shape == a.shape and np.array_equal(a, b, equal_nan=True)
    pfm()

    @CASES
    @given(st.dictionaries(st.integers(0, 10**6), st.lists(st.tuples(st.integers(10**6+1, 10**7), st.floats(allow_nan=False, allow_infinity=False)), max_size=5), max_size=6))
    def pair(pairs):
        write_pair(folder/"r.pair", pairs)
        assert read_pair(folder/"r.pair") == pairs
    pair()

    @CASES
    @given(st.floats(10, 170), st.integers(1, 3000), st.integers(1, 3000), st.tuples(*[st.floats(-1000, 1000)]*3), st.floats(1e-3, 1e3), st.floats(1e-3, 1e2), st.integers(2, 999))
    def cam(fov, h, w, eye, low, step, n):
        if abs(eye[0]) + abs(eye[1]) < 1e-2: eye = (1., *eye[1:])
        for camera in (CameraFile(intrinsics_from_fov(fov, h, w), look_at(eye, [0., 0., 0.]), low, step, n, low+(n-1)*step),
                       CameraFile(intrinsics_from_fov(fov, h, w), look_at(eye, [0., 0., 0.]), low, step, n, None)):
            write_cam(folder/"r.txt", camera)
            back = read_cam(folder/"r.txt")
            assert (back.depth_min, back.depth_interval, back.n_depths, back.depth_max) == (low, step, n, camera.depth_max)
            assert torch.equal(back.intrinsics, camera.intrinsics) and torch.equal(back.extrinsics, camera.extrinsics)
    cam()

    @CASES
    @given(st.integers(0, 12), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 99))
    def ply(n, colours, normals, text, seed):
        rng = np.random.default_rng(seed)
        cloud = PointCloud(rng.normal(size=(n, 3))*10.**rng.integers(-20, 20), rng.integers(0, 256, (n, 3)) if colours else None, rng.normal(size=(n, 3)) if normals else None)
        write_ply(folder/"r.ply", cloud, text=text)
        back = read_ply(folder/"r.ply")
        for a, b in zip((cloud.points, cloud.colors, cloud.normals), (back.points, back.colors, back.normals)): assert (a is None) == (b is None) and (a is None or np.allclose(a, b, rtol=1e-6, atol=0))
    ply()


def tiny_views():
    g = torch.Generator().manual_seed(0)
    return Views(torch.rand(2, 3, 64, 64, generator=g), intrinsics_from_fov(60., 64, 64).expand(2, 3, 3), torch.stack([look_at([x, -2., .5], [0., 0., 0.]) for x in (0., .3)]),
                 torch.rand(2, 64, 64, generator=g)+1, depth_range=(1., 2.))


WRITERS = dict(pfm=lambda p: write_pfm(p, np.zeros((300, 400))), png=lambda p: write_image(p, torch.rand(3, 300, 300)), jpg=lambda p: write_image(p, torch.rand(3, 700, 700), 95),
               ply=lambda p: write_ply(p, PointCloud(np.random.default_rng(0).normal(size=(40000, 3)))), depth_png=lambda p: write_depth_png(p, np.random.default_rng(0).uniform(0, 60, (500, 500))),
               pair_txt=lambda p: write_pair(p, {i: [(i+1, 1.5)] for i in range(60000)}))


@pytest.fixture(scope="module")
def full_disk():
    "A file system of 64 kB, where this user may mount one"
    with tempfile.TemporaryDirectory() as name:
        mounted = shutil.which("mount") and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", name], capture_output=True).returncode == 0
        if not mounted: pytest.skip("needs the right to mount a tmpfs")
        try: yield Path(name)
        finally: subprocess.run(["umount", name], check=True)


@pytest.mark.parametrize("kind", WRITERS)
def test_full_disk_leaves_nothing_half_written(kind, full_disk):
    old = full_disk/("old."+kind.replace("_", "."))
    old.write_bytes(b"earlier result")
    with pytest.raises(OSError) as e: WRITERS[kind](old)
    assert e.value.errno == errno.ENOSPC
    assert [p.name for p in full_disk.iterdir()] == [old.name] and old.read_bytes() == b"earlier result"
    old.unlink()


def test_full_disk_scene_is_not_taken_for_whole(full_disk):
    with pytest.raises(OSError): write_scene(full_disk/"scene", tiny_views())
    with pytest.raises(InputError, match="pair.txt"): SceneFolder(full_disk/"scene")
    shutil.rmtree(full_disk/"scene")


def test_killed_writer_leaves_no_file(folder):
    "SIGKILL in mid-write: the name is not there, and an older file is whole"
    code = "import os,sys; from mvs_nb.files import atomic_path\nwith atomic_path(sys.argv[1]) as p: p.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    target = folder/"killed.bin"
    target.write_bytes(b"whole")
    assert subprocess.run([sys.executable, "-c", code, target], cwd=Path(__file__).parent.parent).returncode == -9
    assert target.read_bytes() == b"whole"


def test_scene_folder_faults(folder):
    views = tiny_views()
    def broken(change, use=lambda s: s.views(0, 2)):
        scene = write_scene(folder/"scene", views)
        change(scene)
        with pytest.raises(InputError) as e: use(SceneFolder(scene))
        shutil.rmtree(scene)
        return str(e.value)
    cam, image = "cams/00000001_cam.txt", "images/00000001.png"
    edit = lambda name, a, b: lambda s: (s/name).write_text((s/name).read_text().replace(a, b, 1))
    assert cam in broken(lambda s: (s/cam).unlink())
    assert "00000001" in broken(lambda s: (s/image).unlink())
    assert image in broken(lambda s: (s/image).write_text("not an image"))
    assert image in broken(lambda s: (s/image).write_bytes((s/image).read_bytes()[:900]))
    assert "pair.txt" in broken(lambda s: (s/"pair.txt").write_text("0\n"))
    assert "pair.txt" in broken(lambda s: (s/"pair.txt").unlink())
    assert "images" in broken(lambda s: shutil.rmtree(s/"images"))
    assert "00000000_cam.txt: depth_max" in broken(edit("cams/00000000_cam.txt", "192 2.0", "192 1.0"))
    assert "extrinsic" in broken(edit(cam, "0 0 0 1", "0 0 0 2"))
    assert "depths/00000001.pfm" in broken(lambda s: write_pfm(s/"depths/00000001.pfm", np.ones((3, 3))))
    assert "reference id" in broken(lambda s: None, lambda s: s.views(7))
    (folder/"empty").mkdir()
    with pytest.raises(InputError, match="empty"): SceneFolder(folder/"empty")
