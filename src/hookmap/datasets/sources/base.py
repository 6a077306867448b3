"""What a data set is to hookmap: items, each an image and what is known of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hookmap.errors import DataError

Mask = np.ndarray[Any, Any]


class LabelledBox(NamedTuple):
    """An object's box in pixels of the picture, and its class."""

    left: float
    top: float
    right: float
    bottom: float
    label: str | int | None


@dataclass(frozen=True, eq=False)
class Item:
    """One image of a data set and what is known of it.

    Attributes:
        id: unique and stable in its data set, printable, with ``/`` between folders: the path below the folder, the
            key in a tar, the number in a Dataset. A name, not a place: nothing is opened or written by it.
        image: what :func:`hookmap.images.loading.load` takes, or a preprocessed float tensor (C, H, W).
        path: of the file, if it is one; bytes that aren't UTF-8 are escaped, so it can be printed and written.
        label: class name, or index into :attr:`Source.classes`, as the data set has it.
        boxes: the objects that the data set marks.
        mask: bool (H, W): where the object is, if the data set says so; of several objects the union.
    """

    id: str
    image: Any
    path: str | None = None
    label: str | int | None = None
    boxes: Sequence[LabelledBox] = ()
    mask: Mask | None = None


class Source(ABC):
    """A data set with random access; picklable, so that workers can have it.

    Attributes:
        description: kind, where it came from, how many images: what a JSON file can hold.
        classes: class names by index, where the data set knows them.
        notes: what the user should know, a sentence each.
        unlabelled: whether no item has a label, where that is known without reading them.
        ids: of all items in order, made without opening a picture; None for a :class:`Stream`.
    """

    description: dict[str, Any]
    classes: Sequence[str] | None = None
    notes: Sequence[str] = ()
    unlabelled: bool = False
    ids: Sequence[str] | None = None

    @abstractmethod
    def item(self, number: int) -> Item:
        """The item of that number; called in a worker, and raises whatever a broken sample raises."""


class Stream(Source):
    """A data set that can only be read from its start to its end; its items are numbered as they come.

    It is picklable if what it reads is.
    """

    ids: None = None

    def item(self, number: int) -> Item:
        """Not to be had."""
        raise DataError(f"item {number} of a stream was asked for; a stream is only read from its start to its end")

    @abstractmethod
    def __iter__(self) -> Iterator[Item]:
        """The items, once from the start."""
