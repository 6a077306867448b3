"""Two runs over the same images: two checkpoints, or two methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hookmap._text import counted
from hookmap.analysis.drawing import Page, overlay_of, side_by_side, tiles_page
from hookmap.analysis.frames import BLOCK, SIDE, Array, distance, short
from hookmap.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from hookmap.runs.results import Run

_TILE = 128


@dataclass(frozen=True, eq=False)
class Comparison(Page):
    """Heatmaps of two runs, joined by image and question.

    Attributes:
        before: the first run.
        after: the second.
        table: a row per heatmap that both runs have, what moved most first: ``id``, ``asked``; ``row_before`` and
            ``row_after`` (rows of the runs' tables); ``moved`` (total variation between both maps on the common
            frame: the share of the heat that would have to move, 0..1), ``cosine`` (of both maps, 0..1) and
            ``rank_correlation`` (Spearman's over the cells of the frame where either isn't 0, -1..1);
            ``prediction_before``, ``prediction_after`` and ``changed`` (whether they differ), ``correct_before`` and
            ``correct_after``. A map that is 0 everywhere has NaN for the measures, and comes last.
        only_before: how many heatmaps only the first run has.
        only_after: only the second.
    """

    before: Run
    after: Run
    table: pd.DataFrame
    only_before: int
    only_after: int

    def figure(self, count: int = 12) -> Image.Image:
        """Both overlays of the heatmaps that moved most, side by side.

        Args:
            count: how many.
        """
        tiles = []
        for one in self.table.head(count).itertuples():
            rows = ((self.before, one.row_before), (self.after, one.row_after))
            pair = side_by_side([overlay_of(run, row, _TILE) for run, row in rows], _TILE)
            targets = [short(run.table.loc[row, "target"]) for run, row in rows]
            told = f"{one.moved:.0%} moved, rank {one.rank_correlation:.2f}, {one.id.rpartition('/')[2]}"
            tiles.append((pair, " > ".join(dict.fromkeys(targets)), told))
        changed = int(self.table["changed"].sum())
        note = (
            f"{counted(len(self.table), 'heatmap')} of both runs, before and after; what moved most first\n"
            f"median move {self.table['moved'].median():.0%}, median rank correlation "
            f"{self.table['rank_correlation'].median():.2f}, {counted(changed, 'prediction')} changed"
        )
        return tiles_page("Two runs", note, [("", tiles)], tile=(2 * _TILE + 4, _TILE))


def compare(before: Run, after: Run, *, side: int = SIDE) -> Comparison:
    """Two runs over the same images, heatmap by heatmap.

    They are joined by image and question; where an image has several heatmaps of one question (objects, methods,
    layers), by their targets, methods and layers too, and by their order.

    Args:
        before: one run.
        after: another.
        side: cells of the frame along each side.

    Raises:
        DataError: if they have no heatmap in common.
    """
    keys = ["id", "asked"]
    if any(run.explained.duplicated(keys).any() for run in (before, after)):
        keys += ["target"] + [
            name
            for name in ("method", "layer")
            if before.explained[name].nunique() > 1 < after.explained[name].nunique()
        ]
    sides = [_keyed(run, keys) for run in (before, after)]
    joined = sides[0].merge(sides[1], on=[*keys, "number"], suffixes=("_before", "_after"))
    if not len(joined):
        raise DataError(
            f"{before.folder} and {after.folder} have no heatmap in common; compare runs over the same images with the "
            "same target"
        )
    measures = ["moved", "cosine", "rank_correlation"]
    measured = []
    for start in range(0, len(joined), BLOCK):
        rows = joined.iloc[start : start + BLOCK]
        measured.append(_measured(before.framed(rows["row_before"], side), after.framed(rows["row_after"], side)))
    joined[measures] = np.concatenate(measured)
    indices = joined["prediction_index_before"], joined["prediction_index_after"]
    joined["changed"] = (indices[0] != indices[1]) & (indices[0].notna() | indices[1].notna())
    told = [f"{name}_{when}" for name in ("prediction", "correct") for when in ("before", "after")]
    told.insert(2, "changed")
    table = joined[["id", "asked", "row_before", "row_after", *measures, *told]]
    table = table.sort_values(["moved", "id"], ascending=[False, True], kind="stable", ignore_index=True)
    return Comparison(before, after, table, len(sides[0]) - len(joined), len(sides[1]) - len(joined))


def _measured(one: Array, other: Array) -> Array:
    """Of pairs of maps ``(n, side, side)`` what moved, the cosine and the rank correlation, ``(n, 3)``, or NaN."""
    there = np.logical_and(one.any((1, 2)), other.any((1, 2)))
    flat = [maps.reshape(len(maps), -1).astype(np.float64) for maps in (one, other)]
    norms = np.linalg.norm(flat[0], axis=1) * np.linalg.norm(flat[1], axis=1)
    cosine = (flat[0] * flat[1]).sum(1) / np.where(there, norms, 1)
    ranks = np.array([_rank_correlation(a, b) for a, b in zip(*flat, strict=True)])
    return np.where(there[:, None], np.stack([distance(one, other), cosine, ranks], 1), np.nan)


def _keyed(run: Run, keys: list[str]) -> pd.DataFrame:
    rows = run.explained
    told = rows[[*dict.fromkeys([*keys, "prediction", "prediction_index", "correct"])]].copy()
    told["row"] = rows.index
    told["number"] = rows.groupby(keys, sort=False).cumcount()
    return told


def _rank_correlation(one: Array, other: Array) -> float:
    """Spearman's, over the cells where either map isn't 0; NaN where one is the same everywhere."""
    import pandas as pd

    there = (one > 0) | (other > 0)
    ranks = [pd.Series(values[there]).rank().to_numpy() for values in (one, other)]
    if any(len(rank) < 2 or rank.std() == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
