"""Which method and layer to take, on the photos that were opened: a job that gives way, is cancelled and goes on."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

import hookmap as hm
from coloured import SIDE, colours, pictures
from hookmap.app import verdicts
from hookmap.app.server import App
from hookmap.explorer.answering import Explorer
from serving import served


@pytest.fixture(scope="module")
def net() -> hm.Lens:
    plain = colours()
    size = (SIDE, SIDE)
    preprocessing = hm.Preprocessing(size, size, mean=(0.0,) * 3, std=(1.0,) * 3)
    return hm.Lens(plain.model, labels=["red", "green"], preprocessing=preprocessing, device="cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for number, picture in enumerate(pictures(10)):
        pixels = (picture.clamp(0, 1) * 255).byte().movedim(0, -1).numpy()
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def client(net: hm.Lens, photos: list[Path]) -> Iterator[TestClient]:
    with TestClient(App(Explorer({"net": net.engine}, photos), photos=photos), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def decide(client: TestClient, wait: float = 120) -> Any:
    return client.post("/api/verdict", params={"wait": wait}, json={"model": "net"})


def test_it_is_what_compare_says_and_is_kept(
    client: TestClient, net: hm.Lens, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of tied ones the cheapest is taken; what they cost on a busy machine is chance.
    monkeypatch.setattr(
        sys.modules["hookmap.verdict.compare"],  # the function has its module's name
        "prices",
        lambda task, numbers, ones: {c.name: float(len(c.name)) for c in ones},
    )
    assert client.get("/api/about").json()["photos"] == 10
    told = decide(client).json()
    verdict = hm.compare(net, [*map(str, photos)], progress=False)
    assert told["sentences"] == verdict.summary()
    assert [one["name"] for one in told["compared"]] == [s.name for s in verdict.judgement.standings]
    for one, standing in zip(told["compared"], verdict.judgement.standings, strict=True):
        assert (one["mean"], one["control"]) == (standing.mean, standing.name not in verdict.candidates)
    monkeypatch.setattr(verdicts, "compared", None)  # it isn't compared again
    with TestClient(App(Explorer({"net": net.engine}), photos=photos), base_url="http://127.0.0.1") as other:
        assert decide(other).json() == told  # another process finds it
        page = other.post("/api/verdict/page", json={"model": "net"})
    assert page.headers["content-type"].startswith("text/html")
    assert verdict.summary()[0].partition("(")[0] in page.text
    assert str(photos[0].parent) not in page.text


def test_a_question_is_answered_while_it_goes_on(client: TestClient, photos: list[Path]) -> None:
    job = decide(client, wait=0).json()
    picture = client.get("/api/samples").json()[0]["id"]
    asked = {"model": "net", "picture": picture}
    assert client.post("/api/explain", json=asked).status_code == 200
    assert client.get(f"/api/jobs/{job['id']}").json()["state"] == "running"
    assert client.delete(f"/api/jobs/{job['id']}").json()["state"] == "cancelled"
    assert decide(client).status_code == 200  # it goes on


def test_what_cant_be_compared_is_said(net: hm.Lens, photos: list[Path]) -> None:
    app = App(Explorer({"net": net.engine}, photos[:3]), photos=photos[:3])
    with TestClient(app, base_url="http://127.0.0.1") as client:
        few = decide(client)
        assert few.status_code == 422
        assert "3 images can't tell methods apart; pass 8 or more" in few.json()["error"]
        nothing = client.post("/api/verdict/page", json={"model": "net"})
        assert nothing.status_code == 422
        unknown = client.post("/api/verdict", json={"model": "other"})
        assert "there's no model 'other' here" in unknown.json()["error"]
        assert client.post("/api/verdict", json={"model": "net", "folder": "/etc"}).status_code == 422


def test_it_is_started_stopped_and_read_in_the_browser(chromium: Any, net: hm.Lens, photos: list[Path]) -> None:
    app = App(Explorer({"net": net.engine}, photos), photos=photos)
    with served(app) as link, chromium.new_context(viewport={"width": 1280, "height": 860}, locale="en") as session:
        view = session.new_page()
        view.set_default_timeout(60_000)
        view.goto(link)
        view.get_by_role("tab", name="Trust").click()
        compare = view.get_by_role("button", name="Compare", exact=True)
        compare.click()
        view.get_by_text(re.compile(r"\d+ / \d+")).wait_for()
        view.get_by_role("button", name="Stop").click()
        compare.click()
        view.get_by_text("standard deviations of random maps, which get 0").wait_for()
        shown = view.get_by_role("button", name="Show it")
        chosen = view.locator("li:has(button:text('Show it')) .name").first.text_content().split()[0]
        shown.first.click()
        view.wait_for_url(re.compile("method="))
        view.locator(".caption .how", has_text=chosen).wait_for()
        with view.expect_download() as download:
            view.get_by_role("button", name="Save as a page").click()
        assert "<html" in Path(download.value.path()).read_text()
