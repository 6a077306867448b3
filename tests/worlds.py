"""Models whose right attribution is known, on images of bright cells; all in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CELLS = 8
SIDE = 4
"""Pixels of a cell along each axis."""


@dataclass(frozen=True)
class World:
    """A scorer, an image ``(1, 32, 32)``, and what each of its 8 x 8 cells contributes, ``(8, 8)``."""

    scorer: Callable[[Tensor], Tensor]
    image: Tensor
    right: Tensor


def seeded(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pixels(cells: Tensor) -> Tensor:
    return cells.repeat_interleave(SIDE, -2).repeat_interleave(SIDE, -1)


def cells_of(images: Tensor) -> Tensor:
    """The mean of each cell of images ``(K, 1, 32, 32)``, ``(K, 8, 8)``."""
    return torch.nn.functional.avg_pool2d(images, SIDE)[:, 0]


def _bright(*places: tuple[int, int]) -> Tensor:
    cells = torch.zeros(CELLS, CELLS, dtype=torch.float64)
    for row, column in places:
        cells[row, column] = 1
    return cells


def linear() -> World:
    """A weighted sum; some cells speak against."""
    bright = (seeded(CELLS, CELLS, seed=1) < 0.3).double()
    weights = torch.where(bright > 0, seeded(CELLS, CELLS, seed=2) * 3 - 1, 0)
    return World(lambda x: (cells_of(x) * weights).sum((1, 2)), pixels(bright)[None], weights * bright)


def interaction() -> World:
    """Two cells, both of which are needed."""
    bright = _bright((1, 2), (5, 6))
    return World(lambda x: cells_of(x)[:, 1, 2] * cells_of(x)[:, 5, 6], pixels(bright)[None], bright)


def cancellation() -> World:
    """Two cells speak for, and two as loud ones against."""
    bright = _bright((1, 1), (2, 6), (5, 1), (6, 5))
    weights = 2 * _bright((1, 1), (2, 6)) - bright
    return World(lambda x: (cells_of(x) * weights).sum((1, 2)), pixels(bright)[None], weights)


def saturation() -> World:
    """Three cells, one of which is enough: no gradient, and no fall without any one of them."""
    bright = _bright((1, 1), (3, 6), (6, 2))
    return World(lambda x: cells_of(x).mul(bright).sum((1, 2)).clamp(max=1), pixels(bright)[None], bright)


def watermark() -> World:
    """A sign in the corner decides, and not the large object in the middle."""
    sign = _bright((7, 7))
    scene = sign.clone()
    scene[2:6, 2:6] = 0.8
    return World(lambda x: torch.sigmoid(8 * cells_of(x)[:, 7, 7] - 4), pixels(scene)[None], sign)


WORLDS = {world.__name__: world for world in (linear, interaction, cancellation, saturation, watermark)}
