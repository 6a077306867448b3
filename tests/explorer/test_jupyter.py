"""The widget in a real Jupyter page: it shows the heatmap, and a click asks the kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pictures import PHOTOS

pytestmark = pytest.mark.slow
PORT = 8931


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("jupyterlab")
    pytest.importorskip("anywidget")
    folder = tmp_path_factory.mktemp("notebook")
    source = f"import hookmap as hm\nhm.Lens().explore({str(PHOTOS / 'cat.jpg')!r})"
    cell = {"cell_type": "code", "id": "one", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": [cell]}
    (folder / "cat.ipynb").write_text(json.dumps(book), encoding="utf-8")
    options = ["--no-browser", "--allow-root", f"--port={PORT}", f"--ServerApp.root_dir={folder}"]
    options += ["--ServerApp.token=", "--ServerApp.password=", "--LabApp.news_url=None"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/status")
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{PORT}/lab/tree/cat.ipynb"
    finally:
        server.terminate()
        server.wait(30)


def test_the_widget_in_a_jupyter_page(notebook: str, chromium: Any) -> None:
    with chromium.new_context(viewport={"width": 1500, "height": 1000}) as session:
        page = session.new_page()
        page.set_default_timeout(120_000)
        page.goto(notebook)
        page.locator(".jp-NotebookPanel .jp-Cell .cm-content").first.wait_for()
        page.wait_for_timeout(3000)
        page.locator(".jp-NotebookPanel .jp-Cell .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        frame = page.frame_locator("iframe[title=hookmap]")
        frame.get_by_role("heading", name="tiger cat").wait_for()
        frame.get_by_role("button", name="Egyptian cat").first.click()
        frame.get_by_role("heading", name="Egyptian cat").wait_for()
