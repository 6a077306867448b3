"""Pages in files, by the skeletons beside this module."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from hookmap.pages import built, policy

if TYPE_CHECKING:
    from jinja2 import Environment


def filled(skeleton: str, *, style: str, script: str = "", data: Any = None, beside: bool = False, **shown: Any) -> str:
    """A page, whole. All that it shows is text, whatever it holds, but for :class:`markupsafe.Markup`.

    Args:
        skeleton: its name.
        style: the name of its built style sheet.
        script: likewise its script; empty: it has none.
        data: for the script, as JSON can hold it.
        beside: whether scripts lie beside the page that it may load.
        **shown: what the skeleton shows.
    """
    from markupsafe import Markup

    sheet, code = built(style), _inside(built(script)) if script else ""
    return (
        _skeletons()
        .get_template(f"{skeleton}.html")
        .render(
            policy=Markup(policy.of_file(sheet, code, beside=beside)),
            style=Markup(sheet),
            script=Markup(code),
            data=Markup(_json(data)),
            **shown,
        )
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
    """A script that can't end the element it stands in."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _json(data: Any) -> str:
    """JSON that can't end the element it stands in."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
