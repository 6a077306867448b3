"""A person's way through the page, in a browser and on a running server."""

from __future__ import annotations

import base64
import copy
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hookmap as hm
from axe import faults
from hookmap.app.server import App
from hookmap.explorer.answering import Explorer
from pictures import PHOTOS
from serving import served


@pytest.fixture(scope="module")
def link(lens: hm.Lens) -> Iterator[str]:
    """Where a server answers."""
    app = App(Explorer({"net": lens.engine}, [PHOTOS / "cat.jpg"]))
    with served(app) as address:
        yield address


@pytest.fixture
def page(chromium: Any, link: str) -> Iterator[Any]:
    """The page with the cat's heatmap; nothing may have gone wrong when it is left."""
    with chromium.new_context(viewport={"width": 1280, "height": 860}, locale="en") as session:
        view = session.new_page()
        view.set_default_timeout(60_000)
        wrong: list[str] = []
        view.on("pageerror", lambda error: wrong.append(str(error)))
        view.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        view.goto(link)
        heatmap(view, "tiger cat")
        yield view
        assert not wrong


def heatmap(view: Any, title: str) -> None:
    """Wait until the heatmap of something is there."""
    view.wait_for_function(
        "title => document.querySelector('.caption h2:not(.stale)')?.textContent.startsWith(title)", arg=title
    )


def colours(view: Any) -> int:
    """How many colours the map over the photo has."""
    coded = view.evaluate("() => document.querySelector('.stage .map canvas').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(coded.partition(",")[2]))) as drawn:
        return len(drawn.getcolors(drawn.width * drawn.height))


def tab(view: Any, name: str) -> None:
    view.get_by_role("tab", name=name).click()


def test_a_class_is_asked_for_and_what_it_is_rather_than(page: Any) -> None:
    assert colours(page) > 100
    page.locator(".one", has_text="Egyptian cat").click()
    heatmap(page, "Egyptian cat")
    page.locator(".one", has_text="tabby").click(modifiers=["Shift"])
    heatmap(page, "Egyptian cat rather than tabby")
    page.get_by_role("combobox", name=re.compile("Search")).fill("goldfish")
    page.keyboard.press("Enter")
    heatmap(page, "goldfish")
    page.go_back()
    heatmap(page, "Egyptian cat rather than tabby")


def test_a_link_holds_all_that_is_set(page: Any) -> None:
    page.locator(".one", has_text="tabby").click()
    heatmap(page, "tabby")
    tab(page, "Look")
    page.get_by_role("radio", name="viridis").click()
    page.wait_for_url(re.compile("viridis"))
    drawn = colours(page)
    page.reload()
    heatmap(page, "tabby")
    assert page.get_by_role("radio", name="viridis").get_attribute("aria-checked") == "true"
    assert colours(page) == drawn


def test_another_look_asks_nobody(page: Any) -> None:
    tab(page, "Look")
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    before = colours(page)
    for name in ("jet", "both", "Even"):
        page.get_by_role("radio", name=name).click()
    page.get_by_label("Nothing below").fill("0.6")
    assert colours(page) != before
    page.get_by_role("button", name="Back to the usual look").click()
    assert colours(page) == before
    assert not asked


def test_a_layer_a_channel_and_what_it_does(page: Any) -> None:
    page.get_by_role("navigation", name="The network").get_by_role("button").nth(4).click()
    page.wait_for_function("() => document.querySelector('.caption .how')?.textContent.includes('blocks.3')")
    tab(page, "Channels")
    tiles = page.locator(".channel")
    tiles.first.wait_for()
    assert tiles.count() < 80  # the others are far below
    tiles.nth(1).hover()
    page.wait_for_function("() => document.querySelector('.caption h2').textContent.startsWith('Channel')")
    tiles.nth(1).click()
    page.mouse.move(300, 300)
    page.get_by_role("heading", name=re.compile("Channel .*, blocks.3")).wait_for()  # it is pinned
    page.get_by_label("Strength of channel").press("Home")
    page.get_by_text("Of the model with 1 made weaker").wait_for()
    muted = page.locator(".channel .number", has_text="muted")
    muted.wait_for()
    page.get_by_role("button", name="Undo").click()
    muted.wait_for(state="detached")


def test_a_concept_is_muted(page: Any) -> None:
    tab(page, "Channels")
    page.get_by_text("Concepts: what the layer sees here").click()
    sliders = page.get_by_label("Strength of the concept")
    sliders.first.wait_for()
    assert sliders.count() == 5
    before = page.locator(".caption h2").text_content()
    sliders.first.press("Home")
    page.get_by_text("Of the model with 1 made weaker").wait_for()
    page.wait_for_function(
        "before => document.querySelector('.caption h2:not(.stale)')?.textContent !== before", arg=before
    )
    page.wait_for_url(re.compile("concepts"))
    page.reload()
    sliders.first.wait_for()
    assert sliders.first.input_value() == "0"
    page.get_by_role("button", name="Undo").click()
    heatmap(page, "tiger cat")


def test_a_place_is_looked_at(page: Any) -> None:
    page.keyboard.press("i")
    page.mouse.click(400, 400)
    page.get_by_role("heading", name=re.compile("Row .*, column")).wait_for()
    assert page.locator("svg .field").count() == 1
    page.get_by_role("button", name="Where it looks alike").click()
    page.get_by_role("heading", name="Where it looks alike").wait_for()
    page.keyboard.press("Escape")
    heatmap(page, "tiger cat")


def test_what_is_erased_is_another_picture(page: Any) -> None:
    page.keyboard.press("e")
    page.mouse.move(350, 330)
    page.mouse.down()
    page.mouse.move(480, 340, steps=4)
    page.mouse.up()
    original = page.get_by_role("button", name="Original")
    original.wait_for()
    page.wait_for_function("() => !document.querySelector('.predictions.stale')")
    original.click()
    heatmap(page, "tiger cat")


def test_side_by_side(page: Any) -> None:
    tab(page, "Compare")
    page.get_by_role("checkbox", name="HiResCAM").check()
    page.locator("figcaption strong", has_text="HiResCAM").wait_for()
    page.get_by_label("Show the difference").check()
    assert page.locator(".compare figure").count() == 3
    first, second = (page.locator(".compare img").nth(i) for i in range(2))
    page.mouse.move(200, 250)
    page.mouse.wheel(0, -600)
    page.wait_for_function("() => document.querySelector('.compare img').clientWidth > 900")
    assert first.evaluate("image => image.clientWidth") == second.evaluate("image => image.clientWidth")


def test_two_models_and_where_they_differ(chromium: Any, lens: hm.Lens) -> None:
    tuned = copy.deepcopy(lens.model)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            parameter += 0.1 * parameter.std(correction=0) * noise
    other = hm.Lens(tuned, labels=lens.engine.labels, preprocessing=lens.preprocessing)
    app = App(Explorer({"net": lens.engine, "tuned": other.engine}, [PHOTOS / "cat.jpg"]))
    one, predicted = lens.explain(PHOTOS / "cat.jpg")[0], other.predict(PHOTOS / "cat.jpg", top=1)[0][0]
    assert one.index != predicted.index
    found = hm.difference(one, other.explain(PHOTOS / "cat.jpg", one.index)[0])
    with served(app) as address, chromium.new_context(viewport={"width": 1280, "height": 860}, locale="en") as session:
        view = session.new_page()
        view.goto(address)
        heatmap(view, "tiger cat")
        tab(view, "Compare")
        view.get_by_role("radio", name="Models").click()
        view.get_by_role("checkbox", name=other.engine.name).check()
        cell = view.locator(".compare figure").nth(1)
        cell.get_by_text(predicted.label.split(",")[0]).wait_for()  # each explains what it predicts
        view.get_by_label("Show the difference").check()
        cell.get_by_text("tiger cat").wait_for()  # a difference is that of one class
        figure = view.locator(".compare figure").nth(2)
        figure.get_by_text(f"up to {100 * found.strongest:.0f}% of the scale").wait_for()
        ends = view.locator(".tools .legend span").all_text_contents()
        assert ends == [f"more in {name}" for name in found.names[::-1]]
        view.wait_for_url(re.compile("minus"))
        view.reload()
        figure.get_by_text("of the scale").wait_for()


def test_the_check_and_what_is_taken_away(page: Any, tmp_path: Path) -> None:
    tab(page, "Trust")
    page.get_by_role("button", name="Check").click()
    page.locator(".word").wait_for()
    tab(page, "Take")
    assert "lens.explain('cat.jpg')" in page.get_by_label("Python").text_content()
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    with Image.open(file) as picture, Image.open(PHOTOS / "cat.jpg") as photo:
        assert picture.size == photo.size


def test_the_command_and_the_lines_draw_what_is_on_the_screen(
    page: Any, hookmap: Any, cat: Path, tmp_path: Path
) -> None:
    tab(page, "Look")
    page.get_by_role("radio", name="range").click()
    page.get_by_role("radio", name="viridis").click()
    page.get_by_label("Nothing below").fill("0.4")
    page.get_by_label("Photo in grey").check()
    tab(page, "Take")
    command = page.get_by_label("Command")
    page.wait_for_function(
        "() => document.querySelector('[aria-label=Command]')?.textContent.includes('--part signed')"
    )
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    download.value.save_as(tmp_path / "taken.png")
    words = shlex.split(command.text_content())
    assert words[-7:] == ["--colormap", "viridis", "--threshold", "0.4", "--scale", "minmax", "--grey"]
    told = hookmap(*(str(cat) if word == "cat.jpg" else word for word in words[1:]), "-o", "again.png")
    assert told.code == 0, told.err
    lines = page.get_by_label("Python").text_content().replace("'cat.jpg'", repr(str(cat)))
    exec(lines, {})
    drawn = [np.asarray(Image.open(tmp_path / name)) for name in ("taken.png", "again.png", "heatmap.png")]
    assert all((drawn[0] == other).all() for other in drawn[1:])
    assert len(np.unique(drawn[0].reshape(-1, 3), axis=0)) > 1000


def test_a_photo_is_dropped(page: Any) -> None:
    dropped = page.evaluate_handle(
        """bytes => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], 'mug.jpg', { type: 'image/jpeg' }));
          return data;
        }""",
        list((PHOTOS / "coffee.jpg").read_bytes()),
    )
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    page.locator(".picture", has_text="mug.jpg").wait_for()
    heatmap(page, "espresso")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_a_screen_reader(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    found = []
    for name in ("Ask", "Look", "Channels", "Compare", "Trust", "Take"):
        tab(page, name)
        page.wait_for_load_state("networkidle")
        found += [(name, *fault) for fault in faults(page)]
    assert not found


def test_a_phone_has_it_all(chromium: Any, link: str) -> None:
    with chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, locale="zh") as session:
        view = session.new_page()
        view.goto(link)
        heatmap(view, "tiger cat")
        assert view.evaluate("document.documentElement.scrollWidth") <= 390
        view.get_by_role("tab", name="外观").tap()
        view.get_by_role("radio", name="jet").tap()
        assert colours(view) > 100
