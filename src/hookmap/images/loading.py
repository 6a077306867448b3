"""Anything image-like in, RGB pixels out."""

from __future__ import annotations

import copy
import io
import os
import re
import stat
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from hookmap._text import printable
from hookmap.errors import HookmapError, ImageError, first_line

if TYPE_CHECKING:
    from PIL import Image

_T = TypeVar("_T")

Pixels = np.ndarray[Any, Any]
SMALLEST_SIDE = 4
VIDEOS = {
    ".mp4",
    ".mov",
    ".m4v",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".wmv",
    ".flv",
    ".3gp",
    ".ogv",
}
"""Endings of files that hold videos."""


class Picture:
    """One image, upright and in RGB; one that comes from a file or from encoded bytes is decoded again when needed.

    So a thousand results of a thousand files hold no pixels. One that shows a model's input is drawn when its pixels
    are first needed: most are never looked at.

    Args:
        pixels: ``(H, W, 3)``, uint8, RGB, upright.
        name: the file's stem, or ``"image"``.
        path: where it came from, if from a file.
    """

    def __init__(self, pixels: Pixels, name: str = "image", path: Path | None = None) -> None:
        self.name = name
        self.path = path
        self._pixels: Pixels | None = pixels
        self._source: _Source | None = None
        self._draw: Callable[[], Pixels] | None = None
        self._size = (int(pixels.shape[0]), int(pixels.shape[1]))

    @classmethod
    def drawn(cls, draw: Callable[[], Pixels], size: tuple[int, int], name: str) -> Picture:
        """A picture of ``size`` (height, width) that ``draw`` gives when its pixels are first needed."""
        picture = cls.__new__(cls)
        picture.name, picture.path = name, None
        picture._pixels, picture._source, picture._draw, picture._size = None, None, draw, size
        return picture

    @classmethod
    def decoded(cls, source: _Source, name: str = "image", path: Path | None = None) -> Picture:
        """A picture of a source that is decoded now, to see that it can be, and again when its pixels are needed.

        Raises:
            ImageError: if it can't be decoded.
        """
        pixels = _RECENT.pixels(source)
        picture = cls(pixels, name, path)
        picture._pixels, picture._source = None, source
        return picture

    @property
    def pixels(self) -> Pixels:
        """``(H, W, 3)``, uint8, RGB, upright.

        Raises:
            ImageError: if the file that it came from is gone, or another one now.
        """
        if (draw := self._draw) is not None:
            self._pixels = draw()
            self._draw = None
        if self._pixels is not None:
            return self._pixels
        assert self._source is not None
        return _RECENT.pixels(self._source)

    @property
    def encoded(self) -> bytes | None:
        """The file as it is, if the picture came from one or from encoded bytes."""
        return None if self._source is None else self._source.read()

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return self._size[0]

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return self._size[1]

    def renamed(self, name: str) -> Picture:
        """The same picture under another name."""
        other = copy.copy(self)
        other.name = name
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Whoever reads it elsewhere needs no file, and no tensor that it is drawn from."""
        if self._source is None:
            return {**self.__dict__, "_pixels": self.pixels, "_draw": None}
        if self._source.data is not None:
            return self.__dict__
        return {**self.__dict__, "_source": _Source(self._source.what, data=self._source.read())}

    def __repr__(self) -> str:
        return f"Picture({self.name!r}, {self.width} x {self.height})"


@dataclass(frozen=True)
class _Source:
    """An encoded image: a file as it was when it was first read, or bytes.

    Attributes:
        what: how sentences call it.
        path: of the file.
        stamp: its size and the time of its last change.
        data: the bytes, if they are no file.
    """

    what: str
    path: Path | None = None
    stamp: tuple[int, int] | None = None
    data: bytes | None = None

    @classmethod
    def of_file(cls, path: Path) -> _Source:
        about, what = path.stat(), printable(str(path))
        if stat.S_ISDIR(about.st_mode):
            raise ImageError(f"{what} is a folder; pass the images in it, e.g. {printable(str(path / '*.jpg'))}")
        if not stat.S_ISREG(about.st_mode):
            raise ImageError(f"{what} is a pipe or a device; save the image as a file, or pass its bytes")
        return cls(what, path, (about.st_size, about.st_mtime_ns))

    def read(self) -> bytes:
        """The encoded image."""
        if self.data is not None:
            return self.data
        assert self.path is not None
        try:
            if self.of_file(self.path) != self:
                raise ImageError(f"{self.what} has changed since it was explained; explain it again")
            return self.path.read_bytes()
        except OSError as error:
            raise ImageError(f"{self.what} can't be read ({error.strerror or error}); check the path") from None

    def decode(self) -> Pixels:
        """Its pixels, ``(H, W, 3)``."""
        from PIL import Image

        with _decoding(self.what), Image.open(io.BytesIO(self.read())) as image:
            return _upright_rgb(image, self.what)


class _Recent:
    """The pixels that were decoded last: the very last picture, and as many before it as fit into some memory."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: OrderedDict[_Source, Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def pixels(self, source: _Source) -> Pixels:
        """Of a source, decoded if they aren't kept."""
        with self._lock:
            if source in self._kept:
                self._kept.move_to_end(source)
                return self._kept[source]
        pixels = source.decode()
        pixels.flags.writeable = False
        with self._lock:
            self._kept[source] = pixels
            total = sum(kept.nbytes for kept in self._kept.values())
            while total > self._room and len(self._kept) > 1:
                total -= self._kept.popitem(last=False)[1].nbytes
        return pixels


_RECENT = _Recent(16 * 2**20)


@dataclass(frozen=True)
class Unreadable:
    """An image that can't be read, and why."""

    name: str
    error: ImageError


def load_each(images: Any) -> Iterator[Picture | Unreadable]:
    """One image, or the images of a list, tuple, generator or 4D array, each decoded when it is asked for.

    Raises:
        ImageError: if there is none at all.
    """
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        images = list(images)
    alone = (
        isinstance(images, (str, bytes, bytearray, os.PathLike, Picture, np.ndarray, torch.Tensor))
        or not isinstance(images, Iterable)
        or hasattr(images, "read")
        or hasattr(images, "getexif")
    )
    number = -1
    for number, image in enumerate([images] if alone else images):
        name = Path(image).stem if isinstance(image, (str, os.PathLike)) else f"image {number}"
        try:
            picture = load(image)
        except ImageError as error:
            yield Unreadable(name, error)
        else:
            yield picture if alone or picture.name != "image" or picture.path else picture.renamed(f"image {number}")
    if number < 0:
        raise ImageError("an empty list of images came; pass at least one image")


def load_all(images: Any) -> list[Picture]:
    """One image, or a list, tuple, generator or 4D array of them; see :func:`load`.

    Raises:
        ImageError: for the first that can't be read.
    """
    pictures = []
    for picture in load_each(images):
        if isinstance(picture, Unreadable):
            raise picture.error
        pictures.append(picture)
    return pictures


def only(several: Iterable[_T]) -> _T:
    """What came of one image.

    Raises:
        ImageError: if there are several, or none.
    """
    found = list(islice(several, 2))
    if len(found) != 1:
        raise ImageError("this is asked of one image; pass one image")
    return found[0]


def load(image: Any) -> Picture:
    """Decode one image to upright RGB.

    EXIF orientation is applied, transparency composited on white, 16-bit scaled (not clipped), the first
    frame of an animation taken.

    Args:
        image: a path, encoded bytes, a binary file, a PIL image, a NumPy array (H, W), (H, W, C) or
            (C, H, W) of uint8, uint16, bool, or floats in 0..1, or a uint8 tensor (C, H, W).

    Raises:
        ImageError: if it can't be read, or can't be explained (too small, too large, NaN).
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, (str, os.PathLike)):
        return _from_path(image)
    if isinstance(image, (bytes, bytearray)):
        return Picture.decoded(_Source(f"the {len(image)} bytes given as an image", data=bytes(image)))
    if isinstance(image, torch.Tensor):
        if image.is_floating_point():
            raise ImageError(
                "a floating-point tensor came among images; tensors that are already preprocessed are passed alone or "
                "in a list of tensors, raw images as uint8"
            )
        return Picture(_from_array(plain_tensor(image).cpu().numpy()))
    if isinstance(image, np.ndarray):
        return Picture(_from_array(image))
    if hasattr(image, "getexif"):
        with _decoding("the image"):
            return Picture(_upright_rgb(image, "the image"))
    if hasattr(image, "read"):
        return Picture.decoded(_Source("the file given as an image", data=_read(image)))
    raise ImageError(
        f"an image was given as {type(image).__name__}; expected a path, bytes, PIL image, NumPy array or tensor"
    )


def plain_tensor(image: torch.Tensor) -> torch.Tensor:
    """The values of a tensor, whatever holds them, without its graph.

    Raises:
        ImageError: if it has none.
    """
    if image.is_meta:
        raise ImageError("a tensor on the meta device came as an image; it has a shape and no values")
    if image.is_nested:
        raise ImageError("a nested tensor came as images; pass a list of its parts (tensor.unbind())")
    image = image.detach()
    image = image.dequantize() if image.is_quantized else image
    return image if image.layout == torch.strided else image.to_dense()


def _from_path(source: str | os.PathLike[str]) -> Picture:
    if isinstance(source, str) and re.match(r"[a-z][a-z0-9+.-]+://", source, re.IGNORECASE):
        raise ImageError(
            f"{printable(source)} is an address, and hookmap doesn't download; save the image and pass its path"
        )
    if source == "":
        raise ImageError("an empty path came; pass the path of an image")
    path = Path(source)
    try:
        path = path.expanduser()
        if path.suffix.lower() in VIDEOS and path.is_file():
            raise ImageError(
                f"{printable(str(path))} is a video; pass hookmap.Video(path), whose frames are pictures (`hookmap "
                "explain` makes a film of it)"
            )
        return Picture.decoded(_Source.of_file(path), path.stem, path)
    except (OSError, ValueError, RuntimeError) as error:  # a zero byte is a ValueError, a user who isn't a RuntimeError
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{printable(str(path))} can't be read ({reason}); check the path") from None


def _read(file: Any) -> bytes:
    """What an open file holds."""
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"the file given as an image can't be read ({error}); open it again") from None
    if not isinstance(data, bytes):
        raise ImageError(f"the file given as an image holds {type(data).__name__}; open it in binary mode ('rb')")
    return data


@contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Says in one sentence why Pillow can't decode an image."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ImageError(
            f"{what} has more than {limit / 1e6:.0f} million pixels, as decompression bombs do; shrink it, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from None
    except (UnidentifiedImageError, ImportError):  # some libraries have Pillow look for further plugins
        raise ImageError(f"{what} isn't an image in a format that Pillow reads; pass a PNG, JPEG, WebP, ...") from None
    except (HookmapError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise whatever damaged bytes make them run into
        if "closed" in str(error):
            raise ImageError(f"{what} was closed ({first_line(error)}); open it again") from None
        raise ImageError(
            f"{what} is damaged and can't be decoded ({first_line(error)}); get a whole copy of it"
        ) from None


def _upright_rgb(image: Image.Image, what: str) -> Pixels:
    from PIL import Image

    image.seek(0)
    if (turn := _turn(image)) is not None:
        image = image.transpose(Image.Transpose(turn))
    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(_depth_to_unit(np.asarray(image), what))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = np.array(image.convert("RGB"))
    _check_size(pixels, what)
    return pixels


def _turn(image: Image.Image) -> int | None:
    """How Pillow turns the image upright, by its EXIF; one whose EXIF is damaged is shown as it lies."""
    from PIL import Image

    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_90"}
    try:
        turn = turns.get(image.getexif().get(0x0112, 1))
    except MemoryError:
        raise
    except Exception:  # whatever damaged bytes make Pillow run into
        return None
    return Image.Transpose[turn] if turn else None


def _depth_to_unit(values: Pixels, what: str) -> Pixels:
    """16-bit, 32-bit and float greyscale to 0..1; integers are 16-bit whatever holds them."""
    if values.dtype.kind != "f":
        return values.clip(0, 65535).astype(np.float32) / 65535
    top = float(np.nanmax(values)) if values.size else 0.0
    return (values / 255).astype(np.float32) if 1 < top <= 255 else values


def _from_array(array: Pixels) -> Pixels:
    shape, dtype = array.shape, array.dtype
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3 and shape[-1] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        raise ImageError(f"an array of shape {shape} came as an image; expected (H, W), (H, W, 1|3|4) or (1|3|4, H, W)")
    if dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif dtype == np.uint16:
        array = np.round(array / 257).astype(np.uint8)
    elif dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ImageError("the image holds NaN or infinite values; clean it first")
        if array.size and (array.min() < 0 or array.max() > 1):
            raise ImageError(
                f"a float image has values from {array.min():.4g} to {array.max():.4g}; expected 0..1 "
                "(divide by 255, or pass uint8; an input that is already normalised is passed as a torch tensor)"
            )
        array = np.round(array * 255).astype(np.uint8)
    elif dtype != np.uint8:
        raise ImageError(f"an array of {dtype} came as an image; expected uint8, uint16, bool, or floats in 0..1")
    if array.shape[-1] == 4:
        alpha = array[..., 3:].astype(np.float32) / 255
        array = np.round(array[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
    _check_size(pixels, "the image")
    return pixels


def _check_size(pixels: Pixels, what: str) -> None:
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise ImageError(
            f"{what} is {width}x{height} pixels, too small to show anything; pass one of at least "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE}"
        )
