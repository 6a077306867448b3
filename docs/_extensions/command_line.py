"""Writes the page of the command line from the commands themselves."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import typer
from rich.text import Text
from sphinx.application import Sphinx

from hookmap.cli import application

_INTRO = """# Command line

Written from the commands; `hookmap COMMAND --help` says the same in the terminal. Whatever comes in is never written
over; a photo that can't be explained doesn't stop the others, and the exit code is then 1.
"""


def page() -> str:
    """The page as Markdown."""
    group: Any = typer.main.get_command(application())
    parts = [_INTRO]
    for name, command in group.commands.items():
        arguments = [p.name.upper() for p in _of(command, "argument")]
        says, _, examples = Text.from_markup(inspect.cleandoc(command.help or "")).plain.partition("Examples\n")
        parts.append(f"## hookmap {name}\n\n{_plain(says)}\n")
        parts.append(f"```text\n{' '.join(['hookmap', name, *arguments, '[OPTIONS]'])}\n```\n")
        if lines := [line.strip() for line in examples.splitlines() if line.strip()]:
            parts.append("\n".join(["```text", *lines, "```\n"]))
        rows = [_row(p) for kind in ("argument", "option") for p in _of(command, kind)]
        if rows:
            parts.append("| | | |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _of(command: Any, kind: str) -> list[Any]:
    return [p for p in command.params if p.param_type_name == kind and not getattr(p, "hidden", False)]


def _row(parameter: Any) -> str:
    names = parameter.opts if parameter.param_type_name == "option" else [parameter.name.upper()]
    default = parameter.default
    shown = f"`{default}`" if isinstance(default, (str, int, float)) and default is not False else ""
    return f"| {', '.join(f'`{name}`' for name in names)} | {_cell(parameter.help or '')} | {shown} |"


def _cell(text: str) -> str:
    return _plain(" ".join(Text.from_markup(text).plain.split()))


def _plain(text: str) -> str:
    """As text where Markdown would see marks."""
    return re.sub(r"([*_<>`|\[\]])", r"\\\1", text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", lambda app: (Path(app.srcdir) / "command_line.md").write_text(page()))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
