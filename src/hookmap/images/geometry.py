"""Where a model's input lies on the original image, and maps laid back onto it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """The axis-aligned mapping from an original image to a model's input.

    Coordinates are continuous: pixel ``i`` covers ``[i, i + 1)``. Then
    ``input = original * scale + offset`` along each axis.

    Attributes:
        original: size (H, W) of the original image.
        input: size (h, w) of the model's input.
        scale: input pixels per original pixel, (y, x).
        offset: where the original's corner lies in the input, (y, x); negative where a crop cuts it off.
    """

    original: tuple[int, int]
    input: tuple[float, float]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def identity(cls, size: tuple[int, int]) -> Geometry:
        """The input is the image itself."""
        return cls(size, size)

    def resized(self, size: tuple[int, int]) -> Geometry:
        """This geometry followed by a resize of the whole to ``size``."""
        factor = (size[0] / self.input[0], size[1] / self.input[1])
        return Geometry(
            self.original,
            size,
            (self.scale[0] * factor[0], self.scale[1] * factor[1]),
            (self.offset[0] * factor[0], self.offset[1] * factor[1]),
        )

    def shifted(self, size: tuple[int, int], top: int, left: int) -> Geometry:
        """This geometry followed by a cut of ``size`` at (top, left); negative values pad."""
        return Geometry(self.original, size, self.scale, (self.offset[0] - top, self.offset[1] - left))

    def spanning(self, field: Sequence[float]) -> Geometry:
        """This geometry for grids that span ``field`` (..., h, w): more than the input where the model pads it."""
        return replace(self, input=(field[-2] if len(field) > 1 else self.input[0], field[-1]))

    def displayed(self, size: tuple[int, int]) -> Geometry:
        """This geometry for the original shown in another size (H, W)."""
        factor = (self.original[0] / size[0], self.original[1] / size[1])
        return Geometry(size, self.input, (self.scale[0] * factor[0], self.scale[1] * factor[1]), self.offset)

    def part(self, top: int, left: int, size: tuple[int, int]) -> Geometry:
        """This geometry for a part of the original, of a size (H, W)."""
        y, x = self.scale
        return replace(self, original=size, offset=(self.offset[0] + top * y, self.offset[1] + left * x))

    def to_input(self, points: Tensor) -> Tensor:
        """Points ``(..., 2)`` as (x, y) on the original, in input coordinates."""
        points, scale, offset = self._affine(points)
        return points * scale + offset

    def to_original(self, points: Tensor) -> Tensor:
        """Points ``(..., 2)`` as (x, y) on the input, in coordinates of the original."""
        points, scale, offset = self._affine(points)
        return (points - offset) / scale

    def _affine(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        points = points if points.is_floating_point() else points.float()
        return points, points.new_tensor(self.scale[::-1]), points.new_tensor(self.offset[::-1])

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """The part of the original that the model saw: (left, top, right, bottom) in its pixels."""
        low = [max(0.0, -o / s) for o, s in zip(self.offset, self.scale, strict=True)]
        high = [
            min(float(n), (i - o) / s)
            for n, i, o, s in zip(self.original, self.input, self.offset, self.scale, strict=True)
        ]
        return low[1], low[0], high[1], high[0]

    @property
    def span(self) -> tuple[float, float, float, float]:
        """The rectangle of the original that the input spans, (left, top, right, bottom): also beyond its edges."""
        (high, wide), (down, across), (top, left) = self.input, self.scale, self.offset
        return -left / across, -top / down, (wide - left) / across, (high - top) / down

    def cells(self, grid: Sequence[int]) -> tuple[slice, slice]:
        """The rows and columns of a grid (h, w) that lie on the original, and not on what was padded to it."""
        sides = zip(grid, self.input, self.original, self.scale, self.offset, strict=True)
        ends = [(n * offset / side, n * (offset + scale * pixels) / side) for n, side, pixels, scale, offset in sides]
        first, second = (
            slice(max(0, math.floor(low + 1e-6)), min(n, math.ceil(high - 1e-6)))
            for n, (low, high) in zip(grid, ends, strict=True)
        )
        return first, second

    def lay_back(self, maps: Tensor, kernel: Kernel = "linear") -> Tensor:
        """Maps on the input's grid, laid onto the original image's pixels.

        The grid spans the whole input; between the centres of its cells the map is interpolated, beyond the
        outermost centres constant (as ``F.interpolate(mode="bilinear", align_corners=False)``). Pixels that
        the model never saw are 0.

        Args:
            maps: ``(..., gh, gw)``.
            kernel: ``"linear"``, or ``"cubic"`` (Catmull-Rom): exact in the cells' centres too, without the
                star-shaped creases of linear interpolation, so better to look at; it may overshoot a little.

        Returns:
            ``(..., H, W)`` in the same dtype, float32 at least.
        """
        if maps.dtype in (torch.float16, torch.bfloat16):
            maps = maps.float()
        rows, columns = self.weights(maps, kernel)
        with torch.autocast(maps.device.type, enabled=False):  # the caller's is for the model
            return rows @ maps @ columns.T

    def weights(self, maps: Tensor, kernel: Kernel = "linear") -> tuple[Tensor, Tensor]:
        """How much of each row and column of the grid each one of the original's pixels gets, (H, gh) and (W, gw).

        They sum to 1 over the grid where the model looked, else to 0. :meth:`lay_back` multiplies maps by both.
        """
        return self._weights(0, maps, kernel), self._weights(1, maps, kernel)

    def _weights(self, axis: int, maps: Tensor, kernel: Kernel) -> Tensor:
        """How much of each grid cell each pixel of the original gets along one axis, (pixels, cells)."""
        pixels = torch.arange(self.original[axis], device=maps.device, dtype=maps.dtype) + 0.5
        on_input = pixels * self.scale[axis] + self.offset[axis]
        return _shares_of_cells(on_input, self.input[axis], maps.shape[axis - 2], kernel)


def laid_into_square(maps: Tensor, y: Tensor, x: Tensor, side: int) -> Tensor:
    """Maps of one grid, each laid onto its own picture, which is squeezed into a square: see :meth:`Geometry.lay_back`.

    Args:
        maps: ``(n, gh, gw)``.
        y: where each grid begins and ends in its picture, ``(n, 2)``, in shares of the picture's height.
        x: likewise of its width.
        side: of the square.

    Returns:
        ``(n, side, side)``.
    """
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    rows, columns = (
        _shares_of_cells(((centres - ends[:, :1]) / (ends[:, 1:] - ends[:, :1])).to(maps.dtype), 1.0, cells, "linear")
        for ends, cells in zip((y, x), maps.shape[1:], strict=True)
    )
    return rows @ maps @ columns.transpose(1, 2)


def _shares_of_cells(places: Tensor, extent: float, cells: int, kernel: Kernel) -> Tensor:
    """How much of each cell of a grid from 0 to an extent each place gets, ``(..., cells)``; nothing beyond it."""
    on_grid = (places * (cells / extent) - 0.5).clamp(0, cells - 1)
    # Two cells more on either side repeat the outermost ones.
    positions = torch.arange(-2, cells + 2, device=places.device, dtype=places.dtype)
    weights = _KERNELS[kernel]((on_grid[..., None] - positions).abs())
    inner = weights[..., 2:-2].clone()
    inner[..., 0] += weights[..., :2].sum(-1)
    inner[..., -1] += weights[..., -2:].sum(-1)
    inside = (places >= 0) & (places <= extent)
    return inner * inside[..., None]


def _linear(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, far.where(distance < 2, torch.zeros_like(far)))


Kernel = Literal["linear", "cubic"]
_KERNELS: dict[Kernel, Callable[[Tensor], Tensor]] = {"linear": _linear, "cubic": _cubic}
