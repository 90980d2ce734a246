"""Is a training step ever kept waiting for its data? Seconds that one core spends on the data of a batch, beside the seconds that another spends on the step.

    python benchmarks/data_loading.py            # a minute and a half on a quiet machine; writes data/measured/performance_loading.json
    python benchmarks/data_loading.py --short    # what comes out of the cache is what was rendered; five seconds

For every kind of procedural data, with the settings of the shipped weights. In the first epoch a scene, a film or an object is rendered when it is first
asked for, and serves several items (each view in turn as the reference, each stretch of a film): the time of all of them together counts. Later epochs
unpack and augment. All in CPU seconds on one thread, medians. On two cores one trains and one loads, so a ratio above 1 means that training never waits."""
import argparse, statistics, sys, tempfile, time, warnings
from pathlib import Path
import torch
from torch.utils.data import default_collate
from mvs_nb.training.engine import make_fabric, make_optimizer
from mvs_nb.training.experiments import get_experiment, learning, make_data, make_model
sys.path.insert(0, str(Path(__file__).parent)) # `mvs_nb bench` runs this file from elsewhere
from _measuring import write_report

PRESETS = {"mvsnet-procedural": "scenes", "casmvsnet-procedural": "scenes", "kd-mvs-teacher-procedural": "scenes, no depth", "cvp-mvsnet-procedural": "scenes",
           "vlsm-procedural": "objects, 4 views", "dlsm-procedural": "objects, 3 views", "pairnet-procedural": "films, pairs", "fusionnet-procedural": "films, 6 frames"}


def spent(function):
    "CPU seconds of this process for one call"
    start = time.process_time()
    function()
    return time.process_time() - start


def data_of(name, cache):
    "The experiment, its training items, and how many of them, one after the other, come of one rendering"
    e = get_experiment(name, start=None, **{"data.cache": cache})
    items = make_data(e, "train")
    source = getattr(items, "data", items)
    return e, items, len(source)//source.length


def step_seconds(experiment, batch, fabric, repeats=5):
    "Median of one optimiser step"
    model, objective = make_model(experiment).train(), learning(experiment)[0]
    optimizer = make_optimizer(model, experiment.fit, len(experiment.fit.phases))     # the last phase: everything learns
    def step():
        with fabric.autocast(): loss = objective(model, batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    step()
    return statistics.median(spent(step) for _ in range(repeats))


def measure(name, fabric, renderings=6):
    "Seconds of one core for the data of a batch in the first epoch and later, and for its step"
    with tempfile.TemporaryDirectory() as cache:
        e, items, share = data_of(name, cache)
        size, apart = e.fit.batch_size, len(items)//share//(renderings + 1)*share
        first, later = (statistics.median(spent(lambda: [items[k*apart + i] for i in range(share)])/share for k in range(1, renderings + 1)) for _ in range(2))
        step = step_seconds(e, default_collate([items[apart + i*share] for i in range(size)]), fabric)
    return first*size, later*size, step


def same(a, b):
    "Whether two items hold the same bits"
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def check():
    "An item made anew, and the same item out of the cache"
    rows = []
    for name, data in PRESETS.items():
        with tempfile.TemporaryDirectory() as cache:
            _, items, share = data_of(name, cache)
            if not same(items[share], items[share]): raise SystemExit(f"{name}: an item from the cache differs from the one rendered")
        rows.append(dict(name=f"{name}: {data}", what="cache and rendering agree", value=None, unit="", target=None, stretch=None, better="higher"))
    return rows


def main(short=False, precision="bf16-mixed"):
    "Measure, print and, unless short, write data/measured/performance_loading.json; the rows"
    if short:
        rows = check()
        print(f"{len(rows)} kinds of data come out of the cache as they were rendered")
        return rows
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*searchsorted.*")
    rows, fabric = [], make_fabric(1, "cpu", precision)
    for name, data in PRESETS.items():
        first, later, step = measure(name, fabric)
        for what, loading in (("first epoch", first), ("later epochs", later)):
            rows.append(dict(name=f"{name}: {data}, {what}", what="time of a step / of loading its batch", value=float(f"{step/loading:.3g}"), unit="x", target=1, stretch=None, better="higher", seconds=loading, step_seconds=step))
            print(f"{rows[-1]['name']:<62}{rows[-1]['value']:>8.1f}x   {loading:.3f} s of loading for a step of {step:.3f} s", flush=True)
    write_report("performance_loading", rows, precision=precision)
    torch.set_num_threads(before)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="correctness only")
    parser.add_argument("--precision", default="bf16-mixed", choices=("bf16-mixed", "32-true"))
    given = parser.parse_args()
    main(given.short, given.precision)
