"""Which classes are taken for which, and what the model looked at when it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hookmap._text import counted
from hookmap.analysis.drawing import Line, Page, heat_tile, lines_page, overlay_of
from hookmap.analysis.frames import SIDE, Array, Frames, NotApplicableError, frames, mean_of, short

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
    known = judged(run, heat)
    table = heat.table
    wrong = known & ~right(heat)
    pairs = table[wrong].groupby(["label_index", "prediction_index"], sort=False)
    confused = []
    for (label, prediction), rows in pairs:
        if len(rows) < least:
            continue
        rows = rows.sort_values("probability", ascending=False, kind="stable")
        confused.append(
            Confusion(
                label=rows["label"].iloc[0],
                prediction=rows["prediction"].iloc[0],
                rows=[*map(int, rows.index)],
                share=len(rows) / int((table["label_index"] == label).sum()),
                map=mean_of(heat.maps, table.index.get_indexer(rows.index)),
                label_map=_recognised(heat, label),
                prediction_map=_recognised(heat, prediction),
            )
        )
    confused.sort(key=lambda pair: (-pair.count, -pair.share, pair.label, pair.prediction))
    outcomes = pd.concat([table["correct"], heat.silent["correct"]]).dropna()  # being right needs no heatmap
    return Confusions(run, confused[:most], int((outcomes == False).sum()), len(outcomes))  # noqa: E712


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


def _recognised(heat: Frames, index: float) -> Array | None:
    rows = np.flatnonzero(right(heat) & (heat.table["prediction_index"] == index).to_numpy())
    return mean_of(heat.maps, rows) if len(rows) else None
