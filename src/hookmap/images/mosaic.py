"""What of a picture a model is shown: one view of it or several, found by looking at what becomes of a ramp."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hookmap.errors import ModelError
from hookmap.images.geometry import Geometry

Show = Callable[[np.ndarray[Any, Any]], Tensor]
"""From pixels (H, W, 3) to the views of them that a model is given, ``(V, 3, h, w)``."""

_ASTRAY = 1.0
"""Pixels that places may lie beside a line on average, by the rounding of colours to whole numbers."""


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A picture in all the views of it that a model is given, as one input in which every place stands once.

    Changed copies of the input are shown to the model as the same views: of the plain input they are what its
    processor made, but for rounding.

    Attributes:
        input: the picture at the scale of the finest views, ``(C, H, W)``, in their numbers.
        geometry: from the picture's pixels to the input's.
        views: as the processor gave them, ``(V, C, h, w)``.
        within: from the input's pixels to those of each view.
    """

    input: Tensor
    geometry: Geometry
    views: Tensor
    within: Sequence[Geometry]

    def of(self, x: Tensor) -> Tensor:
        """The views of changed copies ``(B, C, H, W)`` of the input, ``(B, V, C, h, w)``, with their gradient."""
        return torch.stack([_cut(x, view) for view in self.within], 1) + self._rest.to(x)

    @cached_property
    def _rest(self) -> Tensor:
        """What the processor made otherwise than by cutting views from the input."""
        plain = self.input.float()
        return self.views.float() - torch.stack([_cut(plain, view) for view in self.within]).detach()


def mosaic(views: Tensor, geometries: Sequence[Geometry]) -> Mosaic:
    """The views of a picture ``(V, C, h, w)`` as one input.

    Args:
        views: of the picture.
        geometries: of each, from the picture's pixels.
    """
    sides = views.shape[2:]
    finest = max(geometries, key=lambda one: math.prod(one.scale))
    scale = [_whole(s * n) / n for s, n in zip(finest.scale, finest.original, strict=True)]
    # Views at the finest scale lie whole pixels apart; a half of one is what rounding may do.
    group = [
        one
        for one in geometries
        if all(abs(s / t - 1) * side < 0.5 for s, t, side in zip(one.scale, finest.scale, sides, strict=True))
    ]
    corners = [[-round(o - f) for o, f in zip(one.offset, finest.offset, strict=True)] for one in group]
    first = [min(corner[axis] for corner in corners) for axis in (0, 1)]
    last = [max(corner[axis] for corner in corners) + sides[axis] for axis in (0, 1)]
    size = last[0] - first[0], last[1] - first[1]
    offset = _whole(finest.offset[0] - first[0]), _whole(finest.offset[1] - first[1])
    frame = Geometry(finest.original, size, (scale[0], scale[1]), offset)
    within = []
    for one in geometries:
        if one in group:
            top, left = (c - f for c, f in zip(corners[group.index(one)], first, strict=True))
            within.append(Geometry(size, (sides[0], sides[1]), (1.0, 1.0), (-float(top), -float(left))))
        else:
            within.append(_between(frame, one))
    canvas = torch.zeros(views.shape[1], *size, dtype=views.dtype)
    # The finest last, so that it is what stands there.
    for view, own in sorted(zip(views.cpu(), within, strict=True), key=lambda pair: math.prod(pair[1].scale)):
        if (part := _part(own)) is not None:
            canvas[part] = view
        else:
            seen = own.lay_back(torch.ones(1, *sides)) > 0
            canvas = torch.where(seen, own.lay_back(view).to(canvas), canvas)
    return Mosaic(canvas, frame, views, within)


def _between(frame: Geometry, view: Geometry) -> Geometry:
    """From the input to a view, both of one picture."""
    scale = [v / f for v, f in zip(view.scale, frame.scale, strict=True)]
    offset = [v - f * s for v, f, s in zip(view.offset, frame.offset, scale, strict=True)]
    size = (round(frame.input[0]), round(frame.input[1]))
    return Geometry(size, view.input, (scale[0], scale[1]), (offset[0], offset[1]))


def _whole(value: float) -> float:
    """The whole number that is meant: processors resize, pad and crop by whole pixels."""
    return float(round(value)) if abs(value - round(value)) < 0.3 else value


def _part(view: Geometry) -> tuple[Any, ...] | None:
    """Where a view's pixels are pixels of the input; None where they are made of several."""
    if view.scale != (1.0, 1.0):
        return None
    top, left = (-int(o) for o in view.offset)
    height, width = (int(side) for side in view.input)
    return ..., slice(top, top + height), slice(left, left + width)


def _cut(x: Tensor, view: Geometry) -> Tensor:
    """A view of an input ``(..., H, W)``."""
    if (part := _part(view)) is not None:
        return x[part]
    # Relevance is shared out by what the graph keeps of a product: both sides, if both could have a gradient.
    rows, columns = (_sampling(view, axis).to(x).requires_grad_() for axis in (0, 1))
    return ((x @ columns.T).mT @ rows.T).mT


def _sampling(view: Geometry, axis: int) -> Tensor:
    """How much of each pixel of the input each pixel of a view is made of along an axis, smoothed where it shrinks."""
    scale, size = view.scale[axis], view.original[axis]
    centres = (torch.arange(round(view.input[axis])) + 0.5 - view.offset[axis]) / scale
    reach = max(1.0, 1 / scale)
    near = (1 - (centres[:, None] - (torch.arange(size) + 0.5)).abs() / reach).clamp(min=0)
    inside = (centres >= 0) & (centres <= size)
    return near / near.sum(1, keepdim=True).clamp(min=1e-6) * inside[:, None]


# ---------------------------------------------------------------- where views lie


def geometries_of(show: Show, size: tuple[int, int]) -> list[Geometry]:
    """Where on pictures of a size (H, W) the views lie that a processor makes, and how large it shows them.

    A black picture and a white one tell what is padding, and pictures whose colours are places tell where each pixel of
    a view comes from. So no processor need be known.

    Raises:
        ModelError: if it does something else than to resize, crop and pad.
    """
    plain = np.zeros((*size, 3), np.uint8)
    black, white = show(plain).double(), show(plain + 255).double()
    span = white - black
    inside = (span.abs() > span.abs().amax() / 2).all(1)
    span = torch.where(inside[:, None], span, 1)
    lines = []
    for axis in (0, 1):
        code = _code(size[axis])
        coloured = show(np.broadcast_to(code[:, None] if axis == 0 else code, (*size, 3)).copy())
        places = _decoded((coloured.double() - black) / span, size[axis])
        lines.append([_line(own, mask, size[axis], axis) for own, mask in zip(places, inside, strict=True)])
    return [
        Geometry(size, (views.shape[0], views.shape[1]), (down, across), (top, left))
        for views, (down, top), (across, left) in zip(inside, *lines, strict=True)
    ]


def _waves(pixels: int) -> int:
    """How many waves the colours of places go through: each is longer than what a filter reaches."""
    return max(1, min(16, pixels // 16))


def _code(pixels: int) -> np.ndarray[Any, Any]:
    """The colours of the places along a side, ``(pixels, 3)``: a ramp, and waves that tell places between its steps."""
    share = (np.arange(pixels) + 0.5) / pixels
    angle = 2 * np.pi * _waves(pixels) * share
    return np.round(255 * np.stack([share, (1 + np.cos(angle)) / 2, (1 + np.sin(angle)) / 2], 1)).astype(np.uint8)


def _decoded(colours: Tensor, pixels: int) -> Tensor:
    """The places ``(V, h, w)`` in pixels of the colours ``(V, 3, h, w)``."""
    ramp, cosine, sine = colours.unbind(1)
    waves = _waves(pixels)
    turn = torch.atan2(2 * sine - 1, 2 * cosine - 1) / (2 * torch.pi)
    return ((ramp * waves - turn).round() + turn) * pixels / waves


def _line(places: Tensor, inside: Tensor, pixels: int, axis: int) -> tuple[float, float]:
    """The scale and the offset along an axis of a view ``(h, w)`` whose pixels come from these places."""
    other = 1 - axis
    shown = inside.any(other).nonzero().flatten()
    if not len(shown):
        raise ModelError("the processor gives a view that shows nothing of the picture, so its places aren't known")
    low, high = int(shown[0]), int(shown[-1]) + 1
    along = ((places * inside).sum(other) / inside.sum(other).clamp(min=1))[low:high]
    centres = torch.arange(low, high).double() + 0.5
    # At the edges filters find no neighbours, and give what lies further inside.
    first, last = float(along.min()), float(along.max())
    rim = max(1.5, 0.04 * (last - first))
    use = (along > first + rim) & (along < last - rim)
    if int(use.sum()) < 3:
        return (high - low) / pixels, float(low)
    x, y = centres[use], along[use]
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    start = float(y.mean()) - slope * float(x.mean())
    if slope <= 0 or float((y - slope * x - start).square().mean().sqrt()) > _ASTRAY * max(1.0, slope):
        raise ModelError(
            "the processor does something else with pictures than to resize, crop and pad them, so what its views show "
            "isn't known"
        )
    return 1 / slope, -start / slope
