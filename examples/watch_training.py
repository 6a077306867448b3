"""Teach the default network to tell two photos apart, and watch where it looks: ``python examples/watch_training.py``.

Writes ``runs/watched`` for TensorBoard, with the heatmaps over the steps in ``runs/watched/animation.webp``; about a
minute on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torchvision.transforms.v2 as transforms
from PIL import Image
from torch import nn

import hookmap as hm

NAMES = ["cat", "coffee"]
STEPS = 40


def main(folder: str = "runs/watched") -> None:
    """Train for 40 steps on random crops, looking at every second one."""
    torch.manual_seed(0)
    photos = [Path(__file__).parent / "photos" / f"{name}.jpg" for name in NAMES]
    pictures = [Image.open(photo).convert("RGB") for photo in photos]
    lens = hm.Lens("efficientnet_lite0")
    net, preprocessing = lens.model, lens.preprocessing
    net.classifier = nn.Linear(net.classifier.in_features, len(NAMES))
    crop = transforms.Compose(
        [
            transforms.RandomResizedCrop(160, scale=(0.1, 0.6)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.4, 0.4, 0.4, 0.3),
            transforms.ToImage(),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize(preprocessing.mean, preprocessing.std),
        ]
    )
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)
    labels = hm.PerImage([0, 1])
    with hm.Probe(photos, folder, every=2, target=labels, preprocessing=preprocessing, labels=NAMES) as probe:
        for step in range(STEPS):
            probe(net.train(), step)
            y = torch.randint(len(NAMES), (8,), device=lens.device)
            x = torch.stack([crop(pictures[i]) for i in y.tolist()]).to(lens.device)
            loss = nn.functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        probe.finish(net, STEPS)


if __name__ == "__main__":
    main(*sys.argv[1:])
