"""An image as the model will see it, and how to show it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hookmap.errors import ImageError
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture, plain_tensor
from hookmap.images.preprocessing import Preprocessing


@dataclass(frozen=True, eq=False)
class View:
    """One image as the model will see it.

    Attributes:
        tensor: the model's input, ``(C, *size)``.
        picture: what is shown of it.
        geometry: from the picture's pixels to the input's.
        frames: of a video, ``(T, H, W, 3)``.
        preprocessed: whether the input came as it is, and no picture was preprocessed.
    """

    tensor: Tensor
    picture: Picture
    geometry: Geometry
    frames: np.ndarray[Any, Any] | None = None
    preprocessed: bool = False


@dataclass(frozen=True, eq=False)
class Prepared:
    """Images of one size that lie in one tensor already.

    Attributes:
        views: B of them.
        x: their tensors, ``(B, C, *size)``, which a model may work on in place.
    """

    views: list[View]
    x: Tensor


def is_input(images: Any) -> bool:
    """Whether this is a floating-point tensor, or a list of them: already preprocessed."""
    first = images[0] if isinstance(images, (list, tuple)) and images else images
    return isinstance(first, Tensor) and first.is_floating_point()


def looks_like_pixels(x: Tensor, preprocessing: Preprocessing) -> bool:
    """Whether an input is in 0..255, as pixels are, where the model was given another range."""
    white = max((1 - mean) / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True))
    return bool(x.min() >= 0) and 10 * white < float(x.max()) <= 255


def is_view(images: Any) -> bool:
    """Whether these are images as the model will see them already, prepared elsewhere."""
    return isinstance(images, list) and bool(images) and isinstance(images[0], View)


def input_rank(model: nn.Module) -> int | None:
    """How many axes of space and time the model's inputs have, by its first convolution; None if it has none."""
    convolutions = (m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd))
    return next((m.weight.ndim - 2 for m in convolutions), None)


def patch_size(model: nn.Module) -> int:
    """Of how many pixels the sides of an input have to be a multiple: those of a patch that is one token, else 1."""
    for module in model.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == module.stride
            and module.stride[0] >= _SMALLEST_PATCH
        ):
            return int(module.stride[0])
    return 1


# Convolutional networks begin with patches too, of up to 4 pixels, and cope with what is left at the edge.
_SMALLEST_PATCH = 8


def tensor_views(images: Any, preprocessing: Preprocessing | None, rank: int | None = None) -> Iterator[View]:
    """Inputs that are already preprocessed: (C, H, W), (B, C, H, W) or (B, C, T, H, W), or a list of (C, H, W).

    Args:
        images: one tensor or a list.
        preprocessing: of the model, to show the image.
        rank: of the model's inputs, if known: with 1, series (C, L) or (B, C, L); with 3, (C, T, H, W) is one clip.

    Raises:
        ImageError: for another shape, NaN or infinite values.
    """
    given = list(images) if isinstance(images, (list, tuple)) else [images]
    if not all(is_input(tensor) for tensor in given):
        raise ImageError("preprocessed tensors and other images came in one list; explain them in two calls")
    given = [plain_tensor(tensor) for tensor in given]
    inputs = [sample for tensor in given for sample in (tensor if _is_batch(tensor, rank) else tensor[None])]
    for i, own in enumerate(inputs):
        tensor = own.clone()  # results are drawn and asked again later, whatever becomes of the caller's by then
        if tensor.ndim not in (3, 4) and not (tensor.ndim == 2 and rank == 1):
            shapes = " and ".join(str(tuple(tensor.shape)) for tensor in given)
            several = "; several inputs of one model come by name, as in {'image': x, 'age': y}" if given[1:] else ""
            raise ImageError(
                f"a preprocessed tensor of shape {shapes} came; expected (C, H, W), (B, C, H, W) or (B, C, T, H, W)"
                + (several or (", or (B, C, L) for series" if rank == 1 else ""))
            )
        if tensor.numel() and not all(map(math.isfinite, tensor.aminmax())):  # far faster than torch.isfinite
            raise ImageError("the input tensor holds NaN or infinite values; check the preprocessing")
        name = "input" if len(inputs) == 1 else f"input {i}"
        if tensor.ndim == 2:
            picture = Picture(_curves(tensor), name, None)
            length = tensor.shape[1]
            scale = (1 / picture.height, 1.0)
            yield View(tensor, picture, Geometry((picture.height, length), (1, length), scale), preprocessed=True)
            continue
        height, width = tensor.shape[-2:]
        frames = _displayed(tensor, preprocessing) if tensor.ndim == 4 else None
        if frames is not None:
            picture = Picture(frames[len(frames) // 2], name)
        else:
            picture = Picture.drawn(partial(_still, tensor, preprocessing), (height, width), name)
        yield View(tensor, picture, Geometry.identity((height, width)), frames, preprocessed=True)


def _is_batch(tensor: Tensor, rank: int | None) -> bool:
    return tensor.ndim == rank + 2 if rank and tensor.ndim in (rank + 1, rank + 2) else tensor.ndim > 3


def _curves(series: Tensor) -> np.ndarray[Any, Any]:
    """A series (C, L) as pixels (H, L, 3): one band per channel, its values from the lowest to the highest."""
    values = series.float().cpu()
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    band = max(8, 96 // len(values))
    heights = ((1 - (values - low) / (high - low).clamp(min=1e-12)) * (band - 1)).round()
    before = torch.cat([heights[:, :1], heights[:, :-1]], 1)
    top, bottom = torch.minimum(heights, before)[:, None], torch.maximum(heights, before)[:, None]
    rows = torch.arange(band)[:, None]
    drawn = ((rows >= top) & (rows <= bottom)).flatten(0, 1)
    array: np.ndarray[Any, Any] = torch.where(drawn, 30, 235).byte()[..., None].expand(-1, -1, 3).contiguous().numpy()
    return array


def _still(tensor: Tensor, preprocessing: Preprocessing | None) -> np.ndarray[Any, Any]:
    """An input (C, H, W) as pixels (H, W, 3)."""
    array: np.ndarray[Any, Any] = _displayed(tensor[:, None], preprocessing)[0]
    return array


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
