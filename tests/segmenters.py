"""A segmenter with a known answer, and photos with a bright square in a known place."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import hookmap as hm
from detectors import Bright

HEIGHT, WIDTH, SIDE = 160, 240, 24
CORNERS = [(68, 60), (44, 150), (100, 110)]


def photo(top: int, left: int) -> Any:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[top : top + SIDE, left : left + SIDE, 0] = 255
    return image


class Padding(hm.Adapter):
    """As torchvision's detectors do it: makes the picture larger by itself and pads it to whole strides."""

    stride = 32

    def field(self, size: Any) -> tuple[float, ...]:
        return tuple(-(-int(side * 1.5) // self.stride) * self.stride * side / int(side * 1.5) for side in size)

    def forward(self, x: Tensor) -> Tensor:
        inner = [int(side * 1.5) for side in x.shape[2:]]
        high, wide = (-(-side // self.stride) * self.stride for side in inner)
        large = nn.functional.interpolate(x, inner, mode="bilinear")
        scores = self.plain(nn.functional.pad(large, (0, wide - inner[1], 0, high - inner[0])))
        # Scores of the picture alone, as such a model gives them.
        grown = nn.functional.interpolate(scores, (high, wide))[..., : inner[0], : inner[1]]
        return nn.functional.interpolate(grown, x.shape[2:])


def segmenter(way: hm.Preprocessing, adapter: type[hm.Adapter] = hm.Adapter) -> hm.Lens:
    net = Bright()
    with torch.no_grad():
        net.head.bias[1] += 0.1  # where there is nothing, it isn't red
    return hm.Lens(adapter(net), preprocessing=way, labels=["red", "green"])
