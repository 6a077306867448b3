"""What all commands share: the application, how a function becomes a command, and how it speaks."""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from hookmap._progress import aside
from hookmap._text import printable
from hookmap.errors import HookmapError, first_line


class _Commands(TyperGroup):
    """The commands; a photo in the place of one is a photo to explain."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of a name."""
        if self.get_command(ctx, args[0]) is None and os.path.exists(args[0]):
            complain(f"{args[0]} is no command; to explain it: hookmap explain {args[0]}")
            raise typer.Exit(2)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="[bold]Hooks in, maps out[/]: see what a PyTorch vision model sees.\n\n"
    "Start with [cyan]hookmap explain photo.jpg[/], then [cyan]hookmap features photo.jpg[/].",
)

# Without a terminal there is no width to fit: tables go to files and pipes unbroken.
_OUT = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)
_ERR = Console(stderr=True, soft_wrap=True)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from hookmap import __version__

        print(__version__)
        raise typer.Exit


# ---------------------------------------------------------------- a function becomes a command

_Function = TypeVar("_Function", bound=Callable[..., None])


def command(*, needs: str | None = None) -> Callable[[_Function], _Function]:
    """Make a function a command of its name. A parameter that is a dataclass stands for the options that it holds.

    Args:
        needs: a module that is imported before the command runs: until then Ctrl-C ends the process at once.
    """

    def register(function: _Function) -> _Function:
        signature = inspect.signature(function, eval_str=True)
        groups: dict[str, Any] = {
            p.name: p.annotation for p in signature.parameters.values() if is_dataclass(p.annotation)
        }
        parameters = [
            parameter.replace(kind=parameter.KEYWORD_ONLY)
            for given in signature.parameters.values()
            for parameter in (_options_of(groups[given.name]) if given.name in groups else [given])
        ]

        def run(**given: Any) -> None:
            for name, group in groups.items():
                given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
            try:
                if needs is not None:
                    importlib.import_module(needs)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                function(**given)
            except KeyboardInterrupt:
                complain("interrupted")
                raise typer.Exit(130) from None

        run.__doc__ = function.__doc__
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(function.__name__.replace("_", "-"))(run)
        return function

    return register


def _options_of(group: type) -> list[inspect.Parameter]:
    """Its own before those of its bases: the help lists them so."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in sorted(fields(group), key=lambda field: field.name not in inspect.get_annotations(group))
    ]


# ---------------------------------------------------------------- how it speaks


def shown(text: object) -> str:
    """Text of others as it may stand in a line of rich's markup: nothing in it steers the terminal."""
    return escape(printable(str(text)))


def say(what: Any, *, highlight: bool | None = None) -> None:
    """Print rich's markup, a table or a tree on stdout."""
    with aside():
        _OUT.print(what, highlight=highlight)


def complain(sentence: str) -> None:
    """Say what went wrong, on stderr."""
    _to_stderr(f"[red]hookmap:[/] {shown(sentence)}")


def _to_stderr(line: str) -> None:
    with aside():
        _ERR.print(line, highlight=False)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """hookmap's own warnings as one line each; those of the libraries beneath aren't the user's business."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if category.__name__ == "HookmapWarning":
            _to_stderr(f"[yellow]note:[/] {shown(message)}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield


def sentence_of(error: Exception) -> str:
    """What is said of an error."""
    if isinstance(error, HookmapError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; try a smaller --batch-size"
    return f"{type(error).__name__}: {first_line(error)} (set HOOKMAP_DEBUG=1 for the traceback)"
