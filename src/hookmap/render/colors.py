"""Scale values to 0..1 and colour them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from hookmap._text import did_you_mean
from hookmap.errors import HookmapError

Array = np.ndarray[Any, Any]
Scale = Literal["max", "minmax", "symmetric"]


def normalize(values: Array, scale: Scale = "max", limit: float | None = None, outliers: float = 0.0) -> Array:
    """Values to 0..1 for drawing; a map without contrast becomes 0 (0.5 if symmetric), never NaN.

    Args:
        values: any shape, any range.
        scale: ``"max"``: the positive part divided by its maximum; ``"minmax"``: from the minimum to the maximum;
            ``"symmetric"``: signed, 0 drawn as 0.5, divided by the largest magnitude.
        limit: the value drawn as the strongest, to share one scale over several maps (``"minmax"`` has none).
        outliers: see :func:`limits`.

    >>> normalize(np.array([-2.0, 0.0, 4.0])).tolist(), normalize(np.array([-2.0, 0.0, 4.0]), "symmetric").tolist()
    ([0.0, 0.0, 1.0], [0.25, 0.5, 1.0])
    """
    values = np.nan_to_num(np.asarray(values, dtype=np.float32), posinf=0.0, neginf=0.0)
    low, high = limits(values, scale, limit, outliers)
    if not high > low:
        return np.full_like(values, 0.5 if scale == "symmetric" else 0.0)
    return np.clip((values - low) / (high - low), 0, 1)


def limits(
    values: Array, scale: Scale = "max", limit: float | None = None, outliers: float = 0.0
) -> tuple[float, float]:
    """The values that are drawn as 0 and 1; the same number twice where there's no contrast.

    Args:
        values: as in :func:`normalize`; so are ``scale`` and ``limit``.
        scale: how.
        limit: of the strongest.
        outliers: share of the places with a value that are drawn as equally strong, because a few single pixels would
            hide all others; 0..1, where no limit is given.
    """
    if scale == "minmax":
        return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if scale not in ("max", "symmetric"):
        raise HookmapError(f"there's no scale {scale!r}; use 'max', 'minmax' or 'symmetric'")
    if not 0 <= outliers < 1:
        raise HookmapError(f"outliers is {outliers}; expected a share from 0 to below 1")
    if limit is None:
        strength = np.abs(values) if scale == "symmetric" else values
        positive = strength[strength > 0]
        limit = float(np.quantile(positive, 1 - outliers)) if positive.size else 0.0
    return (-limit if scale == "symmetric" else 0.0), limit


def colorize(values: Array, colormap: str) -> Array:
    """Values in 0..1 to RGB, uint8, one axis of 3 more, by the name of a matplotlib colour map."""
    from matplotlib import colormaps

    if colormap not in colormaps:
        hint = did_you_mean(colormap, colormaps, "matplotlib has inferno, viridis, jet and many more")
        raise HookmapError(f"there's no colour map {colormap!r}; {hint}")
    colors: Array = colormaps[colormap](values, bytes=True)[..., :3]
    return colors
