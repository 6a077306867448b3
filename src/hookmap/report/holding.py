"""Which heatmaps of a large run its page holds: nobody looks through a million of them, and no browser opens them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from hookmap.report.blocks import Block, Section
from hookmap.runs.results import Run

WHOLE = 20_000
"""Runs of so many rows are held as a whole."""
SPREAD, EACH = 10_000, 120
"""Of larger ones so many heatmaps, spread evenly, and the first so many of each group."""


def held(run: Run, shown: Iterable[Section]) -> Sequence[int]:
    """The rows of a run's table that its page holds; sections are changed to name them by their places in it.

    Args:
        run: whose sections they are.
        shown: the sections, whose groups name rows of its table; what is beyond these rows are other runs'.
    """
    count = len(run.table)
    if count <= WHOLE:
        return range(count)
    groups = [group for section in shown for group in _groups(section.blocks)]
    for group in groups:
        if len(group.get("rows", ())) > EACH:
            group["rows"] = group["rows"][:EACH]
            group["notes"] = [*group["notes"], f"the first {EACH} are on this page"]
    named = [row for group in groups for row in _rows(group) if row < count]
    there = run.of_heatmaps(["id"]).index.to_numpy()
    spread = there[np.linspace(0, len(there) - 1, min(SPREAD, len(there))).round().astype(int)]
    rows: list[int] = np.union1d(np.array(named, int), spread).tolist()
    place = {row: number for number, row in enumerate(rows)}
    for group in groups:
        if "rows" in group:
            group["rows"] = [place.get(row, row - count + len(rows)) for row in group["rows"]]
        if "patches" in group:
            group["patches"] = [[place[row], y, x] for row, y, x in group["patches"]]
    return rows


def held_in_words(run: Run, rows: Sequence[int]) -> str:
    """What the gallery lacks, in a sentence; empty if nothing."""
    if len(rows) == len(run.table):
        return ""
    every = len(run.of_heatmaps(["id"]))
    return (
        f"{len(rows):,} of {every:,} heatmaps: {SPREAD:,} spread evenly over the run, and those that the other parts "
        "of this page show. All numbers are of the whole run; hookmap serve --run shows every heatmap."
    )


def _groups(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        if block["kind"] == "groups":
            yield from block["items"]


def _rows(group: Block) -> Iterator[int]:
    yield from group.get("rows", ())
    yield from (row for row, _, _ in group.get("patches", ()))
