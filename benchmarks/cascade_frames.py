"""Measure the cascades on the two real sequences, at two image sizes, with time and memory; and what fine-tuning on the frames themselves adds.

    python benchmarks/cascade_frames.py                                   # the table of methods: half an hour on two cores
    python benchmarks/cascade_frames.py --methods casmvsnet --sizes small   # one row again
    python benchmarks/cascade_frames.py --methods "" --adapt casmvsnet    # fine-tuning without depth, judged on frames held back

Writes data/measured/cascade_frames.json, which the notebook adaptation shows. Every row is measured in a process of its own.
Needs the sequences: environment variable MVS_DATA names their folder."""
import argparse, json, multiprocessing, sys, tempfile

KEYS = ("abs", "abs_rel", "delta_1", "within_0.05", "median_abs", "seconds", "images")
SIZES = dict(redkitchen=dict(small=(256, 320), full=(480, 640)), hololens=dict(small=(256, 320), full=(352, 544)))


def method(name):
    from mvs_nb.models.classical import ClassicalStereo
    from mvs_nb.training.checkpoints import load_weights
    return ClassicalStereo(semi_global=name == "sgm") if name in ("zncc", "sgm") else load_weights(name)


def row(pack, name, size, n_depths, threads, every):
    "Metrics of one method on one sequence; memory is what the process needed beyond the loaded samples, GiB"
    import torch
    from mvs_nb.training.engine import memory_used
    from mvs_nb.training.real_frames import evaluate_on_real_frames, real_frame_samples
    if threads: torch.set_num_threads(threads)
    samples, model = real_frame_samples(pack, height=size[0], width=size[1])[::every], method(name)
    before = memory_used()
    m = evaluate_on_real_frames(model, samples, n_depths)
    return {k: round(m[k], 4) for k in KEYS} | dict(memory=round(memory_used() - before, 2))


SPLITS = dict(between=("others", "fourth"), later=("first", "last"))            # learned from, judged


def adapted(pack, name, split, steps, lr, threads):
    "Metrics on frames that were held back, before and after learning from the others, of which every fifth only judges"
    import torch
    from mvs_nb.training.adaptation import adapt, adaptation_settings
    from mvs_nb.training.engine import make_fabric
    from mvs_nb.training.real_frames import evaluate_on_real_frames, real_frame_samples
    if threads: torch.set_num_threads(threads)
    fabric, model = make_fabric(1, "cpu", "bf16-mixed"), method(name)           # the fabric first: it sets what bfloat16 needs before anything is computed
    learned, held = SPLITS[split]
    new, facts = adapt(model, real_frame_samples(pack, part=learned), tempfile.mkdtemp(), adaptation_settings(steps, lr), fabric=fabric)
    judged = real_frame_samples(pack, part=held)
    pick = lambda m: {k: round(m[k], 4) for k in KEYS}
    return dict(before=pick(evaluate_on_real_frames(model, judged)), after=pick(evaluate_on_real_frames(new, judged)),
                score={k: round(v, 4) for k, v in facts.items()}, steps=steps, lr=lr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="zncc,sgm,mvsnet,casmvsnet,kd_mvs", help="comma-separated; measured again even if the table has them")
    parser.add_argument("--packs", default="redkitchen,hololens")
    parser.add_argument("--sizes", default="small,full")
    parser.add_argument("--adapt", default=None, help="weights to fine-tune on the frames")
    parser.add_argument("--splits", default="between,later", help="which frames are held back: every fourth, or the last 20")
    parser.add_argument("--steps", type=int, default=150, help="of fine-tuning")
    parser.add_argument("--lr", type=float, default=1e-4, help="of fine-tuning")
    parser.add_argument("--every", type=int, default=1, help="judge each so-many-th of the 20 frames only")
    parser.add_argument("--n-depths", type=int, default=96)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice")
    a = parser.parse_args()
    from mvs_nb.files import atomic_path, data_folder
    path = data_folder()/"measured"/"cascade_frames.json"
    jobs = [((pack, size, name), row, (pack, name, SIZES[pack][size], a.n_depths, a.threads, a.every)) for pack in a.packs.split(",") for size in a.sizes.split(",") for name in a.methods.split(",") if name]
    if a.adapt: jobs += [((pack, "adapted", a.adapt, split), adapted, (pack, a.adapt, split, a.steps, a.lr, a.threads)) for split in a.splits.split(",") for pack in a.packs.split(",")]
    for keys, work, arguments in jobs:
        with multiprocessing.get_context("spawn").Pool(1) as pool: result = pool.apply(work, arguments)
        table = json.loads(path.read_text()) if path.is_file() else {}
        place = table
        for key in keys[:-1]: place = place.setdefault(key, {})
        place[keys[-1]] = result
        with atomic_path(path) as temporary: temporary.write_text(json.dumps(table, indent=1)+"\n")
        print(*keys, result, flush=True)


if __name__ == "__main__": sys.exit(main())
