"""Images of a data set, decoded and preprocessed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hookmap._text import printable
from hookmap.datasets.sources import Item, LabelledBox, Source
from hookmap.errors import HookmapError, ImageError, first_line
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture, load
from hookmap.images.preprocessing import Preprocessing
from hookmap.images.views import View, is_input, tensor_views

if TYPE_CHECKING:
    from PIL import Image


@dataclass(eq=False)
class Sample:
    """One image as a worker hands it on, without its pixels.

    Attributes:
        id: of the image in its data set.
        path: of its file, if it is one.
        label: as the data set has it.
        boxes: of objects, in pixels of the picture.
        mask: of the object, ``(H, W)``.
        geometry: from the picture to the input; None if it couldn't be read.
        thumbnail: a small JPEG, or nothing.
        error: why it couldn't be read, or nothing.
    """

    id: str
    path: str | None = None
    label: str | int | None = None
    boxes: Sequence[LabelledBox] = ()
    mask: np.ndarray[Any, Any] | None = None
    geometry: Geometry | None = None
    thumbnail: bytes = b""
    error: str = ""


@dataclass(eq=False)
class Batch:
    """Some images, and the inputs of those that could be read, grouped by size.

    Attributes:
        samples: in the order of the data set.
        inputs: ``(B, C, *size)`` each, with the positions of their images in ``samples``.
    """

    samples: list[Sample]
    inputs: list[tuple[Tensor, list[int]]] = field(default_factory=list)

    @classmethod
    def of(cls, read: Sequence[tuple[Sample, Tensor | None]]) -> Batch:
        """The batch of what was read."""
        sizes: dict[tuple[int, ...], list[int]] = {}
        for i, (_, x) in enumerate(read):
            if x is not None:
                sizes.setdefault(tuple(x.shape), []).append(i)
        inputs = [
            (torch.stack([x for i in members if (x := read[i][1]) is not None]), members) for members in sizes.values()
        ]
        return cls([sample for sample, _ in read], inputs)

    def pin_memory(self) -> Batch:
        """This batch where a GPU fetches from; DataLoader calls it."""
        return Batch(self.samples, [(x.pin_memory(), members) for x, members in self.inputs])


@dataclass(frozen=True)
class Reader:
    """Reads images of a source by their number; goes to workers.

    Attributes:
        source: the data set.
        preprocessing: from picture to input; None if the data set gives inputs.
        rank: how many axes of space and time an input has, if known.
        thumbnail: the longer side of the small copy, in pixels; 0 makes none.
    """

    source: Source
    preprocessing: Preprocessing | None
    rank: int | None = None
    thumbnail: int = 160

    def read(self, number: int) -> tuple[Sample, Tensor | None]:
        """An image and its input, or a sample that says why there's none."""
        assert self.source.ids is not None
        name = self.source.ids[number]
        try:
            item = self.source.item(number)
        except Exception as error:  # whatever the user's data set raises is this image's fault alone
            return Sample(name, error=reason(error)), None
        return self.prepared(item)

    def prepared(self, item: Item) -> tuple[Sample, Tensor | None]:
        """An item's input."""
        sample = Sample(item.id, item.path, item.label, item.boxes, item.mask)
        try:
            view = self._view(item.image)
            sample.geometry = view.geometry
            if sample.mask is not None and sample.mask.shape != view.geometry.original:
                sample.mask = None  # drawn on another picture: one that wasn't turned upright
            if self.thumbnail:
                sample.thumbnail = _thumbnail(view.picture, self.thumbnail)
        except Exception as error:
            sample.error = reason(error)
            return sample, None
        return sample, view.tensor

    def _view(self, image: Any) -> View:
        if is_input(image):
            views = list(tensor_views(image, self.preprocessing, self.rank))
            if len(views) != 1:
                raise ImageError(f"a tensor of {len(views)} images came as one; let the data set give one at a time")
            return views[0]
        if self.preprocessing is None:
            raise ImageError(
                "how this model's images are preprocessed isn't known; pass preprocessing= to Lens, or tensors that "
                "are already preprocessed"
            )
        picture = load(image)
        tensor, geometry = self.preprocessing(picture)
        return View(tensor, picture, geometry)


def reason(error: Exception) -> str:
    """An error in one sentence."""
    first = printable(first_line(error))
    return first if isinstance(error, HookmapError) else f"{type(error).__name__}: {first}"


def _thumbnail(picture: Picture, side: int) -> bytes:
    from PIL import Image as PILImage

    image: Image.Image = PILImage.fromarray(picture.pixels)
    image.thumbnail((side, side), PILImage.Resampling.BILINEAR, reducing_gap=2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()
