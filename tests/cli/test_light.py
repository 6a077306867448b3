"""What needs no model answers at once, and everything can be stopped at any time."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hookmap._names import methods_table
from hookmap.methods import METHODS

MODULES = "import sys\nfrom hookmap.cli import main\ntry:\n    main()\nfinally:\n    print('torch' in sys.modules)"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--help"], 0, "Hooks in, maps out"),
        (["-h"], 0, "Hooks in, maps out"),
        (["explain", "-h"], 0, "--target"),
        (["serve", "-h"], 0, "--no-open"),
        (["--version"], 0, r"\d+\.\d+"),
        (["methods"], 0, "gradcam +gradient"),
        (["--show-completion", "bash"], 0, "_HOOKMAP_COMPLETE|COMPREPLY|complete"),
        (["explian", "cat.jpg"], 2, "Did you mean 'explain'"),
        (["explain", "--taget", "3", "cat.jpg"], 2, "--target"),
        (["explain"], 2, "Missing argument"),
    ],
)
def test_no_torch_is_imported_where_no_model_is_needed(
    tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", MODULES, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert run.returncode == code, run.stderr
    assert re.search(sentence, run.stdout + run.stderr)
    assert run.stdout.endswith("False\n")
    assert "Traceback" not in run.stderr


def test_the_methods_that_are_listed_are_those_that_there_are() -> None:
    table = methods_table()
    built_in = {name: method for name, method in METHODS.items() if name in table}
    assert list(table) == list(built_in)
    assert {n: (m.title, m.family, m.summary, m.paper) for n, m in built_in.items()} == {
        n: (f["title"], f["family"], f["summary"], f.get("paper", "")) for n, f in table.items()
    }


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0, 4.0])
def test_ctrl_c_ends_in_one_quiet_line_at_any_time(cat: Path, tmp_path: Path, seconds: float) -> None:
    arguments = ["explain", str(cat), "--method", "scorecam", "--method", "rise", "-o", "maps/cat.png"]
    code = "from hookmap.cli import main; print('ready', flush=True); main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        time.sleep(seconds)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (130, "", "hookmap: interrupted\n")
    assert list(tmp_path.iterdir()) == []
