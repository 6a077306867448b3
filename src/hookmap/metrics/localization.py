"""Whether a map lies on the object: shown for comparison, and without a vote.

A model may well decide by what surrounds the object; a map that shows so is right, and loses here. What is below 0
counts as 0, as in :mod:`hookmap.metrics.summary`. Boxes become masks by :func:`in_boxes`; maps are laid over the mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap.errors import HookmapError
from hookmap.metrics.cells import in_cells
from hookmap.metrics.correlation import on_cpu
from hookmap.metrics.summary import covered


def in_boxes(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> Tensor:
    """Boxes (left, top, right, bottom) in pixels as a mask ``(H, W)``: the share of each pixel that they cover."""
    return torch.from_numpy(covered(size, boxes))


def pointing(maps: Tensor, mask: Tensor, *, tolerance: float = 0) -> Tensor:
    r"""Pointing game: whether the map is strongest on the object.

    .. math:: \mathbb{1}[\arg\max m \in \text{object}]

    Of equally strong places the share that is on the object, so that a map that is the same everywhere gets what
    chance would. Zhang et al., *Top-down Neural Attention by Excitation Backprop*, ECCV 2016, arXiv:1608.00507 (with a
    tolerance of 15 pixels).

    Pitfall: one place decides, and objects are large and in the middle: a centred spot hits most of them.

    Args:
        maps: ``(M, h, w)``.
        mask: ``(H, W)``, bool or the share of each pixel that the object covers; laid over the same input.
        tolerance: so many pixels of the mask beside the object hit as well.

    Returns:
        ``(M,)``, 0..1; larger is better.
    """
    over, inside = _over(maps, mask)
    on = inside > 0.5
    reach = int(tolerance)
    if reach > 0:
        steps = torch.arange(-reach, reach + 1).to(over)
        disk = (steps[:, None] ** 2 + steps**2 <= tolerance**2).to(over)
        on = F.conv2d(on.to(over)[None, None], disk[None, None], padding=reach)[0, 0] > 0.5
    strongest = (over == over.flatten(1).amax(1)[:, None, None]).double()
    return (strongest * on).sum((1, 2)) / strongest.sum((1, 2))


def iou(maps: Tensor, mask: Tensor, *, threshold: float = 0.5) -> Tensor:
    r"""Intersection over union of the object with where the map is at least a share of its maximum.

    .. math:: \frac{|A \cap B|}{|A \cup B|}, \qquad A = \{i : m_i \ge t \max m\}

    Zhou et al., *Learning Deep Features for Discriminative Localization*, CVPR 2016, arXiv:1512.04150 (t = 0.2).

    Pitfall: **the threshold decides**, and other methods are best at others (Choe et al., CVPR 2020,
    arXiv:2001.07437): compare methods each at its best threshold, found on other images.

    Args:
        maps: ``(M, h, w)``.
        mask: ``(H, W)``, bool or the share of each pixel that the object covers; laid over the same input.
        threshold: the share of the maximum, above 0.

    Returns:
        ``(M,)``, 0..1; larger is better, 0 for a map with nothing above 0.

    Raises:
        HookmapError: for a threshold outside of 0..1.
    """
    if not 0 < threshold <= 1:
        raise HookmapError(f"threshold is {threshold}; expected a share of the map's maximum, above 0 and at most 1")
    over, inside = _over(maps, mask)
    most = over.flatten(1).amax(1)[:, None, None]
    above, on = (over >= threshold * most) & (most > 0), inside > 0.5
    return (above & on).sum((1, 2)).double() / (above | on).sum((1, 2))


def energy(maps: Tensor, mask: Tensor) -> Tensor:
    r"""The energy-based pointing game: the share of the map's energy that lies on the object.

    .. math:: \sum_{i \in \text{object}} \max(0, m_i) \Big/ \sum_i \max(0, m_i)

    Wang et al., *Score-CAM*, CVPR Workshops 2020, arXiv:1910.01279.

    Pitfall: a large object holds much of any map's energy: compare with the object's share of the image.

    Args:
        maps: ``(M, h, w)``.
        mask: ``(H, W)``, bool or the share of each pixel that the object covers; laid over the same input.

    Returns:
        ``(M,)``, 0..1; larger is better, NaN for a map with nothing above 0.
    """
    over, inside = _over(maps, mask)
    return (over * inside).sum((1, 2)) / over.sum((1, 2))


def grid_pointing(maps: Tensor, cell: tuple[int, int], grid: tuple[int, int] = (2, 2)) -> Tensor:
    r"""The grid pointing game: the share of the map's energy in the right image of a mosaic.

    Images of different classes that the model is sure of are put together into one; the class of one is explained.
    Böhle et al., *Convolutional Dynamic Alignment Networks*, CVPR 2021, arXiv:2104.00032.

    Pitfall: the model may find the class in a neighbour too, and then a right map loses. Only where the model can't
    see the others (DiFull; Rao et al., CVPR 2022, arXiv:2205.10435) is energy there an error for sure.

    Args:
        maps: ``(M, h, w)``, of the mosaic.
        cell: row and column of the image whose class is explained, from 0.
        grid: rows and columns of the mosaic.

    Returns:
        ``(M,)``, 0..1; larger is better, one over the number of images for a map that is the same everywhere, NaN for a
        map with nothing above 0.

    Raises:
        HookmapError: for a cell that the mosaic doesn't have.
    """
    if not all(0 <= at < count for at, count in zip(cell, grid, strict=True)):
        raise HookmapError(f"cell is {cell}; expected row and column in a mosaic of {grid[0]} x {grid[1]}, from 0")
    height, width = maps.shape[1:]
    down, across = height / grid[0], width / grid[1]
    row, column = cell
    box = column * across, row * down, (column + 1) * across, (row + 1) * down
    return energy(maps, in_boxes([box], (height, width)))


def _over(maps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """What maps say for the target, laid over the mask, ``(M, H, W)``, and the mask."""
    if mask.ndim != 2:
        raise HookmapError(f"the mask is of shape {tuple(mask.shape)}; expected (H, W), laid over the whole input")
    return on_cpu(in_cells(maps, mask.shape).clamp(min=0)), on_cpu(mask)
