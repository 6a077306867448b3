"""Patches of a run's pictures that are like one: those that similar_patches shows strongest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageOps
from safetensors.numpy import load

import hookmap as hm
from axe import faults
from hookmap.app import neighbours
from hookmap.app.runs import BrowsedRun, browsed
from hookmap.app.server import App
from hookmap.attribution.similarity import PatchBank
from hookmap.explorer.answering import Explorer
from hookmap.runs.rows import COLUMNS
from hookmap.runs.store import INDEX, MAPS, Store
from pictures import PHOTOS
from serving import served

LAYER, POINT = "blocks.4", (230, 130)


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, Path]:
    """Photos of a run, one of them twice."""
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = {}
    for name in ("cat.jpg", "coffee.jpg", "mirrored.jpg", "again.jpg"):
        paths[name] = folder / name
        paths[name].write_bytes((PHOTOS / name.replace("again", "coffee").replace("mirrored", "cat")).read_bytes())
    with Image.open(PHOTOS / "cat.jpg") as cat:
        ImageOps.mirror(cat).save(paths["mirrored.jpg"])
    return paths


@pytest.fixture
def run(photos: dict[str, Path], lens: hm.Lens, tmp_path: Path) -> Path:
    out = tmp_path / "runs" / "pets"
    hm.run(photos["cat.jpg"].parent, lens, out=out, method=["layercam", "hirescam"])
    return out


@pytest.fixture
def client(lens: hm.Lens, run: Path) -> Iterator[TestClient]:
    app = App(Explorer({"net": lens.engine}, [PHOTOS / "cat.jpg"]), runs=browsed([run]))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def ask(client: TestClient, wait: float = 120, **changes: Any) -> Any:
    picture = client.get("/api/samples").json()[0]["id"]
    question = {"model": "net", "picture": picture, "layer": LAYER, "x": POINT[0], "y": POINT[1], "run": "pets"}
    return client.post("/api/nearest", params={"wait": wait}, json=question | changes)


def told(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    length = int.from_bytes(answer.content[:8], "little")
    return json.loads(json.loads(answer.content[8 : 8 + length])["__metadata__"]["answer"])


def test_they_are_what_similar_patches_shows_strongest(
    client: TestClient, lens: hm.Lens, photos: dict[str, Path], run: Path
) -> None:
    answer = ask(client)
    found = told(answer)
    assert found["looked"] == 2  # neither the picture that is asked about, nor one twice
    others = {photos[name] for name in ("coffee.jpg", "mirrored.jpg")}
    maps = lens.similar_patches([PHOTOS / "cat.jpg", *sorted(others)], POINT, LAYER)[1:]
    assert [one["similarity"] for one in found["near"]] == pytest.approx(
        sorted((heatmap.score for heatmap in maps), reverse=True), abs=1e-4
    )
    arrays = load(answer.content)
    paths = Store(run).read(INDEX, ["path"])["path"].to_pylist()
    for one in found["near"]:
        assert paths[one["row"]] == str(photos[one["name"]])
        truth = next(heatmap for heatmap in maps if heatmap.score == pytest.approx(one["similarity"], abs=1e-4))
        x, y = one["place"]
        assert truth.map[int(y), int(x)] > truth.map.max() - 0.1
        crop, (left, top, right, bottom) = arrays[one["array"]], one["frame"]
        assert max(crop.shape) == neighbours.SIDE
        pixels = np.asarray(Image.open(photos[one["name"]]))
        patch = crop[round(top * len(crop)) : round(bottom * len(crop)), round(left * crop.shape[1]) :]
        mine = patch[:, : round((right - left) * crop.shape[1])].mean((0, 1))
        half = pixels.shape[1] / 14 / 2  # blocks.4 has a grid of 14 x 14
        across, down = slice(int(x - half), int(x + half)), slice(int(y - half), int(y + half))
        np.testing.assert_allclose(mine, pixels[down, across].mean((0, 1)), atol=12)


def test_another_patch_costs_no_pass_of_the_runs_pictures(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first = told(ask(client))
    monkeypatch.setattr(PatchBank, "add", None)
    again = told(ask(client, x=POINT[0] + 60))
    assert (again["looked"], len(again["near"])) == (first["looked"], 2)
    assert again["near"] != first["near"]


def test_a_search_is_cancelled_and_goes_on(client: TestClient) -> None:
    job = ask(client, wait=0).json()
    assert client.delete(f"/api/jobs/{job['id']}").json()["state"] == "cancelled"
    assert told(ask(client))["looked"] == 2


def test_what_cant_be_found_is_said(client: TestClient, photos: dict[str, Path]) -> None:
    assert "there's no run 'other' here" in ask(client, run="other").json()["error"]
    assert ask(client, layer="nowhere").status_code == 422
    assert "outside" in ask(client, x=-5).json()["error"]
    assert ask(client, folder="/etc").status_code == 422
    for name in ("coffee.jpg", "mirrored.jpg", "again.jpg"):
        photos[name].unlink()
    gone = ask(client, layer="blocks.5")
    assert gone.status_code == 404
    assert "no other picture of this run can be read" in gone.json()["error"]


def test_the_sample_is_spread_evenly_over_pictures_that_are_there(tmp_path: Path) -> None:
    count, per_part = 400, 80
    files = [tmp_path / f"{number:03d}.png" for number in range(count)]
    for number, file in enumerate(files):
        if not 100 <= number < 120:
            file.touch()
    folder = tmp_path / "run"
    folder.mkdir()
    store = Store(folder)
    store.describe({"model": {"name": "net"}, "looks": {}})
    paths: list[str | None] = [str(file) for file in files for _ in range(2)]  # two heatmaps of each
    paths[:2] = [None, None]
    for part in range(2 * count // per_part):
        mine = paths[part * per_part : (part + 1) * per_part]
        empty = {
            name: pa.nulls(per_part, pa.bool_() if column.kind == "bool" else pa.type_for_alias(column.kind))
            for name, column in COLUMNS.items()
        }
        index = pa.table({**empty, "id": [f"{part} {at}" for at in range(per_part)], "path": pa.array(mine, "string")})
        store.commit(part, {INDEX: index, MAPS: pa.table({"id": index["id"]})})
    sample = BrowsedRun("run", folder).sample(40)
    assert len(sample) == len(set(sample.values())) == 40
    for row, path in sample.items():
        assert path == files[row // 2]
        assert path.is_file()
    numbers = sorted(row // 2 for row in sample)
    steps = [after - before for before, after in pairwise([0, *numbers, count])]
    assert max(steps) <= 20 + 20  # where files are gone


def test_a_person_walks_from_patch_to_patch(chromium: Any, lens: hm.Lens, run: Path) -> None:
    app = App(Explorer({"net": lens.engine}, [PHOTOS / "cat.jpg"]), runs=browsed([run]))
    with served(app) as link, chromium.new_context(viewport={"width": 1280, "height": 860}, locale="en") as session:
        view = session.new_page()
        view.set_default_timeout(60_000)
        view.goto(link)
        view.get_by_role("button", name="Look at a place").click()
        view.locator(".stage img").first.click()
        near = view.get_by_role("button", name="mirrored.jpg")
        near.wait_for()
        assert view.get_by_role("button", name="cat.jpg").count() == 0
        assert faults(view) == []
        near.click()
        view.locator("header .picture", has_text="mirrored.jpg").wait_for()
        view.get_by_role("button", name="cat.jpg").wait_for()  # the same patch, asked the other way round
