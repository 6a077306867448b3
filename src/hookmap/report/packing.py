"""From a run to what its page reads: columns, maps and pictures."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch.nn.functional import interpolate

from hookmap.methods import METHODS
from hookmap.render.colors import Array, colorize, limits
from hookmap.render.overlay import DEFAULT_COLORMAP, SIGNED_COLORMAP
from hookmap.report.piles import Pile
from hookmap.runs.results import Run
from hookmap.runs.rows import COLUMNS, flattened, geometry_of

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 160
"""Longer side of pictures in pixels, where limits depend on it."""
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

    told = [
        without_folders(error.replace(path, name) if isinstance(path, str) else error)
        if isinstance(error, str)
        else None
        for name, path, error in zip(table["id"], table["path"], table["error"], strict=True)
    ]
    return pd.Series(told, table.index, dtype=object)


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


def packed_maps(parts: Sequence[Part]) -> tuple[Pile, list[list[int]], list[int], dict[int, int]]:
    """The maps of rows as bytes, the grids that there are and which of them each row has; -1 where there's no map.

    Last, of clips, whose maps are summed over time, how many steps: by row.
    A value is its share of the map's largest magnitude: 0..255, or 1..255 around 128 where it is signed.
    """
    grids: dict[tuple[int, ...], int] = {}
    packed, kinds = [], []
    steps: dict[int, int] = {}
    for run, rows in parts:
        for values, signed in zip(run.values(rows), run.table["part"].iloc[[*rows]] == "signed", strict=True):
            if not values.size:
                packed.append(b"")
                kinds.append(-1)
                continue
            if values.ndim == 3:
                steps[len(kinds)] = len(values)
            flat = shrunk(flattened(np.nan_to_num(values)))
            kinds.append(grids.setdefault(flat.shape, len(grids)))
            packed.append(in_bytes(flat, signed=signed).tobytes())
    return Pile("maps", packed), [[*shape] for shape in grids], kinds, steps


def in_bytes(values: Array, *, signed: bool = False) -> Array:
    """Values as uint8, as shares of the largest magnitude."""
    largest = np.abs(values).max(initial=0)
    shares = values / largest if largest > 0 else np.zeros_like(values)
    return np.round(128 + 127 * shares if signed else 255 * shares.clip(0)).astype(np.uint8)


def packed_limits(parts: Sequence[Part]) -> dict[int, float]:
    """Of maps whose strongest places are drawn alike: what is drawn as the strongest, as a share of the largest value.

    Which places have a value at all, of which some are outliers, can't be told from bytes.
    """
    found: dict[int, float] = {}
    first = 0
    for run, rows in parts:
        outliers = {name: look["outliers"] for name, look in _looks(run).items() if "outliers" in look}
        methods = run.table["method"]
        for number, row in enumerate(rows, first):
            if methods[row] not in outliers:
                continue
            flat = shrunk(flattened(np.nan_to_num(run.values([row])[0])))
            told = run.table.loc[row]
            scale = SHOWN / max(told["height"], told["width"])
            geometry = geometry_of(told).displayed((round(told["height"] * scale), round(told["width"] * scale)))
            heat = geometry.lay_back(torch.from_numpy(flat), "cubic").numpy().clip(0, flat.max(initial=0))
            most = limits(heat, outliers=outliers[methods[row]])[1]
            if most > 0:
                found[number] = float(f"{most / flat.max():.4g}")
        first += len(rows)
    return found


def shrunk(values: Array, finest: int = FINEST) -> Array:
    """A grid with no more cells per side, each the mean of what it takes the place of."""
    size = [min(side, finest) for side in values.shape]
    if size == [*values.shape]:
        return values
    means: Array = interpolate(torch.from_numpy(values)[None, None], size=size, mode="area")[0, 0].numpy()
    return means


def packed_pictures(run: Run) -> tuple[Pile, dict[str, int]]:
    """The small JPEGs, and the number of each by its image's id."""
    ids = [name for name in dict.fromkeys(run.table["id"]) if run.thumbnails.get(name)]
    return Pile("pictures", [run.thumbnails[name] for name in ids]), {name: i for i, name in enumerate(ids)}


def packed_looks(parts: Sequence[Part]) -> tuple[list[dict[str, Any]], list[int]]:
    """How maps are best drawn, as :meth:`hookmap.Heatmap.overlay` does, and which of these looks each row has; or -1.

    Two runs may have drawn one method in two ways: signed in one, positive in the other.
    """
    found: list[dict[str, Any]] = []
    which = []
    for run, rows in parts:
        known = _looks(run)
        for method in run.table["method"].iloc[[*rows]]:
            look = known.get(method)
            if look is not None and look not in found:
                found.append(look)
            which.append(-1 if look is None else found.index(look))
    return found, which


def _looks(run: Run) -> dict[str, dict[str, Any]]:
    """How a run's maps of each method are drawn."""
    part = run.about.get("how", {}).get("part")
    asked: dict[str, Any] | None = None if part is None else {"scale": "symmetric"} if part == "signed" else {}
    found: dict[str, dict[str, Any]] = {}
    for name in run.explained["method"].unique():
        method = METHODS.get(name)
        found[name] = asked if asked is not None else dict(method.look) if method else {}
    return found


def palettes() -> dict[str, str]:
    """256 colours each, RGB, in base64: of maps from 0 up, and of signed ones."""
    steps = np.arange(256) / 255
    return {
        scale: base64.b64encode(colorize(steps, name).tobytes()).decode("ascii")
        for scale, name in (("max", DEFAULT_COLORMAP), ("symmetric", SIGNED_COLORMAP))
    }


def title_of(method: str) -> str:
    """A method's name as figures show it."""
    return METHODS[method].title if method in METHODS else method
