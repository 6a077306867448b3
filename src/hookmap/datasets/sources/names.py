"""Names of files and items: which are images, and that no two are the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cache

from hookmap._text import listed, printable
from hookmap.errors import DataError

# What columns, keys and files of labels are called.
LABELS = (
    *("label", "labels", "class", "cls", "class_name", "target", "category", "categories", "category_name"),
    *("fine_label", "y", "class_id", "category_id", "label_id"),
)

# Pillow knows these formats by sight only: it needs a handler of the user's to decode them.
_ONLY_IDENTIFIED = {"BUFR", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the formats that Pillow decodes, lower case, with their dot."""
    from PIL import Image

    formats = Image.registered_extensions()
    return frozenset(s for s, kind in formats.items() if kind in Image.OPEN and kind not in _ONLY_IDENTIFIED)


def is_image_name(name: str) -> bool:
    """Whether a file of this name should hold an image.

    >>> [is_image_name(name) for name in ("a.JPG", "b.tar", "README")]
    [True, False, False]
    """
    _, dot, suffix = name.rpartition(".")
    return dot + suffix.lower() in image_suffixes()


def unique(names: Iterable[str]) -> list[str]:
    """The names; what comes again gets a number.

    >>> unique(["a", "a#2", "a"])
    ['a', 'a#2', 'a#3']
    """
    given = list(names)
    if len(set(given)) == len(given):
        return given
    taken, counts, ids = set(given), dict.fromkeys(given, 0), []
    for name in given:
        counts[name] += 1
        one = name
        while counts[name] > 1 and (one := f"{name}#{counts[name]}") in taken:
            counts[name] += 1
        taken.add(one)
        ids.append(one)
    return ids


def below(paths: Sequence[str], folder: str) -> list[str]:
    """Ids of files: their paths below the folder, or below the one that they have in common if one lies outside.

    Args:
        paths: absolute and normalised.
        folder: absolute.
    """
    start = os.path.join(folder, "")
    if not all(path.startswith(start) for path in paths):
        try:
            start = os.path.join(os.path.commonpath([os.path.dirname(path) for path in paths]), "")
        except ValueError:  # several drives
            start, paths = "", [path.replace(":" + os.sep, os.sep) for path in paths]
    return unique(printable(path[len(start) :]).replace(os.sep, "/") for path in paths)


def find(there: Iterable[str], names: Sequence[str], given: object = None) -> str | None:
    """The first of these names that is there, whatever its case; or the one that was given.

    Args:
        there: names of columns, keys or suffixes.
        names: what it may be called, best first.
        given: what the user says that it is.


    Raises:
        DataError: if the one that was given isn't there.
    """
    if isinstance(given, str):
        if given not in there:
            raise DataError(f"{given!r} was named, but there are only {listed(there, 12)}")
        return given
    lower = {str(name).strip().lower().replace(" ", "_"): name for name in there}
    return next((lower[name] for name in names if name in lower), None)
