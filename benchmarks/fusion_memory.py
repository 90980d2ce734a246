"""Peak memory of fusing 49 depth maps of 640x512, measured in a process of its own.

    python benchmarks/fusion_memory.py [--views 49] [--height 512] [--width 640] [--limit 2.0]

Every pixel of every view is confirmed, which is the worst case. Exit status 1 when the peak exceeds the limit (GiB)."""
import argparse, json, subprocess, sys, tempfile, time
from pathlib import Path


def arc_of_plane(views, height, width):
    "Depth maps of the plane z = 0, seen by cameras on an arc that looks at the origin"
    import torch
    from mvs_nb.camera import intrinsics_from_fov, look_at, pixel_grid
    K = intrinsics_from_fov(50., height, width).expand(views, 3, 3)
    angle = torch.linspace(-.4, .4, views)
    E = look_at(torch.stack([2*angle.sin(), .1*angle, 2*angle.cos()], -1), torch.zeros(3), up=(0., 1., 0.))
    pixels = pixel_grid(height, width)
    rays = torch.cat([pixels, torch.ones(height, width, 1)], -1)@torch.linalg.inv(K[0]).T
    depth = [-torch.linalg.inv(e)[2, 3]/(rays@e[:3, :3])[..., 2] for e in E]
    return torch.stack(depth), K, E


def worker(views, height, width, folder):
    import resource, torch
    from mvs_nb.files import write_ply
    from mvs_nb.reconstruction.fusion import fuse
    torch.set_num_threads(1)
    depth, K, E = arc_of_plane(views, height, width)
    images = torch.rand(views, 3, height, width)
    pairs = {i: sorted((j for j in range(views) if j != i), key=lambda j: abs(i-j))[:10] for i in range(views)}
    start = time.perf_counter()
    cloud = fuse(depth, torch.ones_like(depth), images, K, E, pairs)
    seconds = time.perf_counter()-start
    write_ply(Path(folder)/"cloud.ply", cloud)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20 # KiB on Linux
    print(json.dumps(dict(points=len(cloud), seconds=round(seconds, 1), peak_gib=round(peak, 2))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in dict(views=49, height=512, width=640).items(): parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--limit", type=float, default=2., help="GiB")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.worker: return worker(a.views, a.height, a.width, a.worker)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--worker", folder, *(x for n in ("views", "height", "width") for x in (f"--{n}", str(getattr(a, n))))]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(f"{a.views} views of {a.width}x{a.height}: {result['points']} points in {result['seconds']} s, peak {result['peak_gib']} GiB (limit {a.limit})")
    sys.exit(result["peak_gib"] > a.limit)


if __name__ == "__main__": main()
