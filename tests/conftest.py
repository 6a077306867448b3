"""Real photos and networks that many tests share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

# Networks and matrices here are small: threads that wait for busy cores cost more (a hundredfold) than they bring.
# Torch, NumPy and processes that tests start read it when they are imported.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

import hookmap as hm
from hookmap import cli
from pictures import PHOTOS

# The main job and the extras are tested where pytest alone is installed.
with suppress(ModuleNotFoundError):
    from hypothesis import HealthCheck, settings

    # How busy the machine is says nothing about the code.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """What a lens says once it says once in each test that shares it, whatever ran before."""
    for value in getattr(item, "funcargs", {}).values():
        if isinstance(value, hm.Lens):
            value.engine._said.clear()


@pytest.fixture(scope="session")
def cat() -> Path:
    return PHOTOS / "cat.jpg"


@pytest.fixture(scope="session")
def coffee() -> Path:
    return PHOTOS / "coffee.jpg"


@pytest.fixture(scope="session")
def lens() -> hm.Lens:
    """The embedded default network, really trained."""
    return hm.Lens("efficientnet_lite0", device="cpu")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; while it is open, nothing else in this thread can run an event loop."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine, and what a page does can only be seen in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--enable-unsafe-swiftshader"]
        )
        yield browser
        browser.close()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What comparisons decide isn't kept where the user keeps it."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@dataclass
class Result:
    """What a call of the command line gave."""

    code: int
    out: str
    err: str


Program: TypeAlias = Callable[..., Result]


@pytest.fixture
def hookmap(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Program:
    """Call the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["hookmap", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run
