"""Maps in cells: the same grid for all maps, whatever their own, and the order in which its cells matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap.errors import HookmapError
from hookmap.methods.weighting import LINEAR, full_precision

CELLS = 14
"""Cells along each axis by default: those of a ViT with patches of 16 pixels on an input of 224."""


class Order(NamedTuple):
    """The cells of M maps from the most to the least important.

    Attributes:
        rank: ``(M, N)``, the place of each of the N cells in that order, 0 for the most important.
        tied: ``(M,)``, 0..1: the share of cells whose value another cell has too; the seed decides among them.
    """

    rank: Tensor
    tied: Tensor


def grid_of(image: Tensor, cells: int | Sequence[int]) -> tuple[int, ...]:
    """Cells per axis of an image ``(C, *size)``: no more than it has pixels.

    Raises:
        HookmapError: for an image without axes, or cells that can't be.
    """
    size = image.shape[1:]
    if not 1 <= len(size) <= 3 or not image.is_floating_point():
        raise HookmapError(
            f"the image is {image.dtype} of shape {tuple(image.shape)}; expected the model's input for one image, "
            "floating-point (C, H, W)"
        )
    wanted = [cells] * len(size) if isinstance(cells, int) else [*cells]
    if len(wanted) != len(size) or min(wanted) < 1:
        raise HookmapError(f"cells is {cells}; expected a number, 1 or more, or one per axis of {tuple(size)}")
    return tuple(min(few, side) for few, side in zip(wanted, size, strict=True))


def in_cells(maps: Tensor, grid: Sequence[int]) -> Tensor:
    """Maps in cells: their means over a cell's area, or what lies between the centres of a coarser grid.

    Args:
        maps: ``(M, *size)`` of any size, each laid over the whole of the model's input.
        grid: cells per axis.

    Returns:
        ``(M, *grid)``, in float32 at least.

    Raises:
        HookmapError: if the maps have other axes than the grid, or values that aren't finite.
    """
    if maps.ndim != len(grid) + 1 or not maps.is_floating_point():
        raise HookmapError(
            f"the maps are {maps.dtype} of shape {tuple(maps.shape)}; expected floating-point ones, "
            f"(M, {', '.join('HW' if len(grid) == 2 else 'DHW'[-len(grid) :])}), laid over the whole input"
        )
    if not bool(maps.isfinite().all()):
        raise HookmapError("a map holds NaN or infinity, so its places have no order; look at the model's weights")
    values = full_precision(maps)[:, None]
    coarser = any(side < few for side, few in zip(maps.shape[1:], grid, strict=True))
    if coarser:
        return F.interpolate(values, tuple(grid), mode=LINEAR[len(grid)], align_corners=False)[:, 0]
    return F.interpolate(values, tuple(grid), mode="area")[:, 0]


def ordered(values: Tensor, seed: int = 0) -> Order:
    """The order of the cells of maps ``(M, *grid)``; among equals a random one, the same for the same seed."""
    flat = values.flatten(1).detach().cpu()
    count = flat.shape[1]
    shuffle = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    order = shuffle[flat[:, shuffle].argsort(dim=1, descending=True, stable=True)]
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(count).expand_as(order))
    along = flat.gather(1, order)
    same = along[:, 1:] == along[:, :-1]
    tied = torch.zeros_like(along, dtype=torch.bool)
    tied[:, 1:] |= same
    tied[:, :-1] |= same
    return Order(rank, tied.double().mean(1))


def on_pixels(cells: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """Values of cells ``(K, N)`` on the pixels that each covers, ``(K, *size)``."""
    return F.interpolate(cells.reshape(len(cells), 1, *grid), tuple(size), mode="nearest")[:, 0]
