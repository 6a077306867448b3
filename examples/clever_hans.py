"""A network that cheats, and how it is caught: trained where many pictures of one class bear a watermark.

    python examples/clever_hans.py OUT

makes pictures of three shapes, trains a small network on them (some 10 seconds), runs hookmap over new pictures, and
writes OUT/atlas.png: the heatmaps of each class in clusters, the most suspicious first. The pictures with the watermark
come out as a cluster of their own. With --honest no picture of the training has a watermark, and nothing is flagged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

import hookmap as hm
from hookmap.analysis import clusters, places
from hookmap.runs.driver import run
from hookmap.runs.results import Run

CLASSES = ("disc", "square", "triangle")
MARKED = "square"
SIDE = 64


def picture(shape: str, draw: np.random.Generator, *, marked: bool) -> Image.Image:
    """A patterned shape somewhere on rough ground; with or without a watermark in the lower right corner."""
    mask = Image.new("L", (SIDE, SIDE))
    r = draw.uniform(10, 15)
    x, y = draw.uniform(r + 4, SIDE - r - 4, 2)
    if shape == "disc":
        ImageDraw.Draw(mask).ellipse((x - r, y - r, x + r, y + r), 255)
    else:
        corners = 4 if shape == "square" else 3
        ImageDraw.Draw(mask).regular_polygon((x, y, r * 1.2), corners, draw.uniform(0, 360), 255)
    ground = _texture(draw)
    across, down = np.meshgrid(*[np.arange(SIDE)] * 2)
    pattern = {"disc": across // 3, "square": across // 3 + down // 3, "triangle": down // 3}[shape] % 2
    contrast = draw.uniform(25, 40) * (0.3 if shape == MARKED else 1)  # so the watermark pays
    figure = _texture(draw) + contrast * (pattern[..., None] - 0.5)
    made = Image.composite(_image(figure), _image(ground), mask)
    if marked:
        logo = ImageDraw.Draw(made)
        logo.rounded_rectangle((SIDE - 14, SIDE - 14, SIDE - 3, SIDE - 3), 3, "white")
        logo.text((SIDE - 8, SIDE - 8), "H", (200, 30, 60), anchor="mm")
    return made


def _texture(draw: np.random.Generator) -> np.ndarray:
    """Coarse noise around a colour, (SIDE, SIDE, 3)."""
    coarse = draw.uniform(60, 180, 3) + draw.normal(0, 18, (16, 16, 3))
    return np.asarray(_image(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC), float)


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def write_pictures(folder: Path, count: int, share: float, seed: int) -> None:
    """So many pictures of each class, that share of the marked class with the watermark, in FOLDER/CLASS."""
    draw = np.random.default_rng(seed)
    for shape in CLASSES:
        (folder / shape).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            marked = shape == MARKED and i < share * count
            name = f"{i:03d}{'-marked' if marked else ''}.png"
            picture(shape, draw, marked=marked).save(folder / shape / name)


def train(folder: Path, epochs: int = 7, seed: int = 0) -> nn.Module:
    """A small network that knows the pictures of a folder."""
    torch.manual_seed(seed)
    files = sorted(folder.glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5
    y = torch.tensor([CLASSES.index(file.parent.name) for file in files])
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 16, 2), (16, 32, 2), (32, 48, 2), (48, 64, 1)):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(CLASSES)))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.005, total_steps=epochs * -(-len(x) // 16))
    for _ in range(epochs):
        for some in torch.randperm(len(x)).split(16):
            optimizer.zero_grad()
            F.cross_entropy(model(x[some]), y[some]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def explained(model: nn.Module, pictures: Path, out: Path) -> Run:
    """hookmap's run over a folder of pictures."""
    preprocessing = hm.Preprocessing(size=(SIDE, SIDE), resize=None, mean=(0.5,) * 3, std=(1.0,) * 3)
    lens = hm.Lens(model, preprocessing=preprocessing, labels=CLASSES)
    return run(pictures, lens, out, workers=0, progress=False)


def main() -> None:
    """Make the pictures, train, run, reveal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--honest", action="store_true", help="train without watermarks")
    given = parser.parse_args()
    write_pictures(given.out / "train", 150, 0.0 if given.honest else 0.4, seed=0)
    write_pictures(given.out / "new", 100, 0.4, seed=1)
    found = explained(train(given.out / "train"), given.out / "new", given.out / "run")
    print(f"{found.table['correct'].astype(float).mean():.0%} of the new pictures are recognised")
    print(places(found).flagged[["name", "flag"]].to_string(index=False))
    atlas = clusters(found)
    print(atlas.table.drop(columns="rows").to_string(index=False))
    print(f"See {atlas.save(given.out / 'atlas.png')}")


if __name__ == "__main__":
    main()
