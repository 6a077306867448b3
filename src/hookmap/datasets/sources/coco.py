"""COCO's JSON: pictures with boxes and masks of their objects."""

from __future__ import annotations

import json
import os
import pickle
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hookmap._text import counted, listed, printable
from hookmap.datasets.sources.base import Item, Mask
from hookmap.datasets.sources.boxes import common, with_size
from hookmap.datasets.sources.files import Files
from hookmap.datasets.sources.masks import fill, from_runs, size_of
from hookmap.errors import DataError

Annotation = Mapping[str, Any]


class Coco(Files):
    """The pictures of a COCO file, with their objects.

    An item's mask is the union of all its objects, crowds too; crowds have no box. Its label is the class that all
    its objects have.

    Args:
        path: of the JSON file.
        root: folder of the pictures, if it isn't in one of the usual places.
        labels: whether items have classes.

    Raises:
        DataError: if the file isn't COCO's, or the pictures aren't found.
    """

    def __init__(self, path: str, *, root: str | None = None, labels: bool = True) -> None:
        images, annotations, categories = _read(path)
        names = {image["id"]: str(image["file_name"]) for image in images}
        start = os.path.abspath(os.path.expanduser(root)) if root else _pictures(path, list(names.values()))
        files = {number: os.path.normpath(os.path.join(start, name)) for number, name in names.items()}
        objects: dict[str, list[Annotation]] = defaultdict(list)
        for annotation in annotations:
            if annotation.get("image_id") in files:
                objects[files[annotation["image_id"]]].append(annotation)
        classes = [categories[number] for number in sorted(categories)]
        super().__init__(list(files.values()), start, "COCO", path, classes=classes if labels else None)
        sizes = {files[image["id"]]: (image.get("height"), image.get("width")) for image in images}
        self._sizes = [sizes[file] for file in self.paths]
        self._names = categories if labels else {}
        # As bytes the objects of a large data set are light to hold and to hand to workers.
        self._objects = [pickle.dumps([_needed(a) for a in objects[file]]) for file in self.paths]
        strangers = sum(annotation.get("image_id") not in files for annotation in annotations)
        if strangers:
            belong = counted(strangers, "annotation belongs to an image", "annotations belong to images")
            self.notes = [*self.notes, f"{belong} that the file doesn't list"]

    def item(self, number: int) -> Item:
        """The picture of that number, unopened, with its objects."""
        item = super().item(number)
        objects = pickle.loads(self._objects[number])
        labels = [self._names.get(one["category_id"]) for one in objects]
        boxes = [
            with_size(one["bbox"], label)
            for one, label in zip(objects, labels, strict=True)
            if one["bbox"] and not one["iscrowd"]
        ]
        segmentations = [one["segmentation"] for one in objects if one["segmentation"]]
        return replace(item, label=common(labels), boxes=boxes, mask=self._mask(number, segmentations))

    def _mask(self, number: int, segmentations: Sequence[Any]) -> Mask | None:
        if not segmentations:
            return None
        height, width = self._sizes[number]
        if not height or not width:
            height, width = size_of(self.paths[number])
        mask: Mask = np.zeros((height, width), np.bool_)
        for segmentation in segmentations:
            if isinstance(segmentation, Mapping):
                rows, columns = segmentation["size"]
                mask |= from_runs(segmentation["counts"], rows, columns)
            else:
                for polygon in segmentation:
                    mask |= fill(polygon, height, width)
        return mask


def _read(path: str) -> tuple[list[Any], list[Any], dict[Any, str]]:
    expected = 'expected a COCO file, {"images": [...], "annotations": [...], "categories": [...]}'
    try:
        with open(path, "rb") as file:
            data = json.load(file)
    except OSError as error:
        raise DataError(f"{printable(path)} can't be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise DataError(f"{printable(path)} isn't JSON ({error}); {expected}") from None
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        held = f"an object with {listed(data)}" if isinstance(data, dict) else f"a {type(data).__name__}"
        raise DataError(f"{printable(path)} holds {held}; {expected}")
    try:
        categories = {one["id"]: str(one["name"]) for one in data.get("categories") or ()}
        images = [{**image, "id": image["id"], "file_name": image["file_name"]} for image in data["images"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{printable(path)} has an image or category without {error}; {expected}") from None
    if not images:
        raise DataError(f"{printable(path)} lists no images; {expected}")
    return images, data.get("annotations") or [], categories


def _needed(annotation: Annotation) -> dict[str, Any]:
    return {name: annotation.get(name) for name in ("bbox", "category_id", "iscrowd", "segmentation")}


def _pictures(path: str, names: Sequence[str]) -> str:
    """The folder that holds the pictures: beside the file or where data sets of COCO's form have it."""
    places = list(dict.fromkeys(_places(os.path.abspath(path))))
    for place in places:
        if any(os.path.exists(os.path.join(place, name)) for name in names[:20]):
            return place
    raise DataError(
        f"the pictures of {printable(path)}, as {printable(names[0])}, aren't in {listed(map(printable, places), 8)}; "
        "pass their folder as root"
    )


def _places(path: str) -> Iterator[str]:
    beside, name = os.path.split(path)
    stem = os.path.splitext(name)[0]
    for folder in (beside, os.path.dirname(beside)):
        yield folder
        for split in (
            stem,
            stem.partition("_")[2],
            stem.rpartition("_")[2],
        ):  # instances_val2017, person_keypoints_val2017
            if split:
                yield os.path.join(folder, split)
                yield os.path.join(folder, "images", split)
        yield os.path.join(folder, "images")
