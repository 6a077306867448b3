"""PyTorch's data sets and loaders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
    default_convert,
)

from hookmap._text import printable
from hookmap.datasets.sources.base import Item, Source, Stream
from hookmap.datasets.sources.files import Files
from hookmap.datasets.sources.names import below, unique
from hookmap.datasets.sources.samples import Samples, SampleStream
from hookmap.errors import DataError


class Chosen(Source):
    """Some items of another source, as ``torch.utils.data.Subset`` chooses them."""

    def __init__(self, source: Source, numbers: Sequence[int]) -> None:
        if source.ids is None:
            raise DataError("a subset of a stream came; pass a subset of a data set with numbered samples")
        if not len(numbers):
            raise DataError("an empty subset came; pass one with at least one image")
        self.source, self.numbers = source, list(map(int, numbers))
        self.ids: Sequence[str] = unique(source.ids[number] for number in self.numbers)
        self.classes, self.notes = source.classes, source.notes
        self.description = {**source.description, "images": len(self.numbers), "of": len(source.ids)}

    def item(self, number: int) -> Item:
        """The item of that number among those chosen."""
        return replace(self.source.item(self.numbers[number]), id=self.ids[number])


class ImageTree(Files):
    """torchvision's ``ImageFolder`` without transforms: its files need not be opened to be listed."""

    def __init__(self, data: Any, label: str | bool | None) -> None:
        paths = [os.path.abspath(path) for path, _ in data.samples]
        labels = None if label is False else [index for _, index in data.samples]
        super().__init__(paths, os.path.abspath(data.root), type(data).__name__, str(data.root), labels, data.classes)


def from_dataset(data: Any, *, image: str | None = None, label: str | bool | None = None) -> Source:
    """A ``Dataset``, with random access or to iterate over.

    The class names of torchvision's data sets are kept, and so are the paths of an ``ImageFolder``, whose files
    hookmap reads itself if it has no transforms.
    """
    classes = _classes(data)
    name = type(data).__name__
    if isinstance(data, IterableDataset):
        return SampleStream(data, "IterableDataset", name, image=image, label=label, classes=classes)
    paths = _paths(data)
    if paths and _only_opens(data):
        return ImageTree(data, label)
    root = getattr(data, "root", None)
    place = f"{name} {printable(os.fspath(root))}" if isinstance(root, (str, os.PathLike)) else name
    ids = below(paths, os.path.abspath(data.root)) if paths else None
    return Samples(data, "Dataset", place, image=image, label=label, classes=classes, ids=ids)


def from_loader(loader: DataLoader[Any], source: Source) -> Source:
    """What a ``DataLoader`` goes through, in the order of its data set.

    hookmap makes its own batches: a run is the same each time, and every result belongs to one sample, which can't be
    told of what a ``collate_fn`` gives. So shuffling, samplers and ``collate_fn`` are left aside, and notes say so;
    but the ``indices`` of a sampler, as of a train-validation split, choose the items.

    Args:
        loader: gives ``batch_size`` and ``num_workers`` to the description.
        source: its data set, just made.
    """
    indices = getattr(loader.sampler, "indices", None)
    left = []
    if isinstance(source, Stream):
        pass
    elif indices is not None:
        source = Chosen(source, sorted(map(int, indices)))
    elif isinstance(loader.sampler, RandomSampler):
        left.append("shuffling")
    elif not isinstance(loader.sampler, SequentialSampler):
        left.append(type(loader.sampler).__name__)
    if loader.batch_sampler is not None and loader.batch_size is None:
        left.append(type(loader.batch_sampler).__name__)
    if loader.collate_fn not in (default_collate, default_convert):
        left.append("collate_fn")
    if left:
        aside = (
            f"left aside of the DataLoader: {', '.join(left)}; hookmap makes its own batches in the data set's order"
        )
        source.notes = [*source.notes, aside]
    source.description |= {"batch_size": loader.batch_size, "num_workers": loader.num_workers}
    return source


def _classes(data: Any) -> list[str] | None:
    classes = getattr(data, "classes", None)
    if not isinstance(classes, (list, tuple)):
        return None
    return [name if isinstance(name, str) else ", ".join(map(str, name)) for name in classes]


def _paths(data: Any) -> list[str]:
    """Those of torchvision's ``DatasetFolder``."""
    samples = getattr(data, "samples", None)
    if not samples or not isinstance(samples, list) or not isinstance(getattr(data, "root", None), (str, os.PathLike)):
        return []
    first = samples[0]
    is_pair = isinstance(first, tuple) and len(first) == 2 and isinstance(first[0], str)
    return [os.path.abspath(path) for path, _ in samples] if is_pair else []


def _only_opens(data: Any) -> bool:
    """Whether samples are just the files, opened as torchvision does, and their folders' numbers."""
    ways = (type(data).__getitem__, getattr(data, "loader", None))
    return all(getattr(way, "__module__", "").startswith("torchvision.") for way in ways) and all(
        getattr(data, name, None) is None for name in ("transform", "target_transform", "transforms")
    )
