"""What reveals a model, section by section."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from hookmap._optional import require
from hookmap._progress import Track, silent
from hookmap.analysis import (
    ClassMeans,
    Confusion,
    channel_atlas,
    class_means,
    clusters,
    confusions,
    focus,
    outcomes,
    places,
)
from hookmap.analysis.channel_atlas import tied
from hookmap.analysis.clusters import LEAST
from hookmap.analysis.frames import By, NotApplicableError, frames, short
from hookmap.errors import MissingLibraryError
from hookmap.report.blocks import Block, Section, coded, framed, frames_block, groups_block, table_block, text_block
from hookmap.report.packing import errors_by_id
from hookmap.runs.results import Run

if TYPE_CHECKING:
    import pandas as pd


_LISTED = 2000
"""Lines of a table at most."""


def sections(run: Run, track: Track = silent) -> list[Section]:
    """The sections that this run has something for.

    Raises:
        DataError: if a part of the run is damaged.
    """
    makers = (_places, _classes, _outcomes, _clusters, _channels, _focus)
    made, done = [], track("sections", len(makers))
    for make in makers:
        with suppress(NotApplicableError):
            made.append(make(run))
        done(1)
    return made


def errors(run: Run) -> Section | None:
    """What couldn't be read or explained, or None."""
    if not len(run.errors):
        return None
    columns = [("text", "image"), ("text", "error")]
    first = run.errors.head(_LISTED)
    rows = [[*row] for row in zip(first["id"], errors_by_id(first), strict=True)]
    few = "" if len(first) == len(run.errors) else f" The first {len(first):,} of {len(run.errors):,}."
    note = f"Images that couldn't be read or explained.{few}"
    return Section("errors", "Errors", note, [table_block(columns, rows)])


def _places(run: Run) -> Section:
    page = places(run, _usual(run))
    everything = page.table.iloc[0]
    shown = f"{everything['count']:,} heatmaps" + (" that show evidence" if everything["silent"] else "")
    maps = [
        framed(page.mean, "Mean of all heatmaps", shown),
        framed(
            page.uniform, "If it looked nowhere in particular", "the same wherever it sees", 4 * page.uniform.mean()
        ),
    ]
    rows = [
        ["Border, the outer tenth", everything["border"], everything["border_uniform"]],
        [f"Strongest corner, {everything['corner_name']}", everything["corner"], everything["corner_uniform"]],
    ]
    shares = table_block(
        [("text", "Share of the heat in"), ("percent", "heatmaps"), ("percent", "spread evenly")],
        rows,
    )
    blocks = [frames_block(maps), shares]
    flagged = page.flagged[page.flagged["name"].notna()]
    if len(flagged):
        rows = [
            [name, int(count), flag] for name, count, flag in flagged[["name", "count", "flag"]].itertuples(index=False)
        ]
        blocks.append(
            table_block(
                [("class", "Looks at an edge"), ("number", "heatmaps"), ("flag", "why it is flagged")],
                rows,
                column=page.by,
            )
        )
    note = (
        "All pictures squeezed into one square. A model that looks at borders or corners may have learned a watermark."
    )
    return Section("places", "Where it looks", note, blocks, {"places": page})


def _classes(run: Run) -> Section:
    means = {by: class_means(run, by) for by in _kinds(run)}
    note = (
        "Mean heatmap of each class. Half the heat in: the smallest share of what the model saw that holds half of the "
        "heat. Elsewhere: the share of the heat that lies elsewhere than in the mean of all."
    )
    blocks = [_class_table(run, page) for page in means.values()]
    return Section("classes", "Classes", note, blocks, {f"classes-by-{by}": page for by, page in means.items()})


def _class_table(run: Run, means: ClassMeans) -> Block:
    """A row per class of which there are several heatmaps; columns of which nothing is known are left out."""
    several = means.table["count"] > 1
    kind = {"label": "labelled", "prediction": "predicted", "target": "asked for"}[means.by]
    if not several.any():
        return text_block(
            f"Each class that is {kind} has one heatmap, so there are no means of classes; the gallery shows them all."
        )
    edges = places(run, means.by).table.iloc[1:].set_index("name")
    measured = _measured(run, means.by)
    rows = []
    for heat, (_, row) in zip(means.maps[several], means.table[several].iterrows(), strict=True):
        edge, its = edges.loc[row["name"]], measured.loc[row["name"]]
        rows.append(
            [
                *(coded(heat), row["name"], int(row["count"])),
                *(its["correct"], its["probability"], its["half_area"], edge["border"], edge["corner"]),
                *(row["distance"], "more than by chance" if row["far"] else ""),
            ]
        )
    columns = [
        ("frame", "mean map"),
        ("class", kind.capitalize()),
        ("number", "heatmaps"),
        ("percent", "correct"),
        ("percent", "probability"),
        ("percent", "half the heat in"),
        ("percent", "border"),
        ("percent", "corner"),
        ("percent", "elsewhere"),
        ("text", ""),
    ]
    empty = {k for k in range(3, 9) if all(not np.isfinite(row[k]) for row in rows)}
    keep = [k for k in range(len(columns)) if k not in empty]
    return table_block([columns[k] for k in keep], [[row[k] for k in keep] for row in rows], column=means.by)


def _outcomes(run: Run) -> Section:
    means, page = outcomes(run), confusions(run)
    maps = [
        framed(one, title, "mean heatmap")
        for one, title in ((means.right, "Recognised"), (means.wrong, "Not recognised"))
        if one is not None
    ]
    columns = [("text", "Mean of"), ("percent", "recognised"), ("percent", "not recognised"), ("decimal", "effect")]
    rows = [
        [_MEASURES.get(one.measure, one.measure), one.right, one.wrong, one.effect] for one in means.table.itertuples()
    ]
    blocks: list[Block] = [frames_block(maps)]
    if means.right is not None and means.wrong is not None:
        blocks.append(table_block(columns, rows))
    if page.pairs:
        title = "Pairs of classes that are confused"
        blocks.append(groups_block([*map(_pair, page.pairs)], title=title, strip=4, search="Find a class"))
    elif page.wrong:
        blocks.append(text_block("No two classes are confused more than once."))
    if page.wrong:
        blocks += _mistakes(run)
    note = (
        f"{page.wrong:,} of {page.labelled:,} images aren't recognised. Effect: how often a recognised image has the "
        "larger value, minus how often the smaller (Cliff's delta); 0 says that being right has nothing to do with it."
    )
    return Section("outcomes", "Right and wrong", note, blocks, {"right-and-wrong": means, "confusions": page})


def _mistakes(run: Run) -> list[Block]:
    """The images that aren't recognised, the surest mistakes first."""
    told = run.table[["id", "label", "prediction", "probability"]]
    images = told[run.table["correct"].eq(False)].drop_duplicates("id")
    surest = images.sort_values("probability", ascending=False, kind="stable").head(_LISTED)
    rows = [[image.id, short(image.label), short(image.prediction), image.probability] for image in surest.itertuples()]
    columns = [("text", "Mistakes, the surest first"), ("text", "labelled"), ("text", "predicted")]
    group = {
        "title": "All mistakes" if len(surest) == len(images) else f"{len(surest):,} of {len(images):,} mistakes",
        "notes": ["the surest first"],
        "frames": [],
        "rows": _rows_of(run, surest["id"]),
        "name": "mistakes",
    }
    return [groups_block([group], strip=12), table_block([*columns, ("percent", "probability")], rows)]


def _rows_of(run: Run, ids: Iterable[str]) -> list[int]:
    """The first row with a heatmap of each image that has one."""
    first = _first_rows(run, ids)
    return [first[name] for name in ids if name in first]


def _first_rows(run: Run, ids: Iterable[str]) -> dict[str, int]:
    """Of those of some images that have heatmaps the first row of each, by their ids."""
    every = run.of_heatmaps(["id"])["id"]
    found = every[every.isin([*ids])].drop_duplicates()
    return dict(zip(found, map(int, found.index), strict=True))


def _pair(pair: Confusion) -> dict[str, Any]:
    """Two classes that are confused, as a group."""
    names = short(pair.label), short(pair.prediction)
    maps = (pair.label_map, f"{names[0]}, right"), (pair.map, "this pair"), (pair.prediction_map, f"{names[1]}, right")
    return {
        "title": names[0],
        "notes": [f"taken for {names[1]}", f"{pair.count:,} images, {pair.share:.0%} of the class"],
        "frames": [framed(heat, title) for heat, title in maps if heat is not None],
        "rows": pair.rows,
        "name": f"{names[0]} taken for {names[1]}",
    }


def _clusters(run: Run, most: int = 60) -> Section:
    try:
        require("sklearn", extra="dataset")
    except MissingLibraryError as error:
        return Section("clusters", "Clusters", f"Heatmaps that are alike can't be found here: {error}.")
    page = clusters(run, by=_usual(run))
    if not len(page):  # no class is large enough
        page = clusters(run, by=None)
    groups = []
    for cluster in page.clusters[:most]:
        notes = [f"{cluster.size:,} heatmaps" + ("" if cluster.name is None else f", {cluster.share:.0%} of the class")]
        if cluster.label is not None:
            notes.append(f"{cluster.purity:.0%} labelled {short(cluster.label)}")
        if not np.isnan(cluster.accuracy):
            notes.append(f"{cluster.accuracy:.0%} recognised")
        notes += [
            f"suspicion {cluster.suspicion:.2f}",
            f"{cluster.separation:.2f} apart, {cluster.outside:.2f} outside",
            f"border {cluster.border:.0%}, {cluster.corner_name} corner {cluster.corner:.0%}",
        ]
        group = {"title": cluster.title, "notes": notes, "name": cluster.title, "rows": cluster.rows}
        group |= {"flag": "worth a look" if cluster.flagged else "", "frames": [framed(cluster.map, "mean")]}
        groups.append(group)
    note = (
        "Heatmaps of a class that are alike, the most suspicious first: a group of its own that looks past the inside "
        "of the picture may follow a watermark, a frame or a caption (a Clever Hans). Suspicion is how far apart from "
        "its class it is, times how far outside it looks, each 0 to 1."
    )
    if page.taken < page.among:
        note += f" They are sought among {page.taken:,} of {page.among:,} heatmaps, spread evenly over each class."
    if groups:
        blocks = [groups_block(groups, strip=7, search="Find a class")]
    elif page.vectors:
        blocks = [text_block("No heatmaps of a class are so alike, and so unlike the others, that they form a group.")]
    else:
        blocks = [text_block(f"There are too few heatmaps: groups are sought among {2 * LEAST} of a class or more.")]
    return Section("clusters", "Clusters", note, blocks, {"clusters": page})


def _channels(run: Run, most: int = 4000) -> Section:
    """Of each layer the channels whose strongest images are most of one class; dead ones are only counted."""
    if not run.channels:
        raise NotApplicableError(f"{run.folder} holds nothing of channels")
    blocks, pages = [], {}
    for place, layer in enumerate(run.channels, 1):
        page = channel_atlas(run, layer)
        alive = page.table[~page.table["dead"]]
        by = "label" if alive["label"].notna().any() else "prediction"
        purest = alive.sort_values([f"{by}_share", "strongest"], ascending=False, kind="stable")
        places = page.statistics.strongest_places
        if places.shape[2] != 2:
            continue
        pages[f"channels-{place}"] = page
        rows = _first_rows(run, {name for names in page.statistics.strongest_images for name in names if name})
        items = []
        for channel in purest.head(most // len(run.channels)).itertuples():
            strongest = f"strongest {channel.strongest:.3g}{tied(channel.ties)}"
            notes = [f"{strongest}, {channel.sparsity:.0%} of values 0 or below"]
            for kind, name, share in (
                ("labelled", channel.label, channel.label_share),
                ("predicted", channel.prediction, channel.prediction_share),
            ):
                if isinstance(name, str):
                    notes.append(f"{share:.0%} {kind} {short(name)}")
            number = channel.channel
            where = zip(page.statistics.strongest_images[number], places[number].tolist(), strict=True)
            patches = [[rows[name], round(y, 3), round(x, 3)] for name, (y, x) in where if name in rows]
            title = f"channel {number}"
            items.append({"title": title, "notes": notes, "patches": patches, "field": [*page.field]})
        dead = f", {len(page.dead):,} dead" if page.dead else ""
        shown = "" if len(items) == len(alive) else f", the {len(items):,} purest shown"
        title = f"{layer}: {len(page.table):,} channels{dead}{shown}"
        blocks.append(groups_block(items, title=title, search="Find a class or channel"))
    note = (
        "The parts of pictures that excite a channel most, the strongest first; channels whose strongest pictures are "
        "of one class come first. Search for a class to see what stands for it."
    )
    return Section("channels", "Channels", note, blocks, pages)


def _focus(run: Run) -> Section:
    page = focus(run)
    groups = [
        {"title": title, "notes": [note], "frames": [], "rows": [*map(int, part.index)], "name": title.lower()}
        for title, note, part in (
            ("Most focused", "half of the heat in the smallest area", page.most),
            ("Least focused", "half of the heat in the largest area", page.least),
        )
    ]
    note = "Sort the gallery by focus to see all between them."
    return Section("focus", "Focus", note, [groups_block(groups, strip=12)], {"focus": page})


_MEASURES = {
    "half_area": "area that holds half of the heat",
    "entropy": "entropy",
    "border": "share in the border",
    "corner": "share in the strongest corner",
    "in_box": "share in the boxes",
    "in_mask": "share in the mask",
}


def _kinds(run: Run) -> list[By]:
    """What the classes of a run may be: labels, predictions, or, where there are neither, targets."""
    shown = run.of_heatmaps(["label", "prediction"])
    kinds: list[By] = [by for by in ("label", "prediction") if shown[by].nunique() > 1]
    return kinds or ["target"]


def _usual(run: Run) -> By:
    return _kinds(run)[0]


def _measured(run: Run, by: By) -> pd.DataFrame:
    """Means of a class's columns."""
    shown = frames(run).table
    columns = ["correct", "probability", "half_area"]
    means: pd.DataFrame = shown[columns].astype(float).groupby(shown[by]).mean()
    return means
