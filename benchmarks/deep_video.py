"""Measure the shipped DeepVideoMVS networks: on films of procedural rooms that no network saw, and on the two real recordings beside other methods.

    MVS_DATA=FOLDER python benchmarks/deep_video.py                       # a quarter of an hour on two cores
    python benchmarks/deep_video.py --parts films --pairnet runs/pairnet-procedural/best.pt

Writes data/measured/deep_video.json and a picture of the fused room, which the notebook deep_video shows. On real recordings all methods answer for the
same keyframes, matched with the same measurement frames, at the same size. Every part is measured in a process of its own."""
import argparse, json, math, multiprocessing, sys, tempfile, time
from pathlib import Path

NETWORKS, METHODS = ("pairnet", "fusionnet"), ("pairnet", "fusionnet", "casmvsnet", "sgm")
SIZE, N_MEASUREMENT, RANGE, MESH = (256, 320), 2, (.25, 20.), dict(voxel=.04, truncation=.16)
plain = lambda row: {k: round(float(v), 4) for k, v in row.items()}


def network(name, weights):
    "A network with shipped weights, or those of a file; `sgm` is the classical sweep"
    from mvs_nb.models.classical import ClassicalStereo
    from mvs_nb.training.checkpoints import load_weights
    from mvs_nb.training.experiments import get_experiment, load_trained
    if name == "sgm": return ClassicalStereo(semi_global=True)
    return load_trained(get_experiment(f"{name}-procedural", start=None), weights[name]).eval() if weights.get(name) else load_weights(name).eval()


def films(weights, threads, n_films, cache):
    "Means over held-out films of 8 frames for both networks, and for the fusion network when its memory is emptied before every frame"
    import torch
    from torch.utils.data import default_collate
    from mvs_nb.models.deep_video import FusionNet
    from mvs_nb.training.experiments import get_experiment, make_data
    from mvs_nb.training.video import VideoMeasure, film_mean
    torch.set_num_threads(threads)
    data, out = make_data(get_experiment("pairnet-procedural", start=None, **{"data.valid_scenes": n_films} | ({"data.cache": cache} if cache else {})), "test"), {}
    items = [default_collate([data[i]]) for i in range(len(data))]
    for name in (*NETWORKS, "forgetful"):
        model = network("fusionnet" if name == "forgetful" else name, weights)
        if name == "forgetful": model.predict = lambda *a, state=None, model=model, **more: FusionNet.predict(model, *a, **more)
        with torch.inference_mode(): out[name] = plain(film_mean([row for item in items for row in VideoMeasure()(model, item)]))
        print(name, out[name], flush=True)
    return out


def recording(sequence, folder):
    "A real recording in the test layout, converted where it is stored otherwise"
    from mvs_nb.data.captures import read_seven_scenes
    from mvs_nb.data.video import export_capture, read_recording
    from mvs_nb.files import real_data
    source = real_data()/sequence
    return read_recording(source if (source/"images").is_dir() else export_capture(read_seven_scenes(source, keep_lost=True), Path(folder)/sequence))


def frames_at(rec, which):
    "Images, truth (0 = unknown), intrinsics and extrinsics of some frames at the size of the networks"
    item = rec.item(which, *SIZE)
    return item["images"], item["depth"], item["intrinsics"], item["extrinsics"]


def answers(rec, lines, name, weights):
    "Depth of every keyframe by one method, frame by frame as a stream would: [N, H, W]; and the seconds it took"
    import torch
    from mvs_nb.hypotheses import inverse_hypotheses
    from mvs_nb.models.pairnet import PairNet
    from mvs_nb.models.deep_video import FusionNet
    from mvs_nb.video.keyframes import TRACKING_LOST
    model, state, out, seconds = network(name, weights), None, [], 0.
    for line in lines:
        if line == TRACKING_LOST: state = None; continue
        images, _, K, E = frames_at(rec, line)
        given = [o[None] for o in (images, K, E)]
        start = time.perf_counter()
        with torch.inference_mode():
            if isinstance(model, FusionNet): found = model(*given, state=state); state = found.state
            elif isinstance(model, PairNet): found = model(*given)
            else: found = model(*given, inverse_hypotheses(.5, 8., 96))
        seconds += time.perf_counter() - start
        depth = found.depth
        if depth.shape[-2:] != SIZE: depth = torch.nn.functional.interpolate(depth[None], SIZE, mode="nearest")[0]
        out.append(depth[0])
    return torch.stack(out), seconds


def real(sequence, name, weights, threads):
    "The eight errors and the flicker of one method on one recording"
    import torch
    from mvs_nb.metrics import mean_metrics, video_metrics
    from mvs_nb.training.video import flicker
    from mvs_nb.video.keyframes import TRACKING_LOST, simulate
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        rec = recording(sequence, folder)
        lines = simulate(rec.extrinsics, N_MEASUREMENT)
        depth, seconds = answers(rec, lines, name, weights)
        keys = [line[0] for line in lines if line != TRACKING_LOST]
        _, truth, K, E = frames_at(rec, keys)
    row = mean_metrics(video_metrics(depth, truth))
    shaking = [float(flicker(*(o[None, i:i+2] for o in (depth, truth, K, E)))) for i in range(len(keys) - 1)]
    shaking = [o for o in shaking if math.isfinite(o)]
    return plain(row | dict(keyframes=len(keys), flicker=sum(shaking)/len(shaking), seconds=seconds/len(keys)))


def endless(name, weights, threads, n_frames):
    "Play a recording to and fro, for many frames: memory of the process in MiB and milliseconds of a keyframe, over each tenth of the stream"
    import psutil, torch
    from mvs_nb.video.online import VideoStream
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        rec = recording("hololens", folder)
        images, _, K, E = frames_at(rec, range(len(rec)))
    stream, memory, speed, keyframes = VideoStream(network(name, weights), N_MEASUREMENT), [], [], 0
    total = 0.
    for i in range(n_frames):
        k = i % (2*len(rec) - 2)
        k = min(k, 2*len(rec) - 2 - k)
        start = time.perf_counter()
        seen = stream.push(images[k], K[k], E[k])
        took = time.perf_counter() - start
        total += took
        if seen.prediction is not None: speed.append(took); keyframes += 1
        if (i + 1) % (n_frames//10) == 0: memory.append((psutil.Process().memory_info().rss/2**20, 1000*sum(speed)/max(len(speed), 1))); speed = []
    return dict(frames=n_frames, keyframes=keyframes, frames_per_second=round(n_frames/total, 2), keyframes_per_second=round(keyframes/total, 2),
                memory=[round(m) for m, _ in memory], milliseconds=[round(s) for _, s in memory])


def surfaces(name, weights, threads):
    "The room of hololens, fused from one method's depths and from the sensor's at the same keyframes: a picture, and how far the two are apart"
    import torch
    from hololens_mesh import camera_behind, compare, picture
    from mvs_nb.files import data_folder
    from mvs_nb.reconstruction.mesh import trim_mesh
    from mvs_nb.reconstruction.tsdf import fuse_tsdf
    from mvs_nb.video.keyframes import TRACKING_LOST, simulate
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        rec = recording("hololens", folder)
        lines = [o for o in simulate(rec.extrinsics, N_MEASUREMENT) if o != TRACKING_LOST]
        depth, _ = answers(rec, lines, name, weights)
        images, truth, K, E = frames_at(rec, [o[0] for o in lines])
    near = lambda d: torch.where(d <= 5, d, 0.)
    sensor, mesh = (trim_mesh(fuse_tsdf(near(d), K, E, images=images, **o).mesh(), min_faces=100) for d, o in ((truth, dict(voxel=.02, truncation=.08)), (depth, MESH)))
    picture(data_folder()/"measured"/"deep_video_mesh.png", [("the sensor's surface", sensor, sensor.colors.numpy()/255), (f"{name}, every keyframe", mesh, mesh.colors.numpy()/255)], camera_behind(E, sensor), 2)
    return compare(mesh, sensor, truth, K, E)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="films,real,endless,mesh", help="comma-separated; parts that are not measured again are kept")
    for name in NETWORKS: parser.add_argument(f"--{name}", default=None, help="a run's best.pt or a .safetensors file; none: the shipped weights")
    parser.add_argument("--films", type=int, default=42, help="held-out films")
    parser.add_argument("--frames", type=int, default=2000, help="of the endless stream of the fusion network; the pair network gets a fifth")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--cache", default=None, help="folder of rendered films; none: the experiments' own")
    a = parser.parse_args()
    from mvs_nb.files import atomic_path, data_folder
    weights, parts = {n: getattr(a, n) for n in NETWORKS}, a.parts.split(",")
    jobs = []
    if "films" in parts: jobs += [(("films",), films, (weights, a.threads, a.films, a.cache))]
    if "real" in parts: jobs += [(("real", sequence, name), real, (sequence, name, weights, a.threads)) for sequence in ("hololens", "redkitchen") for name in METHODS]
    if "endless" in parts: jobs += [(("frames_per_second", name), endless, (name, weights, a.threads, n)) for name, n in (("fusionnet", a.frames), ("pairnet", a.frames//5))]
    if "mesh" in parts: jobs += [(("mesh", "fusionnet"), surfaces, ("fusionnet", weights, a.threads))]
    path = data_folder()/"measured"/"deep_video.json"
    settings = dict(height=SIZE[0], width=SIZE[1], n_measurement=N_MEASUREMENT, threads=a.threads, films=a.films)
    for keys, work, arguments in jobs:
        with multiprocessing.get_context("spawn").Pool(1) as pool: result = pool.apply(work, arguments)
        table = json.loads(path.read_text()) if path.is_file() else {}
        place = table
        for key in keys[:-1]: place = place.setdefault(key, {})
        place[keys[-1]] = result
        table["settings"] = settings
        with atomic_path(path) as temporary: temporary.write_text(json.dumps(table, indent=1)+"\n")
        print(*keys, result, flush=True)


if __name__ == "__main__": sys.exit(main())
