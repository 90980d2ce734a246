"""Mesh a real room from learned depths and from the sensor's own, and measure how far the two surfaces are apart.

    MVS_DATA=FOLDER python benchmarks/hololens_mesh.py            # two minutes of one core

Writes data/measured/hololens_mesh.json and two pictures beside it, which the notebook mesh shows. Surfaces: TSDF of the sensor's depth (the measure);
TSDF of every depth that the network gives; TSDF and, where Open3D is installed, Poisson of the depths that other views confirm; and the same for
the classical sweep with semi-global smoothing."""
import argparse, json, sys, time


def predictions(name, samples, n_depths):
    "Depth and confidence of every reference frame, and the intrinsics of these maps"
    import torch
    from mvs_nb.camera import scale_intrinsics
    from mvs_nb.hypotheses import inverse_hypotheses
    from mvs_nb.models.classical import ClassicalStereo
    from mvs_nb.training.checkpoints import load_weights
    model = ClassicalStereo(semi_global=True) if name == "sgm" else load_weights(name)
    with torch.no_grad(): out = [model(*(s.batch()[k] for k in ("images", "intrinsics", "extrinsics")), inverse_hypotheses(*s.depth_range, n_depths)) for s in samples]
    K = torch.stack([s.intrinsics[0] for s in samples])
    return torch.cat([o.depth for o in out]), torch.cat([o.confidence for o in out]), scale_intrinsics(K, out[0].depth.shape[-1]/samples[0].images.shape[-1])


def confirmed(depths, confidences, K, E, limits):
    "Where at least two other frames agree"
    import torch
    from mvs_nb.selfsup.cross_view import check_all
    return torch.stack([c.mask for c in check_all(depths, confidences, K, E, progress=True, **limits)])


def measured(points, mesh, truth, K, E):
    "Points of a mesh that some frame sees in a pixel where the sensor knows the depth (or knows it next door: its maps are full of thin gaps)"
    import torch
    import torch.nn.functional as F
    from mvs_nb.camera import project
    from mvs_nb.reconstruction.mesh import render_mesh_depth
    h, w = truth.shape[1:]
    known, out = F.max_pool2d((truth > 0).float()[:, None], 3, 1, 1)[:, 0] > 0, torch.zeros(len(points), dtype=torch.bool)
    for depth, there, k, e in zip(render_mesh_depth(mesh, K, E, h, w), known, K, E):
        pixels, z = project(points, k, e)
        inside = (z > 0) & ((pixels > -.5) & (pixels < pixels.new_tensor([w-.5, h-.5]))).all(1)
        x, y = torch.where(inside[:, None], pixels, 0.).round().long().unbind(1)
        out |= inside & (z < depth[y, x]*1.02) & there[y, x]
    return out


def compare(mesh, sensor, truth, K, E, n=30_000):
    "Distances both ways: accuracy where the sensor measured, completeness over the sensor's surface"
    import numpy as np
    from mvs_nb.reconstruction.mesh import sample_faces, surface_distance
    points = sample_faces(mesh, n)[0].float()
    known = measured(points, mesh, truth, K, E)
    out = dict(faces=len(mesh.faces), judged=float(known.float().mean()))
    for name, d in (("accuracy", surface_distance(points[known], sensor)), ("completeness", surface_distance(sample_faces(sensor, n)[0], mesh))):
        out |= {name: d.mean(), f"{name}_median": np.median(d)} | {f"{name}_within_{t:g}": (d < t).mean() for t in (.02, .05, .1)}
    return {k: round(float(v), 4) if isinstance(v, float) else v for k, v in out.items()}


def camera_behind(E, mesh):
    "Eye, target and up of a view over the cameras' shoulders"
    import torch
    from mvs_nb.camera import camera_center
    eyes, up, ahead = camera_center(E), -E[:, 1, :3].mean(0), E[:, 2, :3].mean(0)
    up, ahead = up/up.norm(), ahead/ahead.norm()
    target = mesh.vertices.quantile(.5, dim=0)
    eye = eyes.mean(0) - 1.7*ahead + 1.1*up
    return eye.numpy(), target.numpy(), up.numpy()


def picture(path, panels, viewpoint, columns):
    "Meshes seen from one place, each with its title; panels are (title, mesh, colours [N, 3] in [0, 1])"
    import matplotlib, numpy as np
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from PIL import Image
    from mvs_nb.files import atomic_path
    from mvs_nb.show import Canvas
    rows = -(-len(panels)//columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.9*columns, 2.9*rows), dpi=80, layout="constrained", squeeze=False)
    for ax in axes.ravel(): ax.set_axis_off()
    for ax, (title, mesh, colors) in zip(axes.ravel(), panels):
        canvas = Canvas(*viewpoint, width=400, height=300)
        faces = mesh.faces.numpy()
        canvas.triangles(mesh.vertices.numpy()[faces], colors[faces].mean(1))
        ax.imshow(canvas.finish())
        ax.set_title(title, fontsize=9)
    figure.canvas.draw()
    drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]).quantize(200, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary: drawn.save(temporary, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20, help="the last so many of the sequence")
    parser.add_argument("--n-depths", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    a = parser.parse_args()
    import numpy as np, torch
    from matplotlib import colormaps
    from mvs_nb.camera import InputError
    from mvs_nb.files import atomic_path, data_folder
    from mvs_nb.reconstruction.fusion import fuse
    from mvs_nb.reconstruction.mesh import check_poisson, poisson_mesh, surface_distance, trim_mesh
    from mvs_nb.reconstruction.tsdf import fuse_tsdf
    from mvs_nb.training.real_frames import real_frame_samples
    torch.set_num_threads(a.threads)
    start, samples = time.process_time(), real_frame_samples("hololens", n_reference=a.frames)
    stack = lambda n: torch.stack([getattr(s, n)[0] for s in samples])
    images, K, E, truth = map(stack, ("images", "intrinsics", "extrinsics", "depth"))
    piece, limits = dict(min_faces=100), dict(min_confidence=.2, max_pixel_error=2., max_depth_error=.03, min_consistent=2)
    volume = dict(voxel=.04, truncation=.16)                     # the depths of a network are off by several cm
    meshes = {"sensor": trim_mesh(fuse_tsdf(truth, K, E, .02, .08, images=images).mesh(), **piece)}
    for name in ("casmvsnet", "sgm"):
        depths, confidences, k = predictions(name, samples, a.n_depths)
        if name == "casmvsnet": meshes["casmvsnet, every depth, TSDF"] = trim_mesh(fuse_tsdf(depths, k, E, images=images, **volume).mesh(), **piece)
        kept = confirmed(depths, confidences, k, E, limits)
        meshes[f"{name}, confirmed, TSDF"] = trim_mesh(fuse_tsdf(depths, k, E, images=images, masks=kept, **volume).mesh(min_weight=2.5), **piece)
        try: check_poisson()
        except InputError as e: print(f"no Poisson: {e}"); continue
        cloud = fuse(depths, confidences, images, K, E, depth_intrinsics=k, **limits)
        meshes[f"{name}, confirmed, Poisson"] = trim_mesh(poisson_mesh(cloud, 7), cloud, .06, min_density=9, **piece)
    sensor, folder = meshes.pop("sensor"), data_folder()/"measured"
    table = {name: compare(m, sensor, truth, K, E) for name, m in meshes.items()}
    for name, row in table.items(): print(name, row, flush=True)
    chosen, viewpoint = "casmvsnet, confirmed, TSDF", camera_behind(E, sensor)
    mesh, inked = meshes[chosen], lambda m: m.colors.numpy()/255
    known, magma = measured(mesh.vertices, mesh, truth, K, E).numpy(), lambda d: colormaps["magma"](.85*np.minimum(d/.2, 1))[:, :3]
    wrong = np.where(known[:, None], magma(surface_distance(mesh.vertices, sensor)), .75)
    others = [n for n in meshes if n.startswith("casmvsnet") and n != chosen]
    picture(folder/"hololens_mesh.png", [("the sensor's surface", sensor, inked(sensor))] + [(n, meshes[n], inked(meshes[n])) for n in [chosen, *others]], viewpoint, 2)
    picture(folder/"hololens_mesh_distance.png", [("distance from the sensor's surface\nblack 0, orange 20 cm or more, grey: not measured", mesh, wrong),
                                                  ("the sensor's surface by its distance from the mesh\nblack 0, orange 20 cm or more: missing", sensor, magma(surface_distance(sensor.vertices, mesh)))], viewpoint, 2)
    facts = dict(frames=a.frames, size=list(images.shape[-2:]), seconds=round(time.process_time()-start), sensor_faces=len(sensor.faces))
    with atomic_path(folder/"hololens_mesh.json") as temporary: temporary.write_text(json.dumps(dict(facts=facts, meshes=table), indent=1)+"\n")


if __name__ == "__main__": sys.exit(main())
