"""From a transformers image processor to a preprocessing: the same pixels, with the geometry kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.images.preprocessing import Preprocessing

Sizing = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True)
class ProcessorSteps(Preprocessing):
    """As image processors do it: a centred crop begins at the pixel rounded down.

    Attributes:
        bgr: channels come in reverse order.
        squared: the picture is first made square with black below or to its right.
    """

    bgr: bool = False
    squared: bool = False

    def __call__(self, picture: Picture) -> tuple[Tensor, Geometry]:
        """The input ``(C, h, w)``, float32, and where it lies on the picture."""
        pixels = picture.pixels[..., ::-1] if self.bgr else picture.pixels
        height, width = pixels.shape[:2]
        if self.squared:
            side = max(height, width)
            pixels = np.pad(pixels, ((0, side - height), (0, side - width), (0, 0)))
        tensor, geometry = super().__call__(Picture(np.ascontiguousarray(pixels), picture.name))
        return tensor, replace(geometry, original=(height, width))

    def undo(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """An input ``(C, h, w)`` as pixels ``(h, w, 3)``, uint8, clipped to what can be shown."""
        pixels = super().undo(tensor)
        return np.ascontiguousarray(pixels[..., ::-1]) if self.bgr else pixels

    def _half(self, spare: int) -> int:
        return spare // 2


@dataclass(frozen=True)
class UnfilteredSteps(ProcessorSteps):
    """RF-DETR's: resized as floats, each pixel from the four around its place, so that what shrinks isn't smoothed."""

    def __call__(self, picture: Picture) -> tuple[Tensor, Geometry]:
        """The input ``(C, h, w)``, float32, and where it lies on the picture."""
        pixels = torch.tensor(picture.pixels).permute(2, 0, 1).float().div(255)
        inner = self._inner_size(picture.height, picture.width)
        resized = nn.functional.interpolate(pixels[None], inner, mode="bilinear", align_corners=False)[0]
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (resized - mean) / std, Geometry.identity((picture.height, picture.width)).resized(inner)


@dataclass(frozen=True)
class CorneredSteps(ProcessorSteps):
    """SAM's: what is normalised is filled up to a size with zeros, below and to the right."""

    def __call__(self, picture: Picture) -> tuple[Tensor, Geometry]:
        """The input ``(C, h, w)``, float32, and where it lies on the picture."""
        tensor, geometry = super().__call__(picture)
        down, across = (side - length for side, length in zip(self.size, tensor.shape[1:], strict=True))
        return nn.functional.pad(tensor, (0, across, 0, down)), geometry.shifted(self.size, 0, 0)


def read(processor: Any) -> Preprocessing | None:
    """The preprocessing of an image processor, held against the processor itself on a small picture.

    None for a processor that does something else than to resize, crop, pad and normalise.
    """
    try:
        steps = _steps(processor)
        return steps if _gives_the_same(processor, steps) else None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ImportError):
        return None


def _steps(processor: Any) -> ProcessorSteps:
    sizing, crop = _sizing(processor), None
    resize = sizing.resize if isinstance(sizing, _Cropped) else sizing
    if isinstance(sizing, _Cropped):
        crop = sizing.crop
    elif getattr(processor, "do_center_crop", None) and processor.crop_size is not None:
        crop = _height_and_width(processor.crop_size)
    name = type(processor).__name__
    ocr = name.startswith("PPOCR")
    exact = crop or (resize if isinstance(resize, tuple) else None)
    mean, std = _scaling(processor)
    if ocr:  # it normalises before it turns the channels round
        mean, std = mean[::-1], std[::-1]
    kind, filled = UnfilteredSteps if name.startswith("RfDetr") else ProcessorSteps, None
    if name.startswith("Sam") and getattr(processor, "do_pad", None) and getattr(processor, "pad_size", None):
        kind, filled = CorneredSteps, _height_and_width(processor.pad_size)
    return kind(
        size=filled or exact or _example_size(processor),
        resize=resize,
        mean=mean,
        std=std,
        interpolation=_interpolation(processor),
        any_size=exact is None,
        bgr=ocr or bool(getattr(processor, "do_flip_channel_order", False)),
        squared=name.startswith("Owlv2") and bool(processor.do_pad),
    )


@dataclass(frozen=True)
class _Cropped:
    """A resize that some processors follow with a crop of their own."""

    resize: int
    crop: tuple[int, int]


def _sizing(processor: Any) -> int | tuple[int, int] | Sizing | _Cropped | None:
    """What a processor resizes to, as :attr:`Preprocessing.resize`."""
    if not processor.do_resize:
        return None
    kind = type(processor).__name__
    divisor: Any = getattr(processor, "size_divisor", None)
    if kind.startswith("GLPN"):
        return partial(_divisible, sizing=_as_it_is, divisor=divisor, rounding=math.floor)
    if kind.startswith("PPOCR"):
        return partial(_limited, processor=processor)
    size: dict[str, int] = dict(processor.size)
    short, long = size.get("shortest_edge", 0), size.get("longest_edge", 0)
    if kind.startswith("ConvNext"):
        return _Cropped(int(short / processor.crop_pct), (short, short)) if short < 384 else (short, short)
    if kind.startswith("Levit") and short:
        return int((256 / 224) * short)
    if kind.startswith("PoolFormer") and processor.crop_pct is not None:
        return int((short or size["height"]) / processor.crop_pct)
    if kind.startswith(("DPT", "ZoeDepth", "PromptDepth")):
        wanted, multiple = _height_and_width(size), processor.ensure_multiple_of
        if not processor.keep_aspect_ratio:
            return _nearest_multiples(*wanted, wanted=wanted, multiple=multiple)
        return partial(_nearest_multiples, wanted=wanted, multiple=multiple)
    sizing: Sizing
    if short and long:
        sizing = partial(_between, short=short, long=long)
    elif short:
        return short
    elif long:
        sizing = partial(_longer, long=long)
    elif size.get("max_height"):
        sizing = partial(_within, most=(size["max_height"], size["max_width"]))
    else:
        return _height_and_width(size)
    if kind.startswith("Yolos"):
        return partial(_divisible, sizing=sizing, divisor=16, rounding=math.floor)
    if kind.startswith(("MaskFormer", "Mask2Former")) and divisor:
        return partial(_divisible, sizing=sizing, divisor=divisor, rounding=math.ceil)
    return sizing


def _as_it_is(height: int, width: int) -> tuple[int, int]:
    return height, width


def _between(height: int, width: int, *, short: int, long: int) -> tuple[int, int]:
    """The shorter side as wanted, unless the longer one then passes its limit."""
    low, high = min(height, width), max(height, width)
    exact: float = short
    if high / low * short > long:
        exact = long * low / high
        short = round(exact)
    if low == short:
        return height, width
    # The longer side is computed from the shorter one before that is rounded.
    return (int(exact * height / width), short) if width < height else (short, int(exact * width / height))


def _longer(height: int, width: int, *, long: int) -> tuple[int, int]:
    """The longer side as wanted."""
    scale = long / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def _within(height: int, width: int, *, most: tuple[int, int]) -> tuple[int, int]:
    ratio = min(most[0] / height, most[1] / width)
    return int(height * ratio), int(width * ratio)


def _divisible(
    height: int, width: int, *, sizing: Sizing, divisor: int, rounding: Callable[[float], int]
) -> tuple[int, int]:
    height, width = sizing(height, width)
    return rounding(height / divisor) * divisor, rounding(width / divisor) * divisor


def _limited(height: int, width: int, *, processor: Any) -> tuple[int, int]:
    limits = (processor.limit_side_len, processor.limit_type, processor.max_side_limit)
    size, _ = processor.get_image_size(torch.empty(3, height, width, device="meta"), *limits)
    return size.height, size.width


def _nearest_multiples(height: int, width: int, *, wanted: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Both sides by the factor that changes less, then each to the nearest multiple."""
    down, across = wanted[0] / height, wanted[1] / width
    factor = across if abs(1 - across) < abs(1 - down) else down
    return round(factor * height / multiple) * multiple, round(factor * width / multiple) * multiple


def _height_and_width(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    size = dict(size)
    side = size.get("shortest_edge")
    return (side, side) if side else (size["height"], size["width"])


def _example_size(processor: Any) -> tuple[int, int]:
    """An input's size where that depends on the picture."""
    size: Mapping[str, int] = dict(processor.size) if getattr(processor, "size", None) else {}
    side = size.get("shortest_edge") or min(size.values(), default=224)
    return side, side


def _scaling(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What is subtracted from pixels in 0..1, and what they are divided by: all of the processor's steps in one."""
    scale = 1.0
    if not processor.do_rescale:
        scale = 255.0
    elif abs(255 * processor.rescale_factor - 1) > 1e-6:
        scale = 255 * processor.rescale_factor
    below = ("rescale_offset", "offset")
    video = type(processor).__name__ == "VivitVideoProcessor"
    offset = 1.0 if video or any(getattr(processor, word, False) for word in below) else 0.0
    normalised = getattr(processor, "do_normalize", False) and processor.image_mean is not None
    means, deviations = (processor.image_mean, processor.image_std) if normalised else ((0.0,) * 3, (1.0,) * 3)
    again = processor.image_std if getattr(processor, "include_top", False) else (1.0,) * len(deviations)
    mean = tuple((m + offset) / scale for m in means)
    std = tuple(s * a / scale for s, a in zip(deviations, again, strict=True))
    return mean, std


def _interpolation(processor: Any) -> Any:
    from PIL.Image import Resampling

    way = processor.resample if getattr(processor, "resample", None) is not None else Resampling.BILINEAR
    # torchvision's enumeration holds Pillow's names.
    return way.value if isinstance(getattr(way, "value", None), str) else Resampling(int(way)).name.lower()


def _gives_the_same(processor: Any, steps: Preprocessing) -> bool:
    """Whether a picture that isn't square or symmetric comes out alike, up to the rounding of another resize."""
    y, x = np.mgrid[0:90, 0:150]
    waves = [np.sin(x / 9 + y / 23), np.cos(x / 31 - y / 7), np.sin((x * y) ** 0.5 / 11)]
    pixels = np.stack([(127 + 110 * wave).astype(np.uint8) for wave in waves], -1)
    given = processor(pixels, return_tensors="pt")
    # To a video processor it is a video of one frame.
    theirs = given["pixel_values" if "pixel_values" in given else "pixel_values_videos"].flatten(0, -4)
    mine, _ = steps(Picture(pixels, "waves", None))
    if tuple(theirs.shape) != (1, *mine.shape):
        return False
    return bool((theirs[0].float() - mine).abs().mean() * min(steps.std) < 0.01)
