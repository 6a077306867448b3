"""What stands in an image where something is removed from it.

A fill is a function of the image ``(C, *size)`` and of what is removed, ``(K, *size)`` bool, that gives K images
``(K, C, *size)``; only what they hold at removed pixels counts. No fill is neutral: a plain colour makes edges, a blur
leaves colours, and a network may take either for evidence. Hence a verdict asks several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap._text import did_you_mean
from hookmap.errors import HookmapError
from hookmap.methods.weighting import full_precision

Fill: TypeAlias = Callable[[Tensor, Tensor], Tensor]
FillSpec: TypeAlias = "str | Tensor | Fill"
"""A name of :data:`FILLS`, an image ``(C, *size)`` to take the pixels from, or a function."""

BLUR = 1 / 14
"""The standard deviation of the blur, as a share of the image's shorter side: as wide as a cell."""
NOISE = 0.01
"""The standard deviation of what is added to an imputed pixel, as ROAD's authors have it."""
_COARSEST = 200
_STEPS = 4
_PIXELS = 2**15


def mean(image: Tensor, removed: Tensor) -> Tensor:
    """The image's mean colour."""
    colour = image.flatten(1).mean(1)
    return colour.reshape(1, -1, *[1] * (image.ndim - 1)).expand(1, *image.shape)


def zero(image: Tensor, removed: Tensor) -> Tensor:
    """Zero: for a normalised input, the mean colour of the data set."""
    return torch.zeros_like(image)[None]


def blur(image: Tensor, removed: Tensor) -> Tensor:
    """The image blurred by a Gaussian whose standard deviation is a fourteenth of its shorter side."""
    return blurred(image, BLUR * min(image.shape[1:]))[None]


def linear(image: Tensor, removed: Tensor) -> Tensor:
    r"""What its surroundings would be continued by, plus a little noise: ROAD's noisy linear imputation.

    Every removed pixel is the mean of its eight neighbours, those beside it weighing twice as much as those across a
    corner:

    .. math:: x_i = \frac{\sum_{j \in N(i)} w_{ij} x_j}{\sum_{j \in N(i)} w_{ij}} + \epsilon_i, \qquad
              w_{ij} \in \{1/6, 1/12\}, \quad \epsilon_i \sim \mathcal{N}(0, 0.01^2)

    Rong et al., *A Consistent and Efficient Evaluation Strategy for Attribution Methods*, ICML 2022,
    arXiv:2202.00449. The linear system is solved by multigrid, to about a thousandth of the image's range (the
    authors factorise a sparse matrix). The noise is the same for all masks of an image size. For images of two axes.

    Raises:
        HookmapError: for images of other axes.
    """
    if image.ndim != 3:
        raise HookmapError(f"the fill 'linear' is defined for images (C, H, W), and this one is {tuple(image.shape)}")
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image) * NOISE
    return imputed(image, removed) + noise


FILLS: dict[str, Fill] = {"mean": mean, "zero": zero, "blur": blur, "linear": linear}
"""By name."""


def fill_of(spec: FillSpec, image: Tensor) -> Callable[[Tensor], Tensor]:
    """The fill that is meant, for one image: what is the same whatever is removed is made once.

    Raises:
        HookmapError: for a name that there isn't.
    """
    if isinstance(spec, Tensor):
        still = spec.to(image).expand_as(image)[None]
        return lambda removed: still
    if callable(spec):
        return partial(spec, image)
    if spec in FILLS and spec != "linear":
        whole = FILLS[spec](image, torch.ones_like(image[:1], dtype=torch.bool))
        return lambda removed: whole
    if spec in FILLS:
        return partial(FILLS[spec], image)
    hint = did_you_mean(str(spec), FILLS, f"there are {', '.join(FILLS)}")
    raise HookmapError(f"there's no fill {spec!r}; {hint}")


def blurred(image: Tensor, deviation: float) -> Tensor:
    """An image ``(C, *size)`` under a Gaussian of so many pixels; beyond its border it goes on as it ends."""
    reach = max(1, round(3 * deviation))
    steps = torch.arange(-reach, reach + 1, device=image.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (steps / max(deviation, 1e-6)) ** 2)
    kernel = (kernel / kernel.sum()).to(image)
    for axis in range(1, image.ndim):
        lines = image.movedim(axis, -1)
        flat = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="replicate")
        image = F.conv1d(flat, kernel[None, None]).reshape(lines.shape).movedim(-1, axis)
    return image


# ---------------------------------------------------------------- continuation by multigrid


def imputed(image: Tensor, removed: Tensor) -> Tensor:
    """Images whose removed pixels are the weighted mean of their neighbours: :func:`linear` without noise.

    A few steps of conjugate gradients, preconditioned by a V-cycle over halved grids; on these a pixel is unknown where
    all below it are, so what is known stays exactly as it is.

    Args:
        image: ``(C, H, W)``.
        removed: ``(K, H, W)``, bool.

    Returns:
        ``(K, C, H, W)``; where everything is removed, the image's mean colour.
    """
    image = full_precision(image)
    # Large images one by one: they stay in the processor's cache.
    together = max(1, _PIXELS // removed[0].numel())
    unknown = removed[:, None].to(image.dtype)
    everything = unknown.flatten(1).amin(1).reshape(-1, 1, 1, 1) > 0
    unknown = unknown * ~everything
    parts = [unknown[i : i + together] for i in range(0, len(unknown), together)]
    solved = torch.cat([_solved(image[None] * (1 - part), part) for part in parts])
    return torch.where(everything, mean(image, removed), solved)


def _solved(known: Tensor, unknown: Tensor) -> Tensor:
    values = _guessed(known, unknown)
    residual = unknown * _laplacian(values)
    levels = _levels(unknown)
    if not levels:
        return values
    direction, last = torch.zeros_like(values), None
    for _ in range(_STEPS):
        better = _cycle(residual, levels)
        product = _dot(residual, better)
        direction = better if last is None else direction.mul_(product / last).add_(better)
        last = product.clamp(min=1e-30)
        change = _laplacian(direction).mul_(unknown)
        step = product / (-_dot(direction, change)).clamp(min=1e-30)
        values, residual = values.addcmul_(step, direction), residual.addcmul_(step, change)
    return values


class _Level(NamedTuple):
    """A grid: where it is unknown ``(K, 1, h, w)``, that by the neighbours' weights; of the coarsest the inverse."""

    unknown: Tensor
    share: Tensor
    inverse: Tensor | None = None


def _levels(unknown: Tensor) -> list[_Level]:
    """The grid and its halves, as far as something is unknown there."""
    levels: list[_Level] = []
    while bool(unknown.any()):
        size = unknown.shape[2], unknown.shape[3]
        level = _Level(unknown, unknown / _weights(size).to(unknown))
        if math.prod(size) <= _COARSEST:
            # What is known stays 0, and is no part of the equations of the others.
            inside = unknown.flatten(1)
            system = -_system(size).to(unknown) * inside[:, :, None] * inside[:, None] + torch.diag_embed(1 - inside)
            return [*levels, level._replace(inverse=torch.linalg.inv(system))]
        levels.append(level)
        unknown = (_halved(unknown) == 1).to(unknown.dtype)
    return levels


def _guessed(known: Tensor, unknown: Tensor) -> Tensor:
    """What the image at half the size gives, and so on. ``known`` is 0 where it's unknown."""
    if not bool(unknown.any()):
        return known
    share = 1 - _halved(unknown)
    coarse = _guessed(_halved(known) / share.clamp(min=0.01), (share == 0).to(known.dtype))
    return known + unknown * _doubled(coarse, known)


def _cycle(right: Tensor, levels: Sequence[_Level]) -> Tensor:
    """Nearly what has ``right`` as its negative Laplacian where it's unknown, and is 0 elsewhere."""
    level = levels[0]
    if level.inverse is not None:
        return (right.flatten(2) @ level.inverse.mT).reshape(right.shape) * level.unknown
    values = right * level.share
    if len(levels) > 1:
        # On a grid of twice the spacing the same equation has four times the right side.
        residual = _laplacian(values).add_(right).mul_(level.unknown)
        below = _cycle(_halved(residual).mul_(4 * levels[1].unknown), levels[1:])
        values = values.addcmul_(level.unknown, _doubled(below, values))
    return values.addcmul_(level.share, _laplacian(values).add_(right))


@lru_cache(maxsize=16)
def _system(size: tuple[int, int]) -> Tensor:
    """The Laplacian of a grid as a matrix ``(N, N)``."""
    pixels = math.prod(size)
    return _laplacian(torch.eye(pixels).reshape(pixels, 1, *size)).flatten(1)


def _laplacian(values: Tensor) -> Tensor:
    """The weighted sum of the differences to each pixel's neighbours that lie in the image."""
    weights = _weights((values.shape[2], values.shape[3])).to(values)
    return _weighted(values).addcmul_(values, weights, value=-1)


@lru_cache(maxsize=64)
def _weights(size: tuple[int, int]) -> Tensor:
    return _weighted(torch.ones(1, 1, *size))


def _weighted(values: Tensor) -> Tensor:
    """1, 2, 1 along both axes without the pixel itself: two of each beside it for one across a corner."""
    down = 2 * values
    down[:, :, 1:] += values[:, :, :-1]
    down[:, :, :-1] += values[:, :, 1:]
    across = torch.add(-4 * values, down, alpha=2)
    across[..., 1:] += down[..., :-1]
    across[..., :-1] += down[..., 1:]
    return across


def _halved(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, 2, ceil_mode=True, count_include_pad=False)


def _doubled(values: Tensor, like: Tensor) -> Tensor:
    double = F.interpolate(values, scale_factor=2, mode="bilinear", align_corners=False)
    return double[..., : like.shape[2], : like.shape[3]]


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum((2, 3), keepdim=True)
