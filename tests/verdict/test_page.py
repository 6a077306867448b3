"""What a comparison leaves: its verdict as JSON, table, page and pictures."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape
from PIL import Image

import hookmap as hm
from hookmap.report import write_verdict
from hookmap.verdict import Verdict
from hookmap.verdict.candidates import Candidate
from hookmap.verdict.figure import pareto, spread
from hookmap.verdict.judgement import Judgement, Standing
from networks import convnet

PREPROCESSING = hm.Preprocessing(size=(24, 24), resize=None)
NAUGHTY = "<img src=x onerror=alert(1)>.png"
LABELS = ["<b>cat</b>", *"bcdefg"]


def photos(folder: Path) -> Path:
    """Ten noisy pictures, one of them named by somebody who means harm."""
    folder.mkdir()
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 255, (6, 6, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(folder / (f"{number}.png" if number else NAUGHTY))
    return folder


@pytest.fixture(scope="module")
def lens() -> hm.Lens:
    model = convnet()
    model.__class__ = type("Net<script>alert(2)</script>", (type(model),), {})
    return hm.Lens(model, labels=LABELS, preprocessing=PREPROCESSING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verdict") / "comparison"


@pytest.fixture(scope="module")
def verdict(lens: hm.Lens, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    data = photos(tmp_path_factory.mktemp("photos") / "photos")
    return hm.compare(lens, data, methods=["layercam", "eigencam"], layers="bend2", out=folder, progress=False)


@pytest.fixture(scope="module")
def page(verdict: Verdict, folder: Path) -> Path:
    return write_verdict(folder)


def standing(name: str, mean: float, cost: float | None = None, **about: Any) -> Standing:
    votes = (mean - 0.2, mean, mean + 0.2)
    return Standing(name, votes, tuple((v - 0.3, v + 0.4) for v in votes), (mean - 0.3, mean + 0.4), cost, **about)


def many() -> Verdict:
    """A verdict after three stages, with long names."""
    layers = tuple(f"encoder.very.long.name.of.a.block.{number}.norm" for number in range(3))
    candidates = {
        c.name: c for c in (Candidate("gradcam", layers, "sum"), Candidate("rise"), Candidate("layercam", ("x",)))
    }
    long, rise, layercam = candidates
    standings = (
        standing(rise, 2.0, 4000.0, leakage=0.01, similarity=0.2, pasted=0.83),
        standing(long, 1.9, 3.1, leakage=0.02, similarity=0.3),
        standing(layercam, 1.88, 3.2, faults=("it isn't better than Edges",)),
        standing("Gaussian at x", 0.9),
        standing("Edges", 0.88),
    )
    votes = {vote: tuple(candidates) for vote in ("SRG (mean)", "SRG (blur)", "ROAD")}
    judgement = Judgement("tied", long, (rise, long), standings, orders=votes, images=120, detectable=0.3)
    asked = {
        "model": "/home/ada/models/net.pt",
        "fingerprint": "0" * 32,
        "precision": "fp32",
        "preprocessing": None,
        "target": "predicted",
        "candidates": [*candidates, "Grad-CAM at gone"],
        "scale": "probability",
        "seed": 3,
        "images": ["a"] * 200,
    }
    stages = {
        "screen": {rise: 0.5, long: 0.4, layercam: 0.3, "Grad-CAM at gone": -0.1},
        "halve": {rise: [1.0, 1.0, 1.0], long: [0.9] * 3, layercam: [0.1] * 3},
    }
    looked_at = {"screen": 32, "halve": 32}
    failures = {"broken.jpg": "/home/ada/photos/broken.jpg isn't a picture"}
    return Verdict(judgement, candidates, layercam, asked, stages, looked_at, {rise: ["Twin"]}, 0.4, failures)


def words(page: str) -> str:
    """The text of a page, as a person reads it."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_the_verdict_is_read_as_it_was_written(verdict: Verdict, folder: Path, tmp_path: Path) -> None:
    assert Verdict.read(folder) == verdict
    assert Verdict.read(many().save(tmp_path / "many.json")) == many()


def test_the_table_is_kept_as_parquet(verdict: Verdict, folder: Path) -> None:
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "table.parquet"), verdict.table, check_dtype=False)


def test_a_few_images_are_kept_with_the_map_of_each_contestant_and_control(verdict: Verdict, folder: Path) -> None:
    examples = hm.load(folder / "examples.npz")
    assert examples.images == list(verdict.images[:5])
    for heatmaps in examples.along("image"):
        names = [Candidate.of(heatmap).name for heatmap in heatmaps]
        assert sorted(names) == sorted(s.name for s in verdict.judgement.standings)


def test_the_page_holds_what_was_said_and_measured(verdict: Verdict, page: Path) -> None:
    text = page.read_text()
    for sentence in verdict.summary():
        assert escape(sentence) in text
    for s in verdict.judgement.standings:
        assert escape(s.name) in text
        assert all(f">{vote:+.2f}<" in text for vote in (*s.votes, s.mean))
    assert text.count("<figure>") == 5 * (1 + len(verdict.judgement.standings))


def test_the_page_says_how_the_verdict_was_found(tmp_path: Path) -> None:
    many().save(tmp_path / "verdict.json")
    text = words(write_verdict(tmp_path).read_text())
    for said in (
        "200: screening on 32, first halving on 32, confirmed on 120 others",
        "the halves of the screening's masks agree at 0.40",
        "RISE = Twin",
        "broken.jpg: broken.jpg isn't a picture",
        "Grad-CAM at gone -0.10 Screening",
        "tied with the best",
        "+2.00 from +1.70 to +2.40 4000.0 1% 0.20 83%",
    ):
        assert said in text
    assert "/home/ada" not in text
    assert not (tmp_path / "maps.png").exists()  # no examples were kept


def test_the_page_needs_nothing_but_itself_and_nothing_in_it_is_code(page: Path) -> None:
    text = page.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href|srcset)=["'](?!data:|#)""", text)
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text or NAUGHTY not in hm.load(page.with_name("examples.npz")).images


def test_hostile_names_are_only_names(folder: Path, verdict: Verdict, tmp_path: Path) -> None:
    bad = "</h3><script>alert(3)</script>"
    failures = {bad: f"{bad} isn't a picture"}
    replace(verdict, failures=failures, equal={verdict.default: [bad]}).save(tmp_path / "verdict.json")
    examples = hm.load(folder / "examples.npz")
    for heatmap in examples:
        heatmap.picture.name = bad
    examples.save(tmp_path / "examples.npz")
    text = write_verdict(tmp_path).read_text()
    assert "<script" not in text
    assert text.count(escape(bad)) >= 5 + 2


@pytest.mark.parametrize("width", [1300, 390])
def test_the_page_in_a_browser(chromium: Any, page: Path, verdict: Verdict, width: int) -> None:
    with chromium.new_context(viewport={"width": width, "height": 900}) as session:
        view = session.new_page()
        wrong: list[str] = []
        asked: list[str] = []
        view.on("console", lambda said: wrong.append(said.text))
        view.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        view.on("request", lambda request: asked.append(request.url))
        view.goto(page.as_uri())
        assert view.locator(".lead").is_visible()
        assert view.locator(".lead").inner_text() == verdict.summary()[0]
        assert view.locator("h1").inner_text() == verdict.asked["model"]
        assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
        # No cell of the table lies outside the window.
        assert view.evaluate(
            "[...document.querySelectorAll('.standings th, .standings td')]"
            ".every((cell) => cell.getBoundingClientRect().right <= innerWidth)"
        )
        assert view.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert not wrong
        shown = view.evaluate("document.querySelector('.chart img').currentSrc")
        assert view.emulate_media(color_scheme="dark") is None
        view.wait_for_function("(shown) => document.querySelector('.chart img').currentSrc !== shown", arg=shown)
        assert all(url == page.as_uri() or url.startswith("data:") for url in asked)


def test_pictures_lie_beside_the_page(page: Path) -> None:
    for name in ("quality.png", "maps.png"):
        with Image.open(page.with_name(name)) as picture:
            assert min(picture.size) > 300


def test_a_notebook_shows_the_sentences_and_the_table(verdict: Verdict) -> None:
    shown = verdict._repr_html_()
    assert all(html.escape(sentence) in shown for sentence in verdict.summary())
    assert all(html.escape(s.name) in shown for s in verdict.judgement.standings)
    assert "<script" not in shown


def test_another_place_for_the_page(folder: Path, page: Path, tmp_path: Path) -> None:
    assert write_verdict(folder, tmp_path / "other.html").read_text() == page.read_text()
    with pytest.raises(hm.HookmapError, match=r"doesn't end in \.html"):
        write_verdict(folder, tmp_path / "other.pdf")
    with pytest.raises(hm.DataError, match="doesn't exist"):
        write_verdict(tmp_path)


def test_the_figure_names_each_contestant_and_control_and_no_label_covers_another() -> None:
    verdict = many()
    figure = verdict.figure()
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].texts if text.get_text()]
    said = {text.get_text().replace("\n", " ") for text in labels}
    assert "RISE tied with the best" in said
    assert {"Edges", "Gaussian at x", "random maps"} <= said
    boxes = [text.get_window_extent() for text in labels]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    assert figure.axes[0].get_xscale() == "log"


def test_nothing_on_the_front_is_beaten_by_a_cheaper_one() -> None:
    points = [(float(c), float(q)) for c, q in np.random.default_rng(0).integers(0, 9, (60, 2))]
    front = pareto(points)
    for cost, quality in (points[i] for i in front):
        assert not any((c <= cost and q > quality) or (c < cost and q >= quality) for c, q in points)
    assert {points[i] for i in front} == {
        (c, q) for c, q in points if not any((a <= c and b > q) or (a < c and b >= q) for a, b in points)
    }


def test_labels_keep_their_places_where_there_is_room() -> None:
    assert spread([3.0, 0.5, 8.0], [1.0, 1.0, 1.0], 9.0) == [3.0, 0.5, 8.0]
    placed = spread([1.0, 1.1, 1.2, 9.0], [1.0, 1.0, 2.0, 1.0], 9.0)
    assert placed == pytest.approx([0.5, 1.5, 3.0, 8.5])
