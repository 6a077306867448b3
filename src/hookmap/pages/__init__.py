"""What pages are made of: skeletons, the interface's built scripts and style sheets, and what a page may do."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

BUILT = Path(__file__).parent / "built"
"""What ``ui/`` is built to."""

APP_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""What the page may do that the server sends: ask the server, and show what it serves and what the page makes of it."""


def render_page(
    skeleton: str, *, style: str = "report.css", script: str = "", beside: bool = False, **values: Any
) -> str:
    """A page, whole; every text of its values is only text, but for :func:`embedded` data.

    Args:
        skeleton: its file without the ending.
        style: the name of its built style sheet.
        script: the name of the built script that it runs; empty: none.
        beside: whether scripts lie beside it that it may load.
        **values: what the skeleton shows.
    """
    from markupsafe import Markup

    sheet, code = asset(style), _inside(asset(script)) if script else ""
    may = policy(sheet, code, beside=beside)
    return (
        _skeletons()
        .get_template(f"{skeleton}.html")
        .render(policy=Markup(may), style=Markup(sheet), script=Markup(code), **values)
    )


@cache
def _skeletons() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("hookmap.pages", "skeletons"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _inside(script: str) -> str:
    """A script that can't end the element it stands in, nor hide its end."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def asset(name: str) -> str:
    """The text of a built file."""
    return (BUILT / name).read_text(encoding="utf-8")


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


def embedded(data: Any) -> Markup:
    """JSON that can't end the element it stands in."""
    from markupsafe import Markup

    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))
