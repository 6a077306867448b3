"""Warnings that point at the user's line, or that are heard by whoever answers a question."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from hookmap.errors import HookmapWarning

_HEARD: ContextVar[list[str] | None] = ContextVar("hookmap_heard", default=None)


def warn(sentence: str) -> None:
    """Warn at the user's line, the first that isn't hookmap's; or tell whoever hears."""
    if (heard := _HEARD.get()) is not None:
        heard.append(sentence)
        return
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "hookmap":
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, HookmapWarning, stacklevel=level + 1)


@contextmanager
def hearing() -> Iterator[list[str]]:
    """Gather what is warned of in this block, in this thread alone: ``warnings.catch_warnings`` is for a process.

    >>> with hearing() as heard:
    ...     warn("the map is zero everywhere")
    >>> heard
    ['the map is zero everywhere']
    """
    heard: list[str] = []
    token = _HEARD.set(heard)
    try:
        yield heard
    finally:
        _HEARD.reset(token)
