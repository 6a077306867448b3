"""Runs that are browsed: each is queried where it lies, and of its index only those columns are read that are asked."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch

from hookmap.app.problems import Refused
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
_COLUMNS = 8
"""So many columns are kept, the last that were asked."""
_PARTS = 32
"""So many tables of parts, likewise."""
_FOUND = 4
"""So many selections of rows, likewise."""
_TRIED = 8
"""So many files are looked for, for each that is wanted."""
_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, less what is whole of them, are spread evenly, however many are taken."""
PATH = "path"
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
        store = Store(folder).as_it_is()
        self._record = store.about
        self._index = store.dataset()  # it keeps the footers of parts, which take longer to read than a column
        self._names = [path.name for path in store.parts()]
        self._starts = np.cumsum([0, *(part.count_rows() for part in self._index.get_fragments())], dtype=np.int64)
        self._kept: OrderedDict[str, pa.ChunkedArray] = OrderedDict()
        self._reading = threading.Lock()
        self._table = lru_cache(_PARTS)(store.table)
        self._found = lru_cache(_FOUND)(self._find)
        columns = tuple(
            ColumnAbout(name, *COLUMNS[name][1:])
            for name in self._index.schema.names
            if name in COLUMNS and name not in _HIDDEN
        )
        name, model = store.folder.resolve().name, self._record["model"]["name"]
        self.about = RunAbout(id, name, model, int(self._starts[-1]), columns)

    def rows(self, selection: Selection, offset: int, limit: int) -> RunRows:
        """A page of the rows that fit.

        Raises:
            Refused: if they can't be sorted so.
        """
        found = self._found(selection)
        return RunRows(len(found), tuple(self._row(int(number)) for number in found[offset : offset + limit]))

    def values(self, column: Filter) -> list[ValueCount]:
        """What a column holds, the most frequent first."""
        if not self._has(column):
            return []
        counts = self._columns([column])[0].drop_null().value_counts().to_pylist()
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
        if PATH not in self._index.schema.names:
            return {}
        paths = self._index.to_table(columns=[PATH])[PATH].combine_chunks().dictionary_encode()
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
        import pyarrow as pa
        from pyarrow import compute

        if selection.sort is not None and (
            not self._has(selection.sort) or COLUMNS[selection.sort].kind not in ("int32", "float32")
        ):
            raise Refused("question", f"rows can't be sorted by {selection.sort!r}; name a column of numbers")
        equal = [(name, value) for name, value in selection.equal if self._has(name)]
        named: list[str] = [name for name, _ in equal]
        named += ["id"] if selection.text else []
        named += [] if selection.sort is None else [selection.sort]
        columns = dict(zip(named, self._columns(named), strict=True))
        fits = np.full(self.about.rows, len(equal) == len(selection.equal))
        for name, value in equal:
            fits &= compute.equal(columns[name], pa.scalar(value)).fill_null(False).to_numpy()
        if selection.text:
            fits &= compute.match_substring(columns["id"], selection.text, ignore_case=True).to_numpy()
        found = np.flatnonzero(fits)
        if selection.sort is None:
            return found
        keys = columns[selection.sort].to_numpy()[found].astype(np.float64)
        return found[np.argsort(-keys if selection.descending else keys, kind="stable")]

    def _columns(self, names: Sequence[str]) -> list[pa.ChunkedArray]:
        """Columns, read together: opening the parts takes longer than reading them.

        Who asks while they are read waits for them, and doesn't read them too.
        """
        with self._reading:
            missing = [name for name in dict.fromkeys(names) if name not in self._kept]
            if missing:
                table = self._index.to_table(columns=missing)
                self._kept.update({name: table[name] for name in missing})
            for name in names:
                self._kept.move_to_end(name)
            found = [self._kept[name] for name in names]
            while len(self._kept) > _COLUMNS:
                self._kept.popitem(last=False)
            return found

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
