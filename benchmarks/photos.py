"""Reconstruct photos end to end, with estimated and with given poses, and judge the results.

    python benchmarks/photos.py                    # the fox photos where they are present, and a made set with hidden truth: ten minutes on two cores
    python benchmarks/photos.py --sets made
    python benchmarks/photos.py --adapt 3          # also three minutes of fine-tuning on each set

Writes data/measured/photos.json; the notebook your_photos shows it. Needs pycolmap; the fox photos lie in the folder that MVS_DATA names."""
import argparse, json, shutil, tempfile
from pathlib import Path


def columns(folder):
    "What is kept of a report"
    from mvs_nb.reconstruction.photos import quality_report
    r = quality_report(folder)
    pick = lambda a: None if a is None else {k: round(v, 5) for k, v in a.items()}
    return dict(placed=r["placed"], photos=r["photos"], points=r["points"], size=r["size"], sparse=pick(r["sparse"]), confirmed=pick(r["sparse_confirmed"]), consistent=round(r["consistent"], 4),
                complete=round(r["complete"], 4), seconds={k: round(v, 1) for k, v in r["seconds"].items()}, total=round(sum(r["seconds"].values()), 1), peak_gb=r["peak_gb"],
                page_mb=round((folder/"page.html").stat().st_size/1e6, 1), adaptation=r["adaptation"])


def fox(work, options):
    "Sixteen real photos; the judges of both runs are the sparse points that came with the given poses"
    import torch
    from mvs_nb.camera import transform_points
    from mvs_nb.data.captures import read_transforms
    from mvs_nb.files import real_data
    from mvs_nb.reconstruction.fusion import open_depths
    from mvs_nb.reconstruction.photos import World, read_world, reconstruct, sparse_agreement
    from mvs_nb.reconstruction.sfm import align_cameras, pose_errors, read_model
    source = real_data()/"fox"
    given, out = read_transforms(source), {}
    names = [Path(f.name).name for f in given.frames]
    for kind, folder in dict(given=source, estimated=source/"images").items():
        target = work/f"fox-{kind}"
        reconstruct(folder, target, **options)
        row = columns(target)
        to_run = torch.eye(4, dtype=torch.float64)                            # from the given world to this run's
        if kind == "estimated":
            model = read_model(target/"poses")
            E = torch.stack([given.frames[names.index(n)].extrinsics for n in model.names])
            turn, move = pose_errors(model.extrinsics, E)
            row |= dict(rotation_degrees=round(float(turn.median()), 3), position_share=round(float(move.median()), 5))
            to_run = torch.linalg.inv(align_cameras(model.extrinsics, E))
        world, f = read_world(target/"scene"), open_depths(target/"maps", target/"scene")
        views = {names.index(Path(n).name): i for i, n in world.names.items()}
        seen = torch.tensor([[p, views[v]] for p, v in given.seen.tolist() if v in views])
        judge = World(1., {}, transform_points(to_run, given.points.double()).float()*world.scale, seen)
        row["given_points"] = {k: round(v, 5) for k, v in sparse_agreement(f.depths, f.ids, f.depth_intrinsics, f.extrinsics, judge).items()}
        out[kind] = row
    return out


def made(work, options):
    "Photos of a made table, whose cameras and depth are known to the judge only"
    from mvs_nb.data.photo_sets import procedural_photos
    from mvs_nb.reconstruction.exports import ResultView, write_colmap_model
    from mvs_nb.reconstruction.photos import reconstruct
    from mvs_nb.reconstruction.sfm import align_cameras, pose_errors, read_model
    from mvs_nb.camera import transform_points
    import torch
    truth, out = procedural_photos(work/"made", 3, 12), {}
    goal = true_points(truth)
    reconstruct(work/"made", work/"made-estimated", **options)
    model = read_model(work/"made-estimated"/"poses")
    at = [int(n[4:8])-1 for n in model.names]
    turn, move = pose_errors(model.extrinsics, truth.extrinsics[at])
    M = align_cameras(model.extrinsics, truth.extrinsics[at])
    views = [ResultView(i, f"IMG_{i+1:04d}.jpg", truth.images[i], truth.intrinsics[i], truth.extrinsics[i], None, None, []) for i in range(len(truth))]
    write_colmap_model(work/"given"/"sparse"/"0", views, transform_points(M, model.points.double()).float(), torch.stack([model.seen[:, 0], torch.tensor(at)[model.seen[:, 1]]], 1))
    shutil.copytree(work/"made", work/"given"/"images")
    reconstruct(work/"given", work/"made-given", **options)
    for kind, move_by in dict(given=None, estimated=M.numpy()).items():
        out[kind] = columns(work/f"made-{kind}") | judge(work/f"made-{kind}"/"cloud.ply", goal, move_by)
    out["estimated"] |= dict(rotation_degrees=round(float(turn.median()), 3), position_share=round(float(move.median()), 5))
    return out


def true_points(views, step=3, least=3):
    "Points of the true surface that at least `least` photos see"
    import torch
    from mvs_nb.camera import pixel_grid, unproject
    from mvs_nb.reconstruction.photos import sparse_errors
    out, at = [], pixel_grid(*views.depth.shape[1:])[::step, ::step].reshape(-1, 2)
    for i in range(len(views)):
        z = views.depth[i, ::step, ::step].reshape(-1)
        p = unproject(at[z > 0], z[z > 0], views.intrinsics[i], views.extrinsics[i])
        out.append(p[sum((sparse_errors(d, K, E, p).abs() < .01).int() for d, K, E in zip(views.depth, views.intrinsics, views.extrinsics)) >= least])
    return torch.cat(out).numpy()


def judge(cloud, truth, alignment, thresholds=(.01, .02, .05), voxel=.01):
    "Accuracy, completeness and F-score against the true surface, scene units (the table is about 2 wide)"
    import numpy as np
    from mvs_nb.files import read_ply
    from mvs_nb.reconstruction.dtu_eval import cloud_errors, shares
    e = cloud_errors(read_ply(cloud), truth, alignment=alignment, voxel=voxel)
    rows = dict(accuracy=float(np.median(e.distances)), completeness=float(np.median(e.truth_distances)))
    for t in thresholds:
        s = shares(e, t)
        rows |= {f"precision_{t:g}": s.precision, f"recall_{t:g}": s.recall, f"f_{t:g}": s.f_score}
    return {k: round(v, 4) for k, v in rows.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="fox,made")
    parser.add_argument("--adapt", type=float, default=0., help="minutes of fine-tuning on each set")
    parser.add_argument("--size", type=int, default=None, help="longer side of the depth maps")
    parser.add_argument("--keep", default=None, help="folder for the results (default: a temporary one)")
    a = parser.parse_args()
    from mvs_nb.files import atomic_path, data_folder, real_data
    path, work = data_folder()/"measured"/"photos.json", Path(a.keep or tempfile.mkdtemp())
    for name in a.sets.split(","):
        if name == "fox" and not (real_data() and (real_data()/"fox").is_dir()): print("fox: no such photos here"); continue
        rows = dict(fox=fox, made=made)[name](work, dict(size=a.size, adapt=a.adapt))
        table = json.loads(path.read_text()) if path.is_file() else {}
        table[name] = rows
        with atomic_path(path) as temporary: temporary.write_text(json.dumps(table, indent=1)+"\n")
        print(json.dumps(rows, indent=1))
    if a.keep is None: shutil.rmtree(work)


if __name__ == "__main__": main()
