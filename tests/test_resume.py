"""A run that is killed and continued ends with the very bits of a run that never stopped."""
import os, random, signal, subprocess, sys, time
from pathlib import Path
import torch
from mvs_nb.training.checkpoints import load_checkpoint
from mvs_nb.training.engine import read_log

HERE, STEPS = Path(__file__).parent, 300


def start(folder):
    "Begin or continue the run in `folder`; one thread, because the order of sums depends on the number of threads"
    return subprocess.Popen([sys.executable, str(HERE/"small_run.py"), str(folder), str(STEPS), "2", "1", "rough"],
                            env=os.environ | dict(OMP_NUM_THREADS="1"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def stop_at(process, folder, step, number):
    "Send a signal as soon as the log has reached `step`"
    end = time.monotonic() + 500
    while max((r["step"] for r in read_log(folder)), default=0) < step:
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(.002)
    process.send_signal(number)
    return process.wait(300)


def finish(process):
    output = process.communicate(timeout=500)[0]
    assert process.returncode == 0, output


def test_killed_and_resumed_run_is_bit_identical(tmp_path):
    whole, broken = tmp_path/"whole", tmp_path/"broken"
    steady = start(whole)
    draw = random.Random(20)
    first, second = draw.randrange(5, STEPS//3), draw.randrange(STEPS//2, STEPS - 120)
    assert stop_at(start(broken), broken, first, signal.SIGKILL) == -signal.SIGKILL
    assert not list(broken.glob("best.pt.*")) and load_checkpoint(broken/"last.pt")["progress"]["step"] < STEPS
    assert stop_at(start(broken), broken, second, signal.SIGTERM) == 0 # asked politely, a run writes a checkpoint and ends well
    at = load_checkpoint(broken/"last.pt")["progress"]["step"]
    assert second <= at < STEPS
    assert read_log(broken)[-1]["step"] <= at
    finish(start(broken))
    finish(steady)
    a, b = (load_checkpoint(f/"last.pt") for f in (whole, broken))
    for part in ("model", "optimizer"): torch.testing.assert_close(a[part], b[part], rtol=0, atol=0)
    assert torch.equal(a["rng"][0]["torch"], b["rng"][0]["torch"]) and a["rng"][0]["python"] == b["rng"][0]["python"]
    assert a["progress"]["best"] == b["progress"]["best"] and a["progress"]["best_step"] == b["progress"]["best_step"]
    told = [[(r["kind"], r["step"], r.get("loss"), r.get("abs")) for r in read_log(f)] for f in (whole, broken)]
    assert told[0] == told[1] # every step once, with the same loss
