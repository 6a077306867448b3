"""`hookmap serve` as a process: it starts, says where, refuses what it must, and ends cleanly."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pictures import PHOTOS, REPOSITORY


class Served:
    """A running server and the link that it printed."""

    def __init__(self, process: subprocess.Popen[str], link: str) -> None:
        self.process = process
        self.link = link
        self.http = httpx.Client(base_url=link.partition("?")[0], timeout=60, trust_env=False)

    def upload(self) -> str:
        """The cat's id."""
        data = (PHOTOS / "cat.jpg").read_bytes()
        return self.http.post("/api/pictures", params={"name": "cat.jpg"}, content=data).json()["id"]


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Served]:
    with subprocess.Popen(
        [sys.executable, "-m", "hookmap", "serve", "--no-open", "--device", "cpu", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    ) as process:
        try:
            line = ""
            while not (found := re.search(r"http://\S+", line)):
                line = process.stdout.readline()
                assert line, process.stderr.read()
            served = Served(process, found[0])
            with served.http:
                yield served
        finally:
            process.kill()


def test_it_serves_until_ctrl_c_which_cancels_what_runs(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0", str(PHOTOS / "coffee.jpg")) as served:
        assert [one["name"] for one in served.http.get("/api/samples").json()] == ["coffee.jpg"]
        (model,) = served.http.get("/api/models").json()
        question = {"model": model["id"], "picture": served.upload(), "method": "rise", "budget": 8000}
        job = served.http.post("/api/explain", params={"wait": 0}, json=question).json()
        lines = list[str]()
        followed = threading.Event()

        def follow() -> None:
            with served.http.stream("GET", f"/api/jobs/{job['id']}/events") as stream:
                for line in stream.iter_lines():
                    lines.append(line)
                    if '"running"' in line:
                        followed.set()

        listener = threading.Thread(target=follow)
        listener.start()
        assert followed.wait(60)
        served.process.send_signal(signal.SIGINT)
        listener.join(60)
        out, err = served.process.communicate(timeout=60)
        assert (served.process.returncode, err) == (130, "hookmap: interrupted\n")
        assert "Traceback" not in out
        assert '"cancelled"' in [line for line in lines if line.startswith("data:")][-1]


def test_who_goes_away_before_the_answer_cancels_it(tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0") as served:
        question = {"model": served.http.get("/api/models").json()[0]["id"], "picture": served.upload()}
        with pytest.raises(httpx.ReadTimeout):
            served.http.post("/api/explain", json=question | {"method": "rise", "budget": 100_000}, timeout=2)
        answer = served.http.post("/api/predict", params={"wait": 40}, json=question)
        assert answer.status_code == 200, "what nobody waits for would take many minutes"


def test_killed_and_started_again_it_answers_the_same(tmp_path: Path) -> None:
    answers = list[tuple[str, str, bytes]]()
    for _ in range(2):
        with serving(tmp_path) as served:
            picture = served.upload()
            model = served.http.get("/api/models").json()[0]["id"]
            answer = served.http.post("/api/explain", json={"model": model, "picture": picture})
            answers.append((picture, answer.headers["x-answer"], answer.content))
            served.process.kill()
    assert answers[0] == answers[1]


def test_from_elsewhere_the_link_that_was_printed_is_needed(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", "--port", "0") as served:
        here = re.sub(r"//[^:]+:", "//127.0.0.1:", served.link)
        address, _, query = here.partition("?")
        assert httpx.get(f"{address}api/about", trust_env=False).json()["kind"] == "token"
        with httpx.Client(base_url=address, trust_env=False) as browser:
            browser.get(f"/?{query}")
            assert browser.get("/api/about").status_code == 200


def test_what_cannot_be_served_is_said_in_a_sentence(
    hookmap: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = hookmap("serve", "--no-open", "--port", port)
        assert result.code == 1
        assert result.err == f"hookmap: port {port} is taken; leave out --port to take the next free one\n"
    assert "can't listen at no.such.host" in hookmap("serve", "--no-open", "--host", "no.such.host.invalid").err
    several = hookmap("serve", "--no-open", "-m", "resnet18", "-m", "resnet34", "--labels", "names.txt")
    assert "2 models are named, and --labels describes one" in several.err
    assert "photo.jpg" in hookmap("serve", "--no-open", "photo.jpg").err
    with monkeypatch.context() as without:
        without.setattr("importlib.util.find_spec", lambda name: None)
        assert "pip install 'hookmap[app]'" in hookmap("serve", "--no-open").err


def test_the_next_free_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from hookmap.app import running

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(running, "PORT", port)
        with running.listening("127.0.0.1", None) as listener:
            assert listener.getsockname()[1] > port
            assert running.address(listener, "::1", "s") == f"http://[::1]:{listener.getsockname()[1]}/?token=s"
