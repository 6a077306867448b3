"""
A segmenter, at a point
=======================

A model that gives a class for every pixel can be asked why it is so *here*. The network learns in seconds to tell two
shapes from the ground; with a point as target, the heatmap shows what it needed to see for this pixel.
"""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

import hookmap as hm

NAMES = ["ground", "disc", "square"]
draw = np.random.default_rng(0)


def scene():
    """A disc on the left and a square on the right, and the class of every pixel."""
    made, truth = Image.fromarray(draw.integers(60, 130, (64, 64, 3), dtype=np.uint8)), Image.new("L", (64, 64))
    for number, low in ((1, 12), (2, 42)):
        x, y = draw.integers(low, low + 10), draw.integers(14, 50)
        for canvas, colour in ((made, (80, 140, 220)), (truth, number)):
            shape = ImageDraw.Draw(canvas).ellipse if number == 1 else ImageDraw.Draw(canvas).rectangle
            shape((x - 8, y - 8, x + 8, y + 8), fill=colour)
    return made, torch.from_numpy(np.array(truth)).long()


scenes = [scene() for _ in range(96)]
x = torch.stack([torch.from_numpy(np.array(made)).permute(2, 0, 1) / 255 - 0.5 for made, _ in scenes])
y = torch.stack([truth for _, truth in scenes])

torch.manual_seed(0)
model = nn.Sequential(
    *(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.Conv2d(32, 32, 3, 1, 2, dilation=2), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.Conv2d(32, 3, 1), nn.Upsample(scale_factor=4, mode="bilinear")),
)
optimizer = torch.optim.AdamW(model.parameters(), 0.01)
for _ in range(12):
    for some in torch.randperm(len(x)).split(16):
        loss = nn.functional.cross_entropy(model(x[some]), y[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
# A class is asked about in its own region; a point, a box, a polygon or a mask wherever you like.

preprocessing = hm.Preprocessing(size=(64, 64), resize=None, mean=(0.5,) * 3, std=(1.0,) * 3)
lens = hm.Lens(model, preprocessing=preprocessing, labels=NAMES)
photo, truth = scene()
rows, columns = np.nonzero((truth == 2).numpy())
corner = hm.Point(int(columns.min()), int(rows.min()), of="square")
lens.explain(photo, ["disc", "square", corner]).save("regions.png", size=320)
