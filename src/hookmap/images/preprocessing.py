"""From a picture to a model's input, exactly as the model's library does it, with the geometry kept."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hookmap.errors import HookmapError
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture

Fit = Literal["crop", "whole", "stretch"]
"""What of a picture the model sees: as its library has it (most crop the middle), all of it at the same scale, or all
of it pressed into the model's usual input."""
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop or pad to ``size``, scale to 0..1, subtract ``mean`` and divide by ``std``.

    Attributes:
        size: the input's (h, w).
        resize: first resize the shorter side to this many pixels, keeping proportions (an integer), or the
            whole to exactly (h, w), or, with ``"letterbox"``, so that all of it fits into ``size``, or to what a
            function of the image's height and width gives, as (h, w); None doesn't resize.
        mean: per channel, in 0..1; three for RGB, one for greyscale.
        std: per channel.
        interpolation: how to resize, by Pillow's name.
        fill: grey level, or one per channel, 0..255, of padding, where the image doesn't fill the input.
        any_size: the image is taken in its own size after the resize; nothing is cropped.
        multiple: sides of such an input are rounded to multiples of this many pixels, as patches want it.
    """

    size: tuple[int, int] = (224, 224)
    resize: int | tuple[int, int] | Literal["letterbox"] | Callable[[int, int], tuple[int, int]] | None = 256
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bilinear"
    fill: int | tuple[int, ...] = 0
    any_size: bool = False
    multiple: int = 1

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise HookmapError(
                f"preprocessing has {len(self.mean)} means and {len(self.std)} stds; expected 3 of each, or 1 for grey"
            )
        if self.interpolation not in Interpolation.__args__:  # type: ignore[attr-defined]
            raise HookmapError(
                f"there's no interpolation {self.interpolation!r}; use one of {', '.join(Interpolation.__args__)}"  # type: ignore[attr-defined]
            )

    def fitted(self, fit: Fit, multiple: int = 1) -> Preprocessing:
        """This preprocessing for another part of the picture.

        Args:
            fit: ``"crop"``: as it is; ``"whole"``: the same scale, and nothing is cropped, so that inputs have the
                pictures' proportions; ``"stretch"``: all of the picture, pressed into ``size``.
            multiple: of which the sides of a whole input have to be.

        Raises:
            HookmapError: for another word.

        >>> Preprocessing(size=(224, 224), resize=256).fitted("stretch").resize
        (224, 224)
        """
        if fit not in get_args(Fit):
            raise HookmapError(f"fit is {fit!r}; expected one of {', '.join(get_args(Fit))}")
        if fit == "crop" or self.any_size or self.resize == "letterbox":
            return self
        if fit == "stretch":
            return replace(self, resize=self.size)
        return self if self.resize == self.size else replace(self, any_size=True, multiple=multiple)

    def of_size(self, size: tuple[int, int]) -> Preprocessing:
        """This preprocessing for a network that takes one size (h, w) only.

        >>> Preprocessing(size=(520, 520), resize=520, any_size=True).of_size((520, 520)).any_size
        False
        """
        resize = size if self.resize == self.size else self.resize
        return replace(self, size=size, resize=resize, any_size=False, multiple=1)

    def __call__(self, picture: Picture) -> tuple[Tensor, Geometry]:
        """The input ``(C, h, w)``, float32, and where it lies on the picture."""
        from PIL import Image

        image = Image.fromarray(picture.pixels)
        if len(self.mean) == 1:
            image = image.convert("L")
        geometry = Geometry.identity((image.height, image.width))
        inner = self._inner_size(image.height, image.width)
        if inner != (image.height, image.width):
            image = image.resize((inner[1], inner[0]), Image.Resampling[self.interpolation.upper()])
            geometry = geometry.resized(inner)
        if not self.any_size and inner != self.size:
            image, geometry = self._centred(image, geometry)
        pixels = torch.from_numpy(np.array(image)).reshape(image.height, image.width, -1).permute(2, 0, 1)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return pixels.float().div(255).sub_(mean).div_(std), geometry

    def _inner_size(self, height: int, width: int) -> tuple[int, int]:
        """The size (h, w) to which a picture is resized before anything is cropped or padded."""
        inner = self._resized(height, width)
        if not self.any_size or self.multiple == 1:
            return inner
        rounded = [max(1, round(side / self.multiple)) * self.multiple for side in inner]
        return rounded[0], rounded[1]

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is None:
            return height, width
        if self.resize == "letterbox":
            ratio = min(self.size[0] / height, self.size[1] / width)
            return max(1, round(height * ratio)), max(1, round(width * ratio))
        if isinstance(self.resize, tuple):
            return self.resize
        if callable(self.resize):
            return self.resize(height, width)
        # As torchvision computes it: the longer side is cut, not rounded.
        short, long = sorted((height, width))
        longer = int(self.resize * long / short)
        return (self.resize, longer) if height <= width else (longer, self.resize)

    def _centred(self, image: Any, geometry: Geometry) -> tuple[Any, Geometry]:
        """Centre crop, or centred padding where the image is smaller; roundings as in torchvision."""
        from PIL import Image

        h, w = self.size
        pad_top, pad_left = max(0, (h - image.height) // 2), max(0, (w - image.width) // 2)
        if image.height < h or image.width < w:
            fill = self.fill if isinstance(self.fill, tuple) or image.mode == "L" else (self.fill,) * 3
            canvas = Image.new(image.mode, (max(w, image.width), max(h, image.height)), fill)
            canvas.paste(image, (pad_left, pad_top))
            geometry = geometry.shifted((canvas.height, canvas.width), -pad_top, -pad_left)
            image = canvas
        top, left = self._half(image.height - h), self._half(image.width - w)
        return image.crop((left, top, left + w, top + h)), geometry.shifted((h, w), top, left)

    def _half(self, spare: int) -> int:
        """Where a centred crop begins that leaves out so many pixels."""
        return round(spare / 2.0)

    def undo(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """An input ``(C, h, w)`` as pixels ``(h, w, 3)``, uint8, clipped to what can be shown."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        shown = (tensor.detach().float().cpu() * std + mean).clamp(0, 1).mul(255).round().byte()
        array: np.ndarray[Any, Any] = shown.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
        return array

    def as_json(self) -> dict[str, Any] | None:
        """What :meth:`from_json` reads; None for rules of a library's own, which no file can hold."""
        return None if type(self) is not Preprocessing or callable(self.resize) else asdict(self)

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> Preprocessing:
        """What :meth:`as_json` gave."""
        given: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in about.items()}
        return cls(**given)

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocessing:
        """From a timm data config (``timm.data.resolve_model_data_config(model)``)."""
        size = tuple(config["input_size"][-2:])
        scaled = tuple(math.floor(side / config.get("crop_pct", 0.875)) for side in size)
        mode = config.get("crop_mode") or "center"
        resize: Any = scaled[0] if scaled[0] == scaled[1] else scaled
        fill: int | tuple[int, ...] = 0
        if mode == "squash":
            resize = scaled
        elif mode == "border":
            resize = "letterbox"
            fill = tuple(round(255 * m) for m in config["mean"])
        base = cls(
            size=(size[0], size[1]),
            resize=resize,
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            interpolation=config.get("interpolation", "bicubic"),
            fill=fill,
        )
        return base

    @classmethod
    def from_transform(cls, transform: Any) -> Preprocessing:
        """From torchvision transforms: a weights' preset, or a ``Compose`` of the usual evaluation steps.

        Raises:
            HookmapError: naming the step that can't be read as geometry and normalisation.
        """
        if isinstance(transform, functools.partial):
            transform = transform()
        if hasattr(transform, "crop_size") and hasattr(transform, "resize_size"):
            return cls(
                size=_pair(transform.crop_size),
                resize=_resize(transform.resize_size),
                mean=tuple(transform.mean),
                std=tuple(transform.std),
                interpolation=_interpolation(transform.interpolation),
            )
        if hasattr(transform, "resize_size") and hasattr(transform, "mean"):  # segmentation: nothing is cropped
            resize = _resize(transform.resize_size)
            size = resize if isinstance(resize, tuple) else (resize or 224, resize or 224)
            mean, std = tuple(transform.mean), tuple(transform.std)
            way = _interpolation(transform.interpolation)
            return cls(size=size, resize=resize, mean=mean, std=std, interpolation=way, any_size=True)
        result = cls(resize=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), any_size=True)
        for step in getattr(transform, "transforms", [transform]):
            kind = type(step).__name__
            if kind == "Resize":
                resize = _resize(step.size)
                size = resize if isinstance(resize, tuple) else (resize, resize)
                result = replace(result, resize=resize, size=size, interpolation=_interpolation(step.interpolation))
            elif kind == "CenterCrop":
                result = replace(result, size=_pair(step.size), any_size=False)
            elif kind == "Normalize":
                result = replace(result, mean=tuple(map(float, step.mean)), std=tuple(map(float, step.std)))
            elif kind not in _HARMLESS:
                raise HookmapError(
                    f"the preprocessing step {kind} can't be read; pass preprocessing=hookmap.Preprocessing(size=..., "
                    "resize=..., mean=..., std=...), or tensors that are already preprocessed"
                )
        return result


_HARMLESS = {
    "ToTensor",
    "PILToTensor",
    "ToImage",
    "ConvertImageDtype",
    "ToDtype",
    "ToPureTensor",
    "MaybeToTensor",
    "RGB",
}

IMAGENET = Preprocessing()
"""What torchvision's ImageNet models were first trained with: shorter side 256, centre crop 224."""


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    values = [size] if isinstance(size, int) else list(size)
    return values[0], values[-1]


def _resize(size: int | Sequence[int]) -> int | tuple[int, int]:
    values = [size] if isinstance(size, int) else list(size)
    return values[0] if len(values) == 1 else (values[0], values[1])


def _interpolation(mode: Any) -> Any:
    # torchvision's enumeration holds Pillow's names.
    return getattr(mode, "value", mode)
