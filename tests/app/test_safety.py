"""Nobody but the person at the page may ask, and nothing that they send does harm."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

import hookmap as hm
from hookmap.app import safety
from hookmap.app.safety import Access
from hookmap.app.server import App
from hookmap.explorer.answering import Explorer
from pictures import PHOTOS, bomb


@pytest.fixture(scope="module")
def explorer(lens: hm.Lens) -> Explorer:
    return Explorer({"net": lens.engine}, [PHOTOS / "cat.jpg"])


@pytest.fixture(scope="module")
def client(explorer: Explorer) -> Iterator[TestClient]:
    with TestClient(App(explorer), base_url="http://127.0.0.1:4665") as client:
        yield client


def problem(response: Any, status: int, kind: str) -> str:
    """The sentence of a problem, which is JSON and no traceback."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    said = response.json()
    assert set(said) == {"error", "kind"}
    assert said["kind"] == kind
    assert "Traceback" not in said["error"]
    return said["error"]


# ---------------------------------------------------------------- who may ask


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9000", "localhost:4665", "[::1]:4665", "LOCALHOST"])
def test_this_machine_may_ask_by_its_own_names(client: TestClient, host: str) -> None:
    assert client.get("/api/about", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example:4665", "evil.example", "10.0.0.7:4665", "", "localhost.evil.example"])
@pytest.mark.parametrize("path", ["/api/about", "/", "/none"])
def test_a_name_that_was_bound_to_this_machine_may_not(client: TestClient, host: str, path: str) -> None:
    problem(client.get(path, headers={"host": host}), 403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:8000"},
        {"origin": "http://127.0.0.1:4666"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "pictures"), ("DELETE", "jobs/1"), ("GET", "models")])
def test_another_page_may_not_ask(client: TestClient, headers: dict[str, str], method: str, path: str) -> None:
    problem(client.request(method, f"/api/{path}", headers=headers), 403, "forbidden")


def test_its_own_page_may_ask_and_be_opened_from_anywhere(client: TestClient, cat: Path) -> None:
    own = {"origin": "http://127.0.0.1:4665", "sec-fetch-site": "same-origin"}
    assert client.post("/api/pictures", headers=own, content=cat.read_bytes()).status_code == 200
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code in (200, 404)


def test_nothing_may_be_read_or_framed_by_another_page(client: TestClient) -> None:
    for path in ("/api/about", "/api/none", "/none", "/"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers


# ---------------------------------------------------------------- from other machines


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_machine_alone_needs_no_token(host: str) -> None:
    assert Access.at(host).token is None


def test_from_other_machines_a_token_is_needed_which_becomes_a_cookie(explorer: Explorer) -> None:
    access = Access.at("0.0.0.0")
    with TestClient(App(explorer, access), base_url="http://192.168.0.7:4665") as client:
        for given in (
            "/api/about",
            "/",
            "/api/about?token=",
            "/api/about?token=é",
            f"/api/about?token={access.token}x",
        ):
            problem(client.get(given), 401, "token")
        problem(
            client.get("/api/about", headers={"cookie": f"{access.cookie}=x; \xe9=;;".encode("latin-1")}), 401, "token"
        )
        opened = client.get(f"/?token={access.token}")
        cookie = opened.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert client.get("/api/about").status_code == 200, "the cookie is enough from now on"
        assert "set-cookie" not in client.get("/api/about").headers
        problem(client.get("/api/about", headers={"host": "evil.example"}), 403, "forbidden")
        problem(client.get("/api/about", headers={"origin": "http://evil.example"}), 403, "forbidden")
    assert Access.at("0.0.0.0").token != access.token


# ---------------------------------------------------------------- what is sent


def test_a_picture_that_is_too_large_is_not_read_to_its_end(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safety, "PICTURE_BYTES", 2**20)
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 2**16
            yield bytes(2**16)

    problem(client.post("/api/pictures", content=bytes(2**20 + 1)), 413, "large")
    assert "1 MiB" in problem(client.post("/api/pictures", content=endless()), 413, "large")
    problem(
        client.post("/api/predict", content=b" " * (2**20 + 1), headers={"content-type": "application/json"}),
        413,
        "large",
    )


def test_a_picture_of_too_many_pixels_is_not_decoded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "million pixels" in problem(client.post("/api/pictures", content=bomb()), 413, "large")
    file = io.BytesIO()
    Image.new("L", (12_000, 10_000)).save(file, "PNG")
    monkeypatch.setattr(Image.Image, "load", None)
    problem(client.post("/api/pictures", content=file.getvalue()), 413, "large")


def encoded(form: str, **given: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, form, **given)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture",
        b"\xff\xd8\xff" + bytes(100),
        encoded("PNG")[:60],
        encoded("JPEG")[:300],
        encoded("WEBP")[:20],
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        b"\x89PNG\r\n\x1a\n" + (2**31 - 1).to_bytes(4, "big") + b"IHDR",
        b"GIF89a" + b"\xff" * 50,
        b"II*\x00" + b"\xff" * 50,
        zlib.compress(bytes(10**6)),
        encoded("BMP")[:60],
    ],
    ids=range(13),
)
def test_what_is_no_whole_picture_is_refused_in_a_sentence(client: TestClient, data: bytes) -> None:
    problem(client.post("/api/pictures", content=data), 422, "image")


def test_formats_that_pillow_hands_to_other_programs_are_refused(client: TestClient) -> None:
    eps = encoded("EPS")
    assert "EPS" in problem(client.post("/api/pictures", content=eps), 422, "image")


@pytest.mark.parametrize(
    "path", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "~root", "cat.jpg", "file:%2f%2f%2fetc%2fpasswd", "%00"]
)
def test_no_path_from_the_browser_reaches_the_disk(client: TestClient, path: str) -> None:
    for place in ("pictures", "answers", "jobs"):
        problem(client.get(f"/api/{place}/{path}"), 404, "absent")
    question = {"model": "net", "picture": "/etc/passwd"}
    problem(client.post("/api/predict", json=question), 422, "image")
    problem(client.post("/api/predict", json={"model": "/etc/passwd", "picture": path}), 422, "question")


JSON = {
    "nothing": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe{}",
    "not a number": b'{"model": "net", "picture": "PICTURE", "layer": "blocks.6", "x": NaN, "y": 1}',
    "infinite": b'{"model": "net", "picture": "PICTURE", "layer": "blocks.6", "x": 1e999, "y": 1}',
    "huge": b'{"model": "net", "picture": "PICTURE", "layer": "blocks.6", "x": ' + b"9" * 5000 + b', "y": 1}',
    "large": b'{"model": "net", "picture": "PICTURE", "layer": "blocks.6", "x": 1, "y": 123456789012345678}',
    "deep": b"[" * 200_000 + b"]" * 200_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a list": b"[]",
    "null": b"null",
    "of other types": b'{"model": ["net"], "picture": {}, "layer": 1, "x": "a", "y": null}',
}


@pytest.mark.parametrize("body", JSON.values(), ids=JSON.keys())
def test_json_that_is_wrong_is_refused_in_a_sentence(client: TestClient, body: bytes) -> None:
    picture = client.get("/api/samples").json()[0]["id"].encode()
    answer = client.post(
        "/api/patch", content=body.replace(b"PICTURE", picture), headers={"content-type": "application/json"}
    )
    assert len(problem(answer, 422, "question")) < 200


def test_what_is_not_sent_as_json_is_not_read_as_json(client: TestClient) -> None:
    question = json.dumps({"model": "net", "picture": client.get("/api/samples").json()[0]["id"]})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        problem(client.post("/api/predict", content=question, headers={"content-type": kind}), 422, "question")


def test_what_there_is_not_is_said_as_a_problem(client: TestClient) -> None:
    problem(client.get("/api/none"), 404, "absent")
    problem(client.get("/none.html"), 404, "absent")
    problem(client.get("/docs"), 404, "absent")
    problem(client.put("/api/about"), 405, "method")
    problem(client.get("/api/predict"), 405, "method")


def test_what_goes_wrong_in_hookmap_is_a_problem_too(
    client: TestClient, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError("by zero\nTraceback")

    picture = client.get("/api/samples").json()[0]["id"]
    monkeypatch.setattr(explorer, "answer", fails)
    problem(client.post("/api/predict", json={"model": "net", "picture": picture, "top": 77}), 500, "internal")
    monkeypatch.setattr(explorer, "key", fails)
    problem(client.post("/api/predict", json={"model": "net", "picture": picture}), 500, "internal")
