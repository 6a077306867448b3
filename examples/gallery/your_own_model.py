"""
Your own model
==============

Nothing about a model has to come from a library: any ``nn.Module`` will do, with what its pictures are preprocessed by
and what its classes are called. This one learns in seconds to tell discs from squares, wherever they lie.
"""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

import hookmap as hm

NAMES = ["disc", "square"]
draw = np.random.default_rng(0)


def picture(kind, x, y):
    """A shape somewhere on a noisy ground."""
    made = Image.fromarray(draw.integers(60, 130, (64, 64, 3), dtype=np.uint8))
    shape = ImageDraw.Draw(made).ellipse if kind == "disc" else ImageDraw.Draw(made).rectangle
    shape((x - 8, y - 8, x + 8, y + 8), fill=(80, 140, 220))
    return made


labels = torch.arange(240) % 2
pictures = [picture(NAMES[label], *draw.integers(10, 54, 2)) for label in labels]
x = torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) / 255 - 0.5 for p in pictures])

torch.manual_seed(0)
model = nn.Sequential(
    *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2)),
)
optimizer = torch.optim.AdamW(model.parameters(), 0.01)
for _ in range(8):
    for some in torch.randperm(len(x)).split(24):
        loss = nn.functional.cross_entropy(model(x[some]), labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
# The lens finds the layer by itself. Both shapes in one picture: each class has its own.

preprocessing = hm.Preprocessing(size=(64, 64), resize=None, mean=(0.5,) * 3, std=(1.0,) * 3)
lens = hm.Lens(model, preprocessing=preprocessing, labels=NAMES)

both = picture("disc", 16, 20)
ImageDraw.Draw(both).rectangle((38, 36, 54, 52), fill=(80, 140, 220))
lens.explain(both, NAMES).save("both.png", size=480)
print(lens.layers())
