"""Pages in files: what they may do, and that what they show is only text."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re

import pytest
from jinja2 import UndefinedError

from hookmap.pages import asset, embedded, policy, render_page

HOSTILE = "</script></style><img src=x onerror=alert(1)><!--"
APP = {"style": "app/assets/index.css", "script": "app/assets/index.js"}


def inside(page: str, element: str) -> str:
    return re.search(rf"<{element}>(.*?)</{element.split()[0]}>", page, re.DOTALL)[1]


def hashed(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@pytest.mark.parametrize("skeleton", ["report", "view"])
def test_a_page_may_run_and_wear_what_stands_in_it_and_nothing_else(skeleton: str) -> None:
    shown = dict.fromkeys(("title", "model", "what", "source", "about"), HOSTILE)
    lists = dict.fromkeys(("sections", "remarks", "figures", "chunks"), ())
    data = dict.fromkeys(("data", "view"), embedded([HOSTILE]))
    names = APP if skeleton == "view" else {"script": "report.js"}
    page = render_page(skeleton, **names, **shown, **lists, **data, made={HOSTILE: HOSTILE})
    script = inside(page, 'script type="module"' if skeleton == "view" else "script")
    may = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]
    assert f"script-src 'sha256-{hashed(script)}';" in may
    assert f"style-src 'sha256-{hashed(inside(page, 'style'))}';" in may
    assert "default-src 'none'" in may
    rest = page.replace(script, "")
    assert "<img" not in rest
    assert "<!--" not in page
    assert rest.count("</script") == 2  # of the data and of the script
    known = re.search(r'<script type="application/json" id="\w+">(.*?)</script>', page)[1]
    assert json.loads(known) == [HOSTILE]


def test_a_page_without_a_script_runs_none() -> None:
    assert "script-src 'none';" in policy("a {}")
    assert "script-src 'none' 'self' file:;" in policy("a {}", beside=True)


def test_what_a_skeleton_misses_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        render_page("view", **APP, view=embedded(None))


def test_the_reports_script_is_small() -> None:
    assert len(gzip.compress(asset("report.js").encode(), mtime=0)) < 60_000


@pytest.mark.parametrize("name", ["report.css", "app/assets/index.css"])
def test_built_style_sheets_follow_a_persons_choice_of_light_or_dark(name: str) -> None:
    assert "light-dark(" in asset(name)
    assert "lightningcss" not in asset(name)
