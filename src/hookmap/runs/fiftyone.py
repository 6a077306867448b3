"""A run as a data set of FiftyOne."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from hookmap._files import write_bytes
from hookmap._optional import require
from hookmap._progress import tracking
from hookmap._text import counted
from hookmap.errors import DataError, HookmapWarning
from hookmap.render.overlay import fitted
from hookmap.runs.rows import COLUMNS, flattened, geometry_of

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "fiftyone"
"""In the run's folder: small copies of pictures that aren't files, for FiftyOne to show."""
SIDE = 160
"""Longer side of the maps that it is given, in pixels: they are far coarser, and it keeps them in a database."""
_OF_HEATMAPS = ("Target", "Where the heat lies", "Map", "How far to believe it")
_OWN = ("id", "path", "label", "prediction", "probability")

Row = Mapping[str, Any]


class Run(Protocol):
    """What is read of a run: see :class:`hookmap.Run`."""

    folder: Path

    @property
    def table(self) -> pd.DataFrame:
        """A row per heatmap."""

    @property
    def explained(self) -> pd.DataFrame:
        """The rows that have one."""

    @property
    def thumbnails(self) -> Mapping[str, bytes]:
        """JPEGs by the ids of their images."""

    def values(self, rows: Sequence[int] | None = None) -> list[np.ndarray[Any, Any]]:
        """What is shown of the maps of these rows."""


def as_fiftyone(run: Run, name: str | None, *, persistent: bool, progress: bool) -> Any:
    """A sample per image: see :meth:`hookmap.Run.to_fiftyone`."""
    require("fiftyone", extra="fiftyone")
    import fiftyone as fo

    if name is not None and fo.dataset_exists(name):
        raise DataError(
            f"FiftyOne has a data set {name!r} already; pass another name, or delete it: fiftyone.delete_dataset"
        )
    fields = _fields(run)
    lost = 0
    dataset = fo.Dataset(name, persistent=persistent)
    try:
        groups = run.table.groupby("id", sort=False)
        with tracking(progress) as track:
            done = track("samples", len(groups))
            for number, (image, rows) in enumerate(groups):
                path = _file(run, str(image), rows["path"].iloc[0], number)
                if path is None:
                    lost += 1
                else:
                    dataset.add_sample(_sample(fo, run, path, rows, fields))
                done(1)
    except BaseException:
        dataset.delete()
        raise
    if lost:
        warnings.warn(
            f"{counted(lost, 'image')} left out: neither the file nor a small copy of it is there",
            HookmapWarning,
            stacklevel=3,
        )
    return dataset


def _file(run: Run, image: str, path: str | None, number: int) -> str | None:
    """The picture's file, or a small copy of a picture that is none; None if there is neither."""
    if isinstance(path, str) and Path(path).is_file():
        return path
    copy = run.thumbnails.get(image)
    if copy is None:
        return None
    return str(write_bytes((run.folder / FOLDER / f"{number}.jpg").absolute(), lambda: copy))


def _fields(run: Run) -> dict[tuple[str, str], str]:
    """The names of the fields that heatmaps are in, by method and what was asked: what varies is in the name."""
    rows = run.explained
    keys = list(dict.fromkeys(map(_key, rows.to_dict("records"))))
    methods, asked = ({key[place] for key in keys} for place in (0, 1))
    names = {
        key: "_".join(["heatmap"] + [_slug(key[0])] * (len(methods) > 1) + [_slug(key[1])] * (len(asked) > 1))
        for key in keys
    }
    seen: dict[str, int] = {}
    for key, name in names.items():
        seen[name] = seen.get(name, 0) + 1
        names[key] = name if seen[name] == 1 else f"{name}_{seen[name]}"
    return names


def _key(row: Row) -> tuple[str, str]:
    """All detections of an image have one heatmap."""
    return row["method"], "detections" if _has_box(row) else str(row["asked"])


def _has_box(row: Row) -> bool:
    return isinstance(row["where"], str) and bool(row["where"]) and row["box_left"] == row["box_left"]


def _slug(text: str) -> str:
    return re.sub(r"\W+", "_", text.casefold()).strip("_") or "other"


def _sample(fo: Any, run: Run, path: str, rows: Any, fields: Mapping[tuple[str, str], str]) -> Any:
    records = rows.to_dict("records")
    first = records[0]
    sample = fo.Sample(filepath=path, item=str(first["id"]))
    for field, name, sure in (("ground_truth", "label", None), ("prediction", "prediction", "probability")):
        if isinstance(first[name], str):
            sample[field] = fo.Classification(label=first[name], confidence=_plain(first[sure]) if sure else None)
    for column, value in _known(first, (name for name in COLUMNS if COLUMNS[name].group not in _OF_HEATMAPS)):
        if column not in _OWN:
            sample[column] = value
    if isinstance(error := first.get("error"), str):
        sample["error"] = error
    maps: dict[str, Any] = {}
    about: dict[str, dict[str, Any]] = {}
    boxes: dict[tuple[float, ...], Any] = {}
    for number, row in zip(rows.index, records, strict=True):
        if not isinstance(row["target"], str):
            continue
        field, values = fields[_key(row)], _laid(run, number, row)
        told = dict(_known(row, (name for name in COLUMNS if COLUMNS[name].group in _OF_HEATMAPS)))
        if field in maps:
            maps[field] = np.maximum(maps[field], values)
        else:
            maps[field], about[field] = values, told
        if _has_box(row):
            place = tuple(row[f"box_{side}"] for side in ("left", "top", "right", "bottom"))
            boxes[place] = _detection(fo, row, place)
    for field, values in maps.items():
        low, high = float(min(values.min(), 0)), float(values.max())
        sample[field] = fo.Heatmap(map=values, range=[low, high if high > low else low + 1], **about[field])
    if boxes:
        sample["detections"] = fo.Detections(detections=list(boxes.values()))
    return sample


def _laid(run: Run, number: int, row: Row) -> Any:
    """What is shown of a map, over the whole picture in small, ``(h, w)``, float32."""
    full = int(row["height"]), int(row["width"])
    size = fitted(full, min(max(full), SIDE))
    values = torch.from_numpy(flattened(run.values([number])[0]))
    return geometry_of(row).displayed(size).lay_back(values).numpy().astype(np.float32)


def _detection(fo: Any, row: Row, box: tuple[float, ...]) -> Any:
    """A box as shares of the picture: left, top, width and height."""
    left, top, right, bottom = box
    wide, high = float(row["width"]), float(row["height"])
    sides = [left / wide, top / high, (right - left) / wide, (bottom - top) / high]
    return fo.Detection(label=row["target"], bounding_box=sides, confidence=_plain(row["target_probability"]))


def _known(row: Row, columns: Iterable[str]) -> list[tuple[str, Any]]:
    return [(name, value) for name in columns if (value := _plain(row.get(name))) is not None]


def _plain(value: Any) -> Any:
    """A value as a database takes it; None of what isn't known."""
    if value is None or isinstance(value, str):
        return value
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
