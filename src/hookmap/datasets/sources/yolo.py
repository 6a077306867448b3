"""YOLO's data sets: a folder of pictures, a text file of boxes or outlines beside each, and a YAML file of names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hookmap._text import counted, listed, printable
from hookmap.datasets.sources.base import Item, LabelledBox, Mask
from hookmap.datasets.sources.boxes import common
from hookmap.datasets.sources.files import Files, several
from hookmap.datasets.sources.files import folder as folder_of_images
from hookmap.datasets.sources.masks import fill, size_of
from hookmap.errors import DataError, first_line

SPLITS = ("val", "valid", "test", "train")
"""Which pictures are run over where nobody says: the first of these that there are."""
_EXPECTED = "expected YOLO's data.yaml, with train: and val: folders of pictures and names: of classes"
_EDGE = 1e-3


class Yolo(Files):
    """Pictures with YOLO's labels: ``.../images/x.jpg`` with ``.../labels/x.txt``, a line ``class x y w h`` for each.

    Centre, width and height are shares of the picture; a line of more corners is an outline (of segmentation and
    rotated boxes). A picture without a text file shows nothing. An item's mask is there if all its objects have
    outlines; its label is the class that all its objects have.

    Args:
        pictures: the files.
        place: where they came from.
        names: of the classes, by number.
        labels: whether items have classes.
        keypoints: whether lines go on with key points after the box.
    """

    def __init__(
        self, pictures: Files, place: str, names: Mapping[int, str], *, labels: bool = True, keypoints: bool = False
    ) -> None:
        classes = [names[number] for number in sorted(names)] if labels and names else None
        folder = os.path.commonpath([os.path.dirname(path) for path in pictures.paths])
        super().__init__(pictures.paths, folder, "YOLO", place, classes=classes, notes=pictures.notes)
        self.unlabelled = not labels
        self._names, self._labels, self._keypoints = dict(names), labels, keypoints

    def item(self, number: int) -> Item:
        """The picture of that number with its objects; only its head is read.

        Raises:
            DataError: for a line that isn't YOLO's.
        """
        item, text = super().item(number), labels_of(self.paths[number])
        try:
            with open(text, encoding="utf-8-sig") as file:
                lines = [(n, line.split()) for n, line in enumerate(file, 1) if line.strip()]
        except FileNotFoundError:
            return item
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{printable(text)} can't be read ({first_line(error)}); check the file") from None
        if not lines:
            return item
        height, width = size_of(self.paths[number])
        objects = [self._object(words, f"{printable(text)}, line {n}", height, width) for n, words in lines]
        boxes = [box for box, _ in objects]
        outlines = [outline for _, outline in objects if outline is not None]
        mask: Mask | None = None
        if len(outlines) == len(objects):
            mask = np.logical_or.reduce([fill(outline, height, width) for outline in outlines])
        return replace(item, label=common(box.label for box in boxes), boxes=boxes, mask=mask)

    def _object(
        self, words: Sequence[str], line: str, height: int, width: int
    ) -> tuple[LabelledBox, list[float] | None]:
        try:
            kind, *shares = map(float, words)
        except ValueError:
            raise DataError(f"{line}: {printable(' '.join(words))!r} aren't numbers; {_LINE}") from None
        corners = not self._keypoints and len(shares) >= 6 and len(shares) % 2 == 0
        if not kind.is_integer() or kind < 0 or not (corners or len(shares) in (4, 5) or self._keypoints):
            raise DataError(f"{line}: {counted(len(words), 'number')} came; {_LINE}")
        places = np.asarray(shares if corners else shares[:4])
        if len(places) < 4 or not (np.isfinite(places) & (places >= -_EDGE) & (places <= 1 + _EDGE)).all():
            raise DataError(f"{line}: {listed(shares, 5)} aren't shares of the picture from 0 to 1; {_LINE}")
        label: str | int | None = self._names.get(int(kind), int(kind)) if self._labels else None
        if corners:
            points = places.reshape(-1, 2) * (width, height)
            return LabelledBox._make((*points.min(0).tolist(), *points.max(0).tolist(), label)), points.ravel().tolist()
        x, y, wide, high = (places * (width, height, width, height)).tolist()
        return LabelledBox(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2, label), None


_LINE = "expected class x y w h, or a class and the corners of an outline, as shares of the picture"


def labels_of(image: str) -> str:
    """Where YOLO has the labels of a picture: the last folder ``images`` is ``labels``.

    >>> labels_of("/data/images/val/a.b.jpg")
    '/data/labels/val/a.b.txt'
    """
    before, found, after = image.rpartition(f"{os.sep}images{os.sep}")
    moved = f"{before}{os.sep}labels{os.sep}{after}" if found else image
    return os.path.splitext(moved)[0] + ".txt"


def from_yaml(path: str, root: str | None = None, *, labels: bool = True) -> Yolo:
    """The pictures of one split of a ``data.yaml``: of ``val``, or else of ``test`` or ``train``.

    Args:
        path: of the file.
        root: folder of the data set, if it isn't the file's or the one that it names.
        labels: whether items have classes.

    Raises:
        DataError: if the file isn't YOLO's, or the pictures aren't found.
    """
    about = _read(path)
    split = next((name for name in SPLITS if about.get(name)), None)
    if split is None:
        raise DataError(f"{printable(path)} names no pictures; {_EXPECTED}")
    beside, notes = os.path.dirname(os.path.abspath(path)), list[str]()
    start = _start(about.get("path"), beside, root, notes)
    given = about[split] if isinstance(about[split], list) else [about[split]]
    if not all(isinstance(place, str) for place in given):
        raise DataError(f"{printable(path)} has {split}: {printable(str(about[split]))}; expected a folder, or several")
    found = [_below(start, place) for place in given]
    for place, there in zip(given, found, strict=True):
        if not os.path.exists(there):
            raise DataError(
                f"the pictures of {printable(path)}, {split}: {printable(place)}, aren't in {printable(start)}; pass "
                "the data set's folder as root"
            )
    listed_paths = [one for there in found for one in _images(there)]
    pictures = several(listed_paths)
    within = os.path.join(os.path.realpath(start), "")
    outside = [one for one in pictures.paths if not os.path.realpath(one).startswith(within)]
    if outside:
        lie = counted(len(outside), "picture lies", "pictures lie")
        notes.append(f"{lie} outside of the data set's folder, as {printable(outside[0])}")
    others = [name for name in SPLITS if about.get(name) and name != split]
    if others:
        notes.append(f"these are the pictures of {split}; for those of {listed(others)} pass their folder")
    pictures.notes = [*pictures.notes, *notes]
    return Yolo(pictures, path, _names(about, path), labels=labels, keypoints="kpt_shape" in about)


def from_folder(path: str, *, labels: bool = True) -> Yolo | None:
    """A folder's own ``data.yaml``, or its pictures if YOLO's labels lie beside them; None of another folder."""
    if (own := _yaml_in(path)) is not None:
        return from_yaml(own, labels=labels)
    path = os.path.abspath(path)
    beside = os.path.dirname(labels_of(os.path.join(path, "x.jpg")))
    if beside == path or not glob.glob(os.path.join(glob.escape(beside), "**", "*.txt"), recursive=True):
        return None
    above = [path]
    while len(above) < 5 and os.path.dirname(above[-1]) != above[-1]:
        above.append(os.path.dirname(above[-1]))
    about, names = next(((a, n) for folder in above if (n := _yaml_in(folder)) and (a := _read(n))), ({}, ""))
    pictures = folder_of_images(path, labels=False)
    return Yolo(pictures, path, _names(about, names), labels=labels, keypoints="kpt_shape" in about)


def _yaml_in(folder: str) -> str | None:
    """The file of a data set that lies in a folder."""
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if os.path.isfile(path := os.path.join(folder, name)):
            return path
    return None


def _read(path: str) -> dict[str, Any]:
    import yaml

    try:
        with open(path, encoding="utf-8-sig") as file:
            about = yaml.safe_load(file)
    except OSError as error:
        raise DataError(f"{printable(path)} can't be read ({error.strerror}); check the path") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{printable(path)} isn't YAML ({first_line(error)}); {_EXPECTED}") from None
    if not isinstance(about, dict):
        raise DataError(f"{printable(path)} holds {'nothing' if about is None else type(about).__name__}; {_EXPECTED}")
    return about


def _names(about: Mapping[str, Any], path: str) -> dict[int, str]:
    """The names of classes, by number."""
    names = about.get("names") or {}
    numbered = dict(enumerate(names)) if isinstance(names, list) else names
    if isinstance(numbered, dict) and all(isinstance(number, int) for number in numbered):
        return {number: str(name) for number, name in numbered.items()}
    raise DataError(
        f"{printable(path)} has names: {printable(str(names))[:80]}; expected a list of names, or a name for each "
        "class's number"
    )


def _start(given: Any, beside: str, root: str | None, notes: list[str]) -> str:
    """The folder that a data set's paths begin at."""
    if root:
        return os.path.abspath(root)
    if not isinstance(given, str) or not given:
        return beside
    start = os.path.normpath(os.path.join(beside, os.path.expanduser(given)))
    if not os.path.isdir(start):
        notes.append(f"the folder {printable(start)} that the file names isn't there, so its own folder is taken")
        return beside
    if start != beside and not os.path.join(start, "").startswith(os.path.join(beside, "")):
        notes.append(f"the file says that its data set is in {printable(start)}")
    return start


def _below(start: str, place: str) -> str:
    """A path of the file; downloads of Roboflow say ``../valid/images`` and mean ``valid/images``."""
    there = os.path.normpath(os.path.join(start, os.path.expanduser(place)))
    inside = os.path.normpath(os.path.join(start, place.removeprefix("../")))
    return inside if not os.path.exists(there) and os.path.exists(inside) else there


def _images(place: str) -> Iterator[str]:
    """A folder's pictures, or those that a text file names, one a line."""
    if os.path.isdir(place):
        yield from folder_of_images(place, labels=False).paths
        return
    try:
        with open(place, encoding="utf-8-sig", errors="surrogateescape") as file:
            names = [line.strip() for line in file if line.strip()]
    except OSError as error:
        raise DataError(f"{printable(place)} can't be read ({error.strerror}); check the path") from None
    yield from (os.path.normpath(os.path.join(os.path.dirname(place), name)) for name in names)
