"""Samples as PyTorch and Hugging Face data sets give them: an image, a tuple, a dictionary."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hookmap._text import listed, printable
from hookmap.datasets.sources.base import Item, Mask, Source, Stream
from hookmap.datasets.sources.boxes import boxes_in, common
from hookmap.datasets.sources.names import LABELS, find, is_image_name
from hookmap.errors import DataError

IMAGES = ("image", "img", "pixel_values", "picture", "photo", "pil", "input", "x", "image_path", "path", "file_name")
OBJECTS = ("objects", "target", "targets", "annotations")


class Samples(Source):
    """Anything with a length and numbered samples.

    Args:
        data: gives an image, a tuple of an image, a label and whatever else, or a dictionary for each number.
        kind: for the description.
        place: for the description.
        image: key of the image in samples that are dictionaries, if it can't be told.
        label: key of the label; False for no labels.
        classes: class names by index.
        ids: of the samples, if they have better ones than their numbers.

    Raises:
        DataError: if it is empty or has no length.
    """

    def __init__(
        self,
        data: Any,
        kind: str,
        place: str,
        *,
        image: str | None = None,
        label: str | bool | None = None,
        classes: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        try:
            length = len(data)
        except (TypeError, NotImplementedError):
            raise DataError(
                f"a {type(data).__name__} came, which has no length; give it __len__ or iterate it"
            ) from None
        if not length:
            raise DataError(f"a {type(data).__name__} without samples came; pass one with at least one image")
        self.data, self._image, self._label = data, image, label
        self.classes = classes
        self.ids: Sequence[str] = Numbers(length) if ids is None else ids
        self.description = {"kind": kind, "from": place, "images": length}

    def item(self, number: int) -> Item:
        """The sample of that number."""
        return read_sample(self.data[number], self.ids[number], self._image, self._label)


class SampleStream(Stream):
    """Anything that gives samples one by one; see :class:`Samples`."""

    def __init__(
        self,
        data: Iterable[Any],
        kind: str,
        place: str,
        *,
        image: str | None = None,
        label: str | bool | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.data, self._image, self._label = data, image, label
        self.classes = classes
        self.description = {"kind": kind, "from": place, "images": None}

    def __iter__(self) -> Iterator[Item]:
        """The samples, numbered as they come; after one that can't be read more may come."""
        return map(self._item, enumerate(self.data))

    def _item(self, numbered: tuple[int, Any]) -> Item:
        number, sample = numbered
        return read_sample(sample, str(number), self._image, self._label)


class Numbers(Sequence[str]):
    """The numbers below a length, as ids."""

    def __init__(self, length: int) -> None:
        self._numbers = range(length)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        some = self._numbers[index]
        return str(some) if isinstance(some, int) else [str(number) for number in some]


def read_sample(sample: Any, name: str, image: str | None = None, label: str | bool | None = None) -> Item:
    """A sample as an item.

    Args:
        sample: an image; a tuple or list of an image, its label or detection target, and whatever else; or a
            dictionary.
        name: the item's id.
        image: key of the image in a dictionary.
        label: key of the label in a dictionary; False for none.

    Raises:
        DataError: if a dictionary has no image.
    """
    target: Any = None
    if isinstance(sample, Mapping):
        key = find(sample, IMAGES, image) or next((key for key in sample if is_image_name(f".{key}")), None)
        if key is None:
            raise DataError(
                f"a sample has {listed(sample, 12)}, none of them named as images are; pass its key as image"
            )
        picture = sample[key]
        if isinstance(picture, Mapping):  # Hugging Face's, not decoded
            picture = picture.get("bytes") or picture.get("path")
        named = find(sample, LABELS, label)
        target = sample[named] if named else None
        objects = next((sample[key] for key in OBJECTS if boxes_in(sample.get(key))), sample)
    elif isinstance(sample, (tuple, list)):
        if not sample:
            raise DataError("an empty sample came; expected an image, or an image and its label")
        picture = sample[0]
        target = objects = sample[1] if len(sample) > 1 else None
    else:
        return Item(name, sample, _path(sample))
    boxes = boxes_in(objects)
    if label is False:
        target, boxes = None, [box._replace(label=None) for box in boxes]
    value = common(box.label for box in boxes) if boxes else as_label(target)
    return Item(name, picture, _path(picture), value, boxes, _mask(objects))


def as_label(value: Any) -> str | int | None:
    """What a data set says an image's class is, as a name or an index; None for everything else, and for -1.

    >>> as_label(torch.tensor(3)), as_label(b" cat "), as_label("7"), as_label(np.zeros(3))
    (3, 'cat', 7, None)
    """
    if isinstance(value, (bytes, bytearray)):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isdecimal() and str(int(text)) == text else text or None
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return int(value) if isinstance(value, int) and value >= 0 else None


def in_json(text: str, key: str | None = None) -> str | int | None:
    """The label that a JSON file holds: it alone, or under its key."""
    value = json.loads(text)
    if isinstance(value, Mapping):
        named = find(value, LABELS, key)
        value = value[named] if named else None
    return as_label(value)


def _path(picture: Any) -> str | None:
    return printable(os.path.abspath(picture)) if isinstance(picture, (str, os.PathLike)) else None


def _mask(target: Any) -> Mask | None:
    """The union of torchvision's masks (N, H, W)."""
    masks = target.get("masks") if isinstance(target, Mapping) else None
    if masks is None or np.ndim(masks) != 3 or not len(masks):
        return None
    union: Mask = np.asarray(torch.as_tensor(masks).bool().any(0))
    return union
