"""Measure the shipped Learnt Stereo Machines, the visual hull and plane-sweep stereo on procedural objects that no network saw.

    python benchmarks/lsm_shapes.py [--vlsm FILE] [--dlsm FILE] [--shapes 10] [--views 6] [--cache runs/shapes]

Writes data/measured/lsm.json, which the notebook lsm_training shows: for each method a table class by class, and the mean over the classes.
FILE is a run's best.pt or a .safetensors file; without it, data/weights/vlsm.safetensors and dlsm.safetensors, where they are."""
import argparse, json, sys, time
from dataclasses import replace
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlsm", default=None, help="weights of VoxelLSM")
    parser.add_argument("--dlsm", default=None, help="weights of DepthLSM")
    parser.add_argument("--shapes", type=int, default=10, help="held-out objects of each class")
    parser.add_argument("--views", type=int, default=6, help="most views that VoxelLSM and the hull see; depth maps are made from 4, and from 2")
    parser.add_argument("--cache", default=None, help="folder of rendered objects; none: the experiments' own")
    parser.add_argument("--out", default=None, help="file to write; none: data/measured/lsm.json")
    a = parser.parse_args()
    from mvs_nb.files import atomic_path, data_folder
    from mvs_nb.training.experiments import evaluate_rows, get_experiment, summary
    from mvs_nb.training.lsm import format_classes
    folder = data_folder()
    changes = {"data.valid_scenes": a.shapes} | ({"data.cache": a.cache} if a.cache else {})
    voxel = get_experiment("vlsm-procedural", thresholds=(.4, .3, .5), **changes | {"data.valid_views": a.views, "data.scene_views": max(6, a.views)})
    depth = get_experiment("dlsm-procedural", start=None, **changes | {"data.scene_views": max(6, a.views)})
    weights = {name: Path(given or folder/"weights"/f"{name}.safetensors") for name, given in (("vlsm", a.vlsm), ("dlsm", a.dlsm))}
    pairs = replace(depth, data=replace(depth.data, valid_views=2))
    methods = dict(vlsm=(voxel, None), visual_hull=(voxel, "visual_hull"), dlsm=(depth, None), plane_sweep=(depth, "plane_sweep"), dlsm_2=(pairs, None), plane_sweep_2=(pairs, "plane_sweep"))
    found = {}
    for name, (experiment, baseline) in methods.items():
        if baseline is None and not weights[name.removesuffix("_2")].is_file():
            print(f"{name}: no weights, left out", flush=True)
            continue
        start = time.perf_counter()
        rows = evaluate_rows(experiment, weights.get(name.removesuffix("_2")), "test", baseline=baseline, progress=sys.stderr.isatty())
        seconds, table = time.perf_counter() - start, summary(rows)
        plain = lambda row: {k: round(v, 4) for k, v in row.items()}
        found[name] = dict(seconds=round(seconds/len(rows), 3), mean=plain(table["mean"]), classes={c: plain(row) for c, row in table["classes"].items()})
        print(f"\n{name}, {seconds/len(rows):.2f} s an object\n" + format_classes(table["classes"] | dict(mean=table["mean"])), flush=True)
    out = Path(a.out or folder/"measured"/"lsm.json")
    with atomic_path(out) as temporary: temporary.write_text(json.dumps(dict(shapes=a.shapes, views=a.views, methods=found), indent=1)+"\n")
    print(f"\nwritten: {out}")


if __name__ == "__main__": sys.exit(main())
