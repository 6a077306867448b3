"""A detector of one's own with three strides, trained here in a minute, and an adapter as the README has it."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

import hookmap as hm

SIDE = 128
STRIDES = (8, 16, 32)
COLOURS = torch.tensor([[0.9, 0.2, 0.2], [0.2, 0.8, 0.3], [0.3, 0.4, 0.95]])


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU())


class ThreeStrides(nn.Module):
    """Convolutions that halve the picture five times; the last three grids each have a head of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, 16), _block(16, 24))
        self.stages = nn.ModuleList([_block(24, 32), _block(32, 48), _block(48, 64)])
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 3 + 4, 1))
            for width in (32, 48, 64)
        )
        for head in self.heads:
            nn.init.constant_(head[2].bias[:3], -3.0)  # most rows see nothing

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``(B, N, 3)`` and boxes ``(B, N, 4)``."""
        x, scores, boxes = self.stem(x), [], []
        for stage, head, stride in zip(self.stages, self.heads, STRIDES, strict=True):
            x = stage(x)
            out = head(x).flatten(2).mT
            cells = torch.arange(SIDE // stride) + 0.5
            middle = torch.cartesian_prod(cells, cells).flip(1) * stride
            scores.append(out[..., :3])
            centre = middle + out[..., 3:5] * stride
            half = out[..., 5:].clamp(max=3).exp() * stride
            boxes.append(torch.cat([centre - half, centre + half], 2))
        return torch.cat(scores, 1), torch.cat(boxes, 1)


class Adapter(hm.Adapter):
    """As the README says; no layer is named."""

    preprocessing = hm.Preprocessing(size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3)
    labels = ("red", "green", "blue")

    def forward(self, x: Tensor) -> hm.Detections:
        scores, boxes = self.plain(x)
        probabilities = scores.sigmoid()
        return hm.Detections(scores, boxes, probabilities, hm.keep_best(boxes, probabilities, least=0.5))


def scenes(count: int, generator: torch.Generator) -> tuple[Tensor, list[list[tuple[int, Tensor]]]]:
    """Pictures ``(count, 3, SIDE, SIDE)`` with discs and squares of three colours, 8 to 70 pixels, and their boxes."""

    def number(low: float, high: float) -> float:
        return float(torch.rand((), generator=generator)) * (high - low) + low

    pictures, things = [], []
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    for _ in range(count):
        coarse = torch.rand(1, 3, 8, 8, generator=generator)
        picture = functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")[0] * 0.4 + 0.2
        picture += torch.rand(3, SIDE, SIDE, generator=generator) * 0.1
        drawn: list[tuple[int, Tensor]] = []
        for _ in range(4):
            half = 4 * 8.75 ** number(0, 1)
            cx, cy = number(half, SIDE - half), number(half, SIDE - half)
            box = torch.tensor([cx - half, cy - half, cx + half, cy + half])
            if any((box[:2] < other[2:]).all() and (other[:2] < box[2:]).all() for _, other in drawn):
                continue
            kind, dx, dy = int(number(0, 3)), (x - cx).abs(), (y - cy).abs()
            inside = dx**2 + dy**2 < half**2 if number(0, 1) < 0.5 else torch.maximum(dx, dy) < half
            picture = torch.where(inside, COLOURS[kind][:, None, None], picture)
            drawn.append((kind, box))
        pictures.append(picture.clamp(0, 1))
        things.append(drawn)
    return torch.stack(pictures), things


def _wanted(things: list[tuple[int, Tensor]]) -> tuple[Tensor, Tensor]:
    """Of each row the class (3: none) and the box: an object belongs to the cell of its middle, at one stride."""
    classes = torch.full((sum((SIDE // s) ** 2 for s in STRIDES),), 3)
    boxes = torch.zeros(len(classes), 4)
    for kind, box in things:
        level = int(box[2] - box[0] > 18) + int(box[2] - box[0] > 38)
        start, stride = sum((SIDE // s) ** 2 for s in STRIDES[:level]), STRIDES[level]
        column, line = ((box[:2] + box[2:]) / 2 / stride).long().tolist()
        row = start + line * (SIDE // stride) + column
        classes[row], boxes[row] = kind, box
    return classes, boxes


@functools.cache
def detector() -> hm.Lens:
    """The detector, trained once per session."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ThreeStrides()
    pictures, things = scenes(600, generator)
    wanted = [torch.stack(part) for part in zip(*map(_wanted, things), strict=True)]
    order = [torch.randperm(600, generator=generator).split(12) for _ in range(10)]
    steps = [batch for epoch in order for batch in epoch]
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, len(steps))
    for batch in steps:
        scores, boxes = model(pictures[batch])
        classes, places = (part[batch] for part in wanted)
        truth, there = functional.one_hot(classes, 4)[..., :3].float(), classes < 3
        likely = functional.binary_cross_entropy_with_logits(scores, truth, reduction="sum")
        size = (places[there, 2:] - places[there, :2]).repeat(1, 2)
        distance = ((boxes[there] - places[there]).abs() / size).sum()
        optimizer.zero_grad()
        ((likely + distance) / there.sum()).backward()
        optimizer.step()
        schedule.step()
    return hm.Lens(Adapter(model.eval()))
