"""Questions about places: detections, what wasn't detected, points and regions of a segmenter, in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchvision

import hookmap as hm
from hookmap.app.server import App
from hookmap.explorer.answering import Explorer
from networks import stirred
from pictures import PHOTOS
from serving import served

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")


@pytest.fixture(scope="module")
def link() -> Iterator[str]:
    """Where a detector and a segmenter answer."""
    torch.manual_seed(1)
    segmenter = stirred(
        torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    )
    detector = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4, detections_per_img=3
    )
    named = {
        "detector": hm.Lens(detector).engine,
        "segmenter": hm.Lens(segmenter, preprocessing=hm.Preprocessing(size=(128, 128))).engine,
    }
    app = App(Explorer(named, [PHOTOS / "cat.jpg"]))
    with served(app) as address:
        yield address


@pytest.fixture
def page(chromium: Any, link: str) -> Iterator[Any]:
    with chromium.new_context(viewport={"width": 1280, "height": 860}, locale="en") as session:
        view = session.new_page()
        view.set_default_timeout(60_000)
        wrong: list[str] = []
        view.on("pageerror", lambda error: wrong.append(str(error)))
        view.goto(link)
        yield view
        assert not wrong


def drag(view: Any, *shares: tuple[float, float]) -> None:
    """Along points of the stage, as shares of it."""
    box = view.locator(".stage").first.bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in shares]
    view.mouse.move(*points[0])
    view.mouse.down()
    for point in points[1:]:
        view.mouse.move(*point, steps=6)
    view.mouse.up()


def test_the_strongest_detection_is_explained_first_and_another_by_a_click(page: Any) -> None:
    page.wait_for_function("() => document.querySelector('.caption h2')?.textContent.includes('box 0')")
    page.locator(".one").nth(1).click()
    page.wait_for_function("() => document.querySelector('.caption h2:not(.stale)')?.textContent.includes('box 1')")


def test_what_wasnt_detected_is_followed_to_where_it_was_lost(page: Any) -> None:
    page.wait_for_function("() => document.querySelector('.caption h2')?.textContent.includes('box 0')")
    page.get_by_role("button", name="Why wasn't this detected?").click()
    drag(page, (0.3, 0.3), (0.6, 0.7))
    page.get_by_text("candidate").first.wait_for()


def test_a_point_and_a_region_of_a_segmenter_are_asked_about(page: Any) -> None:
    page.locator("select").first.select_option(index=1)
    page.wait_for_function("() => document.querySelector('.caption h2:not(.stale)')?.textContent.startsWith('class')")
    page.get_by_role("button", name="Ask about a point").click()
    drag(page, (0.45, 0.4))
    page.wait_for_url("**point*")
    page.wait_for_function("() => document.querySelector('.caption h2:not(.stale)')?.textContent.includes('point')")
    page.get_by_role("button", name="Ask about a region").click()
    drag(page, (0.4, 0.3), (0.6, 0.35), (0.55, 0.6), (0.42, 0.5))
    page.wait_for_function("() => document.querySelector('.caption h2:not(.stale)')?.textContent.includes('polygon')")
    page.get_by_role("button", name="Ask about a box").click()
    drag(page, (0.35, 0.3), (0.6, 0.6))
    page.wait_for_function("() => document.querySelector('.caption h2:not(.stale)')?.textContent.includes('box (')")
