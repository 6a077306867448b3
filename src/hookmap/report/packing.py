"""From a run to what its page reads: columns, maps and pictures."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch.nn.functional import interpolate

from hookmap._progress import Track, silent
from hookmap.methods import METHODS
from hookmap.render.colors import Array, Heat, normalize, palette
from hookmap.render.look import DEFAULT_COLORMAP, Look
from hookmap.report.piles import Pile
from hookmap.runs.results import Run
from hookmap.runs.rows import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

FINEST = 32
"""Maps on larger grids are shrunk to this many cells per side."""
# From the start of a word to the last separator that something follows; folders may hold spaces.
_FOLDERS = re.compile(r"""(?<![^\s'"(=])(?:[A-Za-z]:)?[/\\](?=[^\s,;:'")])(?:[^/\\,;:'"\n]*[/\\](?=[^\s,;:'")]))*""")

Part: TypeAlias = "tuple[Run, Sequence[int]]"
"""Rows of a run's table."""


def packed_table(table: pd.DataFrame) -> dict[str, Any]:
    """All columns of a run's table but ``path``, each as a page can read it fast and with nothing lost.

    A page is handed on, and where pictures lay on a disk is no business of those who get it: errors name ids for paths.
    Real numbers are little-endian float32 in base64, NaN where there's none; whole numbers, texts and yes or no are
    lists with null, and texts of few words ``{"words": [...], "codes": [...]}`` with -1 for none.
    """
    shown = table.assign(error=errors_by_id(table))
    return {name: _packed(shown[name], column.kind) for name, column in COLUMNS.items() if name != "path"}


def errors_by_id(table: pd.DataFrame) -> pd.Series[Any]:
    """The column ``error`` with ids in the place of paths."""
    import pandas as pd

    errors = map(error_by_id, table["error"], table["path"], table["id"])
    return pd.Series([*errors], table.index, dtype=object)


def error_by_id(error: Any, path: Any, name: str) -> str | None:
    """What went wrong with an image, with its id in the place of its path; None if nothing did."""
    if not isinstance(error, str):
        return None
    return without_folders(error.replace(path, name) if isinstance(path, str) else error)


def without_folders(text: str) -> str:
    """A text in which absolute paths are only their last part.

    >>> without_folders("CIFAR10 /home/ada/data, C:\\\\new photos\\\\cats; pets/a.jpg")
    'CIFAR10 data, cats; pets/a.jpg'
    """
    return _FOLDERS.sub("", text)


def _packed(column: pd.Series[Any], kind: str) -> Any:
    if kind == "float32":
        return {"real": base64.b64encode(column.to_numpy("<f4", na_value=np.nan).tobytes()).decode("ascii")}
    missing = column.isna().to_numpy()
    if kind == "int32":
        return [None if gone else int(value) for value, gone in zip(column, missing, strict=True)]
    if kind == "bool":
        return [None if gone else bool(value) for value, gone in zip(column, missing, strict=True)]
    codes, words = column.factorize()
    if len(words) > len(column) / 2:
        return [None if gone else str(value) for value, gone in zip(column, missing, strict=True)]
    return {"codes": codes.tolist(), "words": [str(word) for word in words]}


@dataclass(frozen=True, eq=False)
class PackedMaps:
    """The heatmaps of rows, ready to be drawn by a page.

    Attributes:
        pile: of each row its shares of its scale, as little-endian uint16; nothing where there's no heatmap.
        grids: (h, w) of the grids that there are.
        grid_of: which of them each row has; -1 for none.
        steps: of clips, which are summed over time, how many steps, by row.
        looks: how heatmaps are drawn, as JSON.
        look_of: which of them each row has; -1 for none.
        starts: of each row the strength from which on a ramp has colour; None: there's nothing to draw.
        caveats: why there's little or nothing to see, by row.
    """

    pile: Pile
    grids: list[list[int]]
    grid_of: list[int]
    steps: dict[int, int]
    looks: list[dict[str, Any]]
    look_of: list[int]
    starts: list[float | None]
    caveats: dict[int, str]


def packed_maps(parts: Sequence[Part], track: Track = silent) -> PackedMaps:
    """All heatmaps of rows, each as it is drawn by :meth:`hookmap.Heatmap.overlay`."""
    count = sum(len(rows) for _, rows in parts)
    grids: dict[tuple[int, ...], int] = {}
    looks: dict[Look, int] = {}
    packed = PackedMaps(Pile("maps", [b""] * count), [], [-1] * count, {}, [], [-1] * count, [None] * count, {})
    maps, first = [b""] * count, 0
    done = track("heatmaps", count)
    for run, rows in parts:
        explained = run.table["target"].notna().to_numpy()
        numbers = {row: number for number, row in enumerate(rows, first) if explained[row]}
        for row, heatmap in run.heatmaps([*numbers], over="nothing"):
            heat, number = heatmap.heat(), numbers[row]
            if heatmap.raw.ndim == 3:
                packed.steps[number] = len(heatmap.raw)
            if heatmap.caveat:
                packed.caveats[number] = heatmap.caveat
            shares = shrunk(heat)
            maps[number] = np.round(65535 * shares).astype("<u2").tobytes()
            packed.grid_of[number] = grids.setdefault(shares.shape, len(grids))
            packed.look_of[number] = looks.setdefault(heatmap.look, len(looks))
            packed.starts[number] = None if heat.blank else float(f"{heat.start:.5g}")
            done(1)
        first += len(rows)
    packed.grids.extend([*shape] for shape in grids)
    packed.looks.extend(look.as_json() for look in looks)
    return replace(packed, pile=Pile("maps", maps))


def in_bytes(values: Array) -> Array:
    """Values from 0 up as uint8, as shares of the largest."""
    return np.round(255 * normalize(values, 0, float(values.max(initial=0)))).astype(np.uint8)


def shrunk(heat: Heat, finest: int = FINEST) -> Array:
    """Its shares on a grid with no more cells per side: means of what they take the place of, as strong at the most."""
    shares, zero = heat.shares, 0.5 if heat.look.symmetric else 0.0
    size = [min(side, finest) for side in shares.shape]
    if size == [*shares.shape]:
        return shares
    means: Array = interpolate(torch.from_numpy(shares)[None, None] - zero, size=size, mode="area")[0, 0].numpy()
    most = np.abs(means).max()
    return np.clip(zero + means * (np.abs(shares - zero).max() / most if most > 0 else 1), 0, 1)


def packed_pictures(run: Run, rows: Sequence[int]) -> tuple[Pile, dict[str, int]]:
    """The small JPEGs of the images of rows, and the number of each by its image's id."""
    table = run.table["id"].iloc[[*rows]].drop_duplicates()
    found = {row: data for row, data in run.thumbnails.of([*table.index]) if data}
    shown = table[table.index.isin(found)]
    return Pile("pictures", [found[row] for row in shown.index]), {name: i for i, name in enumerate(shown)}


def palettes(looks: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The colours that looks use, from the lowest to the highest, RGB, in base64, by name; the usual ones too."""
    names = dict.fromkeys([DEFAULT_COLORMAP, *(look["colormap"] for look in looks)])
    return {name: base64.b64encode(palette(name).astype(np.uint8).tobytes()).decode("ascii") for name in names}


def title_of(method: str) -> str:
    """A method's name as figures show it."""
    return METHODS[method].title if method in METHODS else method
