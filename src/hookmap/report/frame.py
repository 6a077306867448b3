"""What all pages share: their files, what they may do, and the frame of a section."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files


def asset(name: str) -> str:
    """The text of a file that pages are made of."""
    return (files("hookmap.report") / "page" / name).read_text(encoding="utf-8")


def policy(style: str, script: str = "", *, beside: bool = False) -> str:
    """What a page may do: run its own script, and load nothing but the scripts that lie beside it, if any do."""

    def own(text: str) -> str:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
        return f"'sha256-{digest}'" if text else "'none'"

    others = " 'self' file:" if beside else ""
    return (
        f"default-src 'none'; img-src data:; style-src {own(style)}; script-src {own(script)}{others}; "
        "base-uri 'none'; form-action 'none'"
    )


def section_html(name: str, title: str, note: str, content: str = "") -> str:
    """A part of a page: its heading and how it is to be read, and what it shows, as HTML."""
    told = f"<p>{escape(note)}</p>" if note else ""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<div class="aside"><h2 id="{name}-title">{escape(title)}</h2>{told}</div>'
        f'<div class="content">{content}</div></section>'
    )
