"""Measure depth methods on the two real sequences, and fuse each room.

    python benchmarks/real_frames.py                          # all methods, both sequences: minutes to an hour, depending on the machine
    python benchmarks/real_frames.py --methods mvsnet         # after new weights: measures these again, keeps the other rows
    python benchmarks/real_frames.py --methods "" --cloud mvsnet

Writes data/measured/mvsnet_real_frames.json and one picture of each fused room; the notebook real_frames shows them.
Needs the sequences: environment variable MVS_DATA names their folder."""
import argparse, json, sys

KEYS = ("abs", "median_abs", "abs_rel", "delta_1", "within_0.05", "images")
NAMES = {"zncc": "ZNCC, winner takes all", "sgm": "ZNCC + semi-global", "mvsnet": "MVSNet, shipped weights"}


def method(name):
    from mvs_nb.models.classical import ClassicalStereo
    from mvs_nb.training.checkpoints import load_weights
    return load_weights(name) if name not in ("zncc", "sgm") else ClassicalStereo(semi_global=name == "sgm")


def fused_room(model, samples, n_depths, nearest=8):
    "Cloud of the reference views of all samples, and their extrinsics"
    import torch
    from mvs_nb.hypotheses import inverse_hypotheses
    from mvs_nb.reconstruction.fusion import fuse
    from mvs_nb.training.real_frames import nearest_baseline
    K, E, images, depths, sure = [], [], [], [], []
    for v in samples:
        b = v.batch()
        with torch.no_grad(): p = model(b["images"], b["intrinsics"], b["extrinsics"], inverse_hypotheses(*v.depth_range, n_depths))
        for out, o in zip((K, E, images, depths, sure), (v.intrinsics[0], v.extrinsics[0], v.images[0], p.depth[0], p.confidence[0])): out.append(o)
    E = torch.stack(E)
    pairs = {i: nearest_baseline(E, i, min(nearest, len(samples)-1)) for i in range(len(samples))}
    return fuse(depths, sure, images, torch.stack(K), E, pairs, min_confidence=.3, max_depth_error=.02), E


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="zncc,sgm,mvsnet", help="comma-separated; measured again even if the table has them")
    parser.add_argument("--cloud", default=None, help="method whose depth maps are fused (default: the last of --methods; none: no clouds)")
    parser.add_argument("--packs", default="redkitchen,hololens")
    parser.add_argument("--n-depths", type=int, default=96)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice")
    a = parser.parse_args()
    import torch
    from mvs_nb.camera import intrinsics_from_fov
    from mvs_nb.files import atomic_path, data_folder
    from mvs_nb.show import CameraLayer, PointLayer, show_scene
    from mvs_nb.training.real_frames import evaluate_on_real_frames, real_frame_samples
    if a.threads: torch.set_num_threads(a.threads)
    folder = data_folder()/"measured"
    path = folder/"mvsnet_real_frames.json"
    names = [n for n in a.methods.split(",") if n]
    cloud = a.cloud or (names[-1] if names else "none")
    for pack in a.packs.split(","):
        samples = real_frame_samples(pack)
        for name in names:
            m = evaluate_on_real_frames(method(name), samples, n_depths=a.n_depths)
            table = json.loads(path.read_text()) if path.is_file() else {}
            table.setdefault(pack, {})[name] = {k: round(m[k], 4) for k in KEYS}
            with atomic_path(path) as temporary: temporary.write_text(json.dumps(table, indent=1)+"\n")
            print(pack, name, table[pack][name], f"{m['seconds']:.1f} s a frame", flush=True)
        if cloud == "none": continue
        room, E = fused_room(method(cloud), real_frame_samples(pack, n_reference=36, height=384, width=512), a.n_depths)
        cameras = CameraLayer(intrinsics_from_fov(60., 96, 128).expand(len(E), 3, 3)[::6], E[::6], size=(96, 128), depth=.15)
        picture = show_scene(PointLayer(room, size=.015), cameras, title=f"{pack}: {len(room)} points confirmed by three views ({NAMES.get(cloud, cloud)})", view=(0, 20), zoom=1.2)
        with atomic_path(folder/f"real_frames_{pack}.png") as temporary: temporary.write_bytes(picture.png())   # few colours: small enough for a repository


if __name__ == "__main__": sys.exit(main())
