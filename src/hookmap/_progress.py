"""A bar on the terminal or in a notebook while something long runs, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

Track = Callable[[str, int], Callable[[int], None]]
"""Called with a description and a total, gives a function that is told how much has been done."""


def silent(what: str, total: int) -> Callable[[int], None]:
    """Tells nobody."""
    return lambda done: None


SILENCE = 10.0
"""Seconds for which nothing is said where lines are written, so that short work says nothing."""

_shown: list[Progress] = []


@contextmanager
def tracking(wanted: bool) -> Iterator[Track]:
    """Bars on stderr, if they are wanted; they disappear when done, or interrupted. Lines, if stderr goes to a file.

    What is tracked inside of what is tracked stands below it.
    """
    if not wanted:
        yield silent
    elif not (sys.stderr.isatty() or _in_notebook()):
        yield _in_lines
    elif _shown:
        yield _track
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # What is printed into a pipe meanwhile stays in it.
        bars = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
        try:
            with bars:
                _shown.append(bars)
                yield _track
        finally:
            _shown.clear()


@contextmanager
def aside() -> Iterator[None]:
    """Room for a line of text while bars are shown."""
    for bars in _shown:
        bars.stop()
    try:
        yield
    finally:
        for bars in _shown:
            bars.start()


def _track(what: str, total: int) -> Callable[[int], None]:
    bars = _shown[0]
    task = bars.add_task(what, total=total)
    left = total

    def advance(done: int) -> None:
        nonlocal left
        left -= done
        bars.update(task, advance=done)
        if left <= 0:
            bars.remove_task(task)

    return advance


def _in_lines(what: str, total: int) -> Callable[[int], None]:
    done, last = 0, time.monotonic()

    def advance(more: int) -> None:
        nonlocal done, last
        done, now = done + more, time.monotonic()
        if now - last >= SILENCE and done < total:
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)
            last = now

    return advance


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel that can show widgets, as rich's bars are there."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell" and find_spec("ipywidgets") is not None
