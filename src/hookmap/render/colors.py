"""From a map's values to shares of its scale, and from these to colours."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hookmap._text import did_you_mean
from hookmap.errors import HookmapError
from hookmap.render.look import Look

Array = np.ndarray[Any, Any]

STEPS = 1024
"""Of colour and opacity between the weakest and the strongest."""
# How much colour the strongest place of a ramp gets, and how fast weaker ones fade into the photo.
STRONGEST, FADE = 0.85, 1.2
# A ramp begins where the map's weakest fifth ends, so that the photo isn't veiled by what is everywhere; but an even
# map isn't made to look uneven.
_WEAKEST, _LATEST = 0.2, 0.5


@dataclass(frozen=True, eq=False)
class Heat:
    """A map that is ready to be drawn over its picture in any size.

    Attributes:
        shares: of the scale, on the map's grid, ``(h, w)``, float32, 0..1; 0.5 is zero where the look is symmetric.
        span: the values that are drawn as 0 and as 1; the same twice where there is nothing to draw.
        start: of a ramp, the strength from which on it has colour, 0..1.
        look: how it is drawn.
    """

    shares: Array
    span: tuple[float, float]
    start: float
    look: Look

    @property
    def blank(self) -> bool:
        """Whether there's nothing to draw."""
        return not self.span[1] > self.span[0]


def heat_of(values: Array, look: Look, span: tuple[float, float], start: float | None = None) -> Heat:
    """A map in shares of a scale.

    Args:
        values: what is shown, ``(h, w)``, signed where the look is symmetric; NaN and infinite values count as 0.
        look: how.
        span: the values drawn as the weakest and the strongest: see :func:`span_of`.
        start: of a ramp that is shared with other maps; by default this map's own.
    """
    values, (low, high) = _finite(values), span
    if not high > low:
        return Heat(np.full_like(values, 0.5 if look.symmetric else 0.0), (0.0, 0.0), 0.0, look)
    shares = normalize(values, low, high)
    strength = np.abs(2 * shares - 1) if look.symmetric else shares
    own = min(float(np.quantile(strength, _WEAKEST)), _LATEST)
    return Heat(shares, span, own if start is None else start, look)


def span_of(values: Array, evidence: Array, look: Look) -> tuple[float, float]:
    """The values that are drawn as the weakest and as the strongest; the same twice where there's no contrast.

    Args:
        values: what is shown.
        evidence: magnitudes of all evidence, for and against: what ``values`` are compared with.
        look: how.

    >>> span_of(np.array([-2.0, 0.5]), np.array([2.0, 0.5]), Look())
    (0.0, 2.0)
    """
    values, evidence = _finite(values), _finite(evidence)
    if look.scale == "minmax":
        return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    high = look.limit
    if high is None:
        high = float(np.quantile(there, 1 - look.outliers)) if (there := evidence[evidence > 0]).size else 0.0
    return (-high if look.symmetric else 0.0), high


def joint_span(spans: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """One scale for several maps: from the lowest to the highest value that any of them draws."""
    low, high = zip(*spans, strict=True)
    return min(low), max(high)


def shades(heat: Heat) -> tuple[Array, Array]:
    """Colours ``(STEPS, 3)`` in 0..255 and opacities ``(STEPS,)`` in 0..1, float32, of shares from 0 to 1."""
    share = np.linspace(0, 1, STEPS, dtype=np.float32)
    if heat.blank:
        return palette(heat.look.colors), np.zeros_like(share)
    strength = np.abs(2 * share - 1) if heat.look.symmetric else share
    opacity = STRONGEST * np.clip((strength - heat.start) / (1 - heat.start), 0, 1) ** FADE
    if heat.look.opacity != "ramp":
        opacity = np.full_like(share, heat.look.opacity)
    return palette(heat.look.colors), np.where(strength < heat.look.threshold, np.float32(0), opacity)


@functools.cache
def palette(colormap: str) -> Array:
    """The colours of a matplotlib colour map, ``(STEPS, 3)``, whole numbers 0..255 in float32, from its lowest on.

    Raises:
        HookmapError: naming the closest, where there's no colour map of this name.
    """
    known = colorize(np.linspace(0, 1, 256), colormap).astype(np.float32)
    at = np.linspace(0, 255, STEPS)
    return np.round(np.stack([np.interp(at, np.arange(256), known[:, c]) for c in range(3)], 1)).astype(np.float32)


def colorize(values: Array, colormap: str) -> Array:
    """Values in 0..1 to RGB, uint8, one axis of 3 more, by the name of a matplotlib colour map.

    Raises:
        HookmapError: naming the closest, where there's no colour map of this name.
    """
    from matplotlib import colormaps

    if colormap not in colormaps:
        hint = did_you_mean(colormap, colormaps, "matplotlib has inferno, viridis, jet and many more")
        raise HookmapError(f"there's no colour map {colormap!r}; {hint}")
    colors: Array = colormaps[colormap](values, bytes=True)[..., :3]
    return colors


def normalize(values: Array, low: float, high: float) -> Array:
    """Values to 0..1, float32; 0 where there's no contrast, never NaN.

    >>> normalize(np.array([-2.0, 0.0, 4.0, np.nan]), 0, 4).tolist()
    [0.0, 0.0, 1.0, 0.0]
    """
    values = _finite(values)
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)


def _finite(values: Array) -> Array:
    return np.nan_to_num(np.asarray(values, dtype=np.float32), posinf=0.0, neginf=0.0)
