"""The fused plane sweep and unprojection against plain forms, as ratios measured in the same run.

    python benchmarks/plane_sweep.py            # ten minutes on two quiet cores; writes data/measured/performance_sweep.json
    python benchmarks/plane_sweep.py --short    # small inputs, correctness only, half a minute
    python benchmarks/plane_sweep.py --device cuda    # writes data/measured/performance_sweep_cuda.json; milliseconds are added

`plain` is written the way published networks are: one warped volume per source by `grid_sample`, sums and sums of squares, autograd; DeepVideoMVS goes plane by
plane. Each row is the median over repeats of plain time divided by fused time, both measured alternately. `kept` is what autograd holds between forward and
backward, in MiB. `peak` is the memory of forward and backward above the inputs, in output volumes, measured in a process of its own."""
import argparse, json, statistics, sys, time
from pathlib import Path
import torch
import torch.nn.functional as F
from mvs_nb.camera import intrinsics_from_fov, look_at
from mvs_nb.hypotheses import inverse_hypotheses
from mvs_nb.kernels.plane_sweep import sweep
from mvs_nb.volumetric.unprojection import Grid, unproject_features
from mvs_nb.warping import sample_pixels, sweep_map, sweep_pixels
sys.path.insert(0, str(Path(__file__).parent)) # `mvs_nb bench` runs this file from elsewhere
from _measuring import apart, highest, write_report

# name, arguments of `problem` and `sweep`, (target, stretch) for forward and for forward + backward
SWEEPS = [
    *((f"variance, V={V}, D={D}", dict(views=V, planes=D), dict(reduce="variance"), (8, 20), (7, 25)) for V in (3, 5) for D in (96, 192)),
    ("variance per pixel, 16x256x320, D=32", dict(channels=16, height=256, width=320, planes=32, per_pixel=True), dict(reduce="variance"), (8, 16), (7, 19)),
    *((f"correlation, {S} source{'s'*(S > 1)}, D=64", dict(views=S+1, planes=64), dict(reduce="dot"), (10, 20), (10, 20)) for S in (1, 2, 4)),
    ("8 groups, V=3, D=96", dict(planes=96), dict(reduce="group", groups=8), (10, 30), (8, 25)),
]
LIFTS = [("unprojection, 4 views x 2, 32 channels, 32^3", dict(size=32), (1.5, 2), (1.3, 1.8))]
DEVICE = "cpu" # set by --device
SMALL = dict(channels=8, height=13, width=18, planes=5)


def problem(channels=32, height=128, width=160, views=3, planes=48, per_pixel=False):
    "Random features, the maps of a small rig and hypotheses"
    generator = torch.Generator().manual_seed(0)
    eyes = torch.tensor([[0., 0., 0.], [.3, 0., 0.], [-.3, .1, 0.], [.1, -.3, 0.], [-.1, .2, .1]])[:views]
    E = look_at(eyes, torch.tensor([0., 0., 3.]).expand(views, 3), up=(0., -1., 0.))[None]
    K = intrinsics_from_fov(60., height, width).expand(1, views, 3, 3)
    feats, d = torch.randn(1, views, channels, height, width, generator=generator), inverse_hypotheses(2., 6., planes)
    if per_pixel: d = d[..., None, None]*(1 + .05*torch.rand(1, planes, height, width, generator=generator))
    return [o.to(DEVICE) for o in (feats, sweep_map(K[:, :1], E[:, :1], K[:, 1:], E[:, 1:]), d)]


def plain(feats, maps, hypotheses, reduce, groups=1):
    "Warp every source to a whole volume; sums and sums of squares, or products with the reference"
    h, w = feats.shape[-2:]
    depth = hypotheses[..., None, None] if hypotheses.dim() == 2 else hypotheses
    ref = feats[:, 0, :, None].expand(-1, -1, depth.shape[1], -1, -1)
    total, squares = (ref, ref**2) if reduce == "variance" else (0, None)
    for s in range(1, feats.shape[1]):
        warped = sample_pixels(feats[:, s], *sweep_pixels(maps[:, s-1], depth, h, w))
        total = total + warped
        if reduce == "variance": squares = squares + warped**2
    V = feats.shape[1]
    if reduce == "variance": return squares/V - (total/V)**2
    return (ref*total).unflatten(1, (groups, -1)).mean(2)/(V-1)


def plain_correlation(feats, maps, hypotheses, reduce, groups=1):
    "DeepVideoMVS: plane by plane, source by source"
    h, w = feats.shape[-2:]
    costs = []
    for d in hypotheses.unbind(1):
        warped = (sample_pixels(feats[:, s], *sweep_pixels(maps[:, s-1], d[:, None, None, None], h, w))[:, :, 0] for s in range(1, feats.shape[1]))
        costs.append(sum((feats[:, 0]*o).mean(1) for o in warped)/(feats.shape[1]-1))
    return torch.stack(costs, 1)[:, None]


def sweep_forms(maps, d, options):
    "The forms of a sweep, functions of the features alone"
    published = plain_correlation if options["reduce"] == "dot" else plain
    return {name: lambda f, use=use: sweep(f, maps.to(f.dtype), d.to(f.dtype), implementation=use, **options) for name, use in (("fused", None), ("reference", "reference"))} | {"plain": lambda f: published(f, maps, d, **options)}


def lift_problem(size=32, channels=32, height=28, width=28):
    "Feature maps of 4 views around a box of size^3 voxels, twice, and the forms of unprojection"
    generator = torch.Generator().manual_seed(0)
    angle = torch.tensor([0., .7, 2.1, 4.])
    E = look_at(torch.stack([2*angle.cos(), .7+0*angle, 2*angle.sin()], -1), torch.zeros(4, 3), up=(0., 1., 0.)).expand(2, 4, 4, 4)
    K = intrinsics_from_fov(40., height, width).expand(2, 4, 3, 3)
    feats, grid, centers, K, E = torch.randn(2, 4, channels, height, width, generator=generator).to(DEVICE), Grid(size), Grid(size).centers(DEVICE).flatten(0, 2), K.to(DEVICE), E.to(DEVICE)
    def published(f):
        points = centers@E[..., :3, :3].mT + E[..., None, :3, 3] # b v n 3
        z = points[..., 2:]
        pixels = (points@K.mT)[..., :2]/z
        where = pixels*pixels.new_tensor([2/(width-1), 2/(height-1)]) - 1
        out = F.grid_sample(f.flatten(0, 1), where.flatten(0, 1)[:, :, None], align_corners=True)[..., 0].unflatten(0, (2, 4)) # b v c n
        return torch.cat([out, z.mT], 2).unflatten(-1, grid.shape)
    return feats, {name: lambda f, name=name: unproject_features(f, K, E, (height, width), grid, implementation=name) for name in ("fused", "reference")} | {"plain": published}


def seconds(function, feats, backward):
    "Wall time of one call"
    feats = feats.detach().requires_grad_(backward)
    wait = torch.cuda.synchronize if DEVICE == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    out = function(feats)
    if backward: out.backward(torch.ones_like(out))
    wait()
    return time.perf_counter() - start


def ratio(forms, feats, backward, repeats):
    "Median of plain time over fused time, measured alternately after a warm-up"
    for function in forms.values(): seconds(function, feats, backward)
    pairs = [[seconds(forms[name], feats, backward) for name in ("plain", "fused")] for _ in range(repeats)]
    return statistics.median(a/b for a, b in pairs), statistics.median(b for _, b in pairs)


def kept_bytes(function, feats):
    "Bytes that autograd saves for backward, each storage once"
    storages = {}
    def pack(t):
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = function(feats.detach().requires_grad_())
    return sum(storages.values()) if out is not None else 0


def peak(name, arguments, options, threads):
    "In a fresh process: the most memory that forward and backward need above the inputs, in output volumes; None where the system does not tell"
    if sys.platform != "linux" and DEVICE == "cpu": return None
    torch.set_num_threads(threads)
    feats, *rest = problem(**arguments)
    small, *less = problem(**arguments | dict(height=16, width=20))
    for backward in (False, True): seconds(sweep_forms(*less, options)[name], small, backward) # compile first
    sizes = []
    def run():
        out = sweep_forms(*rest, options)[name](feats.requires_grad_())
        sizes.append(out.numel()*4)
        out.backward(torch.ones_like(out))
    return highest(run, device=DEVICE)/sizes[0]


def peak_apart(*arguments): return apart(__file__, arguments, "--device", DEVICE)


def check():
    "Both forms of everything against float64 on small inputs: values 1e-4, gradients 1e-3 relative"
    rows = []
    sweeps = [(name, *problem(**given | SMALL), options) for name, given, options, *_ in SWEEPS]
    for name, feats, forms in [(name, feats, sweep_forms(*rest, options)) for name, feats, *rest, options in sweeps] + [(name, *lift_problem(8)) for name, *_ in LIFTS]:
        results = {}
        for form in ("reference", "plain", "fused"):
            leaf = (feats.double() if form == "reference" else feats).clone().requires_grad_()
            out = forms[form](leaf)
            results[form] = out.detach(), torch.autograd.grad((out*torch.linspace(-1, 1, out.numel(), device=DEVICE).view(out.shape)).sum(), leaf)[0]
        for form in ("plain", "fused"):
            errors = [((a.double()-b).abs().max()/b.abs().max()).item() for a, b in zip(results[form], results["reference"])]
            if not (errors[0] <= 1e-4 and errors[1] <= 1e-3): raise SystemExit(f"{name}: {form} is off by {errors[0]:.1e} in values and {errors[1]:.1e} in gradients")
        rows.append(dict(name=name, what="values and gradients agree", value=None, unit="", target=None, stretch=None, better="higher"))
    return rows


def table(short=False, repeats=5, show=False):
    "Rows (name, what, value, unit, target, stretch, better); `short`: small inputs, correctness only"
    rows = check()
    if short: return rows
    rows, threads = [], torch.get_num_threads()
    def add(name, what, value, unit, target, stretch, better="higher"):
        rows.append(dict(name=name, what=what, value=None if value is None else float(f"{value:.3g}"), unit=unit, target=target, stretch=stretch, better=better))
        if show: print(*(rows[-1][k] for k in ("name", "what", "value", "unit")), flush=True)
    def compare(name, feats, forms, repeats, forward, both):
        for backward, what, targets in ((False, "forward", forward), (True, "forward + backward", both)):
            value, fused = ratio(forms, feats, backward, repeats)
            add(name, what, value, "x", *targets)
            if DEVICE == "cuda": add(name, f"{what}, fused", 1e3*fused, "ms", None, None, "lower")
    for name, given, options, forward, both in SWEEPS:
        feats, *rest = problem(**given)
        forms = sweep_forms(*rest, options)
        compare(name, feats, forms, repeats, forward, both)
        bound = (feats.numel() + sum(o.numel() for o in rest))*4/2**20
        add(name, "kept, plain form", kept_bytes(forms["plain"], feats)/2**20, "MiB", None, None, "lower")
        add(name, "kept", kept_bytes(forms["fused"], feats)/2**20, "MiB", float(f"{bound*1.001:.3g}"), None, "lower")
        if name in ("variance, V=3, D=96", "variance, V=3, D=192"):
            add(name, "peak, plain form", peak_apart("plain", given, options, threads), "volumes", None, None, "lower")
            add(name, "peak", peak_apart("fused", given, options, threads), "volumes", 2.1, 1.1, "lower")
    for name, given, forward, both in LIFTS:
        feats, forms = lift_problem(**given)
        compare(name, feats, forms, 3*repeats, forward, both)
    return rows


def main(short=False, repeats=5):
    "Measure, print and, unless short, write data/measured/performance_sweep.json"
    rows = table(short, repeats, show=not short)
    if short:
        print(f"{len(rows)} workloads agree with float64 in values and gradients")
        return rows
    write_report(f"performance_sweep{'_cuda'*(DEVICE == 'cuda')}", rows, **dict(machine=torch.cuda.get_device_name()) if DEVICE == "cuda" else {})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="small inputs, correctness only")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    DEVICE = arguments.device
    if arguments.peak: print(json.dumps(peak(*arguments.peak)))
    else: main(arguments.short, arguments.repeats)
