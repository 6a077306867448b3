"""
Watching a network learn
========================

A probe asks the model about the same pictures every few steps. What it does leaves no trace in the training: weights,
optimizer, random numbers are bit for bit what they would have been.
"""

import tempfile

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

import hookmap as hm

NAMES = ["disc", "square", "triangle"]
draw = np.random.default_rng(1)


def picture(kind):
    """A blue shape somewhere on a noisy ground, beside a dot that means nothing."""
    made = Image.fromarray(draw.integers(60, 130, (64, 64, 3), dtype=np.uint8))
    canvas, (x, y), (u, v) = ImageDraw.Draw(made), draw.integers(14, 50, 2), draw.integers(4, 60, 2)
    canvas.ellipse((u - 3, v - 3, u + 3, v + 3), fill=(80, 140, 220))
    if kind == "disc":
        canvas.ellipse((x - 10, y - 10, x + 10, y + 10), fill=(80, 140, 220))
    else:
        canvas.regular_polygon((int(x), int(y), 12), 4 if kind == "square" else 3, fill=(80, 140, 220))
    return made


y = torch.arange(360) % 3
x = torch.stack([torch.from_numpy(np.array(picture(NAMES[k]))).permute(2, 0, 1) / 255 - 0.5 for k in y])

torch.manual_seed(0)
layers = []
for before, after, stride in ((3, 16, 2), (16, 32, 2), (32, 64, 1)):
    layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(NAMES)))

# %%
# Three pictures that the training doesn't see, each asked about its own class, every twelfth step.

watched = [picture(name) for name in NAMES]
preprocessing = hm.Preprocessing(size=(64, 64), resize=None, mean=(0.5,) * 3, std=(1.0,) * 3)
asked = {"target": hm.PerImage([0, 1, 2]), "preprocessing": preprocessing, "labels": NAMES}
optimizer = torch.optim.AdamW(model.parameters(), 0.005)
step = 0
with hm.Probe(watched, tempfile.mkdtemp(), every=12, **asked) as probe:
    for _ in range(12):
        for some in torch.randperm(len(x)).split(24):
            probe(model.train(), step)
            loss = nn.functional.cross_entropy(model(x[some]), y[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1

probe.animation.frames[-1].save("learned.png")

# %%
# All of it, from the first step:

probe.animation.save("learning.webp")
