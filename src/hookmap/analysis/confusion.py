"""Which classes are taken for which, and what the model looked at when it did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nlargest
from typing import TYPE_CHECKING, Any

import numpy as np

from hookmap._text import counted
from hookmap.analysis.drawing import Line, Page, heat_tile, lines_page, overlay_of
from hookmap.analysis.frames import SIDE, Array, Frames, NotApplicableError, frames, short

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from hookmap.runs.results import Run

_TILE, _PAIRS, _PHOTOS = 116, 12, 4


@dataclass(frozen=True, eq=False)
class Confusion:
    """One class taken for another.

    Attributes:
        label: the true class.
        prediction: what it was taken for.
        rows: numbers of rows of the run's table, the surest first.
        share: of the images of the true class that have a heatmap, 0..1.
        map: ``(side, side)``: the mean heatmap of these rows; it sums to 1.
        label_map: the mean heatmap of the images of the true class that were recognised; None if there are none.
        prediction_map: likewise of the class it was taken for.
    """

    label: str
    prediction: str
    rows: list[int]
    share: float
    map: Array
    label_map: Array | None
    prediction_map: Array | None

    @property
    def count(self) -> int:
        """How many images."""
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Confusions(Page):
    """The pairs of classes that are confused, the most frequent first.

    Attributes:
        run: they are of.
        pairs: each from a label to a prediction.
        wrong: how many images were recognised wrongly, in all pairs and those that are too rare to be listed.
        labelled: how many images have a label that is a class of the model.
    """

    run: Run
    pairs: list[Confusion]
    wrong: int
    labelled: int

    @property
    def table(self) -> pd.DataFrame:
        """A row per pair: label, prediction, count, share."""
        import pandas as pd

        columns = ["label", "prediction", "count", "share"]
        return pd.DataFrame([[getattr(pair, name) for name in columns] for pair in self.pairs], columns=columns)

    def figure(self) -> Image.Image:
        """Up to 12 pairs, a row each: the mean map of the pair between those of either class, and some photos."""
        lines = []
        for pair in self.pairs[:_PAIRS]:
            maps = (pair.label_map, pair.map, pair.prediction_map)
            means = [None if one is None else heat_tile(one, _TILE) for one in maps]
            photos = [overlay_of(self.run, row, _TILE) for row in pair.rows[:_PHOTOS]]
            told = [
                f"taken for {short(pair.prediction)}",
                f"{counted(pair.count, 'image')}, {pair.share:.0%} of the class",
            ]
            lines.append(Line(short(pair.label), told, [*means, *photos]))
        heads = ["label, recognised", "this pair", "other, recognised", "surest mistakes"]
        title = f"{self.wrong:,} of {self.labelled:,} are recognised wrongly"
        note = "mean heatmaps of the pair, and of the images of either class that were recognised"
        return lines_page(title, note if lines else "no pair of classes is confused often enough", lines, heads=heads)


def confusions(run: Run, *, least: int = 2, most: int = 50, asked: str | None = None, side: int = SIDE) -> Confusions:
    """The pairs of classes that are confused, with what the model looked at.

    Args:
        run: of a classifier over images with labels.
        least: rarer pairs are left out.
        most: so many pairs at most.
        asked: see ``hookmap.analysis.frames.frames``.
        side: cells of the frame along each side.

    Raises:
        NotApplicableError: if there are no heatmaps, or of no image is it known whether it was recognised.
    """
    import pandas as pd

    heat = frames(run, asked=asked, side=side)
    known, table, yes = judged(run, heat), heat.table, right(heat)
    wrong = np.flatnonzero(known & ~yes)
    ends = ["label_index", "prediction_index"]
    pairs = table[ends].iloc[wrong].groupby(ends, sort=False).indices
    frequent = {pair: wrong[rows] for pair, rows in pairs.items() if len(rows) >= least}
    fewest = min(nlargest(most, map(len, frequent.values())), default=0)
    labelled = table["label_index"].value_counts()
    found: list[tuple[Any, pd.DataFrame]] = []
    for pair, rows in frequent.items():
        if len(rows) >= fewest:
            mine = table[["label", "prediction", "probability"]].iloc[rows]
            found.append((pair, mine.sort_values("probability", ascending=False, kind="stable")))
    found.sort(key=lambda one: (-len(one[1]), -len(one[1]) / labelled[one[0][0]], *one[1].iloc[0][:2]))
    del found[most:]
    recognised = {index: np.flatnonzero(yes & (table["prediction_index"] == index)) for index in _both(found)}
    recognised = {index: rows for index, rows in recognised.items() if len(rows)}
    maps = heat.means_of([*(frequent[pair] for pair, _ in found), *recognised.values()])
    means = dict(zip(recognised, maps[len(found) :], strict=True))
    confused = [
        Confusion(
            label=mine["label"].iloc[0],
            prediction=mine["prediction"].iloc[0],
            rows=[*map(int, mine.index)],
            share=len(mine) / int(labelled[label]),
            map=mean,
            label_map=means.get(label),
            prediction_map=means.get(prediction),
        )
        for ((label, prediction), mine), mean in zip(found, maps, strict=False)
    ]
    outcomes = pd.concat([table["correct"], heat.silent["correct"]]).dropna()  # being right needs no heatmap
    return Confusions(run, confused, int((outcomes == False).sum()), len(outcomes))  # noqa: E712


def judged(run: Run, heat: Frames) -> Array:
    """Of which rows it is known whether they were recognised, bool ``(N,)``.

    Raises:
        NotApplicableError: if of none.
    """
    known: Array = heat.table["correct"].notna().to_numpy()
    if not known.any():
        raise NotApplicableError(
            f"of no image of {run.folder} is it known whether it was recognised: its labels aren't classes of the "
            "model; run it again with labels that are, or with labels= given to Lens"
        )
    return known


def right(heat: Frames) -> Array:
    """Which rows were recognised, bool ``(N,)``; False where it isn't known."""
    recognised: Array = heat.table["correct"].eq(True).to_numpy(bool)
    return recognised


def _both(pairs: Iterable[tuple[tuple[float, float], Any]]) -> set[float]:
    """The classes of pairs."""
    return {index for pair, _ in pairs for index in pair}
