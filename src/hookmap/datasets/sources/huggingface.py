"""Data sets of Hugging Face's ``datasets``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hookmap._optional import require
from hookmap._text import listed
from hookmap.datasets.sources.base import Source
from hookmap.datasets.sources.names import LABELS, find
from hookmap.datasets.sources.samples import IMAGES, OBJECTS, Samples, SampleStream
from hookmap.errors import DataError


def is_one(data: Any) -> bool:
    """Whether it is a data set of that library, or several by split."""
    library = sys.modules.get("datasets")
    kinds = ("Dataset", "IterableDataset", "DatasetDict", "IterableDatasetDict")
    return library is not None and isinstance(data, tuple(getattr(library, kind) for kind in kinds))


def from_dataset(data: Any, *, image: str | None = None, label: str | bool | None = None) -> Source:
    """A data set of ``datasets``, with random access or streamed.

    The image is in the column of that feature, the label's names are those of its ``ClassLabel``. A transform set on
    the data set runs, and then its keys count.

    Raises:
        DataError: if several splits came, or no column holds images.
    """
    if isinstance(data, Mapping):
        splits = listed(map(repr, data))
        raise DataError(f"several splits came: {splits}; pass one of them, as in data[{next(iter(data), 'train')!r}]")
    features = data.features or {}
    is_stream = not hasattr(data, "__len__")
    plain = is_stream or data.format["type"] != "custom"
    if features and plain:
        image = _image(features, image)
        if label is not False:
            label = find(features, LABELS, label) or label
    what = data.info.dataset_name or data.info.builder_name or "datasets"
    place = " ".join(str(part) for part in (what, data.info.config_name, data.split) if part)
    chosen: Any = {"image": image, "label": label, "classes": _classes(features, label)}
    if is_stream:
        return SampleStream(data, "Hugging Face stream", place, **chosen)
    return Samples(data, "Hugging Face", place, **chosen)


def from_parquet(path: str, **options: Any) -> Source:
    """A Parquet file that holds the pictures themselves."""
    require("datasets", extra="dataset")
    import datasets

    data = datasets.Dataset.from_parquet(path)
    for name, feature in data.features.items():
        if getattr(feature, "dtype", None) == "binary" or (isinstance(feature, Mapping) and "bytes" in feature):
            data = data.cast_column(name, datasets.Image())
    source = from_dataset(data, **options)
    source.description |= {"from": path}
    return source


def _image(features: Mapping[str, Any], given: str | None) -> str:
    from datasets import Image

    pictures = [name for name, feature in features.items() if isinstance(feature, Image)]
    named = find(features, (), given) or find(pictures, IMAGES) or next(iter(pictures), None) or find(features, IMAGES)
    if named is None:
        raise DataError(f"the data set has {listed(features, 12)}, none of them images; pass the one that is as image")
    return named


def _classes(features: Mapping[str, Any], label: str | bool | None) -> Sequence[str] | None:
    """The names of the labels, or of the objects' categories."""
    if label is False:
        return None
    if isinstance(label, str) and label in features:
        return _names(features[label])
    return next((names for key in OBJECTS if key in features and (names := _names(features[key]))), None)


def _names(feature: Any) -> Sequence[str] | None:
    """Those of the first ``ClassLabel`` in it."""
    if isinstance(feature, Mapping):
        inner: Iterable[Any] = feature.values()
    elif hasattr(feature, "feature"):
        inner = (feature.feature,)
    else:
        return getattr(feature, "names", None)
    return next((names for one in inner if (names := _names(one))), None)
