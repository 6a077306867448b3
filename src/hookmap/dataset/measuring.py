"""What can be said of a heatmap in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hookmap.geometry import Geometry

SIDE = 96
"""Maps are measured on the picture shown with this longer side."""
EDGE = 0.1
"""The border is this share of the picture's height and width on each side."""


@dataclass(frozen=True)
class Measures:
    """Of one heatmap's evidence for its target: what is below 0 counts as 0. Energy is the sum over pixels.

    Attributes:
        peak_x: where the map is strongest, in pixels of the picture.
        peak_y: likewise.
        centre_x: centre of its energy, in pixels of the picture.
        centre_y: likewise.
        entropy: of the energy's distribution over what the model saw, from 0 (one pixel) to 1 (the same everywhere).
        half_area: the smallest share of what the model saw that holds half of the energy: 0.5 if it is the same
            everywhere.
        border: share of the energy in the picture's outer tenth on each side; 0.36 if it is the same everywhere and
            the model sees all of the picture.
        corner: share of the energy in the strongest of the four corners, each a fifth of the height and of the width;
            0.04 if it is the same everywhere.
        in_box: share of the energy in the boxes; None without.
        box_share: share of what the model saw that the boxes cover.
        in_mask: share of the energy in the mask; None without.
        mask_share: share of what the model saw that the mask covers.
    """

    peak_x: float | None = None
    peak_y: float | None = None
    centre_x: float | None = None
    centre_y: float | None = None
    entropy: float | None = None
    half_area: float | None = None
    border: float | None = None
    corner: float | None = None
    in_box: float | None = None
    box_share: float | None = None
    in_mask: float | None = None
    mask_share: float | None = None


def measured(
    values: Tensor,
    geometry: Geometry,
    boxes: Sequence[Sequence[float]] = (),
    mask: np.ndarray[Any, Any] | None = None,
) -> Measures:
    """Measures of a map.

    Args:
        values: on the layer's grid, ``(h, w)``; of clips the sum over time.
        geometry: from the picture to the grid.
        boxes: (left, top, right, bottom) in pixels of the picture.
        mask: bool ``(H, W)``.

    Returns:
        All None but the shares of the picture, where the map is 0 everywhere.
    """
    height, width = geometry.original
    scale = SIDE / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    shown = geometry.displayed(size)
    energy = shown.lay_back(values.float().clamp(min=0)).double()
    seen = shown.lay_back(torch.ones(1, 1)).double()
    inside = {
        "box": _covered(size, [_scaled(box, geometry.original, size) for box in boxes]) if boxes else None,
        "mask": _shrunk(mask, size) if mask is not None else None,
    }
    shares = {
        f"{name}_share": float((where * seen).sum() / seen.sum()) for name, where in inside.items() if where is not None
    }
    total = float(energy.sum())
    if not total > 0 or not math.isfinite(total):
        return Measures(**shares)
    energy = energy / total
    rows, columns = energy.sum(1), energy.sum(0)
    y, x = (torch.arange(n, dtype=torch.float64) + 0.5 for n in size)
    strongest = int(energy.argmax())
    ordered = energy[seen > 0].sort(descending=True).values
    half = int((ordered.cumsum(0) < 0.5).sum()) + 1
    left, top = (max(1, round(side * EDGE)) for side in (size[1], size[0]))
    corner_w, corner_h = (max(1, round(side * 2 * EDGE)) for side in (size[1], size[0]))
    corners = [
        energy[rows_, columns_].sum()
        for rows_ in (slice(None, corner_h), slice(-corner_h, None))
        for columns_ in (slice(None, corner_w), slice(-corner_w, None))
    ]
    positive = energy[energy > 0]
    back_y, back_x = height / size[0], width / size[1]
    shares |= {f"in_{name}": float((where * energy).sum()) for name, where in inside.items() if where is not None}
    return Measures(
        peak_x=(strongest % size[1] + 0.5) * back_x,
        peak_y=(strongest // size[1] + 0.5) * back_y,
        centre_x=float((columns * x).sum()) * back_x,
        centre_y=float((rows * y).sum()) * back_y,
        entropy=float(-(positive * positive.log()).sum() / math.log(max(2, len(ordered)))),
        half_area=half / len(ordered),
        border=1 - float(energy[top : size[0] - top, left : size[1] - left].sum()),
        corner=float(max(corners)),
        **shares,
    )


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes, (left, top, right, bottom)."""
    from torchvision.ops import box_iou

    return float(box_iou(torch.tensor([[*one]]), torch.tensor([[*other]])))


def _scaled(box: Sequence[float], original: tuple[int, int], size: tuple[int, int]) -> list[float]:
    across, down = size[1] / original[1], size[0] / original[0]
    return [box[0] * across, box[1] * down, box[2] * across, box[3] * down]


def _covered(size: tuple[int, int], boxes: Sequence[Sequence[float]]) -> Tensor:
    """How much of each pixel the boxes cover together, ``(h, w)``, 0..1."""
    covered = torch.zeros(size, dtype=torch.float64)
    for left, top, right, bottom in boxes:
        down, across = (
            (torch.minimum(edge + 1, edge.new_tensor(end)) - torch.maximum(edge, edge.new_tensor(start))).clamp(0, 1)
            for edge, start, end in (
                (torch.arange(size[0], dtype=torch.float64), top, bottom),
                (torch.arange(size[1], dtype=torch.float64), left, right),
            )
        )
        covered = torch.maximum(covered, down[:, None] * across)
    return covered


def _shrunk(mask: np.ndarray[Any, Any], size: tuple[int, int]) -> Tensor:
    """A mask in another size, as the share of each pixel that it covers."""
    from torch.nn.functional import interpolate

    whole = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))[None, None]
    return interpolate(whole, size=size, mode="area")[0, 0].double()
