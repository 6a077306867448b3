"""Where in the frame a model looks: does it look at borders and corners?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hookmap._text import counted
from hookmap.analysis.drawing import Line, Page, heat_tile, lines_page
from hookmap.analysis.frames import REGIONS, SIDE, Array, By, Frames, frames, is_spoken_for, short

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from hookmap.runs.results import Run

LEAST, TIMES, ERRORS = 10, 1.5, 3.0
"""Of the rule in :class:`Places`."""
_SHOWN, _TILE = 12, 84


@dataclass(frozen=True, eq=False)
class Places(Page):
    """Where heatmaps lie in their pictures, against maps that are the same wherever the model sees.

    A class is flagged where it has 10 heatmaps or more and in the border or in one corner a share s of its heat, whose
    standard error over its heatmaps is e, against a share u of a map that is the same wherever the model sees, with
    s - 3 e > 1.5 u: it looks there clearly more than if it looked nowhere in particular. It isn't, where more of its
    heatmaps show no evidence than do.

    Attributes:
        by: what the classes are.
        table: a row for all heatmaps (without ``name``) and one per class: ``name``, ``count``, ``silent`` (heatmaps
            that show no evidence, and are in no share); ``border`` (share of
            the heat in the picture's outer tenth on each side, 0..1), ``border_uniform`` (of a map that is the same
            wherever the model sees); ``corner`` (the share in the corner where it exceeds its uniform share most; a
            corner is a fifth of the height and width), ``corner_uniform``, ``corner_name``; ``flag`` (why it is
            flagged, in words, or an empty string).
        mean: ``(side, side)``: the mean of all heatmaps; it sums to 1.
        uniform: ``(side, side)``: the mean of the maps that are the same wherever the model sees.
        maps: ``(classes, side, side)``: the means of the classes, in the order of the table after its first row.
    """

    by: By
    table: pd.DataFrame
    mean: Array
    uniform: Array
    maps: Array

    @property
    def flagged(self) -> pd.DataFrame:
        """The rows of the table with a flag."""
        return self.table[self.table["flag"] != ""]

    def figure(self) -> Image.Image:
        """All heatmaps, what they are held against, and up to 12 classes: the flagged, then those nearest the edge."""
        lifts = self.table["border"] / self.table["border_uniform"].clip(lower=1e-9)
        order = sorted(self.table.index[1:], key=lambda i: (self.table.loc[i, "flag"] == "", -lifts[i]))[:_SHOWN]
        first = [heat_tile(self.mean, _TILE), heat_tile(self.uniform, _TILE)]
        lines = [self._line(0, "all", first)]
        lines += [self._line(i, short(self.table.loc[i, "name"]), [heat_tile(self.maps[i - 1], _TILE)]) for i in order]
        flagged = int((self.table["flag"] != "").sum())
        note = f"{flagged or 'no'} flag{'s' * (flagged != 1)}; in brackets: of an even map of what the model sees"
        return lines_page("Where in the frame", note, lines, heads=("mean", "seen"), text=330, tile=_TILE)

    def _line(self, i: int, name: str, tiles: list[Image.Image]) -> Line:
        row = self.table.loc[i]
        notes = [
            counted(int(row["count"]), "heatmap"),
            f"border {row['border']:.0%} ({row['border_uniform']:.0%})",
            f"{row['corner_name']} corner {row['corner']:.0%} ({row['corner_uniform']:.0%})",
        ]
        return Line(name, notes, tiles, row["flag"])


def places(run: Run, by: By = "prediction", *, asked: str | None = None, side: int = SIDE) -> Places:
    """Where in the frame a model looks, over all and per class.

    Args:
        run: what was run.
        by: what the classes are: ``"prediction"``, ``"label"`` or ``"target"``.
        asked: as in ``hookmap.analysis.frames.frames``, and what it raises.
        side: cells of the frame along each side.
    """
    import pandas as pd

    heat = frames(run, asked=asked, side=side)
    groups: list[tuple[str | None, Array]] = [(None, np.arange(len(heat))), *heat.groups(by).items()]
    table = pd.DataFrame([_row(heat, by, name, rows) for name, rows in groups])
    return Places(by, table, heat.mean, heat.uniform_mean, heat.means(by))


def _row(heat: Frames, by: By, name: str | None, rows: Array) -> dict[str, Any]:
    shares, uniform = heat.shares[rows], heat.uniform_shares[rows].mean(0)
    mean = shares.mean(0)
    flags = [""] * len(REGIONS)
    silent = heat.silent_of(by, name)
    if len(rows) >= LEAST and is_spoken_for(len(rows), silent):
        error = shares.std(0, ddof=1) / np.sqrt(len(rows))
        for k in np.flatnonzero(mean - ERRORS * error > TIMES * uniform):
            where = REGIONS[k] if k == 0 else f"{REGIONS[k]} corner"
            times = f"{mean[k] / uniform[k]:.1f} times" if uniform[k] > 0 else "more than"
            flags[k] = f"{where}: {mean[k]:.0%} of the heat, {times} an even map's"
    # A corner lies in the border too; what it says is more exact.
    corner = 1 + int(np.argmax(mean[1:] - uniform[1:]))
    return {
        "name": name,
        "count": len(rows),
        "silent": silent,
        "border": float(mean[0]),
        "border_uniform": float(uniform[0]),
        "corner": float(mean[corner]),
        "corner_uniform": float(uniform[corner]),
        "corner_name": REGIONS[corner],
        "flag": flags[corner] or next(filter(None, flags), ""),
    }
