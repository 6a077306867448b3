"""Views of a picture as models take them: as pictures, or cut into patches that stand one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hookmap.errors import ModelError

Packing = Callable[[Tensor], Tensor]
"""From views ``(V, C, h, w)`` to what a model takes of one picture."""


def unpacked(given: Mapping[str, Any], processor: Any) -> tuple[Tensor, Packing]:
    """The views ``(V, C, h, w)`` in what a processor gives of a picture, and how they are packed again.

    Raises:
        ModelError: if they lie there in another way than is known.
    """
    pixels = given.get("pixel_values")
    if isinstance(pixels, Tensor) and pixels.ndim in (4, 5) and (pixels.ndim == 4 or len(pixels) == 1):
        shape = pixels.shape
        return pixels.reshape(-1, *shape[-3:]), lambda views: views.reshape(shape)
    grid = given.get("image_grid_thw")
    if isinstance(pixels, Tensor) and pixels.ndim == 2 and isinstance(grid, Tensor) and len(grid) == 1:
        images: Any = processor.image_processor
        rows, columns = int(grid[0, 1]), int(grid[0, 2])
        patches = Patches(rows, columns, images.patch_size, images.merge_size, images.temporal_patch_size)
        views = patches.views(pixels)
        if torch.equal(patches.packed(views), pixels):
            return views, patches.packed
    raise ModelError(
        "how this model's processor lays pictures out isn't known (expected pixel_values (V, C, h, w), "
        "(1, V, C, h, w), or patches with image_grid_thw of one picture)"
    )


class Patches:
    """Qwen's way: patches of a still picture that stands for two frames, those that are merged one after the other.

    Args:
        rows: of patches.
        columns: of patches.
        side: of a patch, in pixels.
        merged: so many patches a side become one token.
        frames: that a patch holds, all of them the same.
    """

    def __init__(self, rows: int, columns: int, side: int, merged: int, frames: int) -> None:
        self._cells = rows // merged, columns // merged, merged, merged
        self._side = side
        self._frames = frames

    def views(self, pixels: Tensor) -> Tensor:
        """The one view ``(1, C, h, w)`` of patches ``(rows * columns, C * frames * side * side)``."""
        down, across, merged, _ = self._cells
        parts = pixels.reshape(*self._cells, -1, self._frames, self._side, self._side)[..., 0, :, :]
        picture = parts.permute(4, 0, 2, 5, 1, 3, 6)
        return picture.reshape(1, picture.shape[0], down * merged * self._side, across * merged * self._side)

    def packed(self, views: Tensor) -> Tensor:
        """The patches of one view ``(1, C, h, w)``."""
        down, across, merged, _ = self._cells
        side, channels = self._side, views.shape[1]
        parts = views[0].reshape(channels, down, merged, side, across, merged, side).permute(1, 4, 2, 5, 0, 3, 6)
        parts = parts[..., None, :, :].expand(*parts.shape[:5], self._frames, side, side)
        return parts.reshape(down * across * merged**2, -1)
