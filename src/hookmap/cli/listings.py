"""Commands about hookmap and models: layers, models, methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hookmap.cli.common import DEFAULT_MODEL, Device, Pretrained, Weights, app, complain, lens_of, out


@app.command()
def layers(
    model: Annotated[str, typer.Argument(help="As --model of the other commands.")] = DEFAULT_MODEL,
    image: Annotated[Path | None, typer.Option(help="An example to run on, for models of unknown input size.")] = None,
    weights: Weights = None,
    pretrained: Pretrained = True,
    device: Device = None,
) -> None:
    """Print a model's layers as a tree: name, type, output shape and layout.

    [dim]Examples[/]

      hookmap layers

      hookmap layers vit_base_patch16_224 --no-pretrained
    """
    out.print(lens_of(model, weights, pretrained, None, device).layers(image))


@app.command()
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
    out.print(table)


@app.command()
def methods() -> None:
    """List the heatmap methods and their papers."""
    from rich.table import Table

    from hookmap.methods import METHODS

    table = Table("method", "family", "what it does", "paper", box=None, header_style="bold", pad_edge=False)
    for method in METHODS.values():
        table.add_row(method.name, method.family, method.summary, method.paper)
    out.print(table)
