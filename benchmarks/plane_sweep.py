"""Cost volumes: the fused plane sweep against plain forms, as ratios measured in the same run.

    python benchmarks/plane_sweep.py [--short]

Features 32x128x160, three views, 48 planes (a 512x640 image at quarter size). Each row times both forms alternately, in CPU seconds of this process
on the number of threads torch uses, and gives the median ratio. `plain` is the form published networks use: one warped volume per source, then
sums and sums of squares; `reference` is the readable implementation of the library. `kept` is what autograd holds between forward and backward.
"""
import argparse, statistics, time
import torch
from mvs_nb.camera import intrinsics_from_fov, look_at
from mvs_nb.hypotheses import inverse_hypotheses
from mvs_nb.kernels.plane_sweep import sweep
from mvs_nb.warping import sample_pixels, sweep_map, sweep_pixels


def problem(channels=32, height=128, width=160, views=3, planes=48):
    "Random features and a small rig"
    generator = torch.Generator().manual_seed(0)
    eyes = torch.tensor([[0., 0., 0.], [.3, 0., 0.], [-.3, .1, 0.], [.1, -.3, 0.], [-.1, .2, .1]])[:views]
    E = look_at(eyes, torch.tensor([0., 0., 3.]).expand(views, 3), up=(0., -1., 0.))[None]
    K = intrinsics_from_fov(60., height, width).expand(1, views, 3, 3)
    feats = torch.randn(1, views, channels, height, width, generator=generator)
    return feats, sweep_map(K[:, :1], E[:, :1], K[:, 1:], E[:, 1:]), inverse_hypotheses(2., 6., planes)


def plain(feats, maps, hypotheses, reduce, groups):
    "Warp every source to a whole volume; sums and sums of squares, or products with the reference"
    h, w = feats.shape[-2:]
    ref = feats[:, 0, :, None].expand(-1, -1, hypotheses.shape[1], -1, -1)
    total, squares = (ref, ref**2) if reduce == "variance" else (0, None)
    for s in range(1, feats.shape[1]):
        warped = sample_pixels(feats[:, s], *sweep_pixels(maps[:, s-1], hypotheses[..., None, None], h, w))
        total = total + warped
        if reduce == "variance": squares = squares + warped**2
    V = feats.shape[1]
    if reduce == "variance": return squares/V - (total/V)**2
    return (ref*total).unflatten(1, (groups, -1)).mean(2)/(V-1)


def seconds(function, feats, backward):
    "CPU seconds of one call"
    feats = feats.detach().requires_grad_(backward)
    start = time.process_time()
    out = function(feats)
    if backward: out.backward(torch.ones_like(out))
    return time.process_time() - start


def kept_bytes(function, feats):
    "Bytes that autograd saves for backward, each storage once"
    storages = {}
    def pack(t):
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = function(feats.detach().requires_grad_())
    return sum(storages.values()) if out is not None else 0


def main(short=False):
    "Measure, print a table and return its rows"
    feats, maps, hypotheses = problem(planes=8 if short else 48)
    rows = []
    print(f"{feats.shape[1]} views, {'x'.join(map(str, feats.shape[2:]))}, {hypotheses.shape[1]} planes, {torch.get_num_threads()} threads")
    print(f"{'volume':<12}{'against':<11}{'forward':>9}{'with backward':>15}{'kept MiB':>18}")
    for reduce, groups in (("variance", 1), ("dot", 1), ("group", 8)):
        forms = {"plain": lambda f: plain(f, maps, hypotheses, reduce, groups),
                 "reference": lambda f: sweep(f, maps, hypotheses, reduce, groups, implementation="reference"),
                 "fused": lambda f: sweep(f, maps, hypotheses, reduce, groups, implementation="fused")}
        times = {}
        for backward in (False, True):
            for function in forms.values(): seconds(function, feats, backward) # warm-up
            for _ in range(3 if short else 5):
                for name, function in forms.items(): times.setdefault((name, backward), []).append(seconds(function, feats, backward))
        kept = {name: kept_bytes(function, feats)/2**20 for name, function in forms.items()}
        for name in ("plain", "reference"):
            ratio = [statistics.median(a/b for a, b in zip(times[name, k], times["fused", k])) for k in (False, True)]
            rows.append(dict(reduce=reduce, against=name, forward=ratio[0], forward_backward=ratio[1], kept_mib=kept[name], fused_kept_mib=kept["fused"]))
            print(f"{reduce:<12}{name:<11}{ratio[0]:>8.1f}x{ratio[1]:>14.1f}x{kept[name]:>9.1f} -> {kept['fused']:.1f}", flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="8 planes and three repetitions")
    main(parser.parse_args().short)
