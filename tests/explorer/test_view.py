"""A saved view is walked through without Python and without a network; the notebook's messages are answered alike."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

import hookmap as hm
from hookmap.explorer.answering import Explorer
from hookmap.explorer.questions import Explain, Predict
from hookmap.explorer.view import saved_view
from hookmap.explorer.widget import Conversation
from pictures import PHOTOS

CAT = PHOTOS / "cat.jpg"


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hm.Lens().save_view(CAT, tmp_path_factory.mktemp("view") / "cat.html", "281", progress=False)


def held(page: Path) -> Any:
    found = re.search(r'<script type="application/json" id="view">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_a_view_holds_the_answers_of_the_lens(view: Path, lens: hm.Lens) -> None:
    answers = {(one["kind"], json.dumps(one["question"])): one["answer"] for one in held(view)["answers"]}
    asked = [json.loads(question) for kind, question in answers if kind == "explain"]
    assert {one["target"] for one in asked} >= {"281", "282", "285"}
    (first,) = [coded for (kind, question), coded in answers.items() if kind == "explain" and '"281"' in question][:1]
    raw = load(base64.b64decode(first))["map.0"]
    torch.testing.assert_close(raw, lens.explain(CAT, 281)[0].raw, rtol=1e-4, atol=1e-6)


def test_a_view_loads_nothing_from_elsewhere(view: Path) -> None:
    text = view.read_text("utf-8")
    assert "default-src 'none'" in text
    outside = set(re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)([^\"'#]+)", text.split("<script", 1)[0]))
    assert not outside


def test_a_view_is_walked_through_in_a_browser(chromium: Any, view: Path) -> None:
    with chromium.new_context(viewport={"width": 1300, "height": 900}, offline=True) as session:
        page = session.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(view.as_uri())
        page.get_by_role("heading", name="tabby").wait_for()
        page.get_by_role("button", name=re.compile("Egyptian cat")).first.click()
        page.get_by_role("heading", name="Egyptian cat").wait_for()
        page.locator("nav.strip button").nth(4).click()
        page.get_by_text("112 · 14×14").first.wait_for()
        assert not wrong


def test_what_cant_be_answered_is_left_out_and_nothing_at_all_is_said() -> None:
    explorer = Explorer({"lite": hm.Lens().engine}, [CAT])
    id = explorer.samples()[0].id
    page = saved_view(explorer, [Predict(model="lite", picture=id), Explain(model="lite", picture=id, layer="nowhere")])
    assert page.count('"kind":"predict"') == 1
    assert '"kind":"explain"' not in page
    with pytest.raises(hm.HookmapError, match="nowhere"):
        saved_view(explorer, [Explain(model="lite", picture=id, layer="nowhere")])


def test_a_target_that_was_named_isnt_left_out(lens: hm.Lens, tmp_path: Path) -> None:
    with pytest.raises(hm.HookmapError, match="nosuchclass"):
        lens.save_view(CAT, tmp_path / "cat.html", ["281", "nosuchclass"], progress=False)
    assert not (tmp_path / "cat.html").exists()


def test_a_name_cant_end_the_script_that_holds_it(tmp_path: Path) -> None:
    place = tmp_path / "a<_script><b>.jpg"
    place.write_bytes(CAT.read_bytes())
    explorer = Explorer({"lite": hm.Lens().engine})
    about = explorer.add(CAT.read_bytes(), "</script><script>alert(1)</script>")
    page = saved_view(explorer, [Predict(model="lite", picture=about.id)])
    assert "<script>alert" not in page


# ---------------------------------------------------------------- a notebook


class Kernel:
    """Both ends of a conversation."""

    def __init__(self) -> None:
        self.told: list[tuple[dict[str, Any], list[bytes]]] = []
        self.explorer = Explorer({"lite": hm.Lens().engine}, [CAT])
        self.conversation = Conversation(self.explorer, lambda content, buffers: self.told.append((content, buffers)))
        self.id = self.explorer.samples()[0].id

    def ask(self, ask: str, buffers: Any = (), **more: Any) -> tuple[dict[str, Any], list[bytes]]:
        number = len(self.told) + 1000
        self.conversation.hear({"id": number, "ask": ask, **more}, buffers)
        content, data = self.told[-1]
        assert content["id"] == number
        return content, data


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return Kernel()


def test_a_notebook_is_told_what_the_library_says(kernel: Kernel, lens: hm.Lens) -> None:
    assert kernel.ask("models")[0]["told"][0]["method"] == "gradcam"
    assert kernel.ask("samples")[0]["told"][0]["name"] == "cat.jpg"
    assert kernel.ask("about")[0]["told"]["version"] == hm.__version__
    question = {"model": "lite", "picture": kernel.id, "target": "282", "muted": []}
    _, (data,) = kernel.ask("explain", question=question)
    torch.testing.assert_close(load(data)["map.0"], lens.explain(CAT, 282)[0].raw, rtol=1e-4, atol=1e-6)
    told, (picture,) = kernel.ask("picture", picture=kernel.id, longer=200)
    assert told["told"]["media"] == "image/png"
    assert picture.startswith(b"\x89PNG")
    uploaded = kernel.ask("upload", [memoryview((PHOTOS / "coffee.jpg").read_bytes())], name="coffee.jpg")[0]["told"]
    assert uploaded["name"] == "coffee.jpg"
    strokes = [{"points": [[50, 50], [90, 50]], "width": 20}]
    erased = kernel.ask("erase", erase={"picture": kernel.id, "strokes": strokes})[0]["told"]
    assert erased["id"] != kernel.id
    told, (file,) = kernel.ask("export", question=question, form="npz", look={})
    assert told["told"]["name"] == "cat_gradcam.npz"
    assert file.startswith(b"PK")
    _, (page,) = kernel.ask("view", state={}, questions=[{"kind": "explain", "question": question}])
    assert b'id="view"' in page


def test_a_notebook_is_told_how_far_long_work_is(kernel: Kernel) -> None:
    start = len(kernel.told)
    question = {"model": "lite", "picture": kernel.id, "method": "featureocclusion"}
    kernel.ask("explain", question=question)
    steps = [content["progress"] for content, _ in kernel.told[start:] if "progress" in content]
    assert steps
    assert steps[-1]["done"] == steps[-1]["total"] > 0


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"ask": "explain", "question": {"model": "lite", "picture": "no"}}, "open it again"),
        ({"ask": "explain", "question": {"model": "lite"}}, "picture"),
        ({"ask": "explain", "question": {"model": "lite", "picture": "x", "colour": 3}}, "colour"),
        ({"ask": "dance"}, "dance"),
        ({}, "None"),
        ("nonsense", "AttributeError"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_sentence(kernel: Kernel, message: Any, words: str) -> None:
    kernel.conversation.hear({"id": 1, **message} if isinstance(message, dict) else message)
    content, _ = kernel.told[-1]
    assert words in content["problem"]["error"]


def test_the_widget_is_anywidgets(lens: hm.Lens) -> None:
    pytest.importorskip("anywidget")
    shown = lens.explore(np.asarray(np.zeros((64, 64, 3), np.uint8) + 100), "281")
    assert shown.state["target"] == "281"
    assert "render" in str(shown._esm)
