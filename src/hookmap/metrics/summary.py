"""What can be said of a heatmap in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hookmap.images.geometry import Geometry
from hookmap.images.loading import Pixels

AREA = 7000
"""Maps are measured where so many pixels show what the model saw, whatever the picture's shape and size."""
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
    mask: Pixels | None = None,
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
    left, top, right, bottom = geometry.seen
    # At most 16 times as many show the whole picture, of which the model may have seen a small crop.
    area = max((bottom - top) * (right - left), height * width / 16, 1e-9)
    scale = math.sqrt(AREA / area)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    rows, columns = _weights(geometry.displayed(size), (values.shape[0], values.shape[1]))
    energy = rows @ values.float().clamp(min=0).numpy() @ columns.T
    seen = np.outer(rows.sum(1), columns.sum(1)) > 0.5
    inside = {
        "box": covered(size, [_scaled(box, geometry.original, size) for box in boxes]) if boxes else None,
        "mask": _shrunk(mask, size) if mask is not None else None,
    }
    shares = {f"{name}_share": float(where[seen].mean()) for name, where in inside.items() if where is not None}
    total = float(energy.sum(dtype=np.float64))
    if not total > 0 or not math.isfinite(total):
        return Measures(**shares)
    energy = energy.astype(np.float64) / total
    down, across = energy.sum(1), energy.sum(0)
    y, x = (np.arange(n) + 0.5 for n in size)
    strongest = int(energy.argmax())
    ordered = np.sort(energy[seen].astype(np.float32))[::-1]
    half = int((ordered.cumsum(dtype=np.float64) < 0.5).sum()) + 1
    high, wide = size
    inner = covered(size, [(wide * EDGE, high * EDGE, wide * (1 - EDGE), high * (1 - EDGE))])
    sides = [((0, n * 2 * EDGE), (n * (1 - 2 * EDGE), n)) for n in (wide, high)]
    corners = [covered(size, [(x0, y0, x1, y1)]) for x0, x1 in sides[0] for y0, y1 in sides[1]]
    positive = energy[energy > 0]
    back_y, back_x = height / size[0], width / size[1]
    shares |= {f"in_{name}": float((where * energy).sum()) for name, where in inside.items() if where is not None}
    return Measures(
        peak_x=(strongest % size[1] + 0.5) * back_x,
        peak_y=(strongest // size[1] + 0.5) * back_y,
        centre_x=float(across @ x) * back_x,
        centre_y=float(down @ y) * back_y,
        entropy=float(-(positive * np.log(positive)).sum() / math.log(max(2, len(ordered)))),
        half_area=half / len(ordered),
        border=max(0.0, 1 - float((inner * energy).sum())),
        corner=max(float((corner * energy).sum()) for corner in corners),
        **shares,
    )


@lru_cache(maxsize=256)
def _weights(shown: Geometry, grid: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """What lays a map of this grid onto the picture; most pictures of a data set are of a few sizes."""
    rows, columns = shown.weights(torch.ones(grid))
    return rows.numpy(), columns.numpy()


def _scaled(box: Sequence[float], original: tuple[int, int], size: tuple[int, int]) -> list[float]:
    across, down = size[1] / original[1], size[0] / original[0]
    return [box[0] * across, box[1] * down, box[2] * across, box[3] * down]


def covered(size: tuple[int, int], boxes: Sequence[Sequence[float]]) -> Pixels:
    """How much of each pixel the boxes cover together, ``(h, w)``, 0..1."""
    share = np.zeros(size)
    y, x = (np.arange(side) for side in size)
    for left, top, right, bottom in boxes:
        down, across = (
            (np.minimum(edge + 1, end) - np.maximum(edge, start)).clip(0, 1)
            for edge, start, end in ((y, top, bottom), (x, left, right))
        )
        share = np.maximum(share, np.outer(down, across))
    return share


def _shrunk(mask: Pixels, size: tuple[int, int]) -> Pixels:
    """A mask in another size, as the share of each pixel that it covers."""
    whole = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))[None, None]
    return interpolate(whole, size=size, mode="area")[0, 0].numpy()
