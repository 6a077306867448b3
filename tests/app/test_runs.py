"""Runs in the app: what the server says of one is what the run itself says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import load

import hookmap as hm
from axe import faults
from hookmap.app.runs import BrowsedRun, Selection, browsed
from hookmap.app.server import App
from hookmap.errors import DataError
from hookmap.explorer.answering import Explorer
from hookmap.runs.rows import COLUMNS
from hookmap.runs.store import INDEX, MAPS, Store
from pictures import PHOTOS
from serving import served

ROWS, PER_PART = 100_000, 10_000


@pytest.fixture(scope="module")
def folder(lens: hm.Lens, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two photos and a file that is none."""
    photos = tmp_path_factory.mktemp("photos")
    for name in ("cat.jpg", "coffee.jpg"):
        (photos / name).write_bytes((PHOTOS / name).read_bytes())
    (photos / "broken.jpg").write_bytes(b"no picture")
    out = tmp_path_factory.mktemp("runs") / "pets"
    hm.run(photos, lens, out=out, method=["layercam", "hirescam"], part_size=2)
    return out


@pytest.fixture(scope="module")
def client(lens: hm.Lens, folder: Path) -> Iterator[TestClient]:
    app = App(Explorer({"net": lens.engine}), runs=browsed([folder, folder]))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated index, with values that are missing."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("large") / "large"
    folder.mkdir()
    store = Store(folder)
    store.describe({"model": {"name": "net"}, "looks": {}})
    words = np.array([f"class {i}" for i in range(50)])
    for part in range(ROWS // PER_PART):
        labels, predictions = words[random.integers(0, 50, (2, PER_PART))]
        given = {
            "id": [f"Val/{part}/{i:05d}.jpg" for i in range(PER_PART)],
            "label": labels,
            "prediction": pa.array(predictions, mask=random.random(PER_PART) < 0.1),
            "correct": pa.array(labels == predictions, mask=random.random(PER_PART) < 0.1),
            "method": np.array(["gradcam", "layercam"])[random.integers(0, 2, PER_PART)],
            "probability": pa.array(
                random.random(PER_PART).round(2).astype(np.float32), mask=random.random(PER_PART) < 0.1
            ),
        }
        index = pa.table(
            {**{name: pa.nulls(PER_PART, _arrow(column.kind)) for name, column in COLUMNS.items()}, **given}
        )
        store.commit(part, {INDEX: index, MAPS: pa.table({"id": index["id"]})})
    return folder


def _arrow(kind: str) -> pa.DataType:
    return pa.bool_() if kind == "bool" else pa.type_for_alias(kind)


def rows(client: TestClient, **asked: Any) -> dict[str, Any]:
    answer = client.get("/api/runs/pets/rows", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_rows_and_maps_are_those_of_the_run(client: TestClient, folder: Path) -> None:
    run = hm.open_run(folder)
    first, second = client.get("/api/runs").json()
    assert (first["id"], second["id"], first["model"]) == ("pets", "pets-2", "efficientnet_lite0")
    told = rows(client)
    assert told["count"] == first["rows"] == len(run) == len(told["rows"])
    for row in told["rows"]:
        number, values = row["number"], row["values"]
        own = run.table.iloc[number]
        assert {name: value for name, value in values.items() if value is not None and name != "error"} == {
            name: own[name] for name in values if not pd.isna(own[name]) and name != "error"
        }
        map = client.get(f"/api/runs/pets/maps/{number}")
        picture = client.get(f"/api/runs/pets/pictures/{number}")
        if pd.isna(own["target"]):
            assert (map.status_code, picture.status_code) == (404, 404)
            continue
        assert load(map.content)["map"].tobytes() == run.maps([number])[0].tobytes()
        length = int.from_bytes(map.content[:8], "little")
        about = json.loads(json.loads(map.content[8 : 8 + length])["__metadata__"]["answer"])
        assert about["look"] == json.loads(json.dumps(run.look(number).as_json()))
        assert picture.content == run.thumbnails[own["id"]]


def test_no_path_is_told(client: TestClient, folder: Path) -> None:
    (broken,) = (row["values"] for row in rows(client)["rows"] if row["values"]["error"])
    assert "broken.jpg" in broken["id"]
    run = hm.open_run(folder)
    assert str(Path(run.table["path"].iloc[0]).parent) not in client.get("/api/runs/pets/rows").text


def test_a_picture_opens_from_where_the_run_read_it(client: TestClient) -> None:
    (cat,) = (row for row in rows(client, text="CAT", method="layercam")["rows"])
    opened = client.post(f"/api/runs/pets/open/{cat['number']}").json()
    assert opened["name"] == "cat.jpg"
    sent = client.post("/api/pictures", params={"name": "cat.jpg"}, content=(PHOTOS / "cat.jpg").read_bytes()).json()
    assert opened == sent


def test_a_file_that_went_away_is_said(lens: hm.Lens, tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "cat.jpg"
    photo.parent.mkdir()
    photo.write_bytes((PHOTOS / "cat.jpg").read_bytes())
    hm.run(photo.parent, lens, out=tmp_path / "run")
    photo.unlink()
    with TestClient(App(Explorer({}), runs=browsed([tmp_path / "run"])), base_url="http://127.0.0.1") as client:
        answer = client.post("/api/runs/run/open/0")
        assert (answer.status_code, answer.json()["kind"]) == (404, "absent")
        assert str(tmp_path) not in answer.text


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("none/rows", 404, "no run 'none'"),
        ("pets/maps/99", 404, "its rows are 0 to"),
        ("pets/pictures/99", 404, "no row 99"),
        ("pets/rows?limit=201", 422, "limit"),
        ("pets/rows?offset=-1", 422, "offset"),
        ("pets/rows?sort=nothing", 422, "can't be sorted by 'nothing'"),
        ("pets/rows?sort=path", 422, "can't be sorted by 'path'"),
        ("pets/values?column=path", 422, "column"),
    ],
)
def test_what_there_is_not_is_said(client: TestClient, path: str, status: int, words: str) -> None:
    answer = client.get(f"/api/runs/{path}")
    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_nothing_is_opened_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no run\.json"):
        browsed([tmp_path])


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"label": "class 7"},
        {"correct": True},
        {"correct": False, "method": "layercam", "sort": "probability"},
        {"prediction": "class 3", "sort": "probability", "descending": True},
        {"text": "val/3/000"},
        {"label": "nothing"},
    ],
)
def test_pages_are_what_pandas_finds(large: Path, asked: dict[str, Any]) -> None:
    table = hm.open_run(large).table
    for name, value in asked.items():
        if name in ("label", "prediction", "method", "correct"):
            table = table[(table[name] == value).fillna(False)]
    if "text" in asked:
        table = table[table["id"].str.contains(asked["text"], case=False)]
    if "sort" in asked:
        table = table.sort_values(asked["sort"], ascending="descending" not in asked, kind="stable")
    app = App(Explorer({}), runs={"large": BrowsedRun("large", large)})
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for offset in {0, 170, max(len(table) - 50, 0), len(table) + 5}:
            told = client.get("/api/runs/large/rows", params={**asked, "offset": offset, "limit": 100}).json()
            assert told["count"] == len(table)
            assert [row["number"] for row in told["rows"]] == table.index[offset : offset + 100].tolist()
            assert [row["values"]["id"] for row in told["rows"]] == table["id"][offset : offset + 100].tolist()


def test_values_are_counted(large: Path) -> None:
    run, table = BrowsedRun("large", large), hm.open_run(large).table
    for column in ("prediction", "correct", "method"):
        counts = [(one.value, one.count) for one in run.values(column)]
        assert dict(counts) == table[column].value_counts().to_dict()
        assert [count for _, count in counts] == sorted((count for _, count in counts), reverse=True)
    assert run.values("layer") == []


def test_a_damaged_part_is_said_to_who_asks_and_the_rest_can_be_looked_at(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run")
    part = sorted((tmp_path / "run" / "index.parquet").iterdir())[1]
    whole = part.read_bytes()
    part.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])  # of the same size, so it's seen when it's read
    with TestClient(App(Explorer({}), runs=browsed([tmp_path / "run"])), base_url="http://127.0.0.1") as client:
        first = client.get("/api/runs/run/rows", params={"limit": 1})
        assert first.json()["rows"][0]["values"]["id"] == hm.open_run(folder).table["id"].iloc[0]
        asked = client.get("/api/runs/run/rows", params={"method": "layercam"})
        assert asked.status_code == 422
        assert "--resume" in asked.json()["error"]


def test_who_asks_while_columns_are_read_gets_whole_answers(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several at once, from the moment when the run is opened; and each kind of column is read once."""
    table, read = hm.open_run(large).table, []
    whole = Store.read

    def counted(store: Store, kind: str, columns: list[str] | None = None) -> Any:
        read.append(columns)
        return whole(store, kind, columns)

    monkeypatch.setattr(Store, "read", counted)
    run = BrowsedRun("large", large)
    asked = [Selection((("label", f"class {i}"),), sort="probability" if i % 2 else None) for i in range(8)]
    with ThreadPoolExecutor(8) as askers:
        found = [*askers.map(lambda selection: run.rows(selection, 0, 1).count, asked)]
    assert found == [int((table["label"] == f"class {i}").sum()) for i in range(8)]
    assert len(read) == 2
    assert not {*read[0]} & {*read[1]}


def test_a_run_is_browsed_and_a_picture_opened(chromium: Any, lens: hm.Lens, folder: Path) -> None:
    app = App(Explorer({"net": lens.engine}, [PHOTOS / "coffee.jpg"]), runs=browsed([folder]))
    with served(app) as address, chromium.new_context(locale="en") as session:
        view = session.new_page()
        wrong: list[str] = []
        view.on("pageerror", lambda error: wrong.append(str(error)))
        view.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        view.goto(address)
        view.get_by_role("button", name="Run", exact=True).click()
        status = view.locator("dialog.run [role=status]")
        view.locator("dialog.run .heat").nth(3).wait_for()
        assert status.text_content() == "5 rows"
        assert not faults(view)
        view.locator("dialog.run").get_by_label("Method").select_option("layercam")
        view.wait_for_function("() => document.querySelector('.run [role=status]').textContent === '2 rows'")
        view.get_by_label("Search names").fill("CAT")
        view.wait_for_function("() => document.querySelector('.run [role=status]').textContent === '1 rows'")
        view.wait_for_function("() => location.hash.includes('layercam') && location.hash.includes('CAT')")
        view.reload()  # all of it is in the link
        view.locator("dialog.run .tile").click()
        view.locator("dialog.large .heat").wait_for()
        assert "map_scale" in view.locator("dialog.large").text_content()
        assert not faults(view)
        view.get_by_role("button", name="Open in the explorer").click()
        view.locator(".caption h2", has_text="tiger cat").wait_for()
        assert view.locator(".picture").text_content() == "cat.jpg"
        assert view.locator("dialog[open]").count() == 0
        assert not wrong
