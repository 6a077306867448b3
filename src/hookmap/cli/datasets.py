"""Commands about whole data sets: run, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from hookmap.cli.common import (
    DEFAULT_MODEL,
    BatchSize,
    Device,
    Labels,
    Model,
    Pretrained,
    Weights,
    app,
    complain,
    lens_of,
    out,
)


@app.command()
def run(
    data: Annotated[
        list[str],
        typer.Argument(
            help="A folder, a glob, image files, a CSV or Parquet of paths and labels, COCO JSON, or WebDataset tars.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")] = Path("run"),
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="predicted, label (each image's true class), or a class; repeatable. Default: predicted.",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", "-l", help="Layer name or glob; repeatable. Default: the best one.")
    ] = None,
    method: Annotated[list[str] | None, typer.Option("--method", help="Method; repeatable. Default: gradcam.")] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option(
            "--channels", help="Also gather what the channels of these layers do; explained: of the explained ones."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End at the first image that can't be explained.")] = False,
    engine: Annotated[str, typer.Option(help="local: this machine; ray: Ray Data, here or on a cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster. Default: the one that Ray finds, or a new one.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Column or key that holds the image. Default: found by name.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column or key that holds the label; none: there are none.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the pictures that a table or COCO JSON names.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read images. Default: by the number of cores.")
    ] = None,
    part_size: Annotated[int, typer.Option(min=1, help="Images that are written at once, or not at all.")] = 256,
    thumbnail: Annotated[
        int, typer.Option(min=0, help="Longer side of the small copies that are kept; 0: none.")
    ] = 160,
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    pretrained: Pretrained = True,
    labels: Labels = None,
    device: Device = None,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 or fp16: faster where the hardware has it.")] = "fp32",
    compile: Annotated[bool, typer.Option("--compile", help="Through torch.compile; for thousands of images.")] = False,
    batch_size: BatchSize = 16,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Most masked copies of a photo per method. Default: the papers'.")
    ] = None,
) -> None:
    """Explain a whole data set into a folder of Parquet files, resumably; then look at it with `hookmap report`.

    [dim]Examples[/]

      hookmap run photos/ --out runs/photos                [dim]the predicted class of each image[/]

      hookmap run val/ -m resnet50 -t predicted -t label   [dim]folders named by class: what is seen, what is there[/]

      hookmap run instances_val2017.json -m fasterrcnn_resnet50_fpn --root val2017

      hookmap run photos/ --out runs/photos --resume       [dim]after an interruption[/]
    """
    from hookmap.datasets.sources.names import counted
    from hookmap.runs import run as run_over
    from hookmap.runs.results import Run

    lens = lens_of(model, weights, pretrained, labels, device, precision=precision, compile=compile)
    watched: Any = True if channels == ["explained"] else channels
    how: dict[str, Any] = {"seed": seed, "budget": budget}
    try:
        found: Run = run_over(
            data[0] if len(data) == 1 else data,
            lens,
            output,
            target=target or "predicted",
            layer=layer,
            method=method,
            channels=watched,
            image=image,
            label=False if label == "none" else label,
            root=root,
            engine=engine,  # type: ignore[arg-type]
            address=address,
            batch_size=batch_size,
            part_size=part_size,
            workers=workers,
            thumbnail=thumbnail,
            resume=resume,
            strict=strict,
            **how,
        )
    except KeyboardInterrupt:
        complain("interrupted; what is done is kept, and --resume goes on from there")
        raise typer.Exit(130) from None
    for sentence in found.summary():
        out.print(escape(sentence), highlight=False)
    if len(found.errors):
        first = found.errors.iloc[0]
        complain(f"{counted(len(found.errors), 'image')} without a heatmap, e.g. {first['id']}: {first['error']}")
    if not len(found.explained):
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.", show_default=False)],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: report.html in the folder.")] = None,
    versus: Annotated[Path | None, typer.Option(help="Another run over the same images: what moved?")] = None,
) -> None:
    """Write what a run reveals as one page to look at, without a network, and as figures.

    [dim]Examples[/]

      hookmap report runs/photos

      hookmap report runs/epoch9 --versus runs/epoch1
    """
    from hookmap.report import write_report
    from hookmap.runs.results import open_run

    other = None if versus is None else open_run(versus)
    out.print(f"{escape(str(write_report(open_run(folder), output, versus=other)))}")
