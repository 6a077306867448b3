"""Commands about whole data sets: run, report, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hookmap._text import counted
from hookmap.cli.commands import command, complain, say, shown
from hookmap.cli.options import (
    AskOptions,
    Budget,
    Json,
    Layers,
    Methods,
    ModelOptions,
    PrecisionOptions,
    Seed,
    SpeedOptions,
)
from hookmap.errors import HookmapError


@command(needs="hookmap.runs")
def run(
    data: Annotated[
        list[str],
        typer.Argument(
            help="A folder (also VOC's), a glob, image files, a CSV or Parquet of paths and labels, COCO JSON, YOLO's "
            "data.yaml, or WebDataset tars.",
            show_default=False,
        ),
    ],
    ask: AskOptions,
    model: ModelOptions,
    speed: SpeedOptions,
    output: Annotated[Path, typer.Option("--output", "--out", "-o", help="The folder to write.")] = Path("run"),
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
) -> None:
    """Explain a whole data set into a folder of Parquet files, resumably; then look at it with `hookmap report`.

    [dim]Examples[/]

      hookmap run photos/ -o runs/photos                   [dim]the predicted class of each image[/]

      hookmap run val/ -m resnet50 -t predicted -t label   [dim]folders named by class: what is seen, what is there[/]

      hookmap run instances_val2017.json -m fasterrcnn_resnet50_fpn --root val2017

      hookmap run photos/ -o runs/photos --resume          [dim]after an interruption[/]
    """
    from hookmap.runs import run as run_over

    if ask.versus and "label" in (ask.target or ()):
        raise HookmapError("--versus goes with classes and predicted, not with the target label; leave out one of them")
    watched: Any = True if channels == ["explained"] else channels
    options: Any = ask.options()
    try:
        finished = run_over(
            data[0] if len(data) == 1 else data,
            model.lens(speed),
            output,
            target=ask.targets(),
            layer=ask.layer,
            method=ask.method,
            channels=watched,
            image=image,
            label=False if label == "none" else label,
            root=root,
            engine=engine,  # type: ignore[arg-type]
            address=address,
            batch_size=speed.batch_size,
            part_size=part_size,
            workers=workers,
            thumbnail=thumbnail,
            resume=resume,
            strict=strict,
            **options,
        )
    except KeyboardInterrupt:
        complain("interrupted; what is done is kept, and --resume goes on from there")
        raise typer.Exit(130) from None
    for sentence in finished.summary():
        say(shown(sentence), highlight=False)
    if len(finished.errors):
        first = finished.errors.iloc[0]
        complain(f"{counted(len(finished.errors), 'image')} without a heatmap, e.g. {first['id']}: {first['error']}")
    if not len(finished.explained):
        raise typer.Exit(1)


@command(needs="hookmap.report")
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, or of a comparison.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: report.html, or verdict.html, in the folder.")
    ] = None,
    versus: Annotated[Path | None, typer.Option(help="Another run over the same images: what moved?")] = None,
) -> None:
    """Write what a run, or a comparison of methods, reveals as one page to look at, without a network, and as figures.

    [dim]Examples[/]

      hookmap report runs/photos

      hookmap report runs/epoch9 --versus runs/epoch1
    """
    from hookmap.report import write_report, write_verdict
    from hookmap.runs.results import open_run
    from hookmap.verdict import Verdict

    if Verdict.is_in(folder):
        if versus is not None:
            raise HookmapError(f"{folder} holds a comparison of methods; --versus goes with runs")
        say(shown(write_verdict(folder, output)))
        return
    other = None if versus is None else open_run(versus)
    say(shown(write_report(open_run(folder), output, versus=other)))


@command(needs="hookmap.report")
def compare(
    data: Annotated[
        list[str],
        typer.Argument(
            help="A folder, a glob, image files, or a table of paths: some 200 photos like those you will look at.",
            show_default=False,
        ),
    ],
    model: ModelOptions,
    speed: PrecisionOptions,
    output: Annotated[Path, typer.Option("--output", "--out", "-o", help="The folder to write.")] = Path("comparison"),
    method: Methods = None,
    layer: Layers = None,
    target: Annotated[str, typer.Option("--target", "-t", help="What is asked of each photo.")] = "predicted",
    scale: Annotated[str, typer.Option(help="What is measured: probability, or score (of a class, the logit).")] = (
        "probability"
    ),
    seed: Seed = 0,
    budget: Budget = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a comparison that was interrupted.")] = False,
    json: Json = False,
) -> None:
    """Say which method and layer to take for this model, how sure that is, and whether any is better than a control.

    [dim]Examples[/]

      hookmap compare photos/ -o verdict/

      hookmap compare photos/ -m resnet50 --method gradcam --method layercam -l layer3 -l layer4

      hookmap compare photos/ -o verdict/ --resume         [dim]after an interruption[/]
    """
    from hookmap.report import write_verdict
    from hookmap.verdict import compare as compare_methods

    try:
        verdict = compare_methods(
            model.lens(speed),
            data[0] if len(data) == 1 else data,
            methods=method,
            layers=layer,
            target=target,
            out=output,
            scale=scale,  # type: ignore[arg-type]
            seed=seed,
            budget=budget,
            resume=resume,
        )
    except KeyboardInterrupt:
        complain("interrupted; what is done is kept, and --resume goes on from there")
        raise typer.Exit(130) from None
    page = write_verdict(output)
    if json:
        print(verdict.json())
        return
    for sentence in verdict.summary():
        say(shown(sentence), highlight=False)
    say(f"[dim]->[/] {shown(page)}")
