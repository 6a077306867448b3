"""Heatmaps of a run on one common square frame, and where in it they lie."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakKeyDictionary

import numpy as np

from hookmap.errors import DataError
from hookmap.metrics.summary import EDGE, covered

if TYPE_CHECKING:
    import pandas as pd

    from hookmap.runs.results import Run

Array = np.ndarray[Any, Any]
By = Literal["prediction", "label", "target"]

SIDE = 32
"""Cells of the frame along each side."""
BLOCK = 4096
"""So many heatmaps are laid out at once."""
HELD = 2**26
"""Frames are held while they have so many cells together: 65,536 of 32 x 32, which take 256 MiB."""
_KINDS = ["asked", "method", "layer"]
_FACTS = ["id", "height", "width", "label", "label_index", "prediction", "prediction_index", "probability", "correct"]
_FACTS += ["target", "evidence", "half_area", "entropy", "border", "corner", "in_box", "in_mask"]
_FACTS += ["grid_left", "grid_top", "grid_right", "grid_bottom"]
REGIONS = ("border", "top left", "top right", "bottom left", "bottom right")
"""The outer parts of the frame, as :class:`hookmap.metrics.summary.Measures` has them; they overlap."""


def is_spoken_for(count: Any, silent: Any) -> Any:
    """Whether something may be said of a class by those of its heatmaps that show evidence: not by a minority."""
    return count >= silent


class NotApplicableError(DataError):
    """A question that a run has no answer to: it lacks heatmaps, labels or channels."""


class Frames:
    """Heatmaps over their whole pictures, all pictures squeezed into one square; each sums to 1.

    Where they're many they aren't held, but laid out again, block by block, whenever they are asked for.

    Args:
        run: they are of.
        table: the rows of the run's table that are meant, with the columns that are asked for here: their index is
            that of the run.
        silent: the rows whose heatmaps were left out, because they show no evidence.
        side: cells of the frame along each side.
    """

    def __init__(self, run: Run, table: pd.DataFrame, silent: pd.DataFrame, side: int = SIDE) -> None:
        self.run, self.table, self.silent, self.side = run, table, silent, side
        self._groups: dict[By, dict[str, Array]] = {}
        self._means: dict[By, Array] = {}

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def maps(self) -> Array:
        """All of them, ``(N, side, side)``, float32, in the order of the table."""
        return self.run.framed(self.table.index, self.side)

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Which rows of the table, and their maps."""
        for start in range(0, len(self), BLOCK):
            here = slice(start, min(start + BLOCK, len(self)))
            held = len(self) * self.side**2 <= HELD
            yield here, self.maps[here] if held else self.run.framed(self.table.index[here], self.side)

    def spread(self, by: By | None, most: int, each: int) -> Frames:
        """Heatmaps spread evenly over each class, so many of all at most, and of each class; small classes whole.

        Args:
            by: what the classes are; None: there's one.
            most: of all.
            each: of each class.
        """
        groups = [np.arange(len(self))] if by is None else [*self.groups(by).values()]
        sizes = np.array([len(rows) for rows in groups])
        fair = max(1, bisect_right(range(1, each + 1), most, key=lambda some: int(np.minimum(sizes, some).sum())))
        if not (sizes > fair).any():
            return self
        chosen = [rows[np.linspace(0, len(rows) - 1, min(fair, len(rows))).round().astype(int)] for rows in groups]
        return self.only(np.sort(np.concatenate(chosen)), self.silent)

    def only(self, rows: Array, silent: pd.DataFrame) -> Frames:
        """Those at some positions, or where a mask is true."""
        part = Frames(self.run, self.table.iloc[rows], silent, self.side)
        if "maps" in vars(self):
            part.maps = self.maps[rows]
        return part

    def silent_of(self, by: By, name: str | None) -> int:
        """How many heatmaps of a class were left out; None: of all classes."""
        return len(self.silent) if name is None else self._silent[by].get(name, 0)

    @cached_property
    def _silent(self) -> dict[By, dict[str, int]]:
        kinds: tuple[By, ...] = get_args(By)
        return {by: self.silent[by].value_counts().to_dict() for by in kinds}

    def groups(self, by: By) -> dict[str, Array]:
        """Positions of the rows of each class, the largest class first; rows without one are left out."""
        if by not in self._groups:
            positions = {str(name): rows for name, rows in self.table.groupby(by, sort=False).indices.items()}
            self._groups[by] = dict(sorted(positions.items(), key=lambda group: (-len(group[1]), group[0])))
        return self._groups[by]

    def means(self, by: By) -> Array:
        """The mean map of each class, in the order of :meth:`groups`: ``(classes, side, side)``, each sums to 1."""
        if by not in self._means:
            self._means[by] = self.means_of([*self.groups(by).values()])
        return self._means[by]

    def means_of(self, groups: Sequence[Array]) -> Array:
        """The mean map of each of some sets of positions, ``(groups, side, side)``, each sums to 1; in one pass."""
        sums = np.zeros((len(groups), self.side, self.side))
        sizes = np.array([len(rows) for rows in groups], int)
        positions, group_of = np.concatenate([np.empty(0, int), *groups]), np.repeat(np.arange(len(groups)), sizes)
        order = np.argsort(positions, kind="stable")
        positions, group_of = positions[order], group_of[order]
        for here, maps in self.blocks():
            low, high = np.searchsorted(positions, [here.start, here.stop])
            by_group = low + np.argsort(group_of[low:high], kind="stable")
            if len(by_group):
                mine = group_of[by_group]
                starts = np.flatnonzero(np.diff(mine, prepend=-1))
                found = maps[positions[by_group] - here.start]
                sums[mine[starts]] += np.add.reduceat(found, starts, axis=0, dtype=np.float64)
        means: Array = sums / np.maximum(sizes, 1)[:, None, None]
        return means

    @cached_property
    def _looked(self) -> tuple[Array, Array, Array]:
        """Which show anything, ``(N,)``; the share in each of :data:`REGIONS`, ``(N, 5)``; and the sum of all maps."""
        where, lit, shares = (
            regions(self.side),
            np.empty(len(self), bool),
            np.empty((len(self), len(REGIONS)), np.float32),
        )
        total = np.zeros((self.side, self.side))
        for here, maps in self.blocks():
            lit[here] = maps.any((1, 2))
            shares[here] = np.einsum("nij,kij->nk", maps, where, optimize=True)
            total += maps.sum(0, dtype=np.float64)
        return lit, shares, total

    @property
    def shares(self) -> Array:
        """The share of each heatmap in each of :data:`REGIONS`, ``(N, 5)``."""
        return self._looked[1]

    @property
    def mean(self) -> Array:
        """The mean of all, ``(side, side)``; it sums to 1."""
        mean: Array = self._looked[2] / len(self)
        return mean

    @cached_property
    def uniform_mean(self) -> Array:
        """The mean of maps that are the same wherever the model looks, ``(side, side)``."""
        mean: Array = sum(np.einsum("ni,nj->ij", *self._uniform(here)) for here in _slices(len(self))) / len(self)
        return mean

    def _uniform(self, rows: slice) -> tuple[Array, Array]:
        """A map that is the same wherever the model looks, along y and x, ``(n, side)`` each: their outer product.

        A model that crops its input doesn't see the picture's edges, so it can't look there either.
        """
        table = self.table.iloc[rows]
        centres = (np.arange(self.side) + 0.5) / self.side
        along = []
        for start, end, size in (("grid_top", "grid_bottom", "height"), ("grid_left", "grid_right", "width")):
            low, high = (table[name].to_numpy(float) / table[size].to_numpy(float) for name in (start, end))
            seen = ((centres >= low[:, None]) & (centres <= high[:, None])).astype(np.float32)
            along.append(seen / np.maximum(seen.sum(1, keepdims=True), 1))
        return along[0], along[1]

    @cached_property
    def uniform_shares(self) -> Array:
        """:attr:`shares` of maps that are the same wherever the model looks, ``(N, 5)``."""
        where = regions(self.side)
        every = [np.einsum("ni,nj,kij->nk", *self._uniform(rows), where, optimize=True) for rows in _slices(len(self))]
        return np.concatenate(every)


_KEPT: WeakKeyDictionary[Run, dict[tuple[str | None, int], Frames]] = WeakKeyDictionary()


def frames(run: Run, *, asked: str | None = None, side: int = SIDE) -> Frames:
    """The heatmaps of one question, one method and one layer of a run on the common frame.

    Args:
        run: what was run.
        asked: the question, as in the table's column ``asked``; by default the first that was asked.
        side: cells of the frame along each side.

    Raises:
        NotApplicableError: if the run has no heatmap, or none that shows evidence.
        DataError: if the run wasn't asked this question.
    """
    kept = _KEPT.setdefault(run, {})
    if (asked, side) not in kept:
        rows = _rows(run, asked)
        some = (run.table["evidence"].loc[rows] == "some").to_numpy(bool)
        lit, silent = (run.table.loc[rows[which], _FACTS] for which in (some, ~some))
        every = Frames(run, lit, silent, side)
        there, shares, total = every._looked
        if not there.all():  # all that some show lies beyond their pictures
            every = every.only(there, run.table.loc[rows.difference(lit.index[there], sort=False), _FACTS])
            every._looked = there[there], shares[there], total
        kept[asked, side] = every
    framed = kept[asked, side]
    if not len(framed):
        raise NotApplicableError(f"no heatmap of {run.folder} shows evidence; run it with another method or layer")
    return framed


def _rows(run: Run, asked: str | None) -> pd.Index[Any]:
    """The numbers of the rows that are meant."""
    kinds = run.of_heatmaps(_KINDS)
    if not len(kinds):
        raise NotApplicableError(f"{run.folder} holds no heatmap; see its column 'error'")
    questions = [*kinds["asked"].unique()]
    if asked is not None and asked not in questions:
        raise DataError(f"{run.folder} wasn't asked about {asked!r}; pass one of {', '.join(map(repr, questions))}")
    meant = kinds["asked"] == (questions[0] if asked is None else asked)
    for column in ("method", "layer"):
        meant &= kinds[column] == kinds.loc[meant, column].iloc[0]
    return kinds.index[meant]


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, count, BLOCK))


def regions(side: int) -> Array:
    """How much of each cell of the frame lies in each of :data:`REGIONS`, ``(5, side, side)``, 0..1."""
    border, corner = side * EDGE, side * 2 * EDGE
    ends = (0, corner), (side - corner, side)
    inner = covered((side, side), [(border, border, side - border, side - border)])
    corners = [covered((side, side), [(left, top, right, bottom)]) for top, bottom in ends for left, right in ends]
    return np.stack([1 - inner, *corners]).astype(np.float32)


def distance(one: Array, other: Array) -> Array:
    """Total variation: half the sum of absolute differences, 0..1: the share of the heat that would have to move.

    Args:
        one: ``(..., side, side)``; each map sums to 1.
        other: likewise.
    """
    moved: Array = np.abs(one - other).sum((-2, -1)) / 2
    return moved


def short(name: str) -> str:
    """A class's name without its synonyms."""
    return str(name).split(",")[0]


def mean_of(maps: Array, positions: Sequence[int] | Array) -> Array:
    """The mean map of some heatmaps, ``(side, side)``; it sums to 1."""
    mean: Array = maps[positions].mean(0, dtype=np.float64)
    return mean
