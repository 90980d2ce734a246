"""Two processes with half the batch each train like one process with the whole batch."""
import os, subprocess, sys
from itertools import islice
from pathlib import Path
import pytest
import torch
from mvs_nb.data.augmentation import Augmented, Light
from mvs_nb.data.datasets import ProceduralDataset
from mvs_nb.training.checkpoints import load_checkpoint
from mvs_nb.training.engine import read_log
from mvs_nb.training.loading import StepSampler, make_loader

HERE = Path(__file__).parent


def start(folder, batch, devices, *launcher):
    "Run small_run.py without batch norm and dropout, whose values depend on which process an item falls to"
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")} | dict(OMP_NUM_THREADS="1")
    command = [sys.executable, *launcher, str(HERE/"small_run.py"), str(folder), "6", str(batch), str(devices), "smooth"]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    processes = dict(one=start(folder/"one", 2, 1), two=start(folder/"two", 1, 2), torchrun=start(folder/"torchrun", 1, 0, *torchrun))
    for name, p in processes.items():
        output = p.communicate(timeout=500)[0]
        assert p.returncode == 0, f"{name}: {output}"
    return folder


@pytest.mark.parametrize("name", ["two", "torchrun"])
def test_two_processes_train_like_one(runs, name):
    one, two = (read_log(runs/n, "train") for n in ("one", name))
    assert [r["step"] for r in one] == [r["step"] for r in two] == list(range(1, 7))
    # float32 sums in another order differ by about 1e-7 relative per step, and Adam divides small gradients by their own size
    for key in ("loss", "gradient", "lr"):
        torch.testing.assert_close(torch.tensor([r[key] for r in two]), torch.tensor([r[key] for r in one]), rtol=1e-4, atol=1e-7)
    weights = [load_checkpoint(runs/n/"last.pt")["model"] for n in ("one", name)]
    assert weights[0].keys() == weights[1].keys() # no "module." in front
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)


def test_validation_counts_every_item_once(runs):
    one, two = (read_log(runs/n, "valid") for n in ("one", "two"))
    assert [r["images"] for r in one] == [r["images"] for r in two] == [12.]
    torch.testing.assert_close([r["abs"] for r in two], [r["abs"] for r in one], rtol=1e-4, atol=1e-7)


def test_checkpoint_keeps_the_random_state_of_every_process(runs):
    assert [len(load_checkpoint(runs/n/"last.pt")["rng"]) for n in ("one", "two")] == [1, 2]


def test_spawned_workers_load_the_same_bits():
    data = Augmented(ProceduralDataset(("heightfield",), length=4, height=32, width=32, n_depths=8), (Light(),), seed=2)
    here, there = (list(islice(make_loader(data, StepSampler(4, 2, seed=4, endless=True), **o), 3)) for o in ({}, dict(workers=1, start_method="spawn")))
    for a, b in zip(here, there): torch.testing.assert_close(a["images"], b["images"], rtol=0, atol=0)
