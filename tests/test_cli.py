"The contract of the command line: what it writes, how it goes on after an interruption, and what it says about bad input"
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def terminal(*words, **kwargs):
    "One command in a process of its own"
    return subprocess.run([sys.executable, "-m", "mvs_nb.cli", *map(str, words)], capture_output=True, text=True, env=ENV, timeout=300, **kwargs)


def without_bars(text):
    "stderr without progress bars, which appear on a slow machine"
    return re.sub(r"\r[^\r\n]*", "", text).lstrip("\n")


@pytest.fixture
def run(capsys):
    "One command in this process: (status, stdout, stderr)"
    from mvs_nb.cli import main
    def call(*words):
        try: status = main([str(w) for w in words])
        except SystemExit as e: status = e.code or 0
        out, err = capsys.readouterr()
        return status, out, without_bars(err)
    return call


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    "Four small views of a procedural scene with known depth"
    from mvs_nb.cli import main
    folder = tmp_path_factory.mktemp("data")/"scene"
    assert main(["data", "make", str(folder), "--kind", "heightfield", "--n-views", "4", "--height", "64", "--width", "96", "--n-depths", "16", "--seed", "2"]) == 0
    return folder


@pytest.fixture(scope="session")
def result(scene, tmp_path_factory):
    "Depth maps of the scene"
    from mvs_nb.cli import main
    folder = tmp_path_factory.mktemp("result")/"sgm"
    assert main(["depth", str(scene), "--model", "sgm", "--n-views", "4", "--out", str(folder)]) == 0
    return folder


def files(folder): return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


# --- help and list -----------------------------------------------------------------------------
def test_help_is_quick_and_lists_every_command():
    start = time.process_time()
    done = terminal("--help")
    assert done.returncode == 0 and not done.stderr
    for name in ("depth", "fuse", "mesh", "import", "data", "train", "evaluate", "evaluate-cloud", "experiments", "bench", "clean"): assert f"    {name}" in done.stdout
    check = "import mvs_nb.cli, sys; mvs_nb.cli.make_parser().format_help(); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], env=ENV).returncode == 0, "help imports torch or numpy, which takes seconds"
    assert time.process_time() - start < 5


def test_experiments_are_listed(run):
    status, out, err = run("experiments")
    assert status == 0 and not err and re.search(r"^mvsnet-dtu +\S", out, re.M) and "mvsnet-tiny" in out


def test_a_closed_pipe_is_no_error():
    line = f"{sys.executable} -m mvs_nb.cli experiments | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=ENV, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


# --- depth and fuse ----------------------------------------------------------------------------
def test_depth_writes_the_promised_files(scene, result):
    from mvs_nb.files import read_image, read_pfm
    wanted = [f"{d}/{i:08d}{s}" for i in range(4) for d, s in (("depth", ".pfm"), ("depth", ".png"), ("confidence", ".pfm"), ("cams", "_cam.txt"))]
    assert files(result) == sorted(wanted + ["depth.json"])
    depth, confidence, truth = (read_pfm(p) for p in (result/"depth"/"00000000.pfm", result/"confidence"/"00000000.pfm", scene/"depths"/"00000000.pfm"))
    assert depth.shape == confidence.shape == truth.shape == read_image(result/"depth"/"00000000.png").shape[1:] == (64, 96)
    assert np.isfinite(depth).all() and (depth > 0).all() and confidence.min() >= 0 and confidence.max() <= 1
    known = truth > 0
    assert np.median(np.abs(depth-truth)[known]/truth[known]) < .05


def test_native_size_carries_its_camera(run, scene, tmp_path):
    from mvs_nb.files import SceneFolder, read_cam, read_pfm
    status, out, _ = run("depth", scene, "--model", "zncc", "--n-views", 3, "--size", "native", "--out", tmp_path)
    assert status == 0 and "4 depth maps" in out
    small = read_pfm(tmp_path/"depth"/"00000001.pfm").shape
    K, stored = read_cam(tmp_path/"cams"/"00000001_cam.txt").intrinsics, SceneFolder(scene).camera(1).intrinsics
    assert small == (32, 48) and np.allclose(K[:2], stored[:2]/2, atol=1e-4)


def test_smaller_images_give_maps_of_the_stored_size(run, scene, tmp_path):
    from mvs_nb.files import read_pfm
    assert run("depth", scene, "--model", "zncc", "--n-views", 3, "--width", 64, "--n-depths", 8, "--out", tmp_path)[0] == 0
    assert read_pfm(tmp_path/"depth"/"00000001.pfm").shape == (64, 96)


def test_a_second_run_computes_only_what_is_missing(run, scene, result):
    paths = [result/name for name in files(result)]
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in paths}
    lost = result/"confidence"/"00000003.pfm"
    lost.unlink()
    status, out, err = run("depth", scene, "--model", "sgm", "--n-views", 4, "--out", result)
    assert (status, err) == (0, "") and "(3 were there already)" in out
    assert all(p.read_bytes() == b for p, (_, b) in before.items()), "the same seed gives the same bytes"
    assert all(p.stat().st_mtime_ns == t for p, (t, _) in before.items() if not p.stem.startswith("00000003"))


def test_other_settings_are_refused(run, scene, result):
    status, out, err = run("depth", scene, "--model", "zncc", "--n-views", 4, "--out", result)
    assert (status, out) == (2, "") and "model sgm there, zncc now" in err and err.count("\n") == 1


def test_an_interrupted_run_goes_on(scene, tmp_path):
    words = [sys.executable, "-m", "mvs_nb.cli", "depth", str(scene), "--model", "sgm", "--n-views", "4", "--out", str(tmp_path/"out")]
    process = subprocess.Popen(words, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = tmp_path/"out"/"depth"/"00000000.pfm"
    for _ in range(1200):
        if first.exists() or process.poll() is not None: break
        time.sleep(.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    if process.returncode == 0: pytest.skip("the machine finished before it could be interrupted")
    assert process.returncode == 2 and without_bars(err).count("\n") == 1 and "run the same command again" in err
    assert not [p for p in (tmp_path/"out").rglob("*") if ".tmp" in p.name], "temporary files are left"
    done = subprocess.run(words, env=ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "already" in done.stdout


def test_fuse_makes_a_cloud_on_the_surface(run, scene, result, tmp_path):
    from mvs_nb.files import read_ply
    status, out, err = run("fuse", result, "--out", tmp_path/"cloud.ply", "--min-consistent", 2, "--min-confidence", .1)
    assert (status, err) == (0, "")
    cloud = read_ply(tmp_path/"cloud.ply")
    assert f"{len(cloud)} points" in out and len(cloud) > 1000 and cloud.colors is not None


# --- mesh --------------------------------------------------------------------------------------
AGREE = ["--min-consistent", 2, "--min-confidence", .1]


def off_the_surface(path, scene):
    "Median error of the mesh's depth in the first camera as a share of the truth, and the share of the true pixels it covers"
    import torch
    from mvs_nb.files import SceneFolder
    from mvs_nb.reconstruction.mesh import read_mesh, render_mesh_depth
    view = SceneFolder(scene).view(0)
    seen, truth = render_mesh_depth(read_mesh(path), view.intrinsics, view.extrinsics, *view.images.shape[-2:])[0], view.depth[0]
    both = (seen > 0) & (truth > 0)
    return torch.median((seen-truth)[both].abs()/truth[both]).item(), (both.sum()/(truth > 0).sum()).item()


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_mesh_lies_on_the_surface(run, scene, result, tmp_path, suffix):
    from mvs_nb.reconstruction.mesh import read_mesh
    status, out, err = run("mesh", result, "--out", tmp_path/f"mesh.{suffix}", "--method", "tsdf", *AGREE)
    assert (status, err) == (0, "") and files(tmp_path) == [f"mesh.{suffix}"]
    mesh = read_mesh(tmp_path/f"mesh.{suffix}")
    assert f"{len(mesh.faces)} triangles" in out and len(mesh.faces) > 1000 and mesh.colors is not None
    error, covered = off_the_surface(tmp_path/f"mesh.{suffix}", scene)
    assert error < .03 and covered > .4, (error, covered)


def test_larger_voxels_make_fewer_triangles(run, result, tmp_path):
    count = lambda *words: int(run("mesh", result, "--out", tmp_path/"mesh.ply", *AGREE, *words)[1].split()[0])
    assert count("--voxel", .1) < .5*count("--voxel", .05)
    assert count("--voxel", .05, "--max-gap", 1) < count("--voxel", .05)


def test_mesh_of_maps_at_the_network_s_size(run, scene, tmp_path):
    assert run("depth", scene, "--model", "sgm", "--n-views", 4, "--size", "native", "--out", tmp_path/"out")[0] == 0
    status, out, err = run("mesh", tmp_path/"out", "--out", tmp_path/"mesh.ply", *AGREE)
    assert (status, err) == (0, "") and off_the_surface(tmp_path/"mesh.ply", scene)[0] < .03


def test_mesh_says_what_is_wrong(run, scene, result, tmp_path, subtests, monkeypatch):
    from mvs_nb.reconstruction.mesh import check_poisson
    monkeypatch.setitem(sys.modules, "open3d", None) # as if it were not installed
    check_poisson.cache_clear()
    lost = tmp_path/"lost"
    shutil.copytree(result, lost)
    (lost/"confidence"/"00000002.pfm").unlink()
    cases = {
        "another suffix": ([result, "--out", "mesh.stl"], "mesh.stl: .stl is no mesh format"),
        "no suffix": ([result, "--out", "mesh"], "no suffix"),
        "no folder": ([tmp_path/"none", "--out", "mesh.ply"], "none: no such folder"),
        "a folder without depth": ([scene, "--out", "mesh.ply"], "depth.json"),
        "a map that is missing": ([lost, "--out", "mesh.ply"], "00000002.pfm"),
        "a scene that has moved": ([result, "--out", "mesh.ply", "--scene", tmp_path/"gone"], "gone"),
        "Poisson without Open3D": ([result, "--out", "mesh.ply", "--method", "poisson"], "mvs_nb[poisson]"),
        "an octree for a volume": ([result, "--out", "mesh.ply", "--depth", 8], "--depth: means nothing with --method tsdf"),
        "voxels for Poisson": ([result, "--out", "mesh.ply", "--method", "poisson", "--voxel", .1], "--voxel: means nothing with --method poisson"),
        "a limit of another rule": ([result, "--out", "mesh.ply", "--rule", "gipuma", "--max-pixel-error", 2], "--max-pixel-error: means nothing with --rule gipuma"),
        "voxel zero": ([result, "--out", "mesh.ply", *AGREE, "--voxel", 0], "voxel"),
        "no gap at all": ([result, "--out", "mesh.ply", *AGREE, "--max-gap", 0], "max_gap"),
        "voxels for a planet": ([result, "--out", "mesh.ply", *AGREE, "--voxel", 1e-7], "voxel"),
        "more sources than there are": ([result, "--out", "mesh.ply", "--min-consistent", 9], "there are 3"),
        "nothing trusted": ([result, "--out", "mesh.ply", "--min-confidence", 1.5], "confidence 1.5"),
        "a method that is none": ([result, "--out", "mesh.ply", "--method", "alpha"], "alpha"),
    }
    for name, (words, named) in cases.items():
        words[words.index("--out")+1] = tmp_path/"new"/words[words.index("--out")+1]
        with subtests.test(name):
            status, said, err = run("mesh", *words)
            assert (status, said, err.count("\n")) == (2, "", 1), (said, err)
            assert named in err and "Traceback" not in err and "unexpected" not in err, err
            assert not files(tmp_path/"new")
    check_poisson.cache_clear()


def test_a_failed_mesh_leaves_the_old_one(run, result, tmp_path, monkeypatch):
    import trimesh
    (tmp_path/"mesh.ply").write_bytes(b"the old one")
    def stop(*_, **__): raise KeyboardInterrupt
    monkeypatch.setattr(trimesh.Trimesh, "export", stop)
    status, out, err = run("mesh", result, "--out", tmp_path/"mesh.ply", *AGREE)
    assert (status, out) == (2, "") and "interrupted" in err
    assert files(tmp_path) == ["mesh.ply"] and (tmp_path/"mesh.ply").read_bytes() == b"the old one"


# --- evaluate-cloud ----------------------------------------------------------------------------
@pytest.fixture(scope="session")
def dtu(tmp_path_factory):
    "Two scans of a flat square at z = 10 mm in DTU's published layout, and a cloud of each, 0.3 and 0.5 mm above it"
    from scipy.io import savemat
    from mvs_nb.files import PointCloud, write_ply
    root = tmp_path_factory.mktemp("dtu")
    square = np.stack([*np.meshgrid(np.arange(30.), np.arange(30.)), np.full((30, 30), 10.)], -1).reshape(-1, 3)
    for scan, height in ((1, .3), (114, .5)):
        write_ply(root/"truth"/"Points"/"stl"/f"stl{scan:03d}_total.ply", PointCloud(square))
        (root/"truth"/"ObsMask").mkdir(exist_ok=True)
        savemat(root/"truth"/"ObsMask"/f"ObsMask{scan}_10.mat", dict(ObsMask=np.ones((26, 26, 16), np.uint8), BB=np.array([[-10., -10, -10], [40, 40, 20]]), Res=2.))
        savemat(root/"truth"/"ObsMask"/f"Plane{scan}.mat", dict(P=np.array([[0.], [0], [1], [-1]])))
        write_ply(root/"clouds"/f"mvsnet{scan:03d}_l3.ply", PointCloud(square+[0, 0, height]))
    write_ply(root/"far.ply", PointCloud(square+[0, 0, 500]))
    return root


def test_evaluate_cloud_against_a_cloud(run, dtu, tmp_path):
    cloud, truth = dtu/"clouds"/"mvsnet001_l3.ply", dtu/"truth"/"Points"/"stl"/"stl001_total.ply"
    status, out, err = run("evaluate-cloud", cloud, "--truth", truth, "--threshold", .4, "--out", tmp_path/"table.json", "--errors", tmp_path/"errors")
    assert (status, err) == (0, "") and re.search(r"^accuracy +0.3$", out, re.M) and re.search(r"^f_score +1$", out, re.M)
    row, = json.loads((tmp_path/"table.json").read_text())["rows"]
    assert np.allclose([row[k] for k in ("accuracy", "completeness", "overall", "precision", "recall")], [.3, .3, .3, 1, 1], atol=1e-5)
    assert files(tmp_path/"errors") == ["mvsnet001_l3_accuracy.ply", "mvsnet001_l3_completeness.ply"]
    status, out, _ = run("evaluate-cloud", cloud, "--truth", truth, "--threshold", .2)
    assert status == 0 and re.search(r"^f_score +0$", out, re.M)


def test_evaluate_cloud_in_the_layout_of_tanks_and_temples(run, dtu, tmp_path):
    truth = dtu/"truth"/"Points"/"stl"/"stl001_total.ply"
    np.savetxt(tmp_path/"Square_trans.txt", np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -.3], [0, 0, 0, 1]]))
    (tmp_path/"Square.json").write_text(json.dumps(dict(orthogonal_axis="Z", axis_min=0, axis_max=20, class_name="SelectionPolygonVolume",
                                                        bounding_polygon=[[-1, -1, 0], [9.5, -1, 0], [9.5, 40, 0], [-1, 40, 0]])))
    words = ["--threshold", .1, "--crop", tmp_path/"Square.json", "--align", tmp_path/"Square_trans.txt", "--voxel", .05, "--out", tmp_path/"table.json"]
    assert run("evaluate-cloud", dtu/"clouds"/"mvsnet001_l3.ply", "--truth", truth, *words)[0] == 0
    row, = json.loads((tmp_path/"table.json").read_text())["rows"]
    assert (row["f_score"], row["counted"], row["truth_points"], row["points"]) == (1., 300, 300, 900)


def test_evaluate_cloud_by_the_dtu_protocol(run, dtu, tmp_path):
    status, out, err = run("evaluate-cloud", dtu/"clouds", "--dtu", dtu/"truth", "--scan", 1, "--scan", 114, "--out", tmp_path/"table.json", "--errors", tmp_path/"errors")
    assert (status, err) == (0, "") and out.split()[:4] == ["scan", "accuracy", "completeness", "overall"] and out.count("\n") == 4
    rows = json.loads((tmp_path/"table.json").read_text())["rows"]
    assert [row["scan"] for row in rows] == [1, 114, "mean"]
    assert np.allclose([[row["accuracy"], row["completeness"]] for row in rows], np.array([[.3], [.5], [.4]]), atol=1e-5)
    assert len(files(tmp_path/"errors")) == 4
    status, out, _ = run("evaluate-cloud", dtu/"clouds"/"mvsnet114_l3.ply", "--dtu", dtu/"truth")
    assert status == 0 and out.count("\n") == 2 and out.splitlines()[1].split()[:2] == ["114", "0.5000"]


def test_evaluate_cloud_says_what_is_wrong(run, dtu, tmp_path, subtests):
    from scipy.io import savemat
    cloud, truth, out = dtu/"clouds"/"mvsnet001_l3.ply", dtu/"truth"/"Points"/"stl"/"stl001_total.ply", ["--out", tmp_path/"out"/"table.json", "--errors", tmp_path/"out"/"errors"]
    (tmp_path/"text.ply").write_text("hello")
    for name in ("hdf", "plane", "gone"): shutil.copytree(dtu/"truth", tmp_path/name)
    (tmp_path/"hdf"/"ObsMask"/"ObsMask1_10.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n")
    savemat(tmp_path/"plane"/"ObsMask"/"Plane1.mat", dict(Q=np.ones(4)))
    (tmp_path/"gone"/"Points"/"stl"/"stl001_total.ply").unlink()
    cases = {
        "no truth": ([cloud], "--truth, --dtu"),
        "two truths": ([cloud, "--truth", truth, "--dtu", dtu/"truth"], "--truth, --dtu"),
        "a scan without DTU": ([cloud, "--truth", truth, "--scan", 1], "--scan"),
        "a crop with DTU": ([cloud, "--dtu", dtu/"truth", "--crop", "a.json"], "--crop"),
        "no cloud": ([tmp_path/"none.ply", "--truth", truth], "none.ply"),
        "no cloud for DTU": ([tmp_path/"none.ply", "--dtu", dtu/"truth"], "none.ply"),
        "a cloud that is text": ([tmp_path/"text.ply", "--truth", truth], "text.ply"),
        "a truth that is text": ([cloud, "--truth", tmp_path/"text.ply"], "text.ply"),
        "a crop that is a cloud": ([cloud, "--truth", truth, "--crop", truth], "stl001_total.ply"),
        "an alignment that is text": ([cloud, "--truth", truth, "--align", tmp_path/"text.ply"], "text.ply"),
        "threshold zero": ([cloud, "--truth", truth, "--threshold", 0], "threshold"),
        "colours up to nothing": ([cloud, "--truth", truth, "--top", 0], "top"),
        "too far": ([dtu/"far.ply", "--truth", truth, "--max-distance", 20], "far.ply"),
        "all outside the mask": ([dtu/"far.ply", "--dtu", dtu/"truth", "--scan", 1], "far.ply"),
        "scans that are missing": ([dtu/"clouds", "--dtu", dtu/"truth"], "scan 4, 9"),
        "a file without a number": ([dtu/"far.ply", "--dtu", dtu/"truth"], "far.ply"),
        "another folder": ([cloud, "--dtu", dtu], "ObsMask"),
        "HDF5": ([cloud, "--dtu", tmp_path/"hdf"], "ObsMask1_10.mat"),
        "another variable": ([cloud, "--dtu", tmp_path/"plane"], "Plane1.mat"),
        "no reference": ([cloud, "--dtu", tmp_path/"gone"], "stl001_total.ply"),
    }
    for name, (words, named) in cases.items():
        with subtests.test(name):
            status, said, err = run("evaluate-cloud", *words, *out)
            assert (status, said, err.count("\n")) == (2, "", 1), (said, err)
            assert named in err and "Traceback" not in err and "unexpected" not in err, err
            assert not files(tmp_path/"out")


# --- networks ----------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    "A run of two steps"
    from mvs_nb.cli import main
    folder = tmp_path_factory.mktemp("runs")/"tiny"
    words = ["--fit.steps", "2", "--fit.batch-size", "1", "--data.n-depths", "8", "--data.train-scenes", "2", "--data.valid-scenes", "1", "--data.references", "1", "--seed", "3"]
    assert main(["train", "mvsnet-tiny", "--out", str(folder), "--accelerator", "cpu", *words]) == 0
    return folder


def test_objects_are_made_learned_and_judged_by_class(run, tmp_path):
    made, out = tmp_path/"objects", tmp_path/"run"
    status, said, err = run("data", "make", made, "--kind", "shapes", "--scenes", 3, "--categories", "chair,mug", "--n-views", 3, "--size", 32)
    assert (status, err) == (0, "") and "6 objects of 2 classes" in said and len(list((made/"renders").glob("*/*/render_0.png"))) == 6
    words = ["--data.folder", made, "--data.n-views", 2, "--data.valid-views", 2, "--data.height", 32, "--model-options.width", 4, "--fit.workers", 0, "--accelerator", "cpu"]
    assert run("train", "vlsm-shapenet", "--out", out, *words, "--fit.steps", 1, "--fit.batch-size", 1, "--fit.no-tensorboard", "--fit.no-progress")[0] == 0
    status, said, err = run("evaluate", "vlsm-shapenet", "--checkpoint", out/"last.pt", *words, "--thresholds", .3, .4, "--out", tmp_path/"table.json")
    assert (status, err) == (0, "") and [line.split()[:2] for line in said.splitlines()[1:]] == [["chair", "1"], ["mug", "1"], ["mean", "2"]] and "2 views > 0.3" in said
    table = json.loads((tmp_path/"table.json").read_text())
    assert table["mean"]["iou_2_at_0.4"] == pytest.approx(np.mean([c["iou_2_at_0.4"] for c in table["classes"].values()])) and len(table["images"]) == 2
    status, said, err = run("evaluate", "vlsm-shapenet", "--baseline", "visual_hull", *words)
    assert (status, err) == (0, "") and "2 views > 0.75" in said and float(said.splitlines()[-1].split()[-1].rstrip("%")) > 10


def test_a_run_is_evaluated_and_used(run, trained, scene, tmp_path):
    best = next(p for p in (trained/"best.pt", trained/"last.pt") if p.is_file())
    config = json.loads((trained/"config.json").read_text())
    assert config["fit"]["steps"] == 2 and config["fit"]["seed"] == 3
    status, out, err = run("evaluate", "mvsnet-tiny", "--checkpoint", best, "--limit", 1, "--data.n-depths", 8, "--data.valid-scenes", 1, "--out", tmp_path/"table.json", "--accelerator", "cpu")
    assert (status, err) == (0, "") and "abs_rel" in out and json.loads((tmp_path/"table.json").read_text())["split"] == "test"
    status, _, err = run("depth", scene, "--checkpoint", best, "--n-views", 2, "--n-depths", 8, "--out", tmp_path/"depth", "--device", "cpu")
    assert (status, err) == (0, "")


def test_the_shipped_weights_are_the_default(run, scene, tmp_path):
    status, out, err = run("depth", scene, "--n-views", 3, "--n-depths", 16, "--out", tmp_path/"out", "--size", "native")
    assert (status, err) == (0, "") and "4 depth maps" in out
    assert json.loads((tmp_path/"out"/"depth.json").read_text())["model"] == "mvsnet"


def test_own_and_published_weights_are_told_apart(run, scene, tmp_path):
    import torch
    from mvs_nb.models.mvsnet import MVSNet
    from mvs_nb.training.checkpoints import save_weights
    torch.manual_seed(0)
    model = MVSNet()
    save_weights(model, tmp_path/"own.safetensors")
    torch.save({"model": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path/"published.ckpt")
    assert run("depth", scene, "--checkpoint", tmp_path/"own.safetensors", "--n-views", 2, "--n-depths", 8, "--spacing", "uniform", "--out", tmp_path/"a")[0] == 0
    assert run("depth", scene, "--model", "mvsnet_pytorch", "--checkpoint", tmp_path/"published.ckpt", "--n-views", 2, "--n-depths", 8, "--out", tmp_path/"b")[0] == 0
    assert (tmp_path/"a"/"depth"/"00000000.pfm").read_bytes() == (tmp_path/"b"/"depth"/"00000000.pfm").read_bytes()


# --- data --------------------------------------------------------------------------------------
def test_import_and_depth_of_another_kind(run, scene, tmp_path):
    from mvs_nb.files import SceneFolder
    folder, capture = SceneFolder(scene), tmp_path/"capture"
    (capture/"images").mkdir(parents=True)
    poses = []
    for i in folder.ids:
        shutil.copy(folder.image_path(i), capture/"images"/f"{i:03d}.png")
        poses.append(np.linalg.inv(folder.camera(i).extrinsics.double().numpy()))
    np.savetxt(capture/"poses.txt", np.stack(poses).reshape(-1, 16))
    np.savetxt(capture/"K.txt", folder.camera(0).intrinsics.numpy())
    near, far = folder.depth_range(0)
    status, _, err = run("import", "rgbd", capture, tmp_path/"scene", "--near", near, "--far", far, "--n-depths", 8)
    assert (status, err) == (0, "") and len(SceneFolder(tmp_path/"scene")) == 4
    assert run("depth", tmp_path/"scene", "--model", "zncc", "--n-views", 3, "--out", tmp_path/"out")[0] == 0


def test_many_scenes(run, tmp_path):
    assert run("data", "make", tmp_path/"many", "--scenes", 2, "--n-views", 2, "--height", 32, "--width", 32)[0] == 0
    assert sorted(p.name for p in (tmp_path/"many").iterdir()) == ["room-00000", "room-00001"]


def test_clean_and_its_check(run, tmp_path):
    notebook = dict(cells=[dict(cell_type="code", execution_count=3, metadata={}, source=[], outputs=[])], metadata={}, nbformat=4, nbformat_minor=5)
    path = tmp_path/"a.ipynb"
    path.write_text(json.dumps(notebook))
    assert run("clean", tmp_path, "--check")[0] == 1 and json.loads(path.read_text())["cells"][0]["execution_count"] == 3
    assert run("clean", tmp_path)[0] == 0 and json.loads(path.read_text())["cells"][0]["execution_count"] is None
    assert run("clean", tmp_path, "--check")[0] == 0


def test_bench_runs_the_scripts_of_a_checkout(run, tmp_path):
    (tmp_path/"one.py").write_text("def main(short=False):\n    print('2.0x')\n    return [dict(name='one', ratio=2.0, short=short)]\n")
    status, out, _ = run("bench", "--short", "--folder", tmp_path, "--out", tmp_path/"rows.json")
    assert status == 0 and "2.0x" in out and json.loads((tmp_path/"rows.json").read_text()) == {"one": [dict(name="one", ratio=2.0, short=True)]}


# --- bad input: one line that names the file and the fix, a status that is not 0, nothing half written ---
def camera_line(folder, i, line):
    path = folder/"cams"/f"{i:08d}_cam.txt"
    path.write_text("\n".join(path.read_text().rstrip().splitlines()[:-1] + [line]) + "\n")


def cut(path): path.write_bytes(path.read_bytes()[:200])


BROKEN = {
    "missing camera": (lambda f: (f/"cams"/"00000002_cam.txt").unlink(), "00000002_cam.txt"),
    "camera with NaN": (lambda f: (f/"cams"/"00000001_cam.txt").write_text((f/"cams"/"00000001_cam.txt").read_text().replace("extrinsic\n", "extrinsic\nnan ", 1)), "00000001_cam.txt"),
    "depth range zero": (lambda f: camera_line(f, 0, "2 0 16 2"), "00000000_cam.txt"),
    "negative depth": (lambda f: camera_line(f, 0, "-1 0.1 16 3"), "00000000_cam.txt"),
    "missing image": (lambda f: (f/"images"/"00000001.png").unlink(), "00000001"),
    "image that is text": (lambda f: (f/"images"/"00000000.png").write_text("hello"), "00000000.png"),
    "image cut off": (lambda f: cut(f/"images"/"00000000.png"), "00000000.png"),
    "no pair file": (lambda f: (f/"pair.txt").unlink(), "pair.txt"),
    "pair file cut off": (lambda f: (f/"pair.txt").write_text("4\n0\n"), "pair.txt"),
    "pair names a view that is not there": (lambda f: (f/"pair.txt").write_text("1\n0\n1 77 1.0\n"), "00000077"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_scene(name, run, scene, tmp_path):
    change, named = BROKEN[name]
    shutil.copytree(scene, tmp_path/"scene")
    change(tmp_path/"scene")
    status, out, err = run("depth", tmp_path/"scene", "--model", "zncc", "--n-views", 3, "--out", tmp_path/"out")
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert named in err and err.startswith("mvs_nb: ") and "Traceback" not in err
    assert not [p for p in files(tmp_path/"out") if ".tmp" in p or p.endswith(("00000000.pfm", "00000000.png"))]


def bad_commands(scene, result, tmp_path):
    "Command lines that cannot work -> what the answer must name"
    (tmp_path/"empty").mkdir()
    (tmp_path/"text.pt").write_text("hello")
    (tmp_path/"text.json").write_text("{")
    (tmp_path/"full").mkdir()
    (tmp_path/"full"/"letter.txt").write_text("hello")
    shutil.copytree(result, tmp_path/"cut")
    cut(tmp_path/"cut"/"depth"/"00000001.pfm")
    out = ["--out", tmp_path/"out"]
    return {
        "empty folder": (["depth", tmp_path/"empty", *out], "empty"),
        "no folder": (["depth", tmp_path/"nowhere", *out], "nowhere"),
        "a file": (["depth", scene/"pair.txt", *out], "pair.txt"),
        "no checkpoint": (["depth", scene, "--checkpoint", tmp_path/"none.pt", *out], "none.pt"),
        "a checkpoint that is text": (["depth", scene, "--model", "mvsnet_pl", "--checkpoint", tmp_path/"text.pt", *out], "text.pt"),
        "unknown model": (["depth", scene, "--model", "nonesuch", *out], "nonesuch"),
        "weights for the classical sweep": (["depth", scene, "--model", "sgm", "--checkpoint", tmp_path/"text.pt", *out], "sgm"),
        "published model without weights": (["depth", scene, "--model", "mvsnet_pl", *out], "checkpoint"),
        "one view": (["depth", scene, "--model", "sgm", "--n-views", 1, *out], "n_views"),
        "zero planes": (["depth", scene, "--model", "sgm", "--n-depths", 0, *out], "n_depths"),
        "images too small": (["depth", scene, "--model", "sgm", "--height", 8, *out], "height"),
        "words for numbers": (["depth", scene, "--n-views", "many", *out], "--n-views"),
        "misspelt option": (["depth", scene, "--modle", "sgm", *out], "--modle"),
        "output is a file": (["depth", scene, "--model", "zncc", "--out", scene/"pair.txt"], "pair.txt"),
        "no output": (["depth", scene, "--model", "zncc"], "--out"),
        "nothing to fuse": (["fuse", tmp_path/"empty", "--out", tmp_path/"out"/"c.ply"], "depth.json"),
        "nowhere to fuse": (["fuse", tmp_path/"nowhere", "--out", tmp_path/"out"/"c.ply"], "nowhere"),
        "a depth map cut off": (["fuse", tmp_path/"cut", "--out", tmp_path/"out"/"c.ply"], "00000001.pfm"),
        "unknown kind": (["import", "photos", scene, tmp_path/"out"], "photos"),
        "capture that is no JSON": (["import", "transforms", tmp_path/"text.json", tmp_path/"out"], "text.json"),
        "empty capture": (["import", "sevenscenes", tmp_path/"empty", tmp_path/"out"], "empty"),
        "half a depth range": (["import", "rgbd", scene, tmp_path/"out", "--near", 1], "--far"),
        "unknown scene kind": (["data", "make", tmp_path/"out", "--kind", "castle"], "castle"),
        "data over other files": (["data", "make", tmp_path/"full"], "full"),
        "unknown experiment": (["train", "nonesuch"], "nonesuch"),
        "no experiment": (["train"], "experiment"),
        "unknown setting": (["train", "mvsnet-tiny", "--fit.stepps", 3, *out], "--fit.steps"),
        "bad setting": (["train", "mvsnet-tiny", "--fit.steps", "many", *out], "--fit.steps"),
        "data that is not there": (["train", "mvsnet-dtu", "--data.folder", tmp_path/"nowhere", *out], "nowhere"),
        "evaluate without weights": (["evaluate", "mvsnet-tiny", "--checkpoint", tmp_path/"none.pt"], "none.pt"),
        "evaluate nothing": (["evaluate", "mvsnet-tiny"], "--checkpoint"),
        "a baseline of something else": (["evaluate", "mvsnet-tiny", "--baseline", "visual_hull"], "visual_hull"),
        "pictures that are not square": (["data", "make", tmp_path/"out", "--kind", "shapes", "--height", 32], "--size"),
        "classes of a scene": (["data", "make", tmp_path/"out", "--categories", "chair"], "--categories"),
        "unknown class": (["data", "make", tmp_path/"out", "--kind", "shapes", "--categories", "castle"], "castle"),
        "no benchmarks": (["bench", "--folder", tmp_path/"empty"], "checkout"),
        "clean nothing": (["clean", tmp_path/"nowhere"], "nowhere"),
        "no command": ([], "COMMAND"),
        "unknown command": (["depht"], "depht"),
    }


def test_bad_commands(run, scene, result, tmp_path, subtests):
    for name, (words, named) in bad_commands(scene, result, tmp_path).items():
        with subtests.test(name):
            status, out, err = run(*words)
            assert (status, out, err.count("\n")) == (2, "", 1), (words, out, err)
            assert named in err and "Traceback" not in err and "unexpected" not in err, err
            assert not [p for p in files(tmp_path/"out") if p not in ("depth.json", "config.json")], files(tmp_path/"out")
            shutil.rmtree(tmp_path/"out", ignore_errors=True)


def test_a_checkpoint_of_another_model(run, scene, trained, tmp_path):
    import torch
    torch.save({"model": {"encoder.weight": torch.zeros(3, 3)}}, tmp_path/"other.ckpt")
    status, _, err = run("depth", scene, "--model", "mvsnet_pytorch", "--checkpoint", tmp_path/"other.ckpt", "--out", tmp_path/"out")
    assert status == 2 and err.count("\n") == 1 and "other.ckpt" in err and "missing" in err and "surplus: encoder.weight" in err
    shutil.copy(trained/"config.json", tmp_path/"config.json")
    status, _, err = run("depth", scene, "--checkpoint", tmp_path/"other.ckpt", "--out", tmp_path/"out")
    assert status == 2 and err.count("\n") == 1 and "other.ckpt" in err
    assert not files(tmp_path/"out")


def test_a_process_ends_with_status_2_and_no_traceback(tmp_path):
    done = terminal("depth", tmp_path, "--out", tmp_path/"out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1) and str(tmp_path) in done.stderr
    assert "Traceback" in terminal("depth", tmp_path, "--out", tmp_path/"out", "--debug").stderr


def test_a_full_disk(run, scene, result, tmp_path):
    disk = tmp_path/"disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        for words in (["depth", scene, "--model", "zncc", "--n-views", 3, "--out", disk/"out"], ["fuse", result, "--out", disk/"cloud.ply", "--min-consistent", 1, "--min-confidence", 0],
                      ["mesh", result, "--out", disk/"mesh.ply", "--min-consistent", 1, "--min-confidence", 0],
                      ["data", "make", disk/"scene"]):
            status, out, err = run(*words)
            assert (status, out, err.count("\n")) == (2, "", 1), err
            assert "No space left" in err and str(disk) in err
            assert not [p for p in files(disk) if ".tmp" in p or p.endswith(".ply")]
            for p in (disk/"out").rglob("*.pfm"):
                from mvs_nb.files import read_pfm
                read_pfm(p)
            shutil.rmtree(disk/"out", ignore_errors=True)
    finally: subprocess.run(["umount", disk], check=True)
