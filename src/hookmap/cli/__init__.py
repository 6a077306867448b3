"""The command line: thin, no logic of its own."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from hookmap.cli import photos  # isort: skip  commands are listed in the order of these imports
from hookmap.cli import datasets, listings
from hookmap.cli.common import app, complain, plain_warnings

__all__ = ["app", "datasets", "listings", "main", "photos"]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from hookmap import __version__

        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; every error is one sentence on stderr."""
    try:
        with plain_warnings():
            app()
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)
    except Exception as error:  # the last line of defence: no traceback reaches the user
        if os.environ.get("HOOKMAP_DEBUG"):
            raise
        complain(_sentence(error))
        sys.exit(1)


def _sentence(error: Exception) -> str:
    import torch

    from hookmap.errors import HookmapError, first_line

    if isinstance(error, HookmapError):
        return str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "out of memory; try a smaller --batch-size"
    return f"{type(error).__name__}: {first_line(error)} (set HOOKMAP_DEBUG=1 for the traceback)"
