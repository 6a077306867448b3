"""Whatever the schema allows, or nearly allows, to be asked: no answer is a fault of the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import hookmap as hm
from hookmap.app.server import App
from hookmap.explorer.answering import Explorer
from pictures import PHOTOS

SCHEMA = schemathesis.openapi.from_dict(App(Explorer({})).openapi())
OPERATIONS = {operation.ok().label: operation.ok() for operation in SCHEMA.get_all_operations()}
MEANT = {
    "model": ["net"],
    "layer": ["blocks.6", "blocks.2"],
    "target": ["predicted", "7", "point:20,20"],
    "method": [None],
}
"""Values that exist, without which most questions end at the first word."""


@pytest.fixture(scope="module")
def client(lens: hm.Lens) -> Iterator[TestClient]:
    app = App(Explorer({"net": lens.engine}, [PHOTOS / "cat.jpg"]))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def meant(data: st.DataObject, part: Any, values: dict[str, list[Any]]) -> None:
    """Put values that exist into a part of a question, now and then."""
    for name, value in part.items() if isinstance(part, dict) else ():
        if name in values and data.draw(st.integers(0, 3)):
            part[name] = data.draw(st.sampled_from(values[name]))
        elif isinstance(value, dict):
            meant(data, value, values)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (name, mode)
        for name in OPERATIONS
        for mode in schemathesis.GenerationMode
        if name.startswith("POST") or mode.is_positive  # a path alone can hardly be wrong
    ],
)
def test_no_question_is_answered_by_a_fault(client: TestClient, name: str, mode: schemathesis.GenerationMode) -> None:
    values = MEANT | {"picture": [client.get("/api/samples").json()[0]["id"]]}

    @given(case=OPERATIONS[name].as_strategy(generation_mode=mode), data=st.data())
    @settings(
        max_examples=25,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def asked(case: schemathesis.Case, data: st.DataObject) -> None:
        meant(data, case.body, values)
        request = case.as_transport_kwargs(base_url="http://127.0.0.1")
        request["content"] = request.pop("data", None)
        request["params"] = {**(request.get("params") or {}), **({"wait": 0.5} if case.method == "POST" else {})}
        answer = client.request(
            **{key: value for key, value in request.items() if value is not None and key != "cookies"}
        )
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            assert set(answer.json()) == {"error", "kind"}
        if answer.status_code == 202:
            client.delete(f"/api/jobs/{answer.json()['id']}")

    asked()
