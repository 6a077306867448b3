"""The command line: thin, no logic of its own."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def main() -> None:
    """Run the command line; every error is one sentence on stderr."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop_at_once)
    try:
        app = application()
        from hookmap.cli.commands import complain, plain_warnings, sentence_of

        try:
            with plain_warnings():
                app()
        except Exception as error:  # the last line of defence: no traceback reaches the user
            if os.environ.get("HOOKMAP_DEBUG"):
                raise
            complain(sentence_of(error))
            sys.exit(1)
    finally:
        signal.signal(signal.SIGINT, before)


def application() -> typer.Typer:
    """All commands, in the order in which they are listed."""
    from hookmap.cli import photos, datasets, serve, deploy, listings  # noqa: F401, I001
    from hookmap.cli.commands import app

    return app


def _stop_at_once(signum: int, frame: FrameType | None) -> None:
    """Ctrl-C before the work begins: nothing is to be undone, and torch doesn't take an interrupted import well."""
    os.write(2, b"hookmap: interrupted\n")
    os._exit(130)
