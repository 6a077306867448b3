"""What a whole data set costs: hookmap's run, and pytorch-grad-cam's loop, against a loop of plain forward passes.

All are fed by the same loader: JPEGs decoded, preprocessed and shrunk to thumbnails by the same workers. Rounds
alternate and medians are compared. Run: ``python benchmarks/datasets.py [--images 512] [--rounds 5]``; with
``--memory 100000`` it explains so many generated images and prints how much memory the process holds on the way.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import hookmap as hm
from hookmap.datasets.loader import batches, usual_workers
from hookmap.datasets.reader import Reader
from hookmap.datasets.sources import Item, Source, source

PHOTOS = Path(__file__).resolve().parents[1] / "examples" / "photos"


def photos(folder: Path, count: int) -> Path:
    """So many JPEGs of 500 x 375 pixels, as ImageNet has them: parts of a few real photos."""
    generator = np.random.default_rng(0)
    whole = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    for i in range(count):
        image = whole[i % len(whole)]
        scale = generator.uniform(0.6, 1)
        size = [max(64, round(side * scale)) for side in image.size]
        left, top = (int(generator.integers(0, a - b + 1)) for a, b in zip(image.size, size, strict=True))
        part = image.crop((left, top, left + size[0], top + size[1])).resize((500, 375))
        part.save(folder / f"{i:05d}.jpg", quality=90)
    return folder


class Contenders:
    """The same images through the same loader, for each contender."""

    def __init__(self, folder: Path, model: str, batch_size: int, workers: int | None) -> None:
        self.lens = hm.Lens(model, pretrained=model == "efficientnet_lite0")
        self.folder, self.batch_size = folder, batch_size
        self.workers = usual_workers(self.lens.device) if workers is None else workers
        self.layer = dict(self.lens.model.named_modules())[self.lens.default_layer()]
        self.source = source(str(folder))

    def inputs(self) -> Iterator[Tensor]:
        numbers = range(len(self.source.ids or ()))
        todo = [numbers[i : i + self.batch_size] for i in numbers[:: self.batch_size]]
        pinned = self.lens.device.type == "cuda"
        for batch in batches(
            Reader(self.source, self.lens.preprocessing), todo, self.batch_size, self.workers, pinned=pinned
        ):
            for x, _ in batch.inputs:
                yield x.to(self.lens.device, non_blocking=True)

    def forward(self) -> None:
        with torch.inference_mode():
            for x in self.inputs():
                self.lens.model(x).argmax(1).tolist()

    def hookmap(self) -> None:
        out = Path(tempfile.mkdtemp())
        try:
            how: dict[str, Any] = {"batch_size": self.batch_size, "workers": self.workers, "progress": False}
            hm.run(self.source, self.lens, out / "run", **how)
        finally:
            shutil.rmtree(out)

    def grad_cam(self) -> None:
        with GradCAM(self.lens.model, [self.layer]) as cam:
            for x in self.inputs():
                cam(x, None)


def throughput(args: argparse.Namespace) -> None:
    folder = photos(Path(tempfile.mkdtemp()), args.images)
    table = Table("model", "batch", "workers", "forward only, images/s", "hookmap run", "grad-cam's loop")
    for model in args.models:
        them = Contenders(folder, model, args.batch_size, args.workers)
        runs: dict[str, Callable[[], None]] = {"forward": them.forward, "hookmap": them.hookmap, "peer": them.grad_cam}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(args.rounds + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if turn:  # the first warms up
                    times[name].append(time.perf_counter() - start)
        best = {name: args.images / statistics.median(some) for name, some in times.items()}
        shares = [f"{best[name] / best['forward']:.0%}" for name in ("hookmap", "peer")]
        table.add_row(model, str(args.batch_size), str(them.workers), f"{best['forward']:.1f}", *shares)
    Console(width=140).print(table)
    shutil.rmtree(folder)


class Generated(Source):
    """Noise of 40 x 40 pixels, made when it is asked for."""

    def __init__(self, count: int) -> None:
        self.ids = [f"{i:07d}" for i in range(count)]
        self.description = {"kind": "generated", "images": count}

    def item(self, number: int) -> Item:
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        return Item(self.ids[number], pixels)


class Watched(nn.Identity):
    """Prints the memory of the process some twenty times while so many images pass."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.seen, self.said = count, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        if self.seen >= self.said:
            self.said += self.count // 20
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(f"{self.seen:8,d} images: {pages * resource.getpagesize() / 2**20:6.0f} MiB", flush=True)
        return x


def memory(count: int) -> None:
    """Print the memory of the process while it explains so many images."""
    convs = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3)
    net = nn.Sequential(Watched(count), *convs, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    lens = hm.Lens(net, preprocessing=hm.Preprocessing(size=(32, 32), resize=32))
    out = Path(tempfile.mkdtemp())
    hm.run(Generated(count), lens, out / "run", batch_size=64, channels=True, workers=1, thumbnail=32)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{count:,d} images take {size / 2**20:.0f} MiB on disk")
    shutil.rmtree(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["efficientnet_lite0", "resnet50"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--memory", type=int, metavar="IMAGES")
    warnings.simplefilter("ignore")
    given = parser.parse_args()
    memory(given.memory) if given.memory else throughput(given)
