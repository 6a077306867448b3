"""How focused heatmaps are, and whether that goes with being right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from hookmap.analysis.confusion import judged, right
from hookmap.analysis.drawing import Line, Page, heat_tile, lines_page, overlay_of, tiles_page
from hookmap.analysis.frames import SIDE, Array, frames, short

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from hookmap.runs.results import Run

FocusMeasure = Literal["half_area", "entropy"]
MEASURES = ("half_area", "entropy", "border", "corner", "in_box", "in_mask")
"""Of the run's table, that are held against being right; see :class:`hookmap.metrics.summary.Measures`."""


@dataclass(frozen=True, eq=False)
class Focus(Page):
    """The images with the most and with the least focused heatmaps.

    Attributes:
        run: they are of.
        by: the measure: ``"half_area"`` or ``"entropy"``.
        most: rows of the run's table, the most focused first.
        least: rows of the run's table, the least focused first.
    """

    run: Run
    by: FocusMeasure
    most: pd.DataFrame
    least: pd.DataFrame

    def figure(self) -> Image.Image:
        """Overlays: the most focused above, the least focused below."""
        parts = [
            (
                head,
                [
                    (overlay_of(self.run, row, 150), short(one["target"]), f"{_WORDS[self.by]} {one[self.by]:.0%}")
                    for row, one in part.iterrows()
                ],
            )
            for head, part in (("most focused", self.most), ("least focused", self.least))
        ]
        note = {
            "half_area": "the smallest share of what the model saw that holds half of the heat; 50% if it is even",
            "entropy": "entropy of the heat, of what it would be if it were the same everywhere",
        }[self.by]
        return tiles_page("Most and least focused", note, parts)


_WORDS = {"half_area": "half in", "entropy": "entropy"}


def focus(run: Run, by: FocusMeasure = "half_area", *, count: int = 12, asked: str | None = None) -> Focus:
    """The images with the most and with the least focused heatmaps; where there are few, in halves.

    Args:
        run: what was run.
        by: the measure, as in the run's table.
        count: how many of each.
        asked: see ``hookmap.analysis.frames.frames``.

    Raises:
        DataError: if there are no heatmaps of this question; a NotApplicableError if there are none at all.
    """
    table = frames(run, asked=asked).table
    count = max(1, min(count, len(table) // 2))
    values = table[by].fillna(np.inf).to_numpy()
    # Whatever is among the first or the last, ties with them included; only these are sorted by name too.
    low, high = np.partition(values, [count - 1, len(values) - count])[[count - 1, -count]]
    most, least = (table[mine].sort_values([by, "id"], kind="stable") for mine in (values <= low, values >= high))
    ends = most.index[:count], least.index[::-1][:count]
    return Focus(run, by, *(run.table.loc[rows] for rows in ends))


@dataclass(frozen=True, eq=False)
class Outcomes(Page):
    """What was recognised against what wasn't.

    Attributes:
        table: a row per measure of ``MEASURES`` that is known: ``measure``; ``right`` and ``wrong`` (means);
            ``effect`` (Cliff's delta (1993): how often a recognised image has the larger value, minus how often the
            smaller, over all pairs of one of either; from -1 to 1, and 0 where being right tells nothing about it);
            ``n_right`` and ``n_wrong``, which say how far that can be trusted.
        right: ``(side, side)``: the mean heatmap of what was recognised, or None.
        wrong: of what wasn't.
    """

    table: pd.DataFrame
    right: Array | None
    wrong: Array | None

    def figure(self) -> Image.Image:
        """Both mean heatmaps and the measures."""
        tiles = [None if one is None else heat_tile(one, 150) for one in (self.right, self.wrong)]
        told = [
            f"{_NAMES[one.measure]}: {one.right:.1%} right, {one.wrong:.1%} wrong, effect {one.effect:+.2f}"
            for one in self.table.itertuples()
        ]
        n = (int(self.table["n_right"].max()), int(self.table["n_wrong"].max())) if len(self.table) else (0, 0)
        note = "effect: Cliff's delta, -1..1; above 0 where recognised images have the larger value"
        line = Line(f"{n[0]:,} right, {n[1]:,} wrong", told, tiles)
        return lines_page("Right against wrong", note, [line], tile=150, text=400, heads=("right", "wrong"))


_NAMES = {
    "half_area": "area with half of the heat",
    "entropy": "entropy",
    "border": "in the border",
    "corner": "in the strongest corner",
    "in_box": "in the boxes",
    "in_mask": "in the mask",
}


def outcomes(run: Run, *, asked: str | None = None, side: int = SIDE) -> Outcomes:
    """What was recognised against what wasn't: measures of their heatmaps and means.

    Args:
        run: of a classifier over images with labels.
        asked: see ``hookmap.analysis.frames.frames``.
        side: cells of the frame along each side.

    Raises:
        NotApplicableError: if there are no heatmaps, or of no image is it known whether it was recognised.
    """
    import pandas as pd

    found = frames(run, asked=asked, side=side)
    yes = right(found)
    no = judged(run, found) & ~yes
    rows = []
    for name in MEASURES:
        values = found.table[name].to_numpy(float)
        one, other = (values[which & ~np.isnan(values)] for which in (yes, no))
        if len(one) or len(other):
            both = (float(part.mean()) if len(part) else float("nan") for part in (one, other))
            rows.append([name, *both, cliffs_delta(one, other), len(one), len(other)])
    table = pd.DataFrame(rows, columns=["measure", "right", "wrong", "effect", "n_right", "n_wrong"])
    groups = [np.flatnonzero(which) for which in (yes, no)]
    means = [mean if len(rows) else None for mean, rows in zip(found.means_of(groups), groups, strict=True)]
    return Outcomes(table, *means)


def cliffs_delta(one: Array, other: Array) -> float:
    """How often a value of one group is larger than one of another, minus how often smaller (Cliff 1993).

    Args:
        one: ``(m,)``.
        other: ``(n,)``.

    Returns:
        -1..1; NaN if a group is empty.

    >>> cliffs_delta(np.array([3, 4]), np.array([1, 2, 3, 3]))  # 6 pairs larger, none smaller, 2 the same
    0.75
    """
    if not len(one) or not len(other):
        return float("nan")
    ordered = np.sort(other)
    smaller, upto = (np.searchsorted(ordered, one, side) for side in ("left", "right"))
    return float((smaller.sum() + upto.sum()) / (len(one) * len(other)) - 1)
