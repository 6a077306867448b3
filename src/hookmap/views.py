"""An image as the model will see it, and how to show it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hookmap.errors import ImageError
from hookmap.geometry import Geometry
from hookmap.images import Picture
from hookmap.preprocessing import Preprocessing


@dataclass(frozen=True, eq=False)
class View:
    """One image as the model will see it."""

    tensor: Tensor
    picture: Picture
    geometry: Geometry
    frames: np.ndarray[Any, Any] | None = None


def is_input(images: Any) -> bool:
    """Whether this is a floating-point tensor, or a list of them: already preprocessed."""
    first = images[0] if isinstance(images, (list, tuple)) and images else images
    return isinstance(first, Tensor) and first.is_floating_point()


def tensor_views(images: Any, preprocessing: Preprocessing | None) -> Iterator[View]:
    """Inputs that are already preprocessed: (C, H, W), (B, C, H, W) or (B, C, T, H, W), or a list of (C, H, W).

    Raises:
        ImageError: for another shape, NaN or infinite values.
    """
    given = list(images) if isinstance(images, (list, tuple)) else [images]
    if not all(is_input(tensor) for tensor in given):
        raise ImageError("preprocessed tensors and other images came in one list; explain them in two calls")
    inputs = [one.detach() for tensor in given for one in (tensor if tensor.ndim > 3 else tensor[None])]
    for i, tensor in enumerate(inputs):
        if tensor.ndim not in (3, 4):
            raise ImageError(
                f"a preprocessed tensor of shape {tuple(given[0].shape)} came; expected (C, H, W), (B, C, H, W) or "
                "(B, C, T, H, W)"
            )
        if not torch.isfinite(tensor).all():
            raise ImageError("the input tensor holds NaN or infinite values; check the preprocessing")
        name = "input" if len(inputs) == 1 else f"input {i}"
        frames = _displayed(tensor if tensor.ndim == 4 else tensor[:, None], preprocessing)
        picture = Picture(frames[len(frames) // 2], name, None)
        geometry = Geometry.identity((tensor.shape[-2], tensor.shape[-1]))
        yield View(tensor, picture, geometry, frames if tensor.ndim == 4 else None)


def _displayed(clip: Tensor, preprocessing: Preprocessing | None) -> np.ndarray[Any, Any]:
    """An input (C, T, H, W) as pixels (T, H, W, 3): preprocessing undone where it is known."""
    frames = clip.float().cpu().movedim(1, 0)
    if preprocessing is not None and len(preprocessing.mean) == clip.shape[0]:
        return np.stack([preprocessing.undo(frame) for frame in frames])
    low, high = frames.amin(), frames.amax()
    grey = ((frames - low) / (high - low).clamp(min=1e-12) * 255).byte()
    rgb = grey if clip.shape[0] == 3 else grey.float().mean(1, keepdim=True).byte().expand(-1, 3, -1, -1)
    array: np.ndarray[Any, Any] = rgb.movedim(1, -1).contiguous().numpy()
    return array
