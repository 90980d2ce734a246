"""Is a training step ever kept waiting for its data? Seconds of one loader's core for a batch, beside the seconds of the step that uses it.

    python benchmarks/data_loading.py [--short]

For every kind of procedural data, with the settings of the shipped weights: making an item for the first time (rendering it), fetching it again from
the cache (unpacking, augmenting), and one optimiser step on such a batch, all in CPU seconds on one thread, medians. On two cores one trains and one
loads, so a ratio of step to fetch above 1 means that training never waits; `first pass` is the same for the epoch in which everything is rendered.
"""
import argparse, statistics, tempfile, time
import torch

PRESETS = {"mvsnet-procedural": "scenes", "casmvsnet-procedural": "scenes", "kd-mvs-teacher-procedural": "scenes, no depth", "cvp-mvsnet-procedural": "scenes",
           "vlsm-procedural": "objects, 4 views", "dlsm-procedural": "objects, 4 views", "pairnet-procedural": "films, pairs", "fusionnet-procedural": "films, 6 frames"}


def spent(function):
    "CPU seconds of this process for one call, and what it returns"
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def step_seconds(experiment, batch, fabric, repeats):
    "Median of one optimiser step"
    from mvs_nb.training.engine import make_optimizer
    from mvs_nb.training.experiments import learning, make_model
    model, objective = make_model(experiment).train(), learning(experiment)[0]
    optimizer = make_optimizer(model, experiment.fit, len(experiment.fit.phases))     # the last phase: everything learns
    def step():
        with fabric.autocast(): loss = objective(model, batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    step()
    return statistics.median(spent(step)[0] for _ in range(repeats))


def main(short=False, only=None, precision="bf16-mixed"):
    "Measure, print a table and return its rows"
    from torch.utils.data import default_collate
    from mvs_nb.training.experiments import get_experiment, make_data
    from mvs_nb.training.engine import make_fabric
    torch.set_num_threads(1)
    fabric, rows = make_fabric(1, "cpu", precision), []                               # before any convolution: it chooses instructions that are safe
    print(f"{'experiment':<28}{'data':<19}{'render':>9}{'fetch':>9}{'step':>9}{'step / fetch':>14}{'step / render':>15}     seconds of one core for a batch, {precision}")
    for name, data in PRESETS.items():
        if only and name != only: continue
        with tempfile.TemporaryDirectory() as cache:
            e = get_experiment(name, start=None, **({"data.cache": cache} if get_experiment(name).data.kind in ("procedural", "video", "shapes") else {}))
            items, size = make_data(e, "train"), e.fit.batch_size
            picks = [i*(len(items)//(size + 2)) for i in range(size)]                 # far apart: no two of one room
            render, _ = spent(lambda: [items[i] for i in picks])
            fetch = statistics.median(spent(lambda: [items[i] for i in picks])[0] for _ in range(2 if short else 5))
            step = step_seconds(e, default_collate([items[i] for i in picks]), fabric, 1 if short else 3)
        rows.append(dict(experiment=name, data=data, batch=size, render=render, fetch=fetch, step=step))
        print(f"{name:<28}{data:<19}{render:>9.2f}{fetch:>9.2f}{step:>9.2f}{step/fetch:>13.1f}x{step/render:>14.2f}x", flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one repetition")
    parser.add_argument("--only", default=None, help="name of one experiment")
    parser.add_argument("--precision", default="bf16-mixed", choices=("bf16-mixed", "32-true"))
    a = parser.parse_args()
    main(a.short, a.only, a.precision)
