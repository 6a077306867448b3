"""The built site: python -m sphinx -W -n --keep-going docs docs/_build, then pytest -m site."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image, ImageSequence

from axe import faults
from pictures import REPOSITORY

SITE = REPOSITORY / "docs" / "_build"
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
AWAY = re.compile(r"(?:https?:)?//")

pytestmark = pytest.mark.site


class Page(HTMLParser):
    """What a page loads, where it leads, and what it can be led to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.names: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.names |= {value for key in ("id", "name") if (value := found.get(key))}
        if tag == "a" and (href := found.get("href")):
            self.leads.append(href)
        if value := found.get(LOADS.get(tag, "")):
            self.loads.append(value)


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    found = {file.resolve(): Page(file) for file in SITE.rglob("*.html") if "_static" not in file.parts}
    assert len(found) > 100, "build the site first"
    return found


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page]) -> None:
    assert [(file.name, url) for file, page in pages.items() for url in page.loads if AWAY.match(url)] == []
    sheets = [(file.name, url) for file in SITE.rglob("*.css") for url in re.findall(r"url\(([^)]+)", file.read_text())]
    assert [(name, url) for name, url in sheets if AWAY.match(url.strip("'\" "))] == []


def test_the_film_of_the_readme_is_the_one_that_its_example_makes() -> None:
    shown, made = (
        ImageSequence.all_frames(Image.open(file))
        for file in (REPOSITORY / "docs/images/through_the_network.webp", *(SITE / "_images").glob("*network_002.webp"))
    )
    assert len(shown) == len(made) == 9
    for one, other in zip(shown, made, strict=True):
        apart = np.abs(np.asarray(one.convert("RGB"), np.float32) - np.asarray(other.convert("RGB"), np.float32))
        assert apart.mean() < 1  # of 255


def _lost(pages: dict[Path, Page]) -> Iterator[tuple[str, str]]:
    for file, page in pages.items():
        for link in [*page.leads, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            known = target in pages and (not parts.fragment or unquote(parts.fragment) in pages[target].names)
            if not known and (target in pages or not target.exists()):
                yield str(file.relative_to(SITE.resolve())), link


def test_every_link_arrives(pages: dict[Path, Page]) -> None:
    # The theme's button that leads up is a link to nothing but the top.
    assert [found for found in _lost(pages) if found[1] not in ("#", "#top")] == []


@pytest.mark.parametrize(
    "answer",
    ["choose/layer", "troubleshooting", "guides/own_model", "start/first_heatmap", "guides/trust"],
)
def test_what_newcomers_ask_is_one_click_from_home(pages: dict[Path, Page], answer: str) -> None:
    assert any(link.split("#")[0] == f"{answer}.html" for link in pages[(SITE / "index.html").resolve()].leads)


def test_every_guide_is_two_clicks_from_home(pages: dict[Path, Page]) -> None:
    first = {link for link in pages[(SITE / "index.html").resolve()].leads if link.startswith("guides/")}
    assert "guides/index.html" in first
    second = {f"guides/{link}" for link in pages[(SITE / "guides/index.html").resolve()].leads}
    guides = {f"guides/{page.stem}.html" for page in (REPOSITORY / "docs" / "guides").glob("*.md")}
    assert guides - {"guides/index.html"} <= first | second


def test_examples_stand_beneath_the_methods_that_they_call() -> None:
    page = (SITE / "api/generated/hookmap.Lens.html").read_text()
    explain = page.split('id="hookmap.Lens.explain"')[1].split('id="hookmap.Lens.stream"')[0]
    assert "gallery/first_heatmap.html" in explain
    assert "gallery/export_onnx.html" not in explain


def test_formulas_need_no_script(pages: dict[Path, Page]) -> None:
    text = (SITE / "api/generated/hookmap.metrics.infidelity.html").read_text()
    assert "<math" in text
    assert "\\frac" not in re.sub(r"<annotation.*?</annotation>", "", text)


@pytest.mark.parametrize(("wide", "scheme"), [(1360, "light"), (390, "dark")])
@pytest.mark.parametrize(
    "name",
    [
        *("index", "start/first_heatmap", "choose/method", "guides/index", "guides/clip", "gallery/index"),
        *("api/generated/hookmap.Lens", "command_line"),
    ],
)
def test_nobody_is_kept_out(chromium: Any, name: str, wide: int, scheme: str) -> None:
    page = chromium.new_page(viewport={"width": wide, "height": 844}, color_scheme=scheme)
    page.goto(f"file://{SITE / name}.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= wide
    # Sphinx writes a long signature as a list of descriptions without terms.
    assert [fault for fault in faults(page) if fault[0] != "definition-list"] == []
    page.close()
