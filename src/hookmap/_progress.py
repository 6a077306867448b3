"""A bar on the terminal while something long runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Track = Callable[[str, int], Callable[[int], None]]
"""Called with a description and a total, gives a function that is told how much has been done."""


@contextmanager
def tracking(wanted: bool) -> Iterator[Track]:
    """Bars on stderr, if that is a terminal and they are wanted; they disappear when done."""
    import sys

    if not wanted or not sys.stderr.isatty():
        yield lambda what, total: lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def track(what: str, total: int) -> Callable[[int], None]:
            task = bars.add_task(what, total=total)
            left = total

            def advance(done: int) -> None:
                nonlocal left
                left -= done
                bars.update(task, advance=done)
                if left <= 0:
                    bars.remove_task(task)

            return advance

        yield track
