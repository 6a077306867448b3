"""The command that takes a model out into the world: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hookmap.cli.commands import command, say, shown
from hookmap.cli.options import Layers, ModelOptions


@command(needs="hookmap.lens")
def export(
    output: Annotated[
        Path, typer.Argument(help="The file to write: net.onnx, or net.pt2 for PyTorch.", show_default=False)
    ],
    model: ModelOptions,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="Class index or label; repeatable. Default: each picture's predicted one."),
    ] = None,
    method: Annotated[str | None, typer.Option(help="One that takes one pass. Default: what fits the model.")] = None,
    layer: Layers = None,
    part: Annotated[str | None, typer.Option(help="positive, negative (what speaks against) or signed.")] = None,
    fuse: Annotated[
        str | None, typer.Option(help="One map of several layers: sum, mean, max, product, layercam.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of this name.")] = False,
) -> None:
    """Write a model and its heatmaps as one file that runs without hookmap and PyTorch.

    [dim]Examples[/]

      hookmap export net.onnx -m resnet50

      hookmap export net.onnx -m resnet50 --method layercam -l layer3 -t tabby -t 207

      hookmap export net.pt2 -m net.py:build --weights best.pt --labels names.txt --size 224
    """
    from hookmap.models.onnx.about import HEATMAP

    lens = model.lens()
    file = lens.export(
        output,
        method,
        layer,
        list(target or ["predicted"]),
        part=part,  # type: ignore[arg-type]
        fuse=fuse,  # type: ignore[arg-type]
        overwrite=overwrite,
    )
    say(f"[bold]{shown(file)}[/]  {file.stat().st_size / 2**20:.1f} MiB  [dim]gives the prediction and '{HEATMAP}'[/]")
