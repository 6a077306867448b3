"""The page: put together and written whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hookmap._files import save_image, written_whole
from hookmap._progress import Track, tracking
from hookmap.errors import HookmapError
from hookmap.pages import embedded, render_page
from hookmap.report.blocks import Section
from hookmap.report.comparison import compared
from hookmap.report.head import header
from hookmap.report.holding import held, held_in_words
from hookmap.report.packing import (
    Part,
    packed_maps,
    packed_pictures,
    packed_table,
    palettes,
    title_of,
)
from hookmap.report.piles import stacked
from hookmap.report.sections import errors, sections
from hookmap.runs.results import Run, open_run
from hookmap.runs.rows import COLUMNS

INLINE = 12_000_000
"""So many characters of maps and pictures are held in the page itself; beyond that they lie beside it."""
# What figures are called: others in their folder may be somebody's own.
_FIGURE = re.compile(r"places|classes-by-\w+|right-and-wrong|confusions|clusters|channels-\d+|focus|comparison")


def write_report(
    run: Run | str | Path,
    out: str | Path | None = None,
    *,
    versus: Run | str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Write a page that shows what a run found, and the same as figures.

    The page needs no network and no server, and opens fast however long the run is: its numbers are of all rows, and of
    a run of more than 20,000 it shows the heatmaps that its sections name and 10,000 spread evenly over the run. Maps
    and small pictures lie in it, or beside it in ``report_files/`` where they would make it larger than some 12 MB.
    ``report_figures/`` beside it holds the sections as PNG; both folders begin with the page's own name. It names
    pictures by their ids, and no folder of this machine.

    Args:
        run: what was run, or its folder.
        out: the page; by default ``report.html`` in the run's folder.
        versus: an earlier run over the same images, or its folder, to compare with.
        progress: show a bar on a terminal.

    Returns:
        Where the page is.

    Raises:
        DataError: if a folder holds no run, a part of it is damaged, or both have no heatmap in common.
        HookmapError: if the place can't be written. What was there before stays whole.
    """
    run = run if isinstance(run, Run) else open_run(run)
    out = run.folder / "report.html" if out is None else Path(out).expanduser()
    if out.suffix.lower() not in (".html", ".htm"):
        raise HookmapError(f"{out.name!r} doesn't end in .html; pass the page's own path as -o (out=)")
    beside = out.with_name(f"{out.stem}_files")
    try:
        with tracking(progress) as track:
            shown = sections(run, track)
            others = list[Part]()
            if versus is not None:
                other = versus if isinstance(versus, Run) else open_run(versus)
                section, rows = compared(run, other)
                shown.append(section)
                others.append((other, rows))
            here = held(run, shown)
            shown += filter(None, (Section("gallery", "Heatmaps", held_in_words(run, here)), errors(run)))
            text, scripts = _page([(run, here), *others], shown, beside, track)
            with written_whole(out) as place:
                place.write_text(text, encoding="utf-8")
            _tidy(beside, beside.glob("*-*.js"), scripts)
            _draw(shown, out.with_name(f"{out.stem}_figures"), track)
    except OSError as error:
        raise HookmapError(
            f"{out} can't be written ({error.strerror or error}); pass another place as -o (out=)"
        ) from None
    return out


def _draw(shown: Sequence[Section], folder: Path, track: Track) -> None:
    """Write the figures of sections, and remove those of an earlier page."""
    pages = {f"{name}.png": page for section in shown for name, page in section.pages.items()}
    done = track("figures", len(pages))
    for name, page in pages.items():
        save_image(page.figure(), folder / name)
        done(1)
    _tidy(folder, (one for one in folder.glob("*.png") if _FIGURE.fullmatch(one.stem)), {*pages})


def _page(parts: Sequence[Part], shown: Sequence[Section], beside: Path, track: Track) -> tuple[str, set[str]]:
    """The page, and the names of the scripts that lie beside it."""
    import pandas as pd

    run, here = parts[0]
    table = pd.concat([one.table.iloc[[*rows]] for one, rows in parts], ignore_index=True)
    maps = packed_maps(parts, track)
    pictures, numbers = packed_pictures(run, here)
    chunks, piles, scripts = stacked([maps.pile, pictures], beside, INLINE)
    data = {
        "count": len(here),
        "sections": [{"name": one.name, "blocks": one.blocks} for one in shown],
        "table": packed_table(table),
        "columns": [[name, column.group, column.unit] for name, column in COLUMNS.items() if name != "path"],
        "piles": piles,
        "grids": maps.grids,
        "gridOf": maps.grid_of,
        "pictureOf": [numbers.get(name, -1) for name in table["id"]],
        "steps": maps.steps,
        "looks": maps.looks,
        "lookOf": maps.look_of,
        "starts": maps.starts,
        "caveats": maps.caveats,
        "titles": {name: title_of(name) for name in table["method"].dropna().unique()},
        "palettes": palettes(maps.looks),
    }
    text = render_page(
        "report",
        script="report.js",
        beside=bool(scripts),
        sections=shown,
        chunks=chunks,
        data=embedded(data),
        **header(run),
    )
    return text, scripts


def _tidy(folder: Path, written: Iterable[Path], kept: set[str]) -> None:
    """Remove what an earlier page wrote into a folder beside it, and the folder if nothing is left."""
    for path in [*written]:
        if path.name not in kept:
            path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
