"""
Watching a network learn
========================

A probe asks the model about the same pictures every few steps. What it does leaves no trace in the training: weights,
optimizer, random numbers are bit for bit what they would have been.
"""

import sys

import torch
from torch import nn

import hookmap as hm

sys.path.insert(0, "..")
import tempfile
from pathlib import Path

from clever_hans import CLASSES, SIDE, write_pictures
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

folder = Path(tempfile.mkdtemp())
write_pictures(folder, 60, 0.0, seed=0)
prepared = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5,) * 3, (1.0,) * 3)])
loader = torch.utils.data.DataLoader(ImageFolder(folder, prepared), 16, shuffle=True)

torch.manual_seed(0)
layers = []
for before, after, stride in ((3, 16, 2), (16, 32, 2), (32, 48, 1)):
    layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, len(CLASSES)))

# %%
# Three pictures, each asked about its own class, every sixth step.

watched = [next((folder / name).glob("*.png")) for name in CLASSES]
preprocessing = hm.Preprocessing(size=(SIDE, SIDE), resize=None, mean=(0.5,) * 3, std=(1.0,) * 3)
optimizer = torch.optim.AdamW(model.parameters(), 0.005)
steps = 0
with hm.Probe(
    watched, folder / "log", every=6, target=hm.PerImage([0, 1, 2]), preprocessing=preprocessing, labels=CLASSES
) as probe:
    for _ in range(10):
        for x, y in loader:
            probe(model.train(), steps)
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    probe.finish(model, steps)
    probe.animation.save("learning.webp")
