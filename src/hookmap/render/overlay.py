"""A heatmap over its photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hookmap.errors import HookmapError
from hookmap.render.colors import Array, Scale, colorize, normalize

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_COLORMAP = "inferno"
SIGNED_COLORMAP = "RdBu_r"
# How much colour the strongest place of a ramp gets, and how fast weaker ones fade into the photo.
_STRONGEST, _FADE = 0.85, 1.2
_UNSEEN = 0.5
# Bright, and unlike the colours of a warm heatmap.
BOX_COLORS = ("#26d9ff", "#8cff4d", "#ff7ac6", "#ffffff", "#7aa8ff", "#2effc0", "#ffe45c", "#ff8a70")
_DARK = (20, 20, 24)


def overlay(
    pixels: Array,
    heat: Array,
    *,
    colormap: str | None = None,
    opacity: float | Literal["ramp"] = "ramp",
    scale: Scale = "max",
    limit: float | None = None,
    outliers: float = 0.0,
    seen: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """The heatmap in colour over the photo.

    Args:
        pixels: the photo, ``(H, W, 3)``, uint8.
        heat: the map on its pixels, ``(H, W)``, in any units.
        colormap: a matplotlib colour map; by default a perceptually uniform one, or a diverging one for
            ``scale="symmetric"``.
        opacity: ``"ramp"``: the stronger the more opaque, so that the photo stays visible where the map is
            cold; or one opacity in 0..1 everywhere (0.3 with ``"jet"`` is the classic look).
        scale: how values become colours; see :func:`hookmap.render.colors.normalize`.
        limit: the value drawn as the strongest, to share a scale.
        outliers: share of places that are drawn as equally strong.
        seen: (left, top, right, bottom) of what the model saw; the rest is dimmed.
    """
    from PIL import Image

    if heat.shape != pixels.shape[:2]:
        raise HookmapError(f"a heatmap of {heat.shape} doesn't fit a photo of {pixels.shape[:2]}")
    outside = outside_of(heat.shape, seen)
    # What the model didn't see has no part in the scale.
    values = np.zeros(heat.shape, np.float32)
    values[~outside[..., 0]] = normalize(heat[~outside[..., 0]], scale, limit, outliers)
    symmetric = scale == "symmetric"
    colors = colorize(values, colormap or (SIGNED_COLORMAP if symmetric else DEFAULT_COLORMAP))
    if opacity == "ramp":
        strength = np.abs(values * 2 - 1) if symmetric else values
        alpha = _STRONGEST * strength[..., None] ** _FADE
    elif isinstance(opacity, (int, float)) and 0 <= opacity <= 1:
        alpha = np.full((*heat.shape, 1), opacity, np.float32)
    else:
        raise HookmapError(f"opacity is {opacity!r}; expected a number from 0 to 1, or 'ramp'")
    alpha = np.where(outside, 0, alpha)
    photo = np.where(outside, pixels * _UNSEEN + 255 * (1 - _UNSEEN) * 0.35, pixels)
    return Image.fromarray(np.round(photo * (1 - alpha) + colors * alpha).astype(np.uint8))


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


def outside_of(size: tuple[int, ...], seen: tuple[float, float, float, float] | None) -> Array:
    """True where the pixel's centre lies outside what the model saw, (H, W, 1)."""
    left, top, right, bottom = seen or (0, 0, size[1], size[0])
    y, x = (np.arange(n) + 0.5 for n in size[:2])
    inside = ((y >= top) & (y <= bottom))[:, None] & ((x >= left) & (x <= right))[None]
    return ~inside[..., None]


def font(size: int) -> Any:
    """The typeface of all pages."""
    from PIL import ImageFont

    return ImageFont.load_default(size)
