"""Maps and pictures of a run's rows, read part by part when they are asked for: a run may be larger than the memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from hookmap.errors import DataError
from hookmap.runs.store import MAPS, PICTURES, Store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Array = np.ndarray[Any, Any]
KEPT = 2**26
"""Parts of one kind that were asked last are kept up to so many bytes."""


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


Content = TypeVar("Content", bound=_Sized)


class Parts(Generic[Content]):
    """What the parts of a run hold of one kind.

    Args:
        store: the run, as it is.
        read: what a part holds, by the name of its file and the run's rows that it has.
    """

    def __init__(self, store: Store, read: Callable[[str, slice], Content]) -> None:
        self._names, counts = [path.name for path in store.parts()], store.counts()
        self._starts = np.cumsum([0, *counts], dtype=np.int64)
        self._read = read
        self._kept: OrderedDict[int, Content] = OrderedDict()
        self._held = 0

    def of(self, rows: Sequence[int] | Array) -> Iterator[tuple[Array, Content, Array]]:
        """Part by part: which of the rows lie in it, what it holds, and the rows' places in it."""
        numbers = np.asarray(rows, np.int64)
        part_of = np.searchsorted(self._starts, numbers, side="right") - 1
        order = np.argsort(part_of, kind="stable")
        ends = np.flatnonzero(np.diff(part_of[order])) + 1
        for here in np.split(order, ends) if len(order) else ():
            part = int(part_of[here[0]])
            yield here, self._part(part), numbers[here] - self._starts[part]

    def _part(self, number: int) -> Content:
        if number not in self._kept:
            rows = slice(*map(int, self._starts[number : number + 2]))
            content = self._kept[number] = self._read(self._names[number], rows)
            self._held += content.nbytes
            while self._held > KEPT and len(self._kept) > 1:
                self._held -= self._kept.popitem(last=False)[1].nbytes
        self._kept.move_to_end(number)
        return self._kept[number]


class PartMaps:
    """The maps of a part, as they are kept: those of one shape as one array.

    Attributes:
        stacks: ``(n, *shape)`` each, float16.
        stack_of: the stack of each row, and :attr:`place` the row's place in it.
    """

    def __init__(self, table: pa.Table) -> None:
        maps = table["map"].combine_chunks()
        flat = maps.flatten().to_numpy(zero_copy_only=False)
        lengths = maps.value_lengths().to_numpy(zero_copy_only=False)
        numbers: dict[tuple[int, ...], int] = {}
        shapes = map(tuple, table["shape"].to_pylist())
        self.stack_of = np.array([numbers.setdefault(shape, len(numbers)) for shape in shapes], np.int64)
        self.place = np.zeros(len(self.stack_of), np.int64)
        self.stacks: list[Array] = []
        for number, shape in enumerate(numbers):
            rows = np.flatnonzero(self.stack_of == number)
            self.place[rows] = np.arange(len(rows))
            kept = flat if len(numbers) == 1 else flat[np.repeat(self.stack_of == number, lengths)]
            self.stacks.append(kept.reshape(len(rows), *shape))

    @property
    def nbytes(self) -> int:
        """Of all of it."""
        return sum(one.nbytes for one in (self.stack_of, self.place, *self.stacks))


def maps_of(store: Store, ids: pd.Series[Any]) -> Parts[PartMaps]:
    """The maps of a run.

    Args:
        store: the run.
        ids: of its rows.
    """

    def read(name: str, rows: slice) -> PartMaps:
        table = store.table(MAPS, name)
        if table["id"].to_pylist() != ids.iloc[rows].tolist():
            raise DataError(f"the maps of {store.folder} don't belong to its index; run it again into another folder")
        return PartMaps(table)

    return Parts(store, read)


class Thumbnails(Mapping[str, bytes]):
    """The small JPEGs of a run by the ids of their images.

    Args:
        store: the run.
        ids: of its rows.
    """

    def __init__(self, store: Store, ids: pd.Series[Any]) -> None:
        self._store, self._ids = store, ids
        there = {path.name for path in store.parts(PICTURES)}
        self._parts = Parts(store, lambda name, _: _pictures(store, name if name in there else None))

    def __getitem__(self, image: str) -> bytes:
        row = self._index.index(image).as_py()
        if row < 0:
            raise KeyError(image)
        ((_, data),) = self.of([row])
        if data is None:
            raise KeyError(image)
        return data

    def __iter__(self) -> Iterator[str]:
        for part in self._store.each(PICTURES, ["id"]):
            yield from part["id"].to_pylist()

    def __len__(self) -> int:
        return sum(len(part) for part in self._store.each(PICTURES, ["id"]))

    def of(self, rows: Sequence[int] | Array) -> Iterator[tuple[int, bytes | None]]:
        """Those of rows of the run, in the order of its parts; None where there's none."""
        for here, pictures, _ in self._parts.of(rows):
            numbers = [int(rows[i]) for i in here]
            places = {name: place for place, name in enumerate(pictures["id"].to_pylist())}
            for row in numbers:
                place = places.get(self._index[row].as_py())
                yield row, None if place is None else pictures["jpeg"][place].as_py()

    @cached_property
    def _index(self) -> pa.Array | pa.ChunkedArray:
        import pyarrow as pa

        return pa.array(self._ids, pa.large_string())


def _pictures(store: Store, name: str | None) -> pa.Table:
    import pyarrow as pa

    return pa.table({"id": [], "jpeg": []}) if name is None else store.table(PICTURES, name)
