"""A heatmap over its photo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hookmap.images.geometry import Geometry
from hookmap.render.colors import STEPS, Array, Heat, palette, shades
from hookmap.render.look import Look

if TYPE_CHECKING:
    from PIL import Image

SMALLEST, LARGEST = 320, 2048
"""Longer sides in pixels between which a picture is drawn where nobody asks for a size."""
UNSEEN = 0.82
"""How bright what the model didn't see is drawn."""
_GREY = 0.85
"""How much of its colour a photo loses under maps whose own colours would be lost on it; heat.js has the same."""
# Bright, and unlike the colours of a warm heatmap.
BOX_COLORS = ("#26d9ff", "#8cff4d", "#ff7ac6", "#ffffff", "#7aa8ff", "#2effc0", "#ffe45c", "#ff8a70")
_DARK = (20, 20, 24)
_PIXELS_AT_ONCE = 1 << 18


def size_for_people(size: tuple[int, int]) -> tuple[int, int]:
    """The size (H, W) in which a picture of this size is drawn: a digit isn't a postage stamp, a poster no poster.

    >>> size_for_people((32, 32)), size_for_people((480, 640)), size_for_people((6000, 8000))
    ((320, 320), (480, 640), (1536, 2048))
    """
    longer = max(size)
    if longer < SMALLEST:
        factor = -(-SMALLEST // longer)  # a whole number, so that all pixels stay equally large
        return size[0] * factor, size[1] * factor
    return fitted(size, min(longer, LARGEST))


def fitted(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """The size (H, W) with its longer side as given."""
    factor = longer / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def resized(pixels: Array, size: tuple[int, int]) -> Image.Image:
    """A photo in a size (H, W); few pixels stay squares."""
    from PIL import Image

    photo = Image.fromarray(np.ascontiguousarray(pixels))
    if size == pixels.shape[:2]:
        return photo
    squares = size[0] >= 4 * pixels.shape[0] and size[1] >= 4 * pixels.shape[1]
    return photo.resize(size[::-1], Image.Resampling.NEAREST if squares else Image.Resampling.LANCZOS, reducing_gap=1.5)


def greyed(pixels: Array) -> Array:
    """Pixels ``(..., 3)`` with hardly any colour, float32, by the weights of CSS."""
    grey = pixels @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    mixed: Array = pixels * np.float32(1 - _GREY) + grey[..., None] * np.float32(_GREY)
    return mixed


def overlay(photo: Image.Image, heat: Heat, geometry: Geometry) -> Image.Image:
    """The heatmap in colour over the photo; corner marks show what the model saw, where that isn't all of it.

    Works through the photo in bands: a large one needs no more memory than its own copy.

    Args:
        photo: RGB.
        heat: the map.
        geometry: from the photo's pixels, in its own size, to the map's grid.
    """
    from PIL import Image

    pixels = np.asarray(photo)
    if heat.look.grey:
        pixels = np.round(greyed(pixels)).astype(np.uint8)
    rows, columns = (w.float().numpy() for w in geometry.weights(torch.from_numpy(heat.shares).double(), "cubic"))
    seen_rows, seen_columns = rows.sum(1) > 0.5, columns.sum(1) > 0.5
    whole = bool(seen_rows.all() and seen_columns.all())
    colors, opacity = shades(heat)
    light, rest = colors * opacity[:, None], 1 - opacity
    low, high = float(heat.shares.min()), float(heat.shares.max())  # the cubic kernel overshoots
    wide = heat.shares @ columns.T
    drawn = np.empty_like(pixels)
    step = max(1, _PIXELS_AT_ONCE // pixels.shape[1])
    for top in range(0, len(pixels), step):
        band = slice(top, top + step)
        shares = np.clip(rows[band] @ wide, low, high)
        at = (shares * (STEPS - 1) + 0.5).astype(np.intp)
        mixed = pixels[band] * rest[at][..., None] + light[at]
        if not whole:
            outside = ~(seen_rows[band, None] & seen_columns)
            mixed[outside] = pixels[band][outside] * UNSEEN
        drawn[band] = mixed + 0.5
    picture = Image.fromarray(drawn)
    return picture if whole else _with_corners(picture, _extent(seen_rows), _extent(seen_columns))


def dimmed(picture: Image.Image, photo: Array, geometry: Geometry) -> Image.Image:
    """A picture that was drawn over a photo, with what the model didn't see of it as on :func:`overlay`."""
    from PIL import Image

    rows, columns = (w.numpy().sum(1) > 0.5 for w in geometry.weights(torch.zeros(1, 1, dtype=torch.float64)))
    if rows.all() and columns.all():
        return picture
    drawn = np.where(rows[:, None, None] & columns[:, None], np.asarray(picture), photo * UNSEEN + 0.5)
    return _with_corners(Image.fromarray(drawn.astype(np.uint8)), _extent(rows), _extent(columns))


def _extent(inside: Array) -> tuple[int, int]:
    """The first place inside, and the one after the last."""
    places = np.flatnonzero(inside)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def _with_corners(picture: Image.Image, rows: tuple[int, int], columns: tuple[int, int]) -> Image.Image:
    """White marks with a dark edge in the corners of a rectangle; heat.js draws the same."""
    from PIL import ImageDraw

    (top, bottom), (left, right) = rows, columns
    line, edge = max(1, math.floor(max(picture.size) / 320 + 0.5)), max(1, math.floor(max(picture.size) / 900 + 0.5))
    arm = min(max(4 * line, math.floor(0.08 * min(bottom - top, right - left) + 0.5)), bottom - top, right - left)
    bars = []
    for x, far in ((left, left), (right - arm, right - line)):
        for y, end in ((top, top), (bottom - arm, bottom - line)):
            bars += [(x, end, x + arm, end + line), (far, y, far + line, y + arm)]
    draw = ImageDraw.Draw(picture)
    for margin, color in ((edge, _DARK), (0, (255, 255, 255))):
        for x0, y0, x1, y1 in bars:
            if x1 > x0 and y1 > y0:
                draw.rectangle((x0 - margin, y0 - margin, x1 + margin - 1, y1 + margin - 1), color)
    return picture


@dataclass(frozen=True)
class Mark:
    """A box to be drawn.

    Attributes:
        box: (left, top, right, bottom) in pixels.
        tag: a few letters at its corner, or none.
        color: which of :data:`BOX_COLORS`.
    """

    box: tuple[float, float, float, float]
    tag: str = ""
    color: int = 0


def marked(picture: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """The picture with boxes drawn on it: each a bright line between dark edges, to be seen on anything."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    longer = max(picture.size)
    line, edge, size = max(2, round(longer / 260)), max(1, round(longer / 700)), max(12, round(longer / 36))
    pad = size // 4
    tags = []
    for mark in reversed(marks):  # the first is the strongest, and on top
        color = BOX_COLORS[mark.color % len(BOX_COLORS)]
        left, top, right, bottom = (round(side) for side in mark.box)
        right, bottom = max(right, left + 3 * line), max(bottom, top + 3 * line)
        draw.rectangle([left - edge, top - edge, right + edge, bottom + edge], None, _DARK, line + 2 * edge)
        draw.rectangle([left, top, right, bottom], None, color, line)
        wide, high = draw.textlength(mark.tag, font=font(size)) + 2 * pad, size + 2 * pad
        x = min(max(left - edge, 0), picture.width - wide)
        y = top - high if top >= high else top
        tags.append((mark.tag, color, x, y, wide, high))
    for tag, color, x, y, wide, high in tags:
        if tag:
            draw.rectangle([x, y, x + wide, y + high], color)
            draw.text((x + pad, y + high / 2), tag, _DARK, font(size), anchor="lm")
    return picture


def labelled(picture: Image.Image, text: str) -> Image.Image:
    """The picture with a quiet word in its lower left corner."""
    if text:
        _pill(picture, [text])
    return picture


def keyed(picture: Image.Image, look: Look) -> Image.Image:
    """The picture of a signed map with what its two colours mean, in its lower right corner."""
    if look.symmetric:
        _pill(picture, [look.ends[0], palette(look.colors), look.ends[1]], right=True)
    return picture


def _pill(picture: Image.Image, parts: Sequence[str | Array], *, right: bool = False) -> None:
    """Words and ramps of colour in a row, on a dark field in a corner of the picture."""
    from PIL import Image, ImageDraw

    size = min(max(11, round(max(picture.size) / 45)), max(8, picture.width // 14))
    pad, draw = max(3, size // 2), ImageDraw.Draw(picture, "RGBA")
    widths = [draw.textlength(part, font=font(size)) if isinstance(part, str) else 4 * size for part in parts]
    wide, high = math.ceil(sum(widths) + pad * (len(parts) + 1)), size + pad + 2
    left, top = (picture.width - wide - pad if right else pad), picture.height - high - pad
    draw.rounded_rectangle((left, top, left + wide, top + high), high // 4, (*_DARK, 190))
    x: float = left + pad
    for part, width in zip(parts, widths, strict=True):
        if isinstance(part, str):
            draw.text((x, top + high / 2), part, (236, 236, 240), font(size), anchor="lm")
        else:
            ramp = Image.fromarray(np.round(part[None]).astype(np.uint8)).resize((round(width), max(4, size // 2)))
            picture.paste(ramp, (round(x), top + (high - ramp.height) // 2))
        x += width + pad


def font(size: int) -> Any:
    """The typeface of all pages."""
    from PIL import ImageFont

    return ImageFont.load_default(size)
