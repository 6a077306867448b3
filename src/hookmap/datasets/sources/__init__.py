"""What hookmap can run over: anything that holds images, as items with an id and what is known of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from hookmap._text import listed, printable
from hookmap.datasets.sources import archives, coco, files, huggingface, pytorch, tables, voc, yolo
from hookmap.datasets.sources.base import Item, LabelledBox, Source, Stream
from hookmap.datasets.sources.samples import Samples, SampleStream
from hookmap.errors import DataError
from hookmap.images.loading import Picture

__all__ = ["Item", "LabelledBox", "Source", "Stream", "source"]

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def source(
    given: Any,
    *,
    image: str | None = None,
    label: str | bool | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Source:
    """Whatever holds images, as a source of items.

    Args:
        given: one of

            - a folder; its subfolders' names are the labels if all images lie in them, as in an ``ImageFolder`` tree
            - a pattern (``photos/**/*.jpg``), the path of an image, a list of paths, folders and patterns
            - a ``.txt`` file of one path a line; a ``.csv``, ``.tsv`` or ``.parquet`` file or a data frame of paths and
              labels, boxes, masks; a ``.json`` file of COCO's
            - YOLO's ``data.yaml``, the folder it lies in, or a folder of its ``images``
            - a folder of Pascal VOC's, or a list in its ``ImageSets``
            - a WebDataset ``.tar`` or several (``shards-{000..012}.tar``)
            - a Hugging Face ``datasets`` object
            - a PyTorch ``Dataset``, ``IterableDataset``, ``Subset`` or ``DataLoader``
            - PIL images, arrays, tensors or pairs of them and their labels: one, in a list, in a batch (B, C, H, W), or
              one after the other
        image: name of the column, key or suffix of the images, if it can't be told.
        label: name of the column, key or suffix of the labels, if it can't be told; False for no labels, as for a
            folder whose subfolders aren't classes.
        root: folder of the pictures that a table, list or COCO file names, if it isn't the one the file is in.

    Raises:
        DataError: if nothing of it can be run over; what is wrong with one item only is raised by
            :meth:`Source.item`.
    """
    chosen: dict[str, Any] = {"image": image, "label": label}
    folder = None if root is None else os.path.expanduser(root)
    if isinstance(given, Source):
        return given
    if isinstance(given, (str, os.PathLike)):
        return _from_path(os.fspath(given), chosen, folder)
    if huggingface.is_one(given):
        return huggingface.from_dataset(given, **chosen)
    if isinstance(given, (bytes, bytearray, Picture)) or hasattr(given, "getexif"):
        return Samples([given], "list", type(given).__name__)
    if isinstance(given, (np.ndarray, torch.Tensor)):
        batch = given if given.ndim > 3 else given[None]
        return Samples(batch, "batch", f"{type(given).__name__} {tuple(given.shape)}")
    if isinstance(given, (list, tuple)) and given and all(isinstance(one, (str, os.PathLike)) for one in given):
        return _from_paths([os.fspath(one) for one in given], chosen, folder)
    if type(given).__module__.partition(".")[0] in ("pandas", "polars") and hasattr(given, "columns"):
        return tables.from_frame(given, folder, **chosen)
    return _from_objects(given, chosen)


def _from_path(given: str, chosen: dict[str, Any], root: str | None) -> Source:
    if re.match(r"[a-z][a-z0-9+.-]+://", given, re.IGNORECASE):
        raise DataError(f"{given} is an address, and hookmap doesn't download; save the data set and pass its path")
    path = os.path.expanduser(given)
    labels = chosen["label"] is not False
    if os.path.isdir(path):
        known = voc.from_folder(path, labels=labels) or yolo.from_folder(path, labels=labels)
        return known or files.folder(path, labels=labels)
    if not os.path.lexists(path):
        if "{" not in path and not files.WILD.search(path):
            raise DataError(f"{printable(given)} isn't there; pass a folder, a file or a pattern as 'photos/**/*.jpg'")
        found = files.expand(path)
        if found and all(name.endswith(_ARCHIVES) for name in found):
            return archives.Archives(found, given, **chosen)
        return files.several(files.braces(path), kind="pattern", place=given) if "{" in path else files.pattern(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix in (".csv", ".tsv"):
        return tables.from_text(path, root, **chosen)
    if suffix in (".parquet", ".pq"):
        return tables.from_parquet(path, root, **chosen) or huggingface.from_parquet(path, **chosen)
    if suffix == ".json":
        return coco.Coco(path, root=root, labels=labels)
    if suffix in (".yaml", ".yml"):
        return yolo.from_yaml(path, root, labels=labels)
    if suffix == ".txt":
        return voc.from_split(path, labels=labels) or files.text(path, root)
    if path.lower().endswith(_ARCHIVES):
        return archives.Archives([path], given, **chosen)
    return files.several([path], kind="file", place=given)


def _from_paths(given: Sequence[str], chosen: dict[str, Any], root: str | None) -> Source:
    if len(given) == 1:
        return source(given[0], **chosen, root=root)
    place = listed(map(printable, given))
    if all(path.endswith(_ARCHIVES) for path in given):
        tars = [tar for path in given for tar in files.expand(os.path.expanduser(path))]
        return archives.Archives(tars, place, **chosen)
    return files.several(given, place=place, base=root or ".")


def _from_objects(given: Any, chosen: dict[str, Any]) -> Source:
    if isinstance(given, DataLoader):
        return pytorch.from_loader(given, source(given.dataset, **chosen))
    if isinstance(given, Subset):
        return pytorch.Chosen(source(given.dataset, **chosen), given.indices)
    if isinstance(given, Dataset):
        return pytorch.from_dataset(given, **chosen)
    if not isinstance(given, (dict, set, type)):
        name = type(given).__name__
        if hasattr(given, "__getitem__") and hasattr(given, "__len__"):
            return Samples(given, "list" if isinstance(given, (list, tuple)) else "Dataset", name, **chosen)
        if isinstance(given, Iterable):
            return SampleStream(given, "iterable", name, **chosen)
    raise DataError(
        f"a data set was given as {type(given).__name__}; expected a folder, a pattern, paths, a CSV, Parquet, COCO "
        "JSON or YOLO YAML file, a WebDataset tar, a Hugging Face data set, a PyTorch Dataset or DataLoader, or a list "
        "of images"
    )
