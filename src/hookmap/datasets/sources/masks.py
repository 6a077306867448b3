"""Where an object is, from polygons, run lengths and mask files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hookmap.datasets.sources.base import Mask
from hookmap.errors import DataError


def fill(polygon: Sequence[float], height: int, width: int) -> Mask:
    """The pixels whose centres lie inside a polygon, by the even-odd rule; bool (H, W).

    Args:
        polygon: x, y, x, y, ... in pixels, (0, 0) the outer corner of the first pixel.
        height: rows.
        width: columns.
    """
    corners = np.asarray(polygon, np.float64).reshape(-1, 2)
    crossings = np.zeros((height, width + 1), np.int32)
    for (x, y), (to_x, to_y) in zip(corners, np.roll(corners, -1, 0), strict=True):
        top, bottom = np.clip(np.ceil(np.array(sorted((y, to_y))) - 0.5), 0, height).astype(int)
        rows = np.arange(top, bottom)
        if len(rows):
            at = x + (rows + 0.5 - y) * (to_x - x) / (to_y - y)
            # Every pixel with its centre right of the edge changes sides.
            crossings[rows, np.clip(np.ceil(at - 0.5), 0, width).astype(int)] += 1
    inside: Mask = crossings.cumsum(1)[:, :width] % 2 == 1
    return inside


def from_runs(runs: Sequence[int] | str | bytes, height: int, width: int) -> Mask:
    """COCO's run-length encoding, column by column, first what is outside; bool (H, W).

    Args:
        runs: their lengths, or the lengths in COCO's text form.
        height: rows.
        width: columns.
    """
    lengths = _lengths(runs.encode() if isinstance(runs, str) else runs) if isinstance(runs, (str, bytes)) else runs
    if sum(lengths) != height * width:
        raise DataError(
            f"a mask of {sum(lengths)} pixels came for a picture of {width}x{height}; check its segmentation"
        )
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.ascontiguousarray(inside.reshape(width, height).T)


def _lengths(text: bytes) -> list[int]:
    """Signed numbers, 5 bits a character, lowest first; from the fourth on less the one two before."""
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more to come
            continue
        if bits & 16:  # negative
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    return lengths


def read_mask(path: str) -> Mask:
    """A mask file: everything that isn't 0 (black, the first colour of a palette); bool (H, W)."""
    from PIL import Image

    with Image.open(path) as image:
        colored = image.mode not in ("1", "L", "P", "F") and not image.mode.startswith("I")
        values: Mask = np.asarray(image.convert("RGB")) if colored else np.asarray(image)[..., None]
    inside: Mask = np.any(values, axis=-1)
    return inside


def size_of(path: str) -> tuple[int, int]:
    """Height and width of a picture, upright; only its head is read."""
    from PIL import Image

    with Image.open(path) as image:
        turned = image.getexif().get(0x0112, 1) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)
