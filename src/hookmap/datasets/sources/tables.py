"""Tables of paths and labels: CSV, TSV, Parquet."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hookmap._optional import require
from hookmap._text import counted, listed, printable
from hookmap.datasets.sources.base import Item, LabelledBox
from hookmap.datasets.sources.boxes import common
from hookmap.datasets.sources.files import Files, base_folder, repeats
from hookmap.datasets.sources.masks import read_mask
from hookmap.datasets.sources.names import LABELS, find, is_image_name
from hookmap.errors import DataError

Columns = Mapping[str, Sequence[Any]]

PATHS = ("path", "image_path", "file_path", "filepath", "file_name", "filename", "file", "img_path", "image", "img")
MASKS = ("mask", "mask_path", "mask_file", "segmentation")
SIDES = (
    ("left", "top", "right", "bottom"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
)


class Table(Files):
    """The images that a table names, with their labels, boxes and masks.

    Columns are found by their names. Several rows of one path with boxes are one item with several boxes, whose
    label is the class that all have.

    Args:
        columns: by name.
        folder: relative paths start there.
        place: where the table came from, for the description.
        image: name of the column of paths, if it can't be told.
        label: name of the column of labels, if it can't be told; False for none.

    Raises:
        DataError: if a column isn't there or no row names an image.
    """

    def __init__(
        self,
        columns: Columns,
        folder: str,
        place: str,
        *,
        image: str | None = None,
        label: str | bool | None = None,
    ) -> None:
        named = find(columns, PATHS, image)
        if named is None:
            raise DataError(
                f"{printable(place)} has the columns {listed(columns, 12)}, none of them named as paths of images are "
                f"({', '.join(PATHS[:7])}, ...); pass the one that it is as image"
            )
        labelled = None if label is False else find(columns, LABELS, label)
        masked = find(columns, MASKS)
        sides = next((found for names in SIDES if len(found := _all(columns, names)) == 4), None)
        rows: dict[str, list[int]] = {}
        for row, value in enumerate(columns[named]):
            if (name := _text(value)) is not None:
                rows.setdefault(os.path.normpath(os.path.join(folder, os.path.expanduser(name))), []).append(row)
        if not rows:
            raise DataError(f"{printable(place)} names no image in its column {named}; pass a table with at least one")
        labels = as_labels(columns[labelled]) if labelled else [None] * len(columns[named])
        each = [common(labels[row] for row in some) for some in rows.values()] if labelled else None
        super().__init__(list(rows), folder, "table", place, each)
        self.description |= {"columns": [name for name in (named, labelled, masked, *(sides or ())) if name]}
        edges = list(zip(*(map(_number, columns[side]) for side in sides), strict=True)) if sides else []
        self._boxes = [
            [LabelledBox._make((*edges[row], labels[row])) for row in some if edges and not math.isnan(sum(edges[row]))]
            for some in rows.values()
        ]
        masks = columns[masked] if masked else [None] * len(columns[named])
        self._masks = [
            os.path.join(folder, name) if (name := _text(masks[some[0]])) else None for some in rows.values()
        ]
        if not sides:
            self.notes = repeats(sum(len(some) - 1 for some in rows.values()))
            unclear = sum(len({labels[row] for row in some}) > 1 for some in rows.values())
            if unclear:
                came = counted(unclear, "path has several labels and is", "paths have several labels and are")
                self.notes = [*self.notes, f"{came} run without one"]

    def item(self, number: int) -> Item:
        """The file of that number, unopened, with what its rows say."""
        mask = self._masks[number]
        return replace(super().item(number), boxes=self._boxes[number], mask=None if mask is None else read_mask(mask))


def as_labels(values: Sequence[Any]) -> list[str | int | None]:
    """Class names, or whole numbers if all are; None for what is empty.

    >>> as_labels(["3", "", "12"]), as_labels(["007", "12"]), as_labels([1.0, float("nan")])
    ([3, None, 12], ['007', '12'], [1, None])
    """
    texts = [text.strip() if (text := _text(value)) else None for value in values]
    if all(text is None or re.fullmatch(r"(0|-?[1-9]\d*)(\.0*)?", text) for text in texts):
        return [None if text is None else int(text.partition(".")[0]) for text in texts]
    return list(texts)


def from_text(path: str, root: str | None = None, **options: Any) -> Table:
    """A CSV or TSV file, its separator (comma, semicolon, tab) found in its first line.

    A file without a line of names may have paths in any column; a second column is the label then.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            first = file.readline()
            file.seek(0)
            rows = [
                row
                for row in csv.reader(file, delimiter=max(",;\t", key=first.count), skipinitialspace=True)
                if any(row)
            ]
    except OSError as error:
        raise DataError(f"{printable(path)} can't be read ({error.strerror}); check the path") from None
    except csv.Error as error:
        raise DataError(f"{printable(path)} isn't a table of text ({error}); pass CSV, TSV or Parquet") from None
    if not rows:
        raise DataError(f"{printable(path)} is empty; pass a table of paths, and labels if there are any")
    head = rows[0]
    paths = [i for i, name in enumerate(head) if is_image_name(name)]
    if paths:
        head = [f"column {i + 1}" for i in range(len(head))]
        head[paths[0]] = PATHS[0]
        if len(head) == 2:
            head[1 - paths[0]] = LABELS[0]
    else:
        rows = rows[1:]
    columns = {name: [row[i] if i < len(row) else None for row in rows] for i, name in enumerate(head)}
    return _table(columns, path, root, options)


def from_parquet(path: str, root: str | None = None, **options: Any) -> Table | None:
    """A Parquet file; None if it holds the pictures themselves, as Hugging Face's do."""
    require("pyarrow", extra="dataset")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        if any(
            pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_picture(kind) for kind in schema.types
        ):
            return None
        columns = pq.read_table(path, columns=[f.name for f in schema if not pa.types.is_nested(f.type)]).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{printable(path)} can't be read as Parquet ({error}); check the file") from None
    return _table(columns, path, root, options)


def from_frame(frame: Any, root: str | None = None, **options: Any) -> Table:
    """A data frame of pandas or Polars; relative paths from the working folder."""
    columns = {str(name): list(frame[name]) for name in frame.columns}
    return Table(columns, os.path.abspath(root or "."), f"a {type(frame).__name__}", **options)


def _table(columns: Columns, path: str, root: str | None, options: Mapping[str, Any]) -> Table:
    named = find(columns, PATHS, options.get("image"))
    names = [name for value in columns[named][:20] if (name := _text(value))] if named else []
    return Table(columns, os.path.abspath(root) if root else base_folder(path, names), path, **options)


def _all(columns: Columns, names: Sequence[str]) -> list[str]:
    return [column for name in names if (column := find(columns, (name,)))]


def _is_picture(kind: Any) -> bool:
    """Whether it is Hugging Face's form of a picture: a struct of bytes and a path."""
    from pyarrow import types

    return bool(types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def _text(value: Any) -> str | None:
    return None if value is None or value != value else str(value) if str(value).strip() else None


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
