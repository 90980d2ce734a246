"Rounds, killed while the teacher learns, while labels are written and while a student learns, end with the very bits of rounds that never stopped."
import json, os, signal, subprocess, sys, time

import torch
from safetensors.torch import load_file
from mvs_nb.training.checkpoints import load_checkpoint
from mvs_nb.training.engine import read_log

SMALL = [w for part, steps in (("teacher", 6), ("student", 5)) for w in (f"--{part}.data.height", "32", f"--{part}.data.width", "32", f"--{part}.data.train-scenes", "3",
    f"--{part}.data.valid-scenes", "1", f"--{part}.fit.steps", str(steps), f"--{part}.fit.save-every", "2", f"--{part}.fit.log-every", "1", f"--{part}.fit.validate-every", "3")]
LOOSE = ["--check.max-pixel-error", "40", "--check.max-depth-error", "0.9", "--check.min-consistent", "1"]


def start(folder, name="kd-mvs-tiny", *more):
    "Begin or continue the rounds in `folder`"
    return subprocess.Popen([sys.executable, "-m", "mvs_nb.cli", "train", name, "--out", str(folder), *SMALL, *LOOSE, *more],
                            env=os.environ | dict(OMP_NUM_THREADS="1"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_when(process, ready):
    "SIGKILL as soon as `ready()`"
    end = time.monotonic() + 500
    while not ready():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(.002)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL


def test_killed_rounds_end_the_same(tmp_path):
    whole, broken = tmp_path/"whole", tmp_path/"broken"
    steady = start(whole)
    step = lambda run: max((r["step"] for r in read_log(broken/run)), default=0)
    kill_when(start(broken), lambda: step("teacher") >= 3)
    assert not (broken/"round1").exists()
    kill_when(start(broken), lambda: len(list((broken/"round1"/"labels").glob("*.safetensors"))) >= 3)
    kill_when(start(broken), lambda: step("round1/student") >= 3)
    assert not (broken/"round2").exists()
    output = start(broken).communicate(timeout=500)[0]
    assert "finished; rounds in" in output, output
    assert "finished; rounds in" in steady.communicate(timeout=500)[0]
    for run in ("teacher", "round1/student", "round2/student"):
        a, b = (load_checkpoint(f/run/"last.pt") for f in (whole, broken))
        torch.testing.assert_close(a["model"], b["model"], rtol=0, atol=0)
        assert {k: v for k, v in a["progress"].items() if k != "seconds"} == {k: v for k, v in b["progress"].items() if k != "seconds"}
    rows = [[{k: v for k, v in s.items() if k != "seconds"} for s in json.loads((f/"steps.json").read_text())] for f in (whole, broken)]
    assert rows[0] == rows[1] and [s["name"] for s in rows[0]] == ["kd-mvs-teacher-tiny", "labels 1", "kd-mvs-student-tiny-1", "labels 2", "kd-mvs-student-tiny-2"]


def test_killed_mesh_rounds_end_the_same(tmp_path):
    whole, broken = tmp_path/"whole", tmp_path/"broken"
    name, *more = "cvp-selfsup-tiny", "--check.min-confidence", "0", "--check.max-gap", "None", "--rounds", "1"
    steady = start(whole, name, *more)
    labels = broken/"round1"/"labels"
    kill_when(start(broken, name, *more), lambda: len(list(labels.glob("*.safetensors"))) >= 3)
    assert not (broken/"round1"/"student").exists()
    kill_when(start(broken, name, *more), lambda: max((r["step"] for r in read_log(broken/"round1"/"student")), default=0) >= 3)
    for process in (start(broken, name, *more), steady):
        output = process.communicate(timeout=500)[0]
        assert "finished; rounds in" in output, output
    for run in ("teacher", "round1/student"):
        a, b = (load_checkpoint(f/run/"last.pt") for f in (whole, broken))
        torch.testing.assert_close(a["model"], b["model"], rtol=0, atol=0)
    made = sorted(f.name for f in labels.glob("[!.]*.safetensors"))              # a killed writer leaves its temporary name behind
    assert len(made) == 18
    for f in made: torch.testing.assert_close(load_file(labels/f), load_file(whole/"round1"/"labels"/f), rtol=0, atol=0)
    assert any(load_file(labels/f)["mask"].any() for f in made)


def test_labels_of_other_weights_are_not_mixed(tmp_path):
    from mvs_nb.camera import InputError
    from mvs_nb.training.kd_mvs import claim_labels
    (tmp_path/"a.pt").write_bytes(b"a"), (tmp_path/"b.pt").write_bytes(b"b")
    claim_labels(tmp_path/"labels", tmp_path/"a.pt", True)
    claim_labels(tmp_path/"labels", tmp_path/"a.pt", True)
    try: claim_labels(tmp_path/"labels", tmp_path/"b.pt", True)
    except InputError as e: assert "made by other weights" in str(e)
    else: raise AssertionError("no error")
    claim_labels(tmp_path/"labels", tmp_path/"b.pt", False)
