"""A network whose decision is known: which of two colours covers more. Both are in every picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import hookmap as hm

SIDE = 24


def colours() -> hm.Lens:
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), *head)
    with torch.no_grad():
        net[0].weight.zero_()
        for channel in range(3):
            net[0].weight[channel, channel] = 1 / 9
        net[0].bias.fill_(-0.2)
        net[4].weight.copy_(torch.tensor([[40.0, -40.0, 0.0], [-40.0, 40.0, 0.0]]))
        net[4].bias.zero_()
    return hm.Lens(net, labels=["red", "green"])


def pictures(count: int) -> Tensor:
    """Noise with a red square at the left or right, and a green one of another size at the other side."""
    generator = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    for picture in x:
        channels = torch.randperm(2, generator=generator).tolist()
        for (left, side), channel in zip(((0, 8), (12, 6)), channels, strict=True):
            top, shift = torch.randint(0, 12, (), generator=generator), torch.randint(0, 4, (), generator=generator)
            picture[channel, top : top + side, left + shift : left + shift + side] += 1
    return x
