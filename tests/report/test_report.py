"""The page of a run: what it holds, and what it does in a browser."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from axe import faults
from hookmap.datasets.reader import Sample
from hookmap.errors import DataError, HookmapError, HookmapWarning
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.layers.channels import ChannelStatistics
from hookmap.methods import METHODS
from hookmap.render.look import Look
from hookmap.render.overlay import greyed
from hookmap.report import write_report
from hookmap.report.head import header
from hookmap.report.packing import packed_maps
from hookmap.results.explanation import Explanation
from hookmap.results.heatmap import Heatmap
from hookmap.runs.channels import ChannelRecorder
from hookmap.runs.job import ImageResult
from hookmap.runs.results import Run
from hookmap.runs.rows import COLUMNS, tables
from hookmap.runs.store import Store

CLASSES = ("cat, house cat", "dog", "<b>bird</b>")
CROPPED = Geometry((120, 160), (224, 224), (224 / 120, 224 / 120), (0, -(160 * 224 / 120 - 224) / 2))
DATA = "/home/ada lovelace/her photos"
BOXED = Geometry((120, 160), (224, 224), (1.4, 1.4), (28, 0))  # a letterbox: the grid is larger than the picture
NAUGHTY = ("pets/<img src=x onerror=alert(1)>.jpg", "pets/</script><script>alert(3)</script><!--.jpg")


def heatmap(number: int, method: str = "gradcam", geometry: Geometry = CROPPED, **facts: Any) -> Heatmap:
    """A heatmap whose heat lies around one cell of its grid."""
    y, x = np.mgrid[:7, :7]
    row, column = number % 5 + 1, number // 5 % 5 + 1
    raw = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2.0) - 0.2 * np.exp(-((y - 6) ** 2 + x**2) / 3.0)
    pixels = np.random.default_rng(number).integers(60, 200, (6, 8, 3), np.uint8).repeat(20, 0).repeat(20, 1)
    facts = {
        "look": METHODS[method].look_of(facts.pop("part", None)),
        "target": CLASSES[number % 3],
        "index": number % 3,
        "score": 4.0,
        "probability": 0.3 + number % 7 / 10,
    } | facts
    return Heatmap(torch.tensor(raw).float(), Picture(pixels), geometry, METHODS[method], "layer4", **facts)


def answer(number: int, name: str, found: Heatmap, label: int | None = None) -> ImageResult:
    jpeg = io.BytesIO()
    Image.fromarray(found.picture.pixels).save(jpeg, "JPEG", quality=95)
    sample = Sample(name, f"{DATA}/{name}", geometry=found.geometry, thumbnail=jpeg.getvalue())
    known = None if label is None else CLASSES[label]
    return ImageResult(sample, known, label, found, [("predicted", found)])


def planted(folder: Path, count: int = 130, **how: Any) -> Run:
    """A run over images of three classes, one in ten wrong, in two parts and with one that can't be read."""
    answers = []
    for number in range(count):
        name = NAUGHTY[number - 1] if number in (1, 2) else f"pets/{number:03d}.jpg"
        label = (number + (number % 10 == 9)) % 3
        answers.append(answer(number, name, heatmap(number, **how), label))
    path = f"{DATA}/pets/broken.jpg"
    answers.append(ImageResult(Sample("pets/broken.jpg", path, error="broken"), error=f"{path} isn't a picture"))
    return stored(folder, answers)


def stored(folder: Path, answers: list[ImageResult]) -> Run:
    store = Store(folder)
    folder.mkdir(parents=True)
    store.describe(
        {
            "model": {"name": "tiny<script>alert(2)</script>", "weights": "0" * 64},
            "labels": {"count": 3},
            "looks": {h.method.name: h.look.as_json() for a in answers for _, h in a.heatmaps},
            "source": {"kind": "folder", "from": DATA, "images": len(answers)},
            "finished": "2026-11-25T02:40:30+00:00",
        }
    )
    half = (len(answers) + 1) // 2
    for part, some in enumerate((answers[:half], answers[half:])):
        store.commit(part, tables(some))
    return Run(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return planted(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return planted(tmp_path_factory.mktemp("few") / "run", 70)


@pytest.fixture(scope="module")
def page(run: Run) -> Path:
    return write_report(run)


@contextmanager
def opened(chromium: Any, path: Path, **context: Any) -> Iterator[Any]:
    """The page in a browser that notes what it asks for (``asked``) and what goes wrong (``wrong``)."""
    with chromium.new_context(viewport={"width": 1300, "height": 900}, **context) as session:
        view = session.new_page()
        view.set_default_timeout(10_000)
        view.asked, view.wrong = [], []
        view.on("request", lambda request: view.asked.append(request.url))
        view.on("pageerror", lambda error: view.wrong.append(str(error)))
        view.on("console", lambda said: view.wrong.append(said.text) if said.type in ("error", "warning") else None)
        view.on("dialog", lambda dialog: (view.wrong.append(dialog.message), dialog.dismiss()))
        view.goto(path.as_uri())
        view.wait_for_selector("html[data-ready]")
        view.evaluate("document.getElementById('gallery').scrollIntoView()")  # what is far away isn't drawn
        yield view


def data_of(page: Path) -> dict[str, Any]:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1])


def blocks_of(page: Path, pile: str) -> list[bytes]:
    chunks = re.findall(rf'data-pile="{pile}" data-chunk="\d+">(.*?)</script>', page.read_text())
    return [base64.b64decode(one) for chunk in chunks for one in chunk.split(",")]


def test_the_page_holds_the_table(run: Run, page: Path) -> None:
    packed = data_of(page)["table"]
    assert list(packed) == [name for name in COLUMNS if name != "path"]
    for name, (kind, *_) in COLUMNS.items():
        if name == "path":
            continue
        column = packed[name]
        if kind == "float32":
            found = np.frombuffer(base64.b64decode(column["real"]), "<f4")
            assert np.array_equal(found, run.table[name].to_numpy(np.float32), equal_nan=True), name
            continue
        if isinstance(column, dict):
            column = [None if code < 0 else column["words"][code] for code in column["codes"]]
        expected = [None if value is None or value != value else value for value in run.table[name]]
        if name == "error":
            expected = [told and told.replace(f"{DATA}/", "") for told in expected]
        assert column == expected, name


def test_the_page_holds_maps_and_pictures(run: Run, page: Path) -> None:
    data, maps = data_of(page), blocks_of(page, "maps")
    assert data["grids"] == [[7, 7]]
    for row, values in enumerate(run.values()):
        assert data["gridOf"][row] == (0 if values.size else -1)
        coded = np.frombuffer(maps[row], "<u2").reshape(values.shape) / 65535
        assert np.abs(coded - values / max(values.max(initial=0), 1e-9)).max(initial=0) <= 1e-4
    pictures = blocks_of(page, "pictures")
    for row, name in enumerate(run.table["id"]):
        number = data["pictureOf"][row]
        assert (pictures[number] if number >= 0 else None) == run.thumbnails.get(name)


def test_large_grids_are_shrunk(tmp_path: Path) -> None:
    fine = torch.rand(64, 48, generator=torch.Generator().manual_seed(0))
    run = stored(tmp_path / "run", [answer(0, "a.jpg", replace(heatmap(0), raw=fine))])
    packed = packed_maps([(run, [0])])
    pile, grids = packed.pile, packed.grids
    assert grids == [[32, 32]]
    # 48 columns into 32: each takes in the two that it touches.
    means = torch.stack([fine[4:6, 0:2].mean(), fine[4:6, 1:3].mean()])
    coded = torch.from_numpy(np.frombuffer(pile.items[0], "<u2").astype(float)).reshape(32, 32)
    assert coded.max() == 65535  # the strongest is as strong as on overlays
    coded = coded[2, :2]
    assert torch.allclose(coded[0] / coded[1], (means[0] / means[1]).double(), atol=0.02)


def shown(view: Any) -> list[str]:
    return view.locator("#gallery .tile").evaluate_all("all => all.map(one => one.title)")


def said(place: Any, text: str) -> None:
    from playwright.sync_api import expect

    expect(place).to_have_text(text)


def test_pages_of_sixty(run: Run, page: Path, chromium: Any) -> None:
    with opened(chromium, page) as view:
        assert shown(view) == run.explained["id"].tolist()[:60]
        view.locator("#gallery .pager button", has_text="Next").first.click()
        assert shown(view)[0] == run.explained["id"].iloc[60]
        assert view.locator("#gallery .pager .where").first.text_content() == "2 of 3"
        view.keyboard.press("n")
        assert shown(view) == run.explained["id"].tolist()[120:130]
        view.keyboard.press("p")
        assert shown(view)[0] == run.explained["id"].iloc[60]
        assert not view.wrong


def test_filters_and_order(run: Run, page: Path, chromium: Any) -> None:
    rows = run.explained
    with opened(chromium, page) as view:
        tally = view.locator("#gallery .tally")
        view.select_option("#by-outcome", "wrong")
        wrong = rows[rows["correct"] == False]  # noqa: E712
        assert tally.text_content() == f"{len(wrong)} of 130 heatmaps"
        view.select_option("#by-label", "dog")
        both = wrong[wrong["label"] == "dog"]
        assert shown(view) == both["id"].tolist()
        assert 0 < len(both) < len(wrong)
        view.locator("#gallery form button", has_text="Clear").click()
        assert tally.text_content() == "130 heatmaps"
        view.locator("#search").fill("00 CAT")
        found = rows[
            rows["id"].str.contains("00") & (rows["target"].str.contains("cat") | rows["label"].str.contains("cat"))
        ]
        said(tally, f"{len(found)} of 130 heatmaps")
        assert shown(view) == found["id"].tolist()
        view.locator("#search").fill("no such thing")
        view.locator("#gallery .nothing").wait_for()
        view.locator("#gallery form button", has_text="Clear").click()
        view.select_option("#by-sort", "half_area")
        view.select_option("#by-direction", "down")
        assert shown(view) == rows.sort_values("half_area", ascending=False, kind="stable")["id"].tolist()[:60]


def test_keys(run: Run, page: Path, chromium: Any) -> None:
    ids = run.explained["id"].tolist()
    with opened(chromium, page) as view:
        focused = lambda: view.evaluate("document.activeElement.title || document.activeElement.id")  # noqa: E731
        view.keyboard.press("/")
        assert focused() == "search"
        view.keyboard.type("n/")
        assert view.locator("#search").input_value() == "n/"  # no page was turned
        said(view.locator(".tally"), "0 of 130 heatmaps")
        view.locator("#search").fill("")
        said(view.locator(".tally"), "130 heatmaps")
        view.locator("#gallery .tile").first.focus()
        view.keyboard.press("ArrowRight")
        assert focused() == ids[1]
        view.keyboard.press("End")
        view.keyboard.press("ArrowRight")  # on to the next page
        assert focused() == ids[60]
        view.keyboard.press("ArrowLeft")
        assert focused() == ids[59]
        view.keyboard.press("Enter")
        seen = view.locator("#viewer .where")
        assert seen.text_content() == "60 of 130"
        assert view.locator("#viewer dd.text").first.text_content() == ids[59]
        view.keyboard.press("ArrowRight")
        assert seen.text_content() == "61 of 130"
        view.keyboard.press("End")
        assert seen.text_content() == "130 of 130"
        view.keyboard.press("Escape")
        assert not view.locator("#viewer").is_visible()
        assert focused() == ids[59]  # where it was opened
        view.keyboard.press("?")
        assert view.locator("#help").is_visible()
        view.keyboard.press("Escape")
        view.keyboard.press("h")
        assert view.locator("#gallery .heat").first.evaluate("heat => getComputedStyle(heat).opacity") == "0"
        assert not view.wrong


def test_the_viewer_tells_all(run: Run, page: Path, chromium: Any) -> None:
    with opened(chromium, page) as view:
        view.locator("#gallery .tile").nth(4).click()
        told = dict(zip(*(view.locator(f"#viewer {kind}").all_text_contents() for kind in ("dt", "dd")), strict=True))
        row = run.table.iloc[4]
        assert set(told) == {
            name for name in COLUMNS if name != "path" and row[name] is not None and row[name] == row[name]
        }
        assert told["half_area"] == f"{row['half_area']:.1%}"
        assert told["grid_left"] == "20\u2009px"
        assert told["correct"] == "yes"
        peak = view.locator("#viewer .peak").evaluate(
            "p => { const a = p.getBoundingClientRect(), b = p.parentNode.getBoundingClientRect();"
            " return [(a.x + a.width / 2 - b.x) / b.width, (a.y + a.height / 2 - b.y) / b.height]; }"
        )
        assert np.allclose(peak, [row["peak_x"] / 160, row["peak_y"] / 120], atol=0.005)


def drawn(view: Any, canvas: Any) -> np.ndarray[Any, Any]:
    """RGBA of a canvas, ``(H, W, 4)``."""
    width, height, values = canvas.evaluate(
        "c => [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
    )
    return np.array(values, float).reshape(height, width, 4)


LOOKS = {
    "a crop": heatmap(8),
    "a letterbox": heatmap(8, geometry=BOXED),
    "from the smallest value": heatmap(8, "reciprocam"),
    "outliers": heatmap(8, "fullgrad", BOXED),
    "signed": heatmap(8, part="signed"),
    "signed over a grey picture": heatmap(8, "integratedgradients"),
    "signed in a letterbox": heatmap(8, part="signed", geometry=BOXED),
    "what speaks against": heatmap(8, part="negative"),
    "another look": heatmap(8, look=Look(colormap="viridis", opacity=0.4, scale="minmax")),
    "weak beside what speaks against": replace(heatmap(8), raw=heatmap(8).raw - 0.8),
    "a clip": replace(heatmap(8), raw=torch.stack([heatmap(8).raw, heatmap(14).raw - 0.1])),
    "a fine grid": replace(heatmap(8), raw=torch.rand(31, 31, generator=torch.Generator().manual_seed(3)) - 0.3),
}


def over(pixels: np.ndarray[Any, Any], rgba: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    alpha = rgba[..., 3:] / 255
    return pixels * (1 - alpha) + rgba[..., :3] * alpha


@pytest.mark.parametrize("kind", LOOKS)
def test_overlay_sheet_figure_and_page_draw_the_same_within_2_of_255(kind: str, tmp_path: Path, chromium: Any) -> None:
    found = LOOKS[kind]
    run = stored(tmp_path / "run", [answer(0, "a.jpg", found)])
    with opened(chromium, write_report(run)) as view:
        view.locator("#gallery [data-drawn]").wait_for()
        rgba = drawn(view, view.locator("#gallery .heat"))
        filtered = view.locator("#gallery .heat").evaluate("heat => getComputedStyle(heat).backdropFilter")
        assert not view.wrong
    assert filtered == ("grayscale(0.85)" if found.look.grey else "none")
    assert rgba.shape == (120, 160, 4)
    on_page = over(greyed(found.picture.pixels) if found.look.grey else found.picture.pixels, rgba)
    overlay = np.asarray(found.painted(size=160), float)[:100]  # below, a word may stand in the picture's corner
    assert np.abs(overlay - found.picture.pixels[:100]).max() > 60  # there's heat
    assert np.abs(on_page[:100] - overlay).max() <= 2
    kept = run.heatmap(0, over="copy")  # on the picture, not on its JPEG
    assert kept.look == replace(found.look, colormap=found.look.colors)
    in_figure = np.asarray(replace(kept, picture=found.picture).painted(size=160), float)[:100]
    assert np.abs(in_figure - overlay).max() <= 2
    sheet = np.asarray(Explanation([found, replace(found, method=METHODS["layercam"])]).overlay(), float)
    tile = np.asarray(found.painted(size=300), float)
    assert any(
        np.abs(sheet[y : y + tile.shape[0], x : x + tile.shape[1]] - tile).max() <= 2
        for y in range(0, 40)
        for x in (24, 24 + 316)
    )


def test_a_map_without_evidence_says_so_on_the_page(tmp_path: Path, chromium: Any) -> None:
    against = torch.zeros(7, 7)
    against[6, 6] = -1
    maps = {
        "no evidence": torch.zeros(7, 7),
        "next to no evidence": heatmap(8).raw.clamp(min=0) * 0.005 + against,
        "the same everywhere": torch.ones(7, 7),
    }
    answers = [answer(i, f"{i}.jpg", replace(heatmap(8), raw=raw)) for i, raw in enumerate(maps.values())]
    run = stored(tmp_path / "run", answers)
    with opened(chromium, write_report(run)) as view:
        view.locator("#gallery [data-drawn]").nth(2).wait_for()
        assert view.locator("#gallery .caveat").all_text_contents() == [*maps]
        for i in range(3):
            rgba = drawn(view, view.locator("#gallery .heat").nth(i))
            assert set(np.unique(rgba[40:80, 60:100, 3])) == {0}


def test_names_of_strangers_are_harmless(run: Run, page: Path, chromium: Any) -> None:
    with opened(chromium, page) as view:
        assert shown(view)[1:3] == [*NAUGHTY]
        view.locator("#gallery .tile").nth(1).click()
        assert NAUGHTY[0] in view.locator("#viewer dd.text").all_text_contents()
        view.keyboard.press("Escape")
        assert view.locator("h1").text_content() == "tiny<script>alert(2)</script>"
        view.wait_for_timeout(100)
        assert not view.wrong
        assert view.evaluate("document.querySelectorAll('img[src=x], main b').length") == 0
        # And were one to get in, the policy wouldn't let it run.
        view.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
        view.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 2'}))")
        view.wait_for_timeout(100)
        assert view.evaluate("window.ran") is None


def test_nothing_is_fetched(page: Path, chromium: Any) -> None:
    with opened(chromium, page) as view:
        view.locator("#gallery [data-drawn]").first.wait_for()
        view.locator("#gallery .tile").first.click()
        assert [url for url in view.asked if not url.startswith("data:")] == [page.as_uri()]
        text = re.sub(r"data-pile.*?</script>|http-equiv", "", page.read_text())
        # The script names namespaces, and pages about its framework's errors; these are words, not addresses.
        assert "http" not in re.sub(r"http://www\.w3\.org/\d+/\w+|https://svelte\.dev/e/\w+", "", text)


def test_light_and_dark(page: Path, chromium: Any) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    with opened(chromium, page, color_scheme="dark") as view:
        assert view.evaluate(colour) == "rgb(20, 20, 23)"
        view.locator("#theme").click()
        assert view.evaluate(colour) == "rgb(255, 255, 255)"
        view.keyboard.press("t")
        assert view.evaluate(colour) == "rgb(20, 20, 23)"
    with opened(chromium, page, color_scheme="light") as view:
        assert view.evaluate(colour) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme: str, page: Path, chromium: Any) -> None:
    """WCAG 2 asks for a contrast of 4.5."""
    with opened(chromium, page, color_scheme=scheme) as view:
        for name in ("--ink", "--quiet", "--accent", "--wrong"):
            colours = view.evaluate(
                "name => ['--paper', name].map(one => { document.body.style.color = `var(${one})`;"
                " return getComputedStyle(document.body).color.match(/\\d+/g).map(Number); })",
                name,
            )
            light, dark = sorted((_luminance(one) for one in colours), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, name


def _luminance(colour: list[int]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (one / 255 for one in colour[:3])]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_everything_has_a_name(page: Path, chromium: Any) -> None:
    with opened(chromium, page) as view:
        nameless = view.evaluate(
            """() => [...document.querySelectorAll('button, input, select, canvas, img, nav')].filter(one => !(
              one.hidden || one.ariaHidden === 'true' || one.ariaLabel || one.closest('label') ||
              one.hasAttribute('alt') || one.querySelector('[alt]:not([alt=""])') || one.textContent.trim()
            )).map(one => one.outerHTML)"""
        )
        assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_a_screen_reader(scheme: str, page: Path, chromium: Any) -> None:
    with opened(chromium, page, color_scheme=scheme, bypass_csp=True) as view:
        assert faults(view) == []
        view.locator("#gallery .tile").first.click()
        assert faults(view) == []


def test_it_fits_a_phone(page: Path, chromium: Any) -> None:
    with opened(chromium, page) as view:
        view.set_viewport_size({"width": 360, "height": 780})
        assert view.evaluate("document.documentElement.scrollWidth") <= 360
        view.locator("#gallery .tile").first.click()
        assert view.locator("#viewer").evaluate("one => one.scrollWidth") <= 360


def test_pictures_beside_a_page_that_is_too_large(
    few: Run, tmp_path: Path, chromium: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookmap.report.document.INLINE", 20_000)
    monkeypatch.setattr("hookmap.report.piles.CHUNK", 30_000)
    page = write_report(few, tmp_path / "a page.html")
    scripts = sorted((tmp_path / "a page_files").iterdir())
    assert len(scripts) > 3
    assert page.stat().st_size < 250_000
    with opened(chromium, page) as view:
        view.locator("#gallery [data-drawn]").nth(3).wait_for()
        sources = view.locator("#gallery [data-drawn] img").evaluate_all("all => all.map(one => one.src)")
        first = few.thumbnails[few.explained["id"].iloc[0]]
        assert base64.b64decode(sources[0].partition(",")[2]) == first
        asked = {url for url in view.asked if not url.startswith("data:")}
        assert page.as_uri() in asked
        assert {url.rpartition("/")[2] for url in asked - {page.as_uri()}} <= {one.name for one in scripts}
        assert len(asked) < 1 + len(scripts)  # only what is shown
        assert not view.wrong
    # The same again changes nothing; a page that holds all takes away what lay beside it.
    before = {one: one.stat().st_mtime_ns for one in scripts}
    write_report(few, page)
    assert {one: one.stat().st_mtime_ns for one in (tmp_path / "a page_files").iterdir()} == before
    monkeypatch.undo()
    write_report(few, page)
    assert not (tmp_path / "a page_files").exists()


def test_pictures_that_are_gone_are_said(
    few: Run, tmp_path: Path, chromium: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookmap.report.document.INLINE", 20_000)
    page = write_report(few, tmp_path / "page.html")
    shutil.rmtree(tmp_path / "page_files")
    with opened(chromium, page) as view:
        view.locator("#gallery .missing").first.wait_for()
        assert "page_files/pictures-000" in view.locator("#gallery .missing").first.text_content()


def test_written_whole_or_not_at_all(few: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_report(few, tmp_path / "page.html")
    before = page.read_text()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hookmap._files.os.replace", full)
    with pytest.raises(HookmapError, match="No space left"):
        write_report(few, page)
    assert page.read_text() == before
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(HookmapError, match=r"\.html"):
        write_report(few, tmp_path / "page.png")
    with pytest.raises(DataError, match="no run.json"):
        write_report(tmp_path / "nowhere")


def section(page: Path, name: str) -> list[dict[str, Any]]:
    return next((one["blocks"] for one in data_of(page)["sections"] if one["name"] == name), [])


def test_classes(run: Run, page: Path, chromium: Any) -> None:
    labelled = section(page, "classes")[0]
    titles = [one["title"] for one in labelled["columns"]]
    for row in labelled["rows"]:
        told = dict(zip(titles, row, strict=True))
        mine = run.explained[run.explained["label"] == told["Labelled"]]
        assert told["heatmaps"] == len(mine)
        assert np.isclose(told["correct"], mine["correct"].astype(float).mean(), rtol=1e-3)
        assert np.isclose(told["half the heat in"], mine["half_area"].mean(), rtol=1e-3)
        mean = run.framed(mine.index).mean(0, dtype=np.float64)
        coded = np.frombuffer(base64.b64decode(told["mean map"]), np.uint8).reshape(mean.shape)
        assert np.abs(coded / 255 - mean / mean.max()).max() <= 0.5 / 255 + 1e-6
    with opened(chromium, page) as view:
        table = view.locator("#classes table").first
        table.locator("th button", has_text="Labelled").click()
        names = table.locator("tbody tr td:nth-child(2)").all_text_contents()
        assert names == ["<b>bird</b>", "cat", "dog"]
        heads = table.locator("th").all_text_contents()
        table.locator("th button", has_text="correct").click()
        assert table.locator("th[aria-sort=descending]").text_content() == "correct"
        place = heads.index("correct") + 1
        shares = [float(one[:-1]) for one in table.locator(f"tbody tr td:nth-child({place})").all_text_contents()]
        assert shares == sorted(shares, reverse=True)
        table.locator("tbody button", has_text="dog").click()
        assert shown(view) == run.explained.loc[run.explained["label"] == "dog", "id"].tolist()[:60]
        view.locator(".scope").click()
        said(view.locator(".tally"), "130 heatmaps")


def test_confusions_and_clusters_lead_to_their_images(run: Run, page: Path, chromium: Any) -> None:
    wrong = run.explained[run.explained["correct"] == False]  # noqa: E712
    *_, pairs, pictures, mistakes = section(page, "outcomes")
    assert sum(len(pair["rows"]) for pair in pairs["items"]) == len(wrong)
    surest = wrong.sort_values("probability", ascending=False, kind="stable")
    assert pictures["items"][0]["rows"] == surest.index.tolist()
    assert [row[0] for row in mistakes["rows"]] == surest["id"].tolist()
    groups = section(page, "clusters")[0]["items"]
    assert groups
    with opened(chromium, page) as view:
        large = next(number for number, group in enumerate(groups) if len(group["rows"]) > 7)
        view.locator("#clusters article").nth(large).locator("button.plain").click()
        assert shown(view) == run.table["id"].iloc[groups[large]["rows"]].tolist()[:60]  # the most typical first


def test_errors_are_listed(page: Path, chromium: Any) -> None:
    with opened(chromium, page) as view:
        assert view.locator("#errors tbody td").all_text_contents() == [
            "pets/broken.jpg",
            "pets/broken.jpg isn't a picture",
        ]


def test_channels(few: Run, tmp_path: Path, chromium: Any) -> None:
    """The patch of a channel is the part of the picture around its place."""
    shutil.copytree(few.folder, tmp_path / "run")
    store = Store(tmp_path / "run")
    recorder = ChannelRecorder()
    ids = few.explained["id"].tolist()[:4]
    strong = torch.zeros(4, 2, 7, 7)
    strong[2, 0, 4, 1] = 5.0  # channel 0 sees the third image, and the other one nothing
    recorder.statistics["layer4"] = ChannelStatistics.of(strong, ids, 1)
    pq.write_table(recorder.tables()["channels"], _made(store.folder / "channels.parquet") / store.parts()[0].name)
    page = write_report(tmp_path / "run")
    (block,) = section(page, "channels")
    assert block["title"] == "layer4: 2 channels, 1 dead"
    (item,) = block["items"]
    assert item["patches"] == [[few.table.index[few.table["id"] == ids[2]][0], round(4.5 / 7, 3), round(1.5 / 7, 3)]]
    with opened(chromium, page) as view:
        view.locator("#channels .patch").scroll_into_view_if_needed()
        view.locator("#channels .patch img[src]").wait_for()
        box = view.locator("#channels .patch").evaluate(
            "p => { const a = p.getBoundingClientRect(), b = p.firstChild.getBoundingClientRect();"
            " return [(a.x - b.x) / b.width, (a.y - b.y) / b.height, a.width / b.width, a.height / b.height]; }"
        )
    # Three cells of a grid of 7 that spans 120 x 120 pixels from 20 on of a picture of 160 x 120.
    left, top = 20 + (1.5 - 1.5) / 7 * 120, (4.5 - 1.5) / 7 * 120
    assert np.allclose(box, [left / 160, top / 120, 3 / 7 * 120 / 160, 3 / 7], atol=0.01)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_two_runs(few: Run, tmp_path: Path, chromium: Any) -> None:
    moved = answer(7, "pets/007.jpg", heatmap(22), 1)
    answers = [answer(number, f"pets/{number:03d}.jpg", heatmap(number), number % 3) for number in range(3, 7)]
    other = stored(tmp_path / "before", [*answers, moved])
    page = write_report(few, tmp_path / "page.html", versus=other)
    counts, _, groups = section(page, "comparison")
    assert dict(counts["rows"])["in both"] == 5
    assert dict(counts["rows"])["only in run"] == 65
    first = groups["items"][0]
    assert first["title"] == "pets/007.jpg"
    assert first["rows"] == [len(few.table), 7]
    maps = blocks_of(page, "maps")
    assert np.frombuffer(maps[len(few.table)], "<u2").argmax() == heatmap(22).raw.argmax()
    with opened(chromium, page) as view:
        assert shown(view) == few.explained["id"].tolist()[:60]  # the other run's rows aren't in the gallery
        view.locator("#comparison article").first.locator(".tile").first.click()
        assert view.locator("#viewer .where").text_content() == "1 of 2"
    with pytest.raises(DataError, match="no heatmap in common"):
        write_report(few, versus=stored(tmp_path / "apart", [answer(1, "else.jpg", heatmap(1))]))


def test_the_same_as_figures(run: Run, page: Path) -> None:
    figures = {one.stem for one in (run.folder / "report_figures").iterdir()}
    assert figures >= {"places", "classes-by-label", "classes-by-prediction", "right-and-wrong", "confusions", "focus"}
    for one in (run.folder / "report_figures").iterdir():
        with Image.open(one) as picture:
            assert min(picture.size) > 100


def test_figures_are_of_their_page_alone(few: Run, tmp_path: Path) -> None:
    write_report(few, tmp_path / "few.html")
    other = stored(tmp_path / "run", [answer(number, f"{number}.jpg", heatmap(number)) for number in range(6)])
    write_report(other, tmp_path / "other.html")
    figures = [{one.name for one in (tmp_path / f"{name}_figures").iterdir()} for name in ("few", "other")]
    assert "confusions.png" in figures[0] - figures[1]
    (tmp_path / "few_figures" / "mine.png").write_text("of the user's own")
    write_report(other, tmp_path / "few.html")
    assert {one.name for one in (tmp_path / "few_figures").iterdir()} == figures[1] | {"mine.png"}


def test_no_folder_of_this_machine_is_told(few: Run, page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    assert "from: her photos" in text
    assert "Data: folder her photos." in text
    before = stored(tmp_path / "run", [answer(3, "pets/003.jpg", heatmap(3), 0)])
    both = write_report(few, tmp_path / "both.html", versus=before).read_text()
    assert f"{tmp_path.name}/run" in both  # both runs' folders have one name
    for told in (text, both):
        assert "lovelace" not in told
        assert str(tmp_path.parent) not in told


def test_the_number_of_classes_is_said(run: Run, page: Path) -> None:
    assert "&lt;/script&gt;, 3 classes" in page.read_text()
    unlabelled = Run(run.folder)
    unlabelled.about = {name: told for name, told in run.about.items() if name != "labels"}
    assert "unnamed classes" in header(unlabelled)["made"]["Model"]


def test_a_missing_library_is_said_and_a_damaged_part_is_an_error(
    few: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(few.folder, tmp_path / "run")
    with monkeypatch.context() as without:
        find = importlib.util.find_spec
        without.setattr("importlib.util.find_spec", lambda name, *a: None if name == "sklearn" else find(name, *a))
        text = write_report(tmp_path / "run").read_text()
    assert "needs sklearn, which isn&#39;t installed; run: pip install &#39;hookmap[dataset]&#39;" in text
    assert not section(tmp_path / "run" / "report.html", "clusters")
    assert section(tmp_path / "run" / "report.html", "outcomes")
    part = sorted((tmp_path / "run" / "maps.parquet").iterdir())[1]
    whole = part.read_bytes()
    part.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    with pytest.raises(DataError, match="is damaged"):
        write_report(tmp_path / "run")
    part.write_bytes(whole[:100])
    with pytest.warns(HookmapWarning, match=r"lost 1 part \(.*--resume"):
        text = write_report(tmp_path / "run").read_text()
    assert f"Run lost 1 part ({len(few.table) // 2} images) since it was written" in text


def test_where_label_and_prediction_agree_one_heatmap_is_shown(tmp_path: Path, chromium: Any) -> None:
    right, wrong = answer(0, "right.jpg", heatmap(0), 0), answer(1, "wrong.jpg", heatmap(1), 2)
    right.heatmaps.append(("label", heatmap(0)))
    other = heatmap(2)
    wrong.heatmaps.append(("label", replace(other, target="owl", index=2)))
    page = write_report(stored(tmp_path / "run", [right, wrong]))
    with opened(chromium, page) as view:
        assert shown(view) == ["right.jpg", "wrong.jpg", "wrong.jpg"]
        view.select_option("#by-asked", "label")
        assert shown(view) == ["right.jpg", "wrong.jpg"]


def test_classes_of_one_picture_each_are_no_table(tmp_path: Path) -> None:
    answers = [answer(number, f"{number}.jpg", heatmap(number), number) for number in range(2)]
    page = write_report(stored(tmp_path / "run", answers))
    (block, *_) = section(page, "classes")
    assert block["kind"] == "text"
    assert "one heatmap" in block["text"]
    assert "too few heatmaps" in section(page, "clusters")[0]["text"]


def test_what_is_printed_is_drawn(run: Run, page: Path, chromium: Any) -> None:
    with opened(chromium, page) as view:
        count = view.locator("#gallery .overlaid").count()
        assert view.locator("#gallery .overlaid[data-drawn]").count() < count
        view.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        view.wait_for_function(
            "count => document.querySelectorAll('#gallery .overlaid[data-drawn]').length === count", arg=count
        )


def test_each_run_is_drawn_in_its_own_look(few: Run, tmp_path: Path, chromium: Any) -> None:
    """Two runs by one method, one signed and one positive, side by side."""
    found = heatmap(8, part="signed")
    signed = stored(tmp_path / "signed", [answer(3, "pets/003.jpg", found, 0)])
    with opened(chromium, write_report(few, tmp_path / "page.html", versus=Run(signed.folder))) as view:
        pair = view.locator("#comparison article .tile")
        pair.first.scroll_into_view_if_needed()
        for number in (0, 1):
            pair.nth(number).locator("[data-drawn]").wait_for()
        before, after = (drawn(view, pair.nth(number).locator(".heat")) for number in (0, 1))
        palettes = [
            base64.b64decode(data_of(tmp_path / "page.html")["palettes"][name]) for name in ("RdBu_r", "inferno")
        ]
    for rgba, palette in zip((before, after), palettes, strict=True):
        known = np.frombuffer(palette, np.uint8).reshape(-1, 3)
        # Canvases keep colours exactly only where they are nearly opaque; opaque are the marks in the corners.
        colours = rgba[(rgba[..., 3] > 200) & (rgba[..., 3] < 255)][:, :3]
        assert len(colours)
        assert np.abs(colours[:, None] - known).max(2).min(1).max() <= 2


def test_a_clip_is_the_sum_over_time(tmp_path: Path, chromium: Any) -> None:
    raw = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0)) - 0.3
    run = stored(tmp_path / "run", [answer(0, "a.jpg", replace(heatmap(0), raw=raw)), answer(1, "b.jpg", heatmap(1))])
    page = write_report(run)
    total = raw.clamp(min=0).sum(0)
    coded = np.frombuffer(blocks_of(page, "maps")[0], "<u2").reshape(7, 7) / 65535
    assert np.abs(coded - (total / total.max()).numpy()).max() < 0.5 / 255 + 1e-3  # maps are kept in float16
    with opened(chromium, page) as view:
        view.locator("#gallery .tile").first.click()
        said(view.locator("#viewer .stage .below"), "A clip: the sum over its 3 steps.")
        view.keyboard.press("ArrowRight")
        assert view.locator("#viewer .stage .below").count() == 0


SMALL = {
    "one image": [answer(3, "a.jpg", heatmap(3), 0)],
    "no labels": [answer(number, f"{number}.jpg", heatmap(number)) for number in range(6)],
    "nothing but errors": [ImageResult(Sample("a.jpg", error="broken"), error="broken")],
    "nothing at all": [],
    "zero maps": [answer(0, "a.jpg", replace(heatmap(0), raw=torch.zeros(7, 7)), 0)],
    "no pictures": [answer(0, "a.jpg", heatmap(0))],
    "a clip": [answer(0, "a.jpg", replace(heatmap(0), raw=torch.rand(3, 7, 7)))],
    "a series": [answer(0, "a.jpg", replace(heatmap(0), raw=torch.rand(9)))],
    "objects": [
        replace(
            answer(0, "a.jpg", heatmap(0)),
            heatmaps=[("predicted", heatmap(k, where=f"box {k}", box=(20.0, 30.0, 60.0, 90.0))) for k in range(3)],
        )
    ],
}
SMALL["no pictures"][0].sample.thumbnail = b""


@pytest.mark.parametrize("kind", SMALL)
def test_small_runs_have_a_page_too(kind: str, tmp_path: Path, chromium: Any) -> None:
    run = stored(tmp_path / "run", SMALL[kind])
    with opened(chromium, write_report(run)) as view:
        count = len(run.explained)
        assert view.locator("#gallery .tally").text_content() == f"{count} heatmap{'s' * (count != 1)}"
        assert view.locator("#gallery .tile").count() == count
        if count:
            view.locator("#gallery [data-drawn]").first.wait_for()
            view.locator("#gallery .tile").last.click()
            view.locator("#viewer [data-drawn]").wait_for()
            assert view.locator("#viewer .box").count() == (kind == "objects")
        assert not view.wrong


def test_a_large_run_has_a_page_of_some_of_its_heatmaps(
    run: Run, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chromium: Any
) -> None:
    for name, value in (("WHOLE", 100), ("SPREAD", 20), ("EACH", 3)):
        monkeypatch.setattr(f"hookmap.report.holding.{name}", value)
    short = write_report(run, tmp_path / "short.html", versus=run)
    data, whole = data_of(short), data_of(page)
    ids = data["table"]["id"]
    assert 20 <= data["count"] < 130
    numbered = run.table.reset_index().set_index("id")["index"]
    maps, pictures = blocks_of(short, "maps"), blocks_of(short, "pictures")
    rows = sorted(numbered[name] for name in ids[: data["count"]])
    assert np.diff([-1, *rows, 131]).max() <= 130 / 19 + 2  # nowhere is there a gap
    for place, name in enumerate(ids[: data["count"]]):  # each row's own map and picture
        shown = run.values([numbered[name]])[0]
        coded = np.frombuffer(maps[place], "<u2").reshape(shown.shape) / 65535
        assert np.abs(coded - shown / shown.max()).max() <= 1e-4
        assert pictures[data["pictureOf"][place]] == run.thumbnails[name]
    groups = 0
    for one in whole["sections"]:
        for block, before in zip(section(short, one["name"]), one["blocks"], strict=True):
            if block["kind"] != "groups":
                assert block == before  # numbers are of the whole run
                continue
            for mine, all_of in zip(block["items"], before["items"], strict=True):
                assert [ids[row] for row in mine["rows"]] == run.table["id"].iloc[all_of["rows"]].tolist()[:3]
                assert any("first 3" in note for note in mine["notes"]) == (len(all_of["rows"]) > 3)
                groups += 1
    assert groups > 3
    pairs = next(one for one in data["sections"] if one["name"] == "comparison")["blocks"][-1]["items"]
    assert all(ids[before] == ids[after] == pair["title"] for pair in pairs for before, after in [pair["rows"]])
    with opened(chromium, short) as view:
        told = view.locator("#gallery .aside p").text_content()
        assert told.startswith(f"{data['count']} of 130 heatmaps: 20 spread evenly over the run")
        said(view.locator("#gallery .tally"), f"{data['count']} heatmaps")
        assert view.locator(".head").text_content().count("131")  # images, with the one that can't be read
        assert not view.wrong
