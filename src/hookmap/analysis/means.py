"""What a model looks at in each class, on average."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hookmap._text import counted
from hookmap.analysis.drawing import Page, heat_tile, tiles_page
from hookmap.analysis.frames import SIDE, Array, By, Frames, distance, frames, is_spoken_for, mean_of, short

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from hookmap.runs.results import Run

_DRAWS, _POOL = 39, 20_000
_SHOWN = 24


@dataclass(frozen=True, eq=False)
class ClassMeans(Page):
    """The mean heatmap of each class.

    Attributes:
        by: what the classes are.
        table: a row per class, in the order of ``maps``: ``name``, ``count`` (heatmaps), ``distance`` (total variation
            between the class's mean and the mean of all: the share of the heat that would have to move, 0..1),
            ``chance`` (the largest such distance of 39 groups of as many heatmaps drawn from all: one class in forty
            of no kind of its own is farther), ``silent`` (heatmaps that show no evidence, and are in no mean) and
            ``far`` (whether its distance is larger than by chance, and no more of its heatmaps are silent than not).
        maps: ``(classes, side, side)``; each sums to 1.
        overall: ``(side, side)``: the mean of all.
        silent: heatmaps of all classes that show no evidence; they are in no mean.
    """

    by: By
    table: pd.DataFrame
    maps: Array
    overall: Array
    silent: int = 0

    def figure(self) -> Image.Image:
        """The mean of all and those of up to 24 classes, the farthest first; each as bright as it can be."""
        count = int(self.table["count"].sum())
        order = self.table["distance"].sort_values(ascending=False, kind="stable").index[:_SHOWN]
        tiles = [(heat_tile(self.overall, 160), "mean of all", counted(count, "heatmap"))]
        for i in order:
            row = self.table.loc[i]
            caption = f"{row['count']:,}, {row['distance']:.0%} moved, chance {row['chance']:.0%}"
            tiles.append((heat_tile(self.maps[i], 160), short(row["name"]), caption))
        which = "" if len(self.table) <= _SHOWN else f" (the {_SHOWN} farthest of {len(self.table):,} classes)"
        note = (
            f"pictures squeezed into one square; the farthest from the mean of all first{which}\n"
            "count, share of the heat that lies elsewhere than in the mean of all, and that of as many drawn at random"
        )
        return tiles_page(f"Mean heatmaps by {self.by}", note, [("", tiles)], tile=(160, 160))


def class_means(run: Run, by: By = "prediction", *, asked: str | None = None, side: int = SIDE) -> ClassMeans:
    """The mean heatmap of each class, and how far it is from the mean of all.

    Args:
        run: what was run.
        by: what the classes are: ``"prediction"``, ``"label"`` or ``"target"``.
        asked: as in ``hookmap.analysis.frames.frames``, and what it raises.
        side: cells of the frame along each side.
    """
    import pandas as pd

    heat = frames(run, asked=asked, side=side)
    groups, maps, overall = heat.groups(by), heat.means(by), heat.mean
    counts = [len(rows) for rows in groups.values()]
    table = pd.DataFrame({"name": list(groups), "count": counts, "distance": distance(maps, overall)})
    chance = _by_chance(heat, set(counts))
    table["chance"] = [chance[count] for count in counts]
    table["silent"] = [heat.silent_of(by, name) for name in groups]
    # Rounding alone is no distance.
    table["far"] = (table["distance"] > table["chance"] + 1e-6) & (is_spoken_for(table["count"], table["silent"]))
    return ClassMeans(by, table, maps, overall, len(heat.silent))


def _by_chance(heat: Frames, counts: Iterable[int]) -> dict[int, float]:
    """By how many they are, the largest distance of some groups of so many maps, drawn from all.

    Of many maps it is drawn from a pool that is spread evenly over them, in groups of a tenth of it at most: the
    distance of n of N maps from the mean of all shrinks with sqrt((1 / n) (N - n) / (N - 1)).
    """
    pool = heat.spread(None, _POOL, _POOL)
    known, chance = dict[int, float](), dict[int, float]()
    for count in counts:
        some = count if len(pool) == len(heat) else min(count, _POOL // 10)
        if some not in known:
            draw = np.random.default_rng(0)
            groups = (draw.choice(len(pool), some, replace=False) for _ in range(_DRAWS))
            known[some] = max(float(distance(mean_of(pool.maps, rows), pool.mean)) for rows in groups)
        chance[count] = (
            known[some] * _spread(count, len(heat)) / _spread(some, len(pool)) if some < count else known[some]
        )
    return chance


def _spread(some: int, of: int) -> float:
    """How far the mean of some of so many values is from that of all, in units of their standard deviation."""
    return float(np.sqrt((of - some) / (some * max(of - 1, 1))))
