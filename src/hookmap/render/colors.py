"""Scale values to 0..1 and colour them."""

from __future__ import annotations

import difflib
from typing import Any, Literal

import numpy as np

from hookmap.errors import HookmapError

Array = np.ndarray[Any, Any]
Scale = Literal["max", "minmax", "symmetric"]


def normalize(values: Array, scale: Scale = "max", limit: float | None = None) -> Array:
    """Values to 0..1 for drawing; a map without contrast becomes 0 (0.5 if symmetric), never NaN.

    Args:
        values: any shape, any range.
        scale: ``"max"``: the positive part divided by its maximum; ``"minmax"``: from the minimum to the maximum;
            ``"symmetric"``: signed, 0 drawn as 0.5, divided by the largest magnitude.
        limit: the value drawn as the strongest, to share one scale over several maps (``"minmax"`` has none).

    >>> normalize(np.array([-2.0, 0.0, 4.0])).tolist(), normalize(np.array([-2.0, 0.0, 4.0]), "symmetric").tolist()
    ([0.0, 0.0, 1.0], [0.25, 0.5, 1.0])
    """
    values = np.nan_to_num(np.asarray(values, dtype=np.float32), posinf=0.0, neginf=0.0)
    if scale == "max":
        top = limit if limit is not None else float(values.max(initial=0))
        return np.clip(values / top, 0, 1) if top > 0 else np.zeros_like(values)
    if scale == "symmetric":
        top = limit if limit is not None else float(np.abs(values).max(initial=0))
        return np.clip(values / top, -1, 1) / 2 + 0.5 if top > 0 else np.full_like(values, 0.5)
    if scale == "minmax":
        low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
        return (values - low) / (high - low) if high > low else np.zeros_like(values)
    raise HookmapError(f"there's no scale {scale!r}; use 'max', 'minmax' or 'symmetric'")


def colorize(values: Array, colormap: str) -> Array:
    """Values in 0..1 to RGB, uint8, one axis of 3 more, by the name of a matplotlib colour map."""
    from matplotlib import colormaps

    if colormap not in colormaps:
        close = difflib.get_close_matches(colormap, list(colormaps), n=3, cutoff=0.5) or [
            "inferno",
            "viridis",
            "jet",
        ]
        raise HookmapError(f"there's no colour map {colormap!r}; did you mean {', '.join(close)}?")
    colors: Array = colormaps[colormap](values, bytes=True)[..., :3]
    return colors
