"""What of a map is drawn: its picture, a frame of a video, or three planes of a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.render.colors import Array, Heat, heat_of, span_of
from hookmap.render.look import Look, Part


@dataclass(frozen=True, eq=False)
class Plane:
    """One picture with a map over it.

    Attributes:
        picture: under it.
        values: what is shown, on the map's grid ``(h, w)``.
        evidence: magnitudes of all evidence that they are compared with, for and against, of any shape.
        geometry: from the picture's pixels to the grid.
        name: of the plane of a volume.
    """

    picture: Picture
    values: Array
    evidence: Array
    geometry: Geometry
    name: str = ""

    def span(self, look: Look) -> tuple[float, float]:
        """The values drawn as the weakest and the strongest: of those that lie on the picture."""
        return span_of(self.values[self.geometry.cells(self.values.shape)], self.evidence, look)

    def heat(self, look: Look, span: tuple[float, float] | None = None) -> Heat:
        """The map as it is drawn, on its own scale or another."""
        return heat_of(self.values, look, self.span(look) if span is None else span)


def planes_of(
    raw: Tensor, part: Part, picture: Picture, frames: np.ndarray[Any, Any] | None, geometry: Geometry
) -> list[Plane]:
    """The pictures that show a map.

    A grid is shown over its picture; of a video ``(t, h, w)`` the frame where the map is strongest; of a volume, which
    is a clip in grey, the three planes through the strongest place. Without its frames a clip is summed over time.
    """
    raw = raw.detach().float().cpu().nan_to_num(posinf=0.0, neginf=0.0)
    raw = raw[None] if raw.ndim == 1 else raw
    values, evidence = part_of(raw, part), raw.abs()
    if raw.ndim == 2:
        here = evidence[geometry.cells(raw.shape)]
        return [Plane(picture, values.numpy(), here.numpy(), geometry)]
    if frames is None:
        sides = torch.stack([raw.clamp(min=0).sum(0), raw.clamp(max=0).sum(0).abs()])
        return [Plane(picture, values.sum(0).numpy(), sides.numpy(), geometry)]
    shown, every, depth = values.numpy(), evidence.numpy(), len(frames)
    if not (frames == frames[..., :1]).all():
        step = int(values.abs().flatten(1).sum(1).argmax())
        return [Plane(Picture(frames[_middle(step, len(values), depth)]), shown[step], every, geometry)]
    step, row, column = (int(i) for i in np.unravel_index(int(np.abs(shown).argmax()), shown.shape))
    z = _middle(step, len(values), depth)
    y, x = (_pixel(geometry, axis, cell, shown.shape[axis + 1]) for axis, cell in ((0, row), (1, column)))
    height, width = geometry.original
    down, across = _across(geometry, 1, depth), _across(geometry, 0, depth)
    return [
        Plane(Picture(frames[z]), shown[step], every, geometry, f"slice {z + 1} of {depth}"),
        Plane(Picture(frames[:, y]), shown[:, row], every, down, f"row {y + 1} of {height}"),
        Plane(Picture(frames[:, :, x]), shown[:, :, column], every, across, f"column {x + 1} of {width}"),
    ]


def part_of(raw: Tensor, part: Part) -> Tensor:
    """What is shown of a signed map; its negative part as positive numbers."""
    return raw if part == "signed" else (-raw if part == "negative" else raw).clamp(min=0)


def _middle(step: int, steps: int, frames: int) -> int:
    """The frame in the middle of a step of the map."""
    return int((step + 0.5) * frames / steps)


def _pixel(geometry: Geometry, axis: int, cell: int, cells: int) -> int:
    """The pixel in the middle of a row or a column of the grid."""
    on_input = (cell + 0.5) * geometry.input[axis] / cells
    at = int((on_input - geometry.offset[axis]) / geometry.scale[axis])
    return min(max(at, 0), geometry.original[axis] - 1)


def _across(geometry: Geometry, axis: int, depth: int) -> Geometry:
    """Of a plane that holds all slices, one above the other, and one axis of the picture."""
    return Geometry(
        (depth, geometry.original[axis]),
        (depth, geometry.input[axis]),
        (1.0, geometry.scale[axis]),
        (0.0, geometry.offset[axis]),
    )
