"""A training run small enough for tests: `python small_run.py FOLDER STEPS BATCH DEVICES` trains a toy network on toy scenes and can be killed at any time.

The network has dropout and (with one process) batch norm, so that a resumed run is only right if random state and running statistics came back."""
import sys
import torch
import torch.nn.functional as F
from torch import nn
from mvs_nb.data.augmentation import Augmented, Light, Mirror, Noise
from mvs_nb.data.datasets import depth_item, generator_for
from mvs_nb.training.engine import FitSettings, Schedule, finish, fit, make_fabric


class ToyScenes(torch.utils.data.Dataset):
    "Twelve items in the form of `depth_item`: depth is a smooth function of the image, known everywhere"
    def __len__(self): return 12

    def __getitem__(self, index):
        images = torch.rand(2, 3, 16, 16, generator=generator_for(7, index))
        depth = 1 + F.avg_pool2d(images[:1], 4).mean(1)[0]
        return depth_item(images, torch.eye(3).expand(2, 3, 3), torch.eye(4).expand(2, 4, 4), torch.linspace(1, 2, 8), depth, f"toy-{index}")


class ToyNet(nn.Module):
    "Image to depth; `rough` adds what makes exact resumption hard and exact data parallelism impossible: batch norm and dropout"
    def __init__(self, rough):
        super().__init__()
        middle = [nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(.2)] if rough else [nn.GroupNorm(2, 8), nn.ReLU()]
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 4, 4), *middle, nn.Conv2d(8, 1, 1))

    def forward(self, images): return 1.5 + self.layers(images)[:, 0]


def objective(model, batch): return dict(loss=F.smooth_l1_loss(model(batch["images"][:, 0]), batch["depth"]))


def measure(model, batch):
    error = (model(batch["images"][:, 0]) - batch["depth"]).abs()
    return [dict(pixels=float(e.numel()), coverage=1., abs=float(e.mean())) for e in error]


def main(folder, steps, batch, devices, rough):
    "Train; the last line every program with several processes needs is `finish`"
    fabric = make_fabric(devices, "cpu")
    fabric.launch()
    torch.manual_seed(0)
    data = Augmented(ToyScenes(), (Light(), Noise(), Mirror()), seed=1) if rough else ToyScenes()
    settings = FitSettings(steps=steps, batch_size=batch, lr=1e-2, schedule=Schedule("cosine", warmup=.2), accumulate=2, log_every=1, validate_every=12,
                           save_every=5, tensorboard=False, progress=False)
    at = fit(fabric, ToyNet(rough), objective, data, settings, folder, ToyScenes(), measure)
    finish(fabric)
    return at


if __name__ == "__main__": # Fabric and spawned workers run this file again: without the guard they would start runs of their own
    folder, steps, batch, devices, rough = sys.argv[1:]
    main(folder, int(steps), int(batch), int(devices), rough == "rough")
