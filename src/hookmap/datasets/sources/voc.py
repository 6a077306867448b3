"""Pascal VOC's data sets: ``JPEGImages``, an XML file of objects in ``Annotations``, splits in ``ImageSets``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from hookmap._text import counted, listed, printable
from hookmap.datasets.sources.base import Item, LabelledBox, Mask
from hookmap.datasets.sources.boxes import common
from hookmap.datasets.sources.files import Files
from hookmap.datasets.sources.names import is_image_name
from hookmap.errors import DataError, first_line

SPLITS = ("val", "test", "trainval", "train")
"""Which pictures are run over where nobody says: the first of these that there are."""
PICTURES, OBJECTS, MASKS = "JPEGImages", "Annotations", "SegmentationClass"
_VOID = 255


class Voc(Files):
    """The pictures of one split with their objects.

    An item's label is the class that all its objects have; its mask is that of ``SegmentationClass``, where there is
    one: everything that isn't background, without the borders that VOC leaves open. Boxes begin at pixel 1 there, and
    at 0 here.

    Args:
        root: the folder that holds ``JPEGImages`` and ``Annotations``.
        split: a text file of the pictures' names; by default that of ``val``, else of ``test``, ``trainval`` or
            ``train``; all pictures if there is none.
        labels: whether items have classes.

    Raises:
        DataError: if no picture of the split is there.
    """

    def __init__(self, root: str, split: str | None = None, *, labels: bool = True) -> None:
        self._root = os.path.abspath(root)
        folder = os.path.join(self._root, PICTURES)
        files = {os.path.splitext(name)[0]: name for name in sorted(os.listdir(folder)) if is_image_name(name)}
        splits = os.path.join(self._root, "ImageSets", "Main")
        there = [name for name in SPLITS if os.path.isfile(os.path.join(splits, f"{name}.txt"))]
        chosen = split or (os.path.join(splits, f"{there[0]}.txt") if there else None)
        names = list(files) if chosen is None else _names(chosen)
        known = [name for name in names if name in files]
        if not known:
            raise DataError(
                f"none of the {counted(len(names), 'picture')} of {printable(chosen or folder)} is in "
                f"{printable(folder)}; pass the folder that holds {PICTURES} and {OBJECTS}"
            )
        notes = []
        if len(known) < len(names):
            lost = next(name for name in names if name not in files)
            notes.append(f"{counted(len(names) - len(known), 'picture')} of the list, as {printable(lost)}, not found")
        if split is None and len(there) > 1:
            others = listed(f"{name}.txt" for name in there[1:])
            notes.append(f"these are the pictures of {there[0]}.txt; for others pass {others} of ImageSets/Main")
        super().__init__([os.path.join(folder, files[name]) for name in known], folder, "VOC", root, notes=notes)
        self.unlabelled = not labels
        self._labels = labels

    def item(self, number: int) -> Item:
        """The picture of that number, unopened, with its objects.

        Raises:
            DataError: for an annotation that isn't VOC's.
        """
        item = super().item(number)
        name = os.path.splitext(os.path.basename(self.paths[number]))[0]
        path = os.path.join(self._root, OBJECTS, f"{name}.xml")
        boxes = [_box(one, printable(path)) for one in _tree(path).iter("object")] if os.path.exists(path) else []
        if not self._labels:
            boxes = [box._replace(label=None) for box in boxes]
        return replace(item, label=common(box.label for box in boxes), boxes=boxes, mask=self._mask(name))

    def _mask(self, name: str) -> Mask | None:
        from PIL import Image

        path = os.path.join(self._root, MASKS, f"{name}.png")
        if not os.path.exists(path):
            return None
        with Image.open(path) as image:
            classes = np.asarray(image)
        mask: Mask = (classes > 0) & (classes != _VOID)
        return mask


def from_folder(path: str, *, labels: bool = True) -> Voc | None:
    """VOC's folder, or a ``VOCdevkit`` of one year; None of another folder."""
    years = [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.startswith("VOC")]
    found = [folder for folder in [path, *years] if _is_one(folder)]
    if len(found) > 1:
        raise DataError(f"{printable(path)} holds {listed(map(os.path.basename, found))}; pass one of them")
    return Voc(found[0], labels=labels) if found else None


def from_split(path: str, *, labels: bool = True) -> Voc | None:
    """The pictures that a text file in VOC's ``ImageSets`` names; None of another text file."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(path))))
    inside = os.path.basename(os.path.dirname(os.path.dirname(os.path.abspath(path)))) == "ImageSets"
    return Voc(root, path, labels=labels) if inside and _is_one(root) else None


def _is_one(folder: str) -> bool:
    return all(os.path.isdir(os.path.join(folder, name)) for name in (PICTURES, OBJECTS))


def _names(path: str) -> list[str]:
    """The pictures of a split; of the lists of one class, ``name 1``, those that show it."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.split() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{printable(path)} can't be read ({first_line(error)}); check the path") from None
    return [name for name, *shows in lines if shows[:1] != ["-1"]]


def _box(given: ElementTree.Element, path: str) -> LabelledBox:
    name, box = given.findtext("name"), given.find("bndbox")
    try:
        if name is None or box is None:
            raise ValueError("no name or bndbox")
        edges = [float(box.findtext(edge) or "") for edge in ("xmin", "ymin", "xmax", "ymax")]
    except ValueError as error:
        raise DataError(f"{path} has an object that isn't VOC's ({error}); expected a name and a bndbox") from None
    left, top, right, bottom = edges
    return LabelledBox(left - 1, top - 1, right, bottom, name.strip())


def _tree(path: str) -> ElementTree.Element:
    """An XML file without entities: a stranger's could grow without end, or name other files."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True

    def refuse(*_: Any) -> None:
        raise DataError(f"{printable(path)} declares a document type, which VOC's annotations don't; take it out")

    def start(tag: str, attributes: Mapping[str, str]) -> None:
        builder.start(tag, dict(attributes))

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        with open(path, "rb") as file:
            parser.ParseFile(file)
        return builder.close()
    except (OSError, expat.ExpatError, AssertionError) as error:
        raise DataError(f"{printable(path)} isn't XML ({first_line(error)}); get a whole copy of it") from None
