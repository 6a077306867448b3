"""Pictures and tables as notebooks show them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from hookmap._files import as_png

if TYPE_CHECKING:
    from PIL import Image


def html_of(
    picture: Image.Image, title: str, below: str = "", rows: Sequence[Sequence[str]] = (), heads: Sequence[str] = ()
) -> str:
    """A picture with a line and a quiet line below it, and a table.

    Args:
        picture: what there is to see.
        title: the line.
        below: the quiet line, or nothing.
        rows: of the table, each as long as ``heads``.
        heads: of its columns.
    """
    source = base64.b64encode(as_png(picture)).decode("ascii")
    quiet = f'<br><span style="opacity:.65">{escape(below)}</span>' if below else ""
    html = (
        f'<figure style="margin:0"><img src="data:image/png;base64,{source}" alt="{escape(title)}" '
        f'style="max-width:100%;height:auto"><figcaption><b>{escape(title)}</b>{quiet}</figcaption></figure>'
    )
    return html + table_html(rows, heads) if rows else html


def table_html(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    """A table; its texts may be anybody's."""
    head = "".join(f'<th style="text-align:left">{escape(text)}</th>' for text in heads)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{escape(text)}</td>' for text in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
