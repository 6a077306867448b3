"""``hookmap ask``: a question about a photo, on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from answering_models import built
from hookmap.cli import photos  # noqa: F401
from hookmap.cli.commands import app
from pictures import PHOTOS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its processor as transformers writes them, and a photo."""
    place = tmp_path_factory.mktemp("model")
    adapter = built("llava")
    adapter.plain.save_pretrained(place)
    adapter.processor.save_pretrained(place)
    shutil.copy(PHOTOS / "cat.jpg", place / "cat.jpg")
    return place


def run(*words: object) -> str:
    result = CliRunner().invoke(app, ["ask", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_a_question_gets_an_answer_and_a_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    said = run("cat.jpg", "what is it ?", "-m", folder, "--max-tokens", 4)
    assert "-> cat_answer.html" in said
    page = (folder / "cat_answer.html").read_text()
    assert "what is it ?" in page
    assert "<script" not in page


def test_it_tells_programs_what_was_said(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "page.html"
    answer = "a red dog"
    told = json.loads(
        run(folder / "cat.jpg", "what ?", "-m", folder, "--answer", answer, "-w", "red dog", "-o", place, "--json")
    )
    assert told["answer"] == answer
    assert [word["text"] for word in told["words"]] == answer.split()
    assert place.read_text().count('class="map"') == 1


def test_what_is_wrong_is_said_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    from hookmap.errors import HookmapError

    with pytest.raises(HookmapError, match="gives no answers in words"):
        run(folder / "cat.jpg", "what ?", "-o", tmp_path / "page.html")
    with pytest.raises(HookmapError, match="no 'umbrela'"):
        run(folder / "cat.jpg", "what ?", "-m", folder, "--answer", "a dog", "-w", "umbrela", "-o", tmp_path / "a.html")
    assert not list(tmp_path.iterdir())
