"""A whole training step and a whole prediction of MVSNet against the published form, as ratios measured in the same run.

    python benchmarks/training_step.py            # ten minutes on two quiet cores; writes data/measured/performance_step.json
    python benchmarks/training_step.py --short    # small images, correctness only, half a minute

Images of 640x512, three views. `plain` is written the way published networks are: a grid and a warped volume for each source by `grid_sample`, sums and sums of
squares, batch norm and ReLU as layers of their own, everything kept by autograd. Both have the same weights. A step is forward, loss, backward and Adam. Times
are medians over repeats of plain time divided by ours, measured alternately. Peaks are the memory above weights and images, each in a process of its own."""
import contextlib, statistics, sys, time
from pathlib import Path
import torch
import torch.nn.functional as F
from torch import nn
from mvs_nb.camera import intrinsics_from_fov, look_at, scale_intrinsics
from mvs_nb.hypotheses import uniform_hypotheses
from mvs_nb.models.mvsnet import MVSNet
sys.path.insert(0, str(Path(__file__).parent)) # `mvs_nb bench` runs this file from elsewhere
from _measuring import agree, apart, command_line, highest, write_report


def layer(kind, norm, inputs, outputs, kernel=3, stride=1, **options):
    "Convolution, batch norm, ReLU"
    return nn.Sequential(kind(inputs, outputs, kernel, stride, kernel//2, bias=False, **options), norm(outputs), nn.ReLU(inplace=True))


class PlainMVSNet(nn.Module):
    "MVSNet as its PyTorch releases write it; parameters and buffers in the order of `MVSNet`"
    def __init__(self):
        super().__init__()
        two, three = (lambda *o: layer(nn.Conv2d, nn.BatchNorm2d, *o)), (lambda *o, **k: layer(nn.Conv3d, nn.BatchNorm3d, *o, **k))
        up = lambda i, o: layer(nn.ConvTranspose3d, nn.BatchNorm3d, i, o, 3, 2, output_padding=1)
        self.feature = nn.Sequential(two(3, 8), two(8, 8), two(8, 16, 5, 2), two(16, 16), two(16, 16), two(16, 32, 5, 2), two(32, 32), nn.Conv2d(32, 32, 3, padding=1))
        self.down = nn.ModuleList([three(32, 8), three(8, 16, 3, 2), three(16, 16), three(16, 32, 3, 2), three(32, 32), three(32, 64, 3, 2), three(64, 64)])
        self.up, self.prob = nn.ModuleList([up(64, 32), up(32, 16), up(16, 8)]), nn.Conv3d(8, 1, 3, padding=1)

    def like(self, model):
        "Take over weights and running statistics"
        for mine, its in ((self.parameters(), model.parameters()), (self.buffers(), model.buffers())):
            for a, b in zip(mine, its, strict=True): a.data.copy_(b.data)
        return self.train(model.training)

    def volume(self, features, K, E, planes):
        "Variance over reference and warped sources, the sources one after the other"
        B, V, C, h, w = features.shape
        D = planes.shape[1]
        P = E.clone()
        P[:, :, :3] = scale_intrinsics(K, 1/4)@E[:, :, :3]
        y, x = torch.meshgrid(torch.arange(h, dtype=torch.float32), torch.arange(w, dtype=torch.float32), indexing="ij")
        rays = torch.stack([x, y, torch.ones_like(x)]).flatten(1) # 3 hw
        ref = features[:, 0, :, None].expand(-1, -1, D, -1, -1)
        total, squares = ref, ref**2
        for v in range(1, V):
            with torch.no_grad():
                M = P[:, v]@torch.linalg.inv(P[:, 0])
                q = (M[:, :3, :3]@rays)[:, :, None]*planes[:, None, :, None] + M[:, :3, 3, None, None] # b 3 d hw
                xy = q[:, :2]/q[:, 2:]
                grid = torch.stack([xy[:, 0]*2/(w-1) - 1, xy[:, 1]*2/(h-1) - 1], -1).view(B, D*h, w, 2)
            warped = F.grid_sample(features[:, v], grid, align_corners=True).view(B, C, D, h, w)
            total = total + warped
            squares = squares + warped**2
        return squares/V - (total/V)**2

    def forward(self, images, K, E, planes):
        "Depth [B, h, w]"
        features = torch.stack([self.feature(o) for o in images.unbind(1)], 1) if not self.training else self.feature(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        x, kept = self.volume(features, K, E, planes), []
        for i, block in enumerate(self.down):
            x = block(x)
            if i in (0, 2, 4): kept.append(x)
        for block in self.up: x = block(x) + kept.pop()
        p = self.prob(x).squeeze(1).float().softmax(1)
        return (p*planes[..., None, None]).sum(1)


def problem(height=512, width=640, planes=192, views=3):
    "Random images, a small rig, plane depths"
    generator = torch.Generator().manual_seed(0)
    eyes = torch.cat([torch.tensor([[0., 0., 0.], [.3, 0., 0.], [-.3, .1, 0.]]), .3*torch.randn(9, 3, generator=torch.Generator().manual_seed(1))])[:views]
    E = look_at(eyes, torch.tensor([0., 0., 3.]).expand(views, 3), up=(0., -1., 0.))[None]
    K = intrinsics_from_fov(60., height, width).expand(1, views, 3, 3)
    return torch.rand(1, views, 3, height, width, generator=generator), K, E, uniform_hypotheses(2., 6., planes)


def networks():
    "The plain network and ours, with the same weights and running statistics"
    torch.manual_seed(0)
    ours = MVSNet()
    for o in ours.modules():
        if isinstance(o, nn.modules.batchnorm._BatchNorm): o.running_var.fill_(.3)
    return dict(plain=PlainMVSNet().like(ours), ours=ours)


def depth_of(net, inputs):
    "Depth of either network"
    out = net(*inputs)
    return out if isinstance(out, torch.Tensor) else out.depth


def half(wanted): return torch.autocast("cpu", torch.bfloat16) if wanted else contextlib.nullcontext()


def step(net, inputs, bf16=False, optimizer=None):
    "Forward, loss, backward and, with an optimiser, its step; the loss"
    net.train()
    with half(bf16): depth = depth_of(net, inputs)
    loss = F.smooth_l1_loss(depth, torch.full_like(depth, 4.))
    loss.backward()
    if optimizer: optimizer.step()
    net.zero_grad()
    return loss.item()


@torch.inference_mode()
def predict(net, inputs, bf16=False):
    "Depth in evaluation mode"
    net.eval()
    with half(bf16): return depth_of(net, inputs)


def seconds(work, net, inputs, bf16, optimizer):
    "Wall time of one step or prediction"
    start = time.perf_counter()
    step(net, inputs, bf16, optimizer) if work == "step" else predict(net, inputs, bf16)
    return time.perf_counter() - start


def ratios(work, planes, repeats, kinds=(("ours", False), ("ours", True))):
    "Plain float32 time over ours in float32 and bfloat16, and the seconds of each (medians)"
    nets, inputs = networks(), problem(planes=planes)
    optimizers = {k: torch.optim.Adam(o.parameters(), 1e-4) for k, o in nets.items()}
    rows = [("plain", False), *kinds]
    times = {row: [] for row in rows}
    for i in range(repeats + 1): # the first round warms up
        for name, bf16 in rows: times[name, bf16].append(seconds(work, nets[name], inputs, bf16, optimizers[name]))
    times = {k: v[1:] for k, v in times.items()}
    return {kind: statistics.median(a/b for a, b in zip(times["plain", False], times[kind])) for kind in kinds}, {k: statistics.median(v) for k, v in times.items()}


def peak(work, name, bf16, planes, threads, views=3):
    "In a fresh process: the most memory that a step or a prediction needs above weights and images, in bytes; None where the system does not tell"
    if sys.platform != "linux": return None
    torch.set_num_threads(threads)
    net, inputs, small = networks()[name], problem(planes=planes, views=views), problem(64, 96, 16)
    run = step if work == "step" else predict
    run(net, small, bf16) # compile first
    return highest(run, net, inputs, bf16)


def peak_apart(*arguments): return apart(__file__, arguments)


def check():
    "Both networks on small images: depth 1e-4, gradients 1e-3 relative"
    nets, inputs = networks(), problem(64, 96, 16)
    rows = [dict(name="prediction, small", what="relative difference", value=float(((predict(nets["ours"], inputs) - (want := predict(nets["plain"], inputs))).abs()/want).max()), unit="", target=1e-4, stretch=None, better="lower")]
    nets["ours"].memory = nets["ours"].cost_regularization.memory = "lean" # whatever the size
    found = {}
    for name, net in nets.items():
        net.train()
        F.smooth_l1_loss(depth_of(net, inputs), torch.full((1, 16, 24), 4.)).backward()
        found[name] = torch.cat([p.grad.flatten() for n, p in net.named_parameters() if not n.endswith("prob.bias")]) # whose gradient is noise around zero
    worst = float((found["ours"] - found["plain"]).norm()/found["plain"].norm())
    return rows + [dict(name="gradient of a step, small", what="relative difference", value=worst, unit="", target=1e-3, stretch=None, better="lower")]


def table(short=False):
    "Rows (name, what, value, unit, target, stretch, better); `short`: small images, correctness only"
    if short: return check()
    rows, MiB = [], 2**20
    def add(name, what, value, target=None, stretch=None, **more): rows.append(dict(name=name, what=what, value=None if value is None else float(f"{value:.3g}"), unit="x", target=target, stretch=stretch, better="higher", **more))
    for work, label, planes, goals in (("step", "training step", 48, ((2.5, 4), (5, 8))), ("prediction", "prediction", 192, ((2.5, 3.5), (2.5, 4.5)))):
        found, times = ratios(work, planes, 9 if planes < 100 else 3)
        for (kind, value), goal in zip(found.items(), goals):
            add(f"MVSNet {label}, 640x512, D={planes}, {'bfloat16' if kind[1] else 'float32'}", "time, plain float32 / ours", value, *goal, seconds=times[kind], plain_seconds=times["plain", False])
    for work, label, goals in (("step", "training step", ((5, 7), (7, 10))), ("prediction", "prediction", ((3, 5), (3, 10)))):
        against = peak_apart(work, "plain", False, 192, torch.get_num_threads())
        for bf16, goal in zip((False, True), goals):
            mine = peak_apart(work, "ours", bf16, 192, torch.get_num_threads())
            add(f"MVSNet {label}, 640x512, D=192, {'bfloat16' if bf16 else 'float32'}", "peak memory, plain float32 / ours", None if mine is None else against/mine, *goal,
                mib=None if mine is None else mine/MiB, plain_mib=None if against is None else against/MiB)
    few, many = (min(peak_apart("prediction", "ours", False, 192, torch.get_num_threads(), views) or 0 for _ in range(3)) for views in (2, 9)) # the rest is the allocator's
    add("MVSNet prediction, 640x512, D=192, float32", "peak memory, 9 views / 2 views", few and many/few, 1.1, mib=many and many/MiB, plain_mib=few and few/MiB)
    rows[-1]["better"] = "lower"
    return rows


def main(short=False):
    "Measure, print and, unless short, write data/measured/performance_step.json"
    rows = table(short)
    if short: return agree(rows, "prediction and gradients agree with the plain form")
    for r in rows:
        print(f"{r['name']:58}{r['what']:36}" + ("        -" if r["value"] is None else f"{r['value']:>8.1f}x") + (f"   {r['plain_mib']:.0f} -> {r['mib']:.0f} MiB" if r.get("mib") else f"   {r['plain_seconds']:.2f} -> {r['seconds']:.2f} s" if "seconds" in r else ""), flush=True)
    write_report("performance_step", rows)
    return rows


if __name__ == "__main__": command_line(__doc__, main, peak)
