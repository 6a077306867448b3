"""Runs that are browsed: opened at once; the columns that rows are asked by are read meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import torch

from hookmap.app.problems import Refused
from hookmap.errors import DataError
from hookmap.explorer.questions import ColumnAbout, RunAbout, RunMap, RunRow, RunRows, ValueCount
from hookmap.explorer.wire import Answer
from hookmap.report.packing import error_by_id
from hookmap.runs.results import look_of
from hookmap.runs.rows import COLUMNS, unpacked
from hookmap.runs.store import INDEX, MAPS, PICTURES, Store

if TYPE_CHECKING:
    import pyarrow as pa

Filter: TypeAlias = Literal["label", "prediction", "target", "method", "layer", "correct"]
"""Columns that rows are filtered by."""
_PARTS = 256
"""So many tables of parts are kept, the last that were asked."""
_FOUND = 4
"""So many selections of rows, likewise."""
_TRIED = 8
"""So many files are looked for, for each that is wanted."""
_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, less what is whole of them, are spread evenly, however many are taken."""
PATH = "path"
_WORDS = {"id", *get_args(Filter)}
"""Of the columns that aren't numbers, those that rows are asked by."""
_HIDDEN = {PATH}
"""Where pictures lie on the disk is no business of a browser."""


@dataclass(frozen=True)
class Selection:
    """Which rows, in which order.

    Attributes:
        equal: columns and their values.
        text: in the image's id.
        sort: the column of numbers that they are sorted by; None: as they lie.
        descending: whether the largest come first; rows without a value come last anyway.
    """

    equal: tuple[tuple[Filter, str | bool], ...] = ()
    text: str = ""
    sort: str | None = None
    descending: bool = False


class BrowsedRun:
    """A run as it is when it is opened; threads may share it.

    Args:
        id: as it is asked for.
        folder: of the run.

    Raises:
        DataError: if it isn't one.
    """

    def __init__(self, id: str, folder: Path) -> None:
        store = self._store = Store(folder).as_it_is()
        self._record = store.about
        self._names = [path.name for path in store.parts()]
        if not self._names:
            raise DataError(f"{folder} holds no rows yet; wait until its run has written its first part")
        self._starts = np.cumsum([0, *store.counts()], dtype=np.int64)
        self._table = lru_cache(_PARTS)(store.table)
        self._found = lru_cache(_FOUND)(self._find)
        columns = tuple(
            ColumnAbout(name, *COLUMNS[name][1:])
            for name in self._table(INDEX, self._names[0]).column_names
            if name in COLUMNS and name not in _HIDDEN
        )
        name, model = store.folder.resolve().name, self._record["model"]["name"]
        self.about = RunAbout(id, name, model, int(self._starts[-1]), columns)
        self._known: dict[bool, dict[str, pa.Array]] = {}
        self._reading = {False: threading.Lock(), True: threading.Lock()}
        threading.Thread(target=self._read_ahead, daemon=True).start()

    def rows(self, selection: Selection, offset: int, limit: int) -> RunRows:
        """A page of the rows that fit.

        Raises:
            Refused: if they can't be sorted so.
        """
        found = self._found(selection)
        numbers = [int(number) for number in found[offset : offset + limit]]
        with ThreadPoolExecutor(os.cpu_count()) as readers:
            return RunRows(len(found), tuple(readers.map(self._row, numbers)))

    def values(self, column: Filter) -> list[ValueCount]:
        """What a column holds, the most frequent first."""
        if not self._has(column):
            return []
        counts = self._column(column).drop_null().value_counts().to_pylist()
        return [ValueCount(one["values"], one["counts"]) for one in sorted(counts, key=lambda one: -one["counts"])]

    def picture(self, number: int) -> bytes:
        """The small JPEG of a row.

        Raises:
            Refused: if there's none.
        """
        name, at = self._place(number)
        if self._record.get("thumbnail") == 0:
            raise Refused("absent", "this run kept no small pictures")
        pictures = self._table(PICTURES, name)
        place = pictures["id"].index(self._table(INDEX, name)["id"][at]).as_py()
        if place < 0:
            raise Refused("absent", f"row {number} has no small picture")
        data: bytes = pictures["jpeg"][place].as_py()
        return data

    def map(self, number: int) -> Answer:
        """The heatmap of a row.

        Raises:
            Refused: if there's none.
        """
        name, at = self._place(number)
        row = self._values(number)
        if row["target"] is None:
            raise Refused("absent", f"row {number} has no heatmap")
        kept = self._table(MAPS, name).slice(at, 1)
        flat = kept["map"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        values = unpacked(flat.reshape(kept["shape"][0].as_py()), row["map_scale"])
        look = look_of(self._record, row["method"], row["part"] or "positive")
        left, top, right, bottom = (row[f"grid_{side}"] for side in ("left", "top", "right", "bottom"))
        return Answer(RunMap(look.as_json(), (left, top, right, bottom)), {"map": torch.from_numpy(values)})

    def file(self, number: int) -> Path:
        """Where the run read the picture of a row.

        Raises:
            Refused: if it isn't there any more, or never was a file.
        """
        path = self._values(number)[PATH]
        if path is None or not Path(path).is_file():
            raise Refused("absent", f"the file of row {number} isn't where the run read it; open it by hand")
        return Path(path)

    def sample(self, count: int) -> dict[int, Path]:
        """Rows of so many pictures whose files are still there, a row each, spread evenly over the run.

        The first of them are spread evenly too. Of a run whose files are gone not every one is looked for.
        """
        if PATH not in self._table(INDEX, self._names[0]).column_names:
            return {}
        paths = _whole(self._store, [PATH])[PATH].dictionary_encode()
        numbers = np.flatnonzero(paths.is_valid().to_numpy(zero_copy_only=False))
        codes = paths.indices.drop_null().to_numpy()
        numbers = numbers[np.sort(np.unique(codes, return_index=True)[1])]
        spread = np.argsort(np.arange(len(numbers)) * _GOLDEN % 1, kind="stable")[: _TRIED * count]
        found = dict[int, Path]()
        for number in numbers[spread].tolist():
            path = Path(paths[number].as_py())
            if len(found) < count and path.is_file():
                found[number] = path
        return found

    def _find(self, selection: Selection) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The numbers of the rows that fit, in order."""
        from pyarrow import compute

        if selection.sort is not None and (not self._has(selection.sort) or not _is_number(selection.sort)):
            raise Refused("question", f"rows can't be sorted by {selection.sort!r}; name a column of numbers")
        fits = np.full(self.about.rows, all(self._has(name) for name, _ in selection.equal))
        for name, value in selection.equal:
            if self._has(name):
                fits &= _equals(self._column(name), value)
        if selection.text:
            fits &= compute.match_substring(self._column("id"), selection.text, ignore_case=True).to_numpy(False)
        found = np.flatnonzero(fits)
        if selection.sort is None:
            return found
        keys = self._column(selection.sort).to_numpy(zero_copy_only=False)[found].astype(np.float64)
        return found[np.argsort(-keys if selection.descending else keys, kind="stable")]

    def _column(self, name: str) -> pa.Array:
        """A column that rows are asked by."""
        return self._columns(_is_number(name))[name]

    def _columns(self, numbers: bool) -> dict[str, pa.Array]:
        """All numbers, or all words that rows are asked by, read at once; who asks meanwhile waits."""
        with self._reading[numbers]:
            if numbers not in self._known:
                names = [one.name for one in self.about.columns if _is_number(one.name) == numbers]
                self._known[numbers] = _whole(self._store, [name for name in names if numbers or name in _WORDS])
            return self._known[numbers]

    def _read_ahead(self) -> None:
        with suppress(DataError):  # who asks is told
            for numbers in (False, True):
                self._columns(numbers)

    def _has(self, column: str) -> bool:
        return any(known.name == column for known in self.about.columns)

    def _place(self, number: int) -> tuple[str, int]:
        """The part of a row, and its place in it."""
        if not 0 <= number < self.about.rows:
            raise Refused("absent", f"{self.about.name} has no row {number}; its rows are 0 to {self.about.rows - 1}")
        part = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._names[part], number - int(self._starts[part])

    def _values(self, number: int) -> dict[str, Any]:
        name, at = self._place(number)
        values: dict[str, Any] = self._table(INDEX, name).slice(at, 1).to_pylist()[0]
        return values

    def _row(self, number: int) -> RunRow:
        values = self._values(number)
        values["error"] = error_by_id(values["error"], values["path"], values["id"])
        return RunRow(number, {name: value for name, value in values.items() if name not in _HIDDEN})


def _is_number(column: str) -> bool:
    return COLUMNS[column].kind in ("int32", "float32")


def _whole(store: Store, columns: list[str]) -> dict[str, pa.Array]:
    """Columns of all parts; words of which there are few as numbers."""
    import pyarrow as pa

    table = store.read(INDEX, columns)
    assert table is not None
    found = {}
    for name in columns:
        column = table[name].chunk(0)
        found[name] = (
            column.dictionary_encode() if name in get_args(Filter) and pa.types.is_string(column.type) else column
        )
    return found


def _equals(column: pa.Array, value: str | bool) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where a column has a value; where it has none, it hasn't."""
    from pyarrow import compute

    if isinstance(value, str):
        code = column.dictionary.index(value).as_py()
        column, value = column.indices, code
    same: np.ndarray[Any, np.dtype[np.bool_]] = compute.equal(column, value).fill_null(False).to_numpy(False)
    return same


def browsed(folders: Iterable[Path]) -> dict[str, BrowsedRun]:
    """Runs by their ids: the names of their folders, told apart by numbers where they are the same.

    Raises:
        DataError: if one isn't a run.
    """
    runs: dict[str, BrowsedRun] = {}
    for folder in folders:
        id = _new(folder.expanduser().resolve().name, [*runs])
        runs[id] = BrowsedRun(id, folder)
    return runs


def _new(name: str, taken: Sequence[str]) -> str:
    names = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(one for one in names if one not in taken)
