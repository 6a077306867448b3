"""What sections of the page are made of; the interface's script draws each block by its ``kind``."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hookmap.analysis.drawing import Page
from hookmap.render.colors import Array
from hookmap.report.packing import in_bytes

Block = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: of its place in the page, lower-case letters.
        title: its heading.
        note: how it is to be read.
        blocks: what it shows.
        pages: the same as figures, by file name.
    """

    name: str
    title: str
    note: str = ""
    blocks: list[Block] = field(default_factory=list)
    pages: Mapping[str, Page] = field(default_factory=dict)


def text_block(text: str) -> Block:
    """A paragraph."""
    return {"kind": "text", "text": text}


def frames_block(items: Sequence[dict[str, str]]) -> Block:
    """Maps of the common frame side by side, each a :func:`framed`."""
    return {"kind": "frames", "items": items}


def groups_block(items: Sequence[dict[str, Any]], *, title: str = "", strip: int = 8, search: str = "") -> Block:
    """Lines of text and pictures.

    Args:
        items: each has a ``title``, ``notes`` (quiet lines) and a ``flag`` (red, or empty); ``frames`` (each a
            :func:`framed`) and ``rows`` (of the page's table, whose heatmaps are shown; ``name`` is what all of them
            are called in the gallery, ``captions`` what each is); or ``patches`` (row, y, x) and their ``field``
            (height, width), all as shares of the grid.
        title: over all lines.
        strip: so many heatmaps of each are shown.
        search: what is asked of a person who may search for lines; empty: none may.
    """
    return {"kind": "groups", "title": title, "items": items, "strip": strip, "search": search}


def coded(heat: Array, limit: float | None = None) -> str:
    """A map of the common frame for the page: shares of the strongest, or of a limit, as bytes in base64."""
    shares = in_bytes(heat) if limit is None else np.round(255 * np.clip(heat / limit, 0, 1)).astype(np.uint8)
    return base64.b64encode(shares.tobytes()).decode("ascii")


def framed(heat: Array, title: str, note: str = "", limit: float | None = None) -> dict[str, str]:
    """A map of the common frame with a line and a quiet line below it."""
    return {"map": coded(heat, limit), "title": title, "note": note}


def table_block(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]], column: str | None = None) -> Block:
    """A block of rows.

    Args:
        columns: (kind, title): ``text``, ``class``, ``flag``, ``number``, ``decimal``, ``percent`` or ``frame``.
        rows: values.
        column: of the run's table, whose values a ``class`` is.
    """
    return {
        "kind": "table",
        "columns": [{"kind": kind, "title": title} for kind, title in columns],
        "rows": [[_plain(value) for value in row] for row in rows],
        "column": column,
    }


def _plain(value: Any) -> Any:
    """For JSON: NaN is None, real numbers are short."""
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
