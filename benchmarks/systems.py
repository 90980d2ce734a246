"""All five systems: a prediction and a training step of each network as it runs by default, against the readable form with torch's own layers.

    python benchmarks/systems.py            # ten minutes on two quiet cores; writes data/measured/performance_systems.json
    python benchmarks/systems.py --short    # small inputs, correctness only, ten seconds

`plain` is the same network with `implementation="reference"`, `memory="plain"` and the 3D layers of torch: whole warped volumes, `grid_sample`, layer after
layer. Random weights and images, float32. A step is forward, a loss, backward and Adam. Times are medians over alternating repeats; peaks are the memory
above weights and inputs, each in a process of its own. Targets are those set for published code where there are any."""
import functools, statistics, sys, time
from pathlib import Path
import torch
from torch import nn
from mvs_nb import features
from mvs_nb.camera import intrinsics_from_fov, look_at
from mvs_nb.hypotheses import uniform_hypotheses
from mvs_nb.kernels.inference import merge_norms, set_memory
from mvs_nb.models.cascade import CascadeMVSNet
from mvs_nb.models.deep_video import FusionNet
from mvs_nb.models.lsm import DepthLSM, VoxelLSM
from mvs_nb.models.mvsnet import MVSNet
from mvs_nb.models.pairnet import PairNet
from mvs_nb.models.pyramid import CVPMVSNet
sys.path.insert(0, str(Path(__file__).parent)) # `mvs_nb bench` runs this file from elsewhere
from _measuring import agree, apart, command_line, highest, write_report

SYSTEMS = { # network, height, width, views, planes, targets of the prediction (time, memory) and of the step (time), each (target, stretch)
    "MVSNet": (MVSNet, 512, 640, 3, 192, (2.5, 3.5), (3, 5), None),
    "CasMVSNet": (CascadeMVSNet, 512, 640, 3, 192, (2.5, 4), (2, 3), None),
    "CVP-MVSNet": (functools.partial(CVPMVSNet, levels=2), 128, 160, 3, 48, (3, 4), None, None),
    "V-LSM": (VoxelLSM, 224, 224, 4, None, None, None, None),
    "D-LSM": (DepthLSM, 224, 224, 4, None, None, None, None),
    "DeepVideoMVS Pair": (functools.partial(PairNet, momentum=.1), 256, 320, 3, None, (1.5, 2), None, None),
    "DeepVideoMVS Fusion": (functools.partial(FusionNet, momentum=.1), 256, 320, 3, None, (1.5, 2), None, None)}
SMALL = {"CVP-MVSNet": (64, 64), "V-LSM": (64, 64), "D-LSM": (64, 64)} # height and width of the short form, where not 64 x 96


def problem(name, small=False):
    "Inputs of a network: random images, a small rig, depths"
    _, H, W, V, D, *_ = SYSTEMS[name]
    if small: (H, W), D = SMALL.get(name, (64, 96)), D and 48
    generator = torch.Generator().manual_seed(0)
    eyes = torch.tensor([[0., 0., 0.], [.3, 0., 0.], [-.3, .1, 0.], [.1, -.3, 0.]])[:V] - torch.tensor([0., 0., 2.])
    E = look_at(eyes, torch.zeros(V, 3), up=(0., -1., 0.))[None]
    return [torch.rand(1, V, 3, H, W, generator=generator), intrinsics_from_fov(60., H, W).expand(1, V, 3, 3), E] + ([uniform_hypotheses(1., 4., D)] if D else [])


def networks(name, work="step"):
    "The plain network and ours, with the same weights and running statistics; for predictions those of films as `VideoStream` runs them"
    torch.manual_seed(0)
    make, nets = SYSTEMS[name][0], {}
    ours = make()
    for o in ours.modules():
        if isinstance(o, nn.modules.batchnorm._BatchNorm) and o.running_var is not None: o.running_var.fill_(.3)
    plain = set_memory(make(implementation="reference"), "plain")
    plain.load_state_dict(ours.state_dict())
    for o in plain.modules():
        if type(o) in (features.Conv3d, features.ConvTranspose3d): o.__class__ = getattr(nn, type(o).__name__)
    return dict(plain=plain, ours=merge_norms(ours.eval()) if work == "prediction" and isinstance(ours, PairNet) else ours)


def maps_of(out):
    "What a network returns, as tensors"
    if isinstance(out, torch.Tensor): return [out]
    stages = getattr(out, "stages", None)
    return [o.depth for o in stages] if stages else [out.depth]


def step(net, inputs, optimizer=None):
    "Forward, a loss on every answer, backward and, with an optimiser, its step; the loss"
    net.train()
    loss = sum((o - .5).square().mean() for o in maps_of(net(*inputs)))
    loss.backward()
    if optimizer: optimizer.step()
    if optimizer: net.zero_grad()
    return loss.item()


@torch.inference_mode()
def predict(net, inputs): return maps_of(net.eval()(*inputs))


def spent(function, *args):
    "Wall time of one call"
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def ratio(name, work, repeats):
    "Median of plain time over ours, measured alternately after a warm-up, and the medians of both"
    nets, inputs, pairs = networks(name, work), problem(name), []
    optimizers = {k: torch.optim.Adam(o.parameters(), 1e-4) for k, o in nets.items()} if work == "step" else {}
    for i in range(repeats + 1):
        pairs.append([spent(step, nets[k], inputs, optimizers[k]) if work == "step" else spent(predict, nets[k], inputs) for k in ("plain", "ours")])
    return statistics.median(a/b for a, b in pairs[1:]), *(statistics.median(o) for o in zip(*pairs[1:]))


def peak(name, work, form, threads):
    "In a fresh process: the most memory that a step or a prediction needs above weights and inputs, in bytes; None where the system does not tell"
    if sys.platform != "linux": return None
    torch.set_num_threads(threads)
    net, inputs, run = networks(name, work)[form], problem(name), step if work == "step" else predict
    run(net, problem(name, small=True)) # compile first
    return highest(run, net, inputs)


def check():
    "Both forms on small inputs: answers 1e-3 relative, gradients of a step 2e-2 (float32 noise of the deep networks; the notebooks compare in float64)"
    rows = []
    for name in SYSTEMS:
        nets, inputs = networks(name), problem(name, small=True)
        (want, got), gradients = (predict(o, inputs) for o in networks(name, "prediction").values()), {}
        rows.append(dict(name=f"{name}, small", what="prediction: relative difference", value=max(float((a - b).norm()/b.norm()) for a, b in zip(got, want)), unit="", target=1e-3, stretch=None, better="lower"))
        for k, net in nets.items():
            torch.manual_seed(0)
            step(net, inputs)
            gradients[k] = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        rows.append(dict(name=f"{name}, small", what="gradient: relative difference", value=float((gradients["ours"] - gradients["plain"]).norm()/gradients["plain"].norm()), unit="", target=2e-2, stretch=None, better="lower"))
    return rows


def table(short=False):
    "Rows (name, what, value, unit, target, stretch, better); `short`: small inputs, correctness only"
    if short: return check()
    rows = []
    for name, (_, H, W, V, D, fast, small, trained) in SYSTEMS.items():
        about = f"{name}, {W}x{H}, {V} views"
        for work, label, goal in (("prediction", "prediction", fast), ("step", "training step", trained)):
            value, plain, ours = ratio(name, work, 3 if H > 300 else 7)
            rows.append(dict(name=f"{about}: {label}", what="time, plain / ours", value=float(f"{value:.3g}"), unit="x", target=goal and goal[0], stretch=goal and goal[1], better="higher", seconds=ours, plain_seconds=plain))
            print(f"{rows[-1]['name']:<58}{'time':<8}{value:>6.1f}x   {plain:.3f} -> {ours:.3f} s", flush=True)
            against, mine = (apart(__file__, [name, work, k, torch.get_num_threads()]) for k in ("plain", "ours"))
            if against and against < 256*2**20: continue # too little to tell from what the allocator adds by chance
            goal = small if work == "prediction" else None
            value = mine and float(f"{against/mine:.3g}")
            rows.append(dict(name=f"{about}: {label}", what="peak memory, plain / ours", value=value, unit="x", target=goal and goal[0], stretch=goal and goal[1], better="higher", mib=mine and mine/2**20, plain_mib=against and against/2**20))
            if mine: print(f"{rows[-1]['name']:<58}{'memory':<8}{value:>6.1f}x   {against/2**20:.0f} -> {mine/2**20:.0f} MiB", flush=True)
    return rows


def main(short=False):
    "Measure, print and, unless short, write data/measured/performance_systems.json; the rows"
    rows = table(short)
    if short: return agree(rows, f"{len(SYSTEMS)} networks agree with their plain forms in answers and gradients")
    write_report("performance_systems", rows)
    return rows


if __name__ == "__main__": command_line(__doc__, main, peak)
