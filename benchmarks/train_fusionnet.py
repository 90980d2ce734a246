"""How the shipped fusion network was trained: its memory and its decoder alone, on what the pair network's frozen parts say about films.

    python benchmarks/train_fusionnet.py --pairnet data/weights/pairnet.safetensors --out runs/fusionnet          # three quarters of an hour on one core

Extractor, pyramid and encoder stay those of the pair network, so what they make of a film is computed once and kept (about 5 GB for 300 films of 16 frames).
Then memory and decoder learn in three phases: at the three coarse sizes, where a frame costs little and the memory is carried by true depth as published;
at all sizes, where it is carried by the network's own depth, as the paper fine-tunes it; and with a term that is ours, for answers that do not flicker:
where two frames see the same surface, they shall be wrong in the same way. The last phase trades some accuracy for calm; the mean of the weights before and
after it keeps most of both, and is what is shipped. `mvs_nb train fusionnet-procedural` is the plain way,
everything on fresh frames, and takes many hours to get as far. Each phase ends with the best of its validations.
Writes OUT/best.safetensors and OUT/log.jsonl.
"""
import argparse, copy, json, math, random, time
from pathlib import Path

WINDOW, PHASES = 8, (dict(sizes=3, share=.19, batch=12, true_depth=True, lr=1.5e-3, steady=0.), dict(sizes=5, share=.52, batch=8, true_depth=False, lr=6e-4, steady=0.),
                     dict(sizes=5, share=.29, batch=8, true_depth=False, lr=4e-4, steady=2.))


def remember(model, item):
    "What the frozen parts say about one film: skips and bottom of every frame matched with the one before, and the truth"
    import torch
    from torch.utils.data import default_collate
    from mvs_nb.models.mvsnet import normalize_images
    batch = default_collate([item])
    before = lambda o: torch.stack([o[0, 1:], o[0, :-1]], 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        maps = model(batch["images"])
        volume = model.match(maps[0][0, 1:], maps[0][0, :-1, None], before(batch["intrinsics"]), before(batch["extrinsics"]))
        skips, bottom = model.encoder(tuple(o[0, 1:] for o in maps), volume.flip(1))
    half = lambda o: o.to(torch.bfloat16)
    known = torch.where(batch["mask"], batch["depth"], 0.)[0, 1:]
    return dict(skips=[half(o) for o in skips], bottom=half(bottom), image=half(normalize_images(batch["images"][0, 1:], "imagenet")), depth=known,
                intrinsics=batch["intrinsics"][0, 1:], extrinsics=batch["extrinsics"][0, 1:])


def unsteadiness(error, before, depth, cameras):
    "Mean difference of the log errors of two frames where both see the same surface: differentiable flicker. (error, true depth) of each frame; `cameras` are this frame's and the last one's"
    import torch
    from mvs_nb.warping import visibility_mask, warp_by_depth
    last_error, last_depth = before
    same = visibility_mask(depth, last_depth, *cameras, max_pixel_error=float("inf"), max_depth_error=.05)
    warped, valid = warp_by_depth(last_error[:, None], depth, *cameras)
    same = same & valid
    return torch.where(same, (error - warped[:, 0]).abs(), 0.).sum()/same.sum().clamp(min=1)


def film_loss(model, films, sizes, true_depth, steady):
    "Of a batch of windows: the L1 of inverse depth at every size, summed over frames and sizes, and `steady` times the flicker"
    import torch
    import torch.nn.functional as F
    from mvs_nb.training.objectives import head_loss, truth_at
    from mvs_nb.video.convlstm import LSTMState, carry_hidden
    state, total, before = None, 0., None
    for t in range(WINDOW):
        camera, depth = (films["intrinsics"][:, t], films["extrinsics"][:, t]), films["depth"][:, t]
        hidden, cell = (None, None) if state is None else (carry_hidden(state, *camera, depth if true_depth else None)[0], state.cell)
        hidden, cell = model.lstm_fusion["lstm_cell"](films["bottom"][:, t], hidden, cell)
        maps = model.decoder(films["image"][:, t], [s[:, t] for s in films["skips"]], hidden, sizes)
        answers = [1/(m.squeeze(1)*(1/model.near - 1/model.far) + 1/model.far) for m in maps]
        losses = [head_loss("inverse_l1", a.float(), *truth_at(dict(depth=depth, mask=depth > 0), a.shape[-2:])) for a in answers]
        total = total + sum(losses)
        if steady:
            error = torch.where(depth > 0, (answers[-1].float()/depth.clamp(min=1e-3)).log(), 0.)
            if state is not None: total = total + steady*unsteadiness(error, before, depth, (*camera, state.intrinsics, state.extrinsics))
            before = error, depth
        state = LSTMState(hidden, cell, F.interpolate(answers[-1].detach()[None], depth.shape[-2:])[0], *camera)
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairnet", default="pairnet", help="weights of the pair network (default: the shipped ones)")
    parser.add_argument("--out", default="runs/fusionnet", help="folder of the run")
    parser.add_argument("--minutes", type=float, default=42., help="of training, after the films are remembered")
    parser.add_argument("--films", type=int, default=300, help="to learn from")
    parser.add_argument("--cache", default="runs/films", help="folder of rendered films")
    a = parser.parse_args()
    from mvs_nb.training.engine import make_fabric
    make_fabric(1, "cpu", "bf16-mixed")                                           # before any convolution: it chooses instructions that are safe
    import torch
    from torch.utils.data import default_collate
    from mvs_nb.training.checkpoints import save_weights
    from mvs_nb.training.experiments import get_experiment, make_data, make_model
    from mvs_nb.training.video import VideoMeasure, film_mean
    torch.set_num_threads(1)
    e, out, rng = get_experiment("fusionnet-procedural", start=a.pairnet, **{"data.cache": a.cache, "data.n_views": 16, "data.train_scenes": a.films}), Path(a.out), random.Random(0)
    out.mkdir(parents=True, exist_ok=True)
    model, valid = make_model(e).eval(), make_data(e, "val")
    films = [remember(model, item) for item in (make_data(e, "train")[i] for i in range(a.films))]
    frozen = [model.feature_extractor, model.feature_pyramid, model.encoder]
    learning = [*model.lstm_fusion.parameters(), *model.decoder.parameters()]
    for part in frozen: part.requires_grad_(False)

    def windows(n):
        "A batch of n windows, from any frame on"
        picks = [(rng.choice(films), rng.randrange(len(films[0]["depth"]) - WINDOW + 1)) for _ in range(n)]
        cut = lambda o, s: [p[s:s+WINDOW] for p in o] if isinstance(o, list) else o[s:s+WINDOW]
        return default_collate([{k: cut(o, s) for k, o in film.items()} for film, s in picks])

    def judge():
        "Errors on films that nobody trained on, by the network as it is used"
        model.eval()
        with torch.no_grad(): row = film_mean(VideoMeasure()(model, default_collate([valid[i] for i in range(len(valid))])))
        return {k: round(row[k], 4) for k in ("abs", "abs_rel", "abs_inv", "delta_1", "flicker")}

    log, kept = open(out/"log.jsonl", "w"), []
    for number, phase in enumerate(PHASES):
        optimizer, start, step, checked, best = torch.optim.AdamW(learning, lr=phase["lr"], weight_decay=1e-4), time.monotonic(), 0, 0., math.inf
        while True:
            share = (time.monotonic() - start)/(60*a.minutes*phase["share"])
            if share >= 1 or share > checked + .12:
                checked, found = share, judge()
                print(json.dumps(dict(phase=number, step=step, share=round(share, 3), **found)), file=log, flush=True)
                if (score := found["abs_inv"] + bool(phase["steady"])*found["flicker"]) < best: best, state = score, copy.deepcopy(model.state_dict())
            if share >= 1: break
            model.train()
            for part in frozen: part.eval()
            for group in optimizer.param_groups: group["lr"] = phase["lr"]*min(1, (step + 1)/30)*.5*(1 + math.cos(math.pi*share))
            with torch.autocast("cpu", torch.bfloat16): loss = film_loss(model, windows(phase["batch"]), phase["sizes"], phase["true_depth"], phase["steady"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learning, 5.)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        model.load_state_dict(state)
        kept.append(state)
        print(f"phase {number}: {step} steps, {judge()}", flush=True)
    model.load_state_dict({k: (o + kept[-1][k])/2 if o.is_floating_point() else o for k, o in kept[-2].items()})
    save_weights(model, out/"best.safetensors", dict(training="benchmarks/train_fusionnet.py"))
    print(f"mean of the last two: {judge()}")
    log.close()


if __name__ == "__main__": main()
