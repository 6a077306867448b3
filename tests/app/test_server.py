"""What the server says is what the library says, whoever asks, and however many at once."""

from __future__ import annotations

import gc
import importlib.util
import io
import json
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import load

import hookmap as hm
from hookmap import pages
from hookmap.app.server import App
from hookmap.explorer.answering import Explorer
from hookmap.explorer.questions import Erase, Explain, Predict, Stroke
from pictures import PHOTOS, REPOSITORY

LONG = {"method": "rise", "budget": 4000}
"""A question that takes longer than any test waits."""


@pytest.fixture(scope="module")
def explorer(lens: hm.Lens) -> Explorer:
    return Explorer({"net": lens.engine}, [PHOTOS / "coffee.jpg"])


@pytest.fixture(scope="module")
def client(explorer: Explorer) -> Iterator[TestClient]:
    with TestClient(App(explorer), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def cat_id(client: TestClient, cat: Path) -> str:
    return client.post("/api/pictures", params={"name": "cat.jpg"}, content=cat.read_bytes()).json()["id"]


def about(response: Any) -> dict[str, Any]:
    """What an answer says in its metadata."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/vnd.safetensors"
    length = int.from_bytes(response.content[:8], "little")
    return json.loads(json.loads(response.content[8 : 8 + length])["__metadata__"]["answer"])


def ask(client: TestClient, what: str, picture: str, wait: float = 60, **question: Any) -> Any:
    return client.post(f"/api/{what}", params={"wait": wait}, json={"model": "net", "picture": picture, **question})


# ---------------------------------------------------------------- answers


def test_a_heatmap_is_the_lens_own_to_the_last_bit(client: TestClient, cat_id: str, lens: hm.Lens, cat: Path) -> None:
    for question in ({}, {"target": "tabby", "method": "layercam", "layer": "blocks.6"}):
        answer = ask(client, "explain", cat_id, **question)
        own = lens.explain(cat, **{"target": "predicted", **question})[0]
        (drawn,) = about(answer)["heatmaps"]
        assert load(answer.content)[drawn["array"]].numpy().tobytes() == own.raw.numpy().tobytes()
        assert (drawn["title"], drawn["method"], drawn["layer"]) == (own.title, own.method.name, own.layer)


def test_predictions_are_the_lens_own(client: TestClient, cat_id: str, lens: hm.Lens, cat: Path) -> None:
    seen = about(ask(client, "predict", cat_id, top=3))["predictions"]
    own = lens.predict(cat, top=3)[0]
    assert [(one["index"], one["label"], one["probability"]) for one in seen] == [
        (one.index, one.label, one.probability) for one in own
    ]


def test_an_answer_has_a_key_by_which_it_is_had_again(client: TestClient, cat_id: str) -> None:
    answer = ask(client, "stages", cat_id)
    again = client.get(f"/api/answers/{answer.headers['x-answer']}")
    assert again.content == answer.content
    assert "immutable" in again.headers["cache-control"]
    assert {stage["array"] for stage in about(again)["stages"]} == set(load(again.content))
    gone = client.get("/api/answers/0123")
    assert (gone.status_code, gone.json()["kind"]) == (404, "absent")


def test_what_there_is(client: TestClient) -> None:
    (model,) = client.get("/api/models").json()
    assert (model["id"], len(model["labels"]), model["form"]) == ("net", 1000, "classes")
    assert client.get("/api/about").json() == {"version": hm.__version__, "device": "cpu", "photos": 0}
    (sample,) = client.get("/api/samples").json()
    shown = client.get(f"/api/pictures/{sample['id']}", params={"longer": 64})
    assert max(Image.open(io.BytesIO(shown.content)).size) == 64
    assert "immutable" in shown.headers["cache-control"]


def test_a_picture_has_the_id_of_its_bytes_and_the_name_of_its_file(client: TestClient, cat: Path) -> None:
    first, again = (client.post("/api/pictures?name=a%2Fb.jpg", content=cat.read_bytes()).json() for _ in range(2))
    assert first == again
    assert "/" not in first["name"]


def test_a_region_that_is_erased_is_a_new_picture(client: TestClient, cat_id: str) -> None:
    question = Erase(picture=cat_id, strokes=(Stroke(((100.0, 100.0), (150.0, 120.0)), 40.0),))
    erased = client.post("/api/erased", json=asdict(question)).json()
    assert erased["id"] != cat_id
    before, after = (
        np.asarray(Image.open(io.BytesIO(client.get(f"/api/pictures/{id}").content)).convert("RGB"), dtype=float)
        for id in (cat_id, erased["id"])
    )
    assert np.abs(before - after)[100:120, 100:150].mean() > 10 * np.abs(before - after)[200:].mean()


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("npz", b"PK")])
def test_a_heatmap_is_taken_away_as_a_file(client: TestClient, cat_id: str, form: str, start: bytes) -> None:
    question = asdict(Explain(model="net", picture=cat_id))
    look = about(ask(client, "explain", cat_id))["heatmaps"][0]["look"] | {"colormap": "jet"}
    file = client.post("/api/export", params={"form": form}, json={"question": question, "look": look})
    assert file.status_code == 200, file.text
    assert file.content.startswith(start)
    assert file.headers["content-disposition"].startswith("attachment; filename*=UTF-8''cat")


@pytest.mark.parametrize(
    ("question", "kind", "sentence"),
    [
        ({"target": "dogg"}, "target", "did you mean"),
        ({"layer": "layer9"}, "layer", "layer9"),
        ({"method": "gradcan"}, "question", "gradcam"),
        ({"model": "other"}, "question", "other"),
        ({"picture": "0123"}, "image", "open it again"),
        ({"muted": [{"layer": "blocks.6", "numbers": [10**6]}]}, "layer", "1000000"),
        ({"muted": [{"layer": "blocks.6"}]}, "question", "muted.0.numbers"),
        ({"targt": "tabby"}, "question", "targt"),
        ({"seed": "one"}, "question", "seed"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(
    client: TestClient, cat_id: str, question: dict[str, Any], kind: str, sentence: str
) -> None:
    answer = ask(client, "explain", **({"picture": cat_id} | question))
    assert answer.status_code == 422
    assert answer.json()["kind"] == kind
    assert sentence in answer.json()["error"]


# ---------------------------------------------------------------- many, long and cancelled


def test_two_hundred_questions_of_ten_clients_at_once_are_all_answered_rightly(
    client: TestClient, cat_id: str, lens: hm.Lens, cat: Path
) -> None:
    targets = [str(index) for index in range(0, 1000, 50)]
    own = {str(one.index): one.raw for one in lens.explain(cat, [int(target) for target in targets])}

    def asks(number: int) -> list[bool]:
        right = []
        for turn in range(20):
            target = targets[(number + turn) % len(targets)]
            answer = ask(client, "explain", cat_id, target=target)
            drawn = about(answer)["heatmaps"][0]
            got = load(answer.content)[drawn["array"]]
            right.append(str(drawn["index"]) == target and torch.allclose(got, own[target], rtol=1e-3, atol=1e-6))
        return right

    with ThreadPoolExecutor(10) as pool:
        right = [one for answers in pool.map(asks, range(10)) for one in answers]
    assert right == [True] * 200


def test_who_cannot_wait_is_told_of_a_job_which_can_be_followed_and_cancelled(client: TestClient, cat_id: str) -> None:
    told = ask(client, "explain", cat_id, wait=0.2, **LONG)
    assert told.status_code == 202
    job = told.json()
    assert ask(client, "explain", cat_id, wait=0.2, **LONG).json()["id"] == job["id"], "the same question, the same job"
    assert told.headers["location"] == f"/api/jobs/{job['id']}"
    waiting = ask(client, "explain", cat_id, wait=0, target="7").json()
    assert waiting["state"] == "waiting"
    while not (now := client.get(f"/api/jobs/{job['id']}").json())["progress"]["done"]:
        time.sleep(0.05)
    assert now["state"] == "running"
    assert 0 < now["progress"]["done"] <= now["progress"]["total"]
    assert client.delete(f"/api/jobs/{job['id']}").json()["state"] == "cancelled"
    answer = ask(client, "explain", cat_id, target="7")
    assert answer.headers["x-answer"] == waiting["key"], "the next one is answered"


def events(text: str) -> list[tuple[int, dict[str, Any]]]:
    """The events of a stream."""
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    return [(int(block["id"]), json.loads(block["data"])) for block in blocks]


def test_progress_is_told_by_events_that_resume(client: TestClient, cat_id: str) -> None:
    job = ask(client, "explain", cat_id, wait=0, method="rise", budget=64).json()
    stream = client.get(f"/api/jobs/{job['id']}/events")
    assert stream.headers["content-type"].startswith("text/event-stream")
    seen = events(stream.text)
    assert seen[-1][1]["state"] == "done"
    assert [number for number, _ in seen] == sorted({number for number, _ in seen})
    assert client.get(f"/api/answers/{seen[-1][1]['key']}").status_code == 200
    for last in (0, seen[0][0], seen[-1][0]):
        again = client.get(f"/api/jobs/{job['id']}/events", headers={"last-event-id": str(last)})
        assert events(again.text) == seen[-1:], "who comes back is told the newest, which says all"
    assert client.get("/api/jobs/none/events").json()["kind"] == "absent"


def test_what_fails_later_is_told_by_events_too(client: TestClient, cat_id: str) -> None:
    held = ask(client, "explain", cat_id, wait=0.1, **LONG).json()
    job = ask(client, "explain", cat_id, wait=0, target="dogg").json()
    client.delete(f"/api/jobs/{held['id']}")
    last = events(client.get(f"/api/jobs/{job['id']}/events").text)[-1][1]
    assert last["state"] == "failed"
    assert "did you mean" in last["problem"]["error"]


def resident() -> float:
    """MiB of memory that this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.slow
def test_memory_is_flat_after_a_thousand_questions(client: TestClient, cat_id: str) -> None:
    def asked(many: range) -> None:
        for number in many:
            ask(client, "explain", cat_id, target=str(number % 1000), seed=number)
            ask(client, "predict", cat_id, top=1 + number % 20)
            client.get(f"/api/pictures/{cat_id}", params={"longer": 16 + number % 256})
            client.post("/api/pictures", content=b"no picture %d" % number)
            ask(client, "explain", cat_id, target=f"no class {number}")

    asked(range(100))
    before = resident()
    asked(range(100, 1100))
    assert resident() - before < 16


# ---------------------------------------------------------------- the page and the schema


def test_the_page_is_what_was_built_and_nothing_else(
    explorer: Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app" / "assets").mkdir(parents=True)
    (tmp_path / "app" / "index.html").write_text("<title>hookmap</title>")
    (tmp_path / "app" / "assets" / "app.js").write_text("export {}")
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.setattr(pages, "BUILT", tmp_path)
    with TestClient(App(explorer), base_url="http://127.0.0.1") as client:
        page, script = client.get("/"), client.get("/assets/app.js")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "javascript" in script.headers["content-type"]
        for path in (
            "/../secret.txt",
            "/assets/../../secret.txt",
            "/%2e%2e/secret.txt",
            "/..%2fsecret.txt",
            "//etc/passwd",
        ):
            assert client.get(path).json()["kind"] == "absent"


def test_the_schema_of_the_interface_is_the_servers() -> None:
    spec = importlib.util.spec_from_file_location("make_openapi", REPOSITORY / "ui" / "make_openapi.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    now, written = json.loads(module.schema()), json.loads(module.FILE.read_text(encoding="utf-8"))
    assert written["components"] == now["components"], "python ui/make_openapi.py"
    assert {(path, *of) for path, of in written["paths"].items()} == {(path, *of) for path, of in now["paths"].items()}


def test_every_answer_is_in_the_schema() -> None:
    schema = App(Explorer({})).openapi()
    answer = schema["paths"]["/api/explain"]["post"]["responses"]["200"]["content"]["application/vnd.safetensors"]
    assert answer["schema"] == {"$ref": "#/components/schemas/Explained"}
    assert set(schema["components"]["schemas"]["Drawn"]["required"]) >= {"array", "believed"}
    assert schema["components"]["schemas"]["Predict"]["required"] == ["model", "picture"]
    assert Predict.__name__ in schema["components"]["schemas"]
