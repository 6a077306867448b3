"""Commands about hookmap and models: layers, models, methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hookmap._names import methods_table
from hookmap.cli.commands import command, complain, say
from hookmap.cli.options import ModelOptions


@command(needs="hookmap.lens")
def layers(
    model: ModelOptions,
    name: Annotated[str | None, typer.Argument(help="As --model.", show_default=False)] = None,
    image: Annotated[Path | None, typer.Option(help="An example to run on, for models of unknown input size.")] = None,
) -> None:
    """Print a model's layers as a tree: name, type, output shape and layout.

    [dim]Examples[/]

      hookmap layers

      hookmap layers vit_base_patch16_224 --no-pretrained

      hookmap layers net.py:build --size 32
    """
    model.model = name or model.model
    say(model.lens().layers(image))


@command(needs="hookmap.models")
def models(
    pattern: Annotated[str | None, typer.Argument(help="Only names that hold this.", show_default=False)] = None,
) -> None:
    """List models that load by name, what each can be asked, and whether its weights are on this disk.

    [dim]Example[/]

      hookmap models resnet
    """
    from rich.table import Table

    from hookmap.models import available

    table = Table("name", "library", "weights", "gives", box=None, header_style="bold", pad_edge=False)
    for entry in available(pattern):
        table.add_row(entry.name, entry.library, entry.weights, entry.gives)
    if not table.row_count:
        complain(f"no model's name holds {pattern!r}; `hookmap models` without a word lists all")
        raise typer.Exit(1)
    say(table)


@command()
def methods() -> None:
    """List the heatmap methods and their papers."""
    from rich.table import Table

    table = Table("method", "family", "what it does", "paper", box=None, header_style="bold", pad_edge=False)
    for name, facts in methods_table().items():
        table.add_row(name, facts["family"], facts["summary"], facts.get("paper", ""))
    say(table)
