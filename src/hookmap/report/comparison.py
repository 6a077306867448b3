"""The section about two runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hookmap.analysis import compare
from hookmap.analysis.frames import short
from hookmap.report.blocks import Section, groups_block, table_block
from hookmap.report.packing import without_folders
from hookmap.runs.results import Run

if TYPE_CHECKING:
    import pandas as pd


def compared(run: Run, versus: Run, most: int = 60) -> tuple[Section, list[int]]:
    """What is different from another run over the same images, and the rows of the other's table that are shown.

    On the page these rows come after those of the run itself.

    Raises:
        DataError: if they have no heatmap in common.
    """
    comparison = compare(versus, run)
    table, shown = comparison.table, comparison.table[comparison.table["moved"].notna()].head(most)
    names = _told_apart(versus, run)
    counts = {
        "in both": len(table),
        f"only in {names[0]}": comparison.only_before,
        f"only in {names[1]}": comparison.only_after,
        "predictions that changed": int(table["changed"].sum()),
        f"recognised by {names[0]} alone": _alone(table, "before", "after"),
        f"recognised by {names[1]} alone": _alone(table, "after", "before"),
    }
    measures = [
        ["share of the heat that moved", *table["moved"].quantile([0.1, 0.5, 0.9])],
        ["cosine", *table["cosine"].quantile([0.1, 0.5, 0.9])],
        ["rank correlation", *table["rank_correlation"].quantile([0.1, 0.5, 0.9])],
    ]
    blocks = [
        table_block([("text", "Heatmaps"), ("number", "")], [[name, number] for name, number in counts.items()]),
        table_block(
            [("text", "Over all"), *(("decimal", title) for title in ("lowest tenth", "median", "highest tenth"))],
            measures,
        ),
    ]
    groups = [
        {
            "title": one.id,
            "notes": [
                f"{one.moved:.0%} of the heat moved",
                f"cosine {one.cosine:.2f}"
                + f", rank correlation {one.rank_correlation:.2f}" * (not np.isnan(one.rank_correlation)),
            ],
            "flag": f"{short(one.prediction_before)} became {short(one.prediction_after)}" if one.changed else "",
            "rows": [len(run.table) + k, int(one.row_after)],
            "captions": list(names),
            "name": one.id,
        }
        for k, one in enumerate(shown.itertuples())
    ]
    if groups:
        blocks.append(groups_block(groups, title="What moved most", strip=2, search="Find an image or a class"))
    note = f"{names[0]}, then {names[1]}. Open a pair and press the arrow keys to see one after the other."
    return Section("comparison", "Two runs", note, blocks, {"comparison": comparison}), [*map(int, shown["row_before"])]


def _alone(table: pd.DataFrame, one: str, other: str) -> int:
    """How many images one run recognises and the other doesn't."""
    return int(((table[f"correct_{one}"] == True) & (table[f"correct_{other}"] == False)).sum())  # noqa: E712


def _told_apart(one: Run, other: Run) -> tuple[str, str]:
    """Names of two runs."""
    for names in (
        (one.folder.name, other.folder.name),
        (without_folders(str(one.about["model"]["name"])), without_folders(str(other.about["model"]["name"]))),
    ):
        if names[0] != names[1]:
            return names
    places = one.folder.absolute().parts, other.folder.absolute().parts
    for depth in range(2, max(map(len, places))):  # no more of where they lie than tells them apart
        names = "/".join(places[0][-depth:]), "/".join(places[1][-depth:])
        if names[0] != names[1]:
            break
    return names
