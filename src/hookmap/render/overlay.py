"""A heatmap over its photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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
        seen: (top, left, bottom, right) of what the model saw; the rest is dimmed.
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


def outlined(picture: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """The picture with a box (left, top, right, bottom) drawn on it, to be seen on light and on dark."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 300))
    corners = [round(side) for side in box]
    for colour, w in (("black", 3 * width), ("white", width)):
        inset = (3 * width - w) // 2
        draw.rectangle(
            [corners[0] + inset, corners[1] + inset, corners[2] - inset, corners[3] - inset], None, colour, w
        )
    return picture


def outside_of(size: tuple[int, ...], seen: tuple[float, float, float, float] | None) -> Array:
    """True where the pixel's centre lies outside what the model saw, (H, W, 1)."""
    top, left, bottom, right = seen or (0, 0, size[0], size[1])
    y, x = (np.arange(n) + 0.5 for n in size[:2])
    inside = ((y >= top) & (y <= bottom))[:, None] & ((x >= left) & (x <= right))[None]
    return ~inside[..., None]
