"""Feature maps as tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from hookmap.errors import HookmapError
from hookmap.render.colors import Array, colorize, normalize
from hookmap.render.overlay import font

if TYPE_CHECKING:
    from PIL import Image

TileScale = Literal["each", "shared", "symmetric"]
_GAP = 2


def tiles(
    maps: Array,
    *,
    tile: tuple[int, int] | int = 112,
    colormap: str = "viridis",
    scale: TileScale = "each",
    upsample: Literal["nearest", "bilinear"] | None = "nearest",
    labels: Sequence[str] | None = None,
) -> list[Image.Image]:
    """One picture per map.

    Args:
        maps: ``(K, h, w)`` in any units, or ``(K, h, w, 3)`` RGB in 0..1.
        tile: height and width of a tile; an integer is the longer side, in the map's proportions.
        colormap: for single-channel maps.
        scale: each map from its minimum to its maximum, all maps on one shared scale, or signed on one
            shared scale around 0.
        upsample: how to enlarge; None leaves the maps' own size.
        labels: drawn small into the tile's corner.
    """
    from PIL import Image

    if maps.ndim == 4:
        values = np.clip(maps, 0, 1)
    elif scale == "each":
        values = np.stack([normalize(m, *_bounds(m)) for m in maps])
    elif scale == "shared":
        values = normalize(maps, *_bounds(maps))
    elif scale == "symmetric":
        limit = max(map(abs, _bounds(maps))) or 1.0
        values = normalize(maps, -limit, limit)
    else:
        raise HookmapError(f"there's no scale {scale!r} for feature maps; use 'each', 'shared' or 'symmetric'")
    colors = np.round(values * 255).astype(np.uint8) if maps.ndim == 4 else colorize(values, colormap)
    height, width = _tile_size(maps.shape[1], maps.shape[2], tile)
    pictures = [Image.fromarray(np.ascontiguousarray(c)) for c in colors]
    if upsample is not None:
        way = Image.Resampling[upsample.upper()]
        pictures = [p.resize((width, height), way) for p in pictures]
    for picture, label in zip(pictures, labels or (), strict=False):
        _write_corner(picture, label)
    return pictures


def arrange(pictures: Sequence[Image.Image], *, columns: int | None = None, gap: int = _GAP) -> Image.Image:
    """Pictures of one size side by side in rows on white, as square as can be unless ``columns`` is given."""
    from PIL import Image

    width, height = pictures[0].size
    columns = columns or max(1, math.ceil(math.sqrt(len(pictures) * height / width)))
    rows = math.ceil(len(pictures) / columns)
    canvas = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, picture in enumerate(pictures):
        canvas.paste(picture, ((i % columns) * (width + gap), (i // columns) * (height + gap)))
    return canvas


def _bounds(maps: Array) -> tuple[float, float]:
    """The smallest and largest value of what is finite; zeros where nothing is."""
    finite = maps[np.isfinite(maps)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _tile_size(height: int, width: int, tile: tuple[int, int] | int) -> tuple[int, int]:
    if isinstance(tile, tuple):
        return tile
    longer = max(height, width)
    return max(1, round(tile * height / longer)), max(1, round(tile * width / longer))


def _write_corner(picture: Image.Image, label: str) -> None:
    size = max(9, min(13, picture.height // 8))
    if picture.height >= 2 * size:
        picture.paste(_corner(label, size))


@lru_cache(4096)
def _corner(label: str, size: int) -> Image.Image:
    """A label, white on black: the numbers of channels are those of all layers."""
    from PIL import Image, ImageDraw

    box = font(size).getbbox(label)
    corner = Image.new("RGB", (round(box[2]) + 6, round(box[3]) + 4), "black")
    ImageDraw.Draw(corner).text((3, 1), label, "white", font(size))
    return corner
