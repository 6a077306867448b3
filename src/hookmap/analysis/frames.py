"""Heatmaps of a run on one common square frame, and where in it they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
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
REGIONS = ("border", "top left", "top right", "bottom left", "bottom right")
"""The outer parts of the frame, as :class:`hookmap.metrics.summary.Measures` has them; they overlap."""


def is_spoken_for(count: Any, silent: Any) -> Any:
    """Whether something may be said of a class by those of its heatmaps that show evidence: not by a minority."""
    return count >= silent


class NotApplicableError(DataError):
    """A question that a run has no answer to: it lacks heatmaps, labels or channels."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Heatmaps over their whole pictures, all pictures squeezed into one square.

    Attributes:
        table: the rows of the run's table that are meant: their index is that of the run.
        maps: ``(N, side, side)``, float32, in the order of the table; each sums to 1.
        silent: the rows whose heatmaps were left out, because they show no evidence.
    """

    table: pd.DataFrame
    maps: Array
    silent: pd.DataFrame

    def __len__(self) -> int:
        return len(self.table)

    def silent_of(self, by: By, name: str | None) -> int:
        """How many heatmaps of a class were left out; None: of all classes."""
        return len(self.silent) if name is None else int((self.silent[by] == name).sum())

    def groups(self, by: By) -> dict[str, Array]:
        """Positions of the rows of each class, the largest class first; rows without one are left out."""
        positions = {str(name): rows for name, rows in self.table.groupby(by, sort=False).indices.items()}
        return dict(sorted(positions.items(), key=lambda group: (-len(group[1]), group[0])))

    def means(self, by: By) -> Array:
        """The mean map of each class, in the order of :meth:`groups`: ``(classes, side, side)``, each sums to 1."""
        maps = [mean_of(self.maps, rows) for rows in self.groups(by).values()]
        return np.stack(maps) if maps else np.zeros((0, *self.maps.shape[1:]))

    @property
    def mean(self) -> Array:
        """The mean of all, ``(side, side)``; it sums to 1."""
        return mean_of(self.maps, np.arange(len(self)))

    @cached_property
    def uniform(self) -> tuple[Array, Array]:
        """A map that is the same wherever the model looks, along y and x, ``(N, side)`` each: their outer product.

        A model that crops its input doesn't see the picture's edges, so it can't look there either.
        """
        side, table = self.maps.shape[1], self.table
        centres = (np.arange(side) + 0.5) / side
        along = []
        for start, end, size in (("grid_top", "grid_bottom", "height"), ("grid_left", "grid_right", "width")):
            low, high = (table[name].to_numpy(float) / table[size].to_numpy(float) for name in (start, end))
            seen = ((centres >= low[:, None]) & (centres <= high[:, None])).astype(np.float32)
            along.append(seen / np.maximum(seen.sum(1, keepdims=True), 1))
        return along[0], along[1]

    @cached_property
    def shares(self) -> Array:
        """The share of each heatmap in each of :data:`REGIONS`, ``(N, 5)``."""
        shares: Array = np.einsum("nij,kij->nk", self.maps, regions(self.maps.shape[1]), optimize=True)
        return shares

    @cached_property
    def uniform_shares(self) -> Array:
        """:attr:`shares` of maps that are the same wherever the model looks, ``(N, 5)``."""
        shares: Array = np.einsum("ni,nj,kij->nk", *self.uniform, regions(self.maps.shape[1]), optimize=True)
        return shares


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
        maps = run.framed(rows.index, side)
        there = maps.any((1, 2)) & (rows["evidence"] == "some").to_numpy()
        kept[asked, side] = Frames(rows[there], maps[there], rows[~there])
    framed = kept[asked, side]
    if not len(framed):
        raise NotApplicableError(f"no heatmap of {run.folder} shows evidence; run it with another method or layer")
    return framed


def _rows(run: Run, asked: str | None) -> pd.DataFrame:
    rows = run.explained
    if not len(rows):
        raise NotApplicableError(f"{run.folder} holds no heatmap; see its column 'error'")
    questions = list(dict.fromkeys(rows["asked"]))
    if asked is not None and asked not in questions:
        raise DataError(f"{run.folder} wasn't asked about {asked!r}; pass one of {', '.join(map(repr, questions))}")
    rows = rows[rows["asked"] == (questions[0] if asked is None else asked)]
    for column in ("method", "layer"):
        rows = rows[rows[column] == rows[column].iloc[0]]
    return rows


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
