"""Commands about some photos: explain, features, concepts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from hookmap.cli.common import (
    DEFAULT_MODEL,
    BatchSize,
    Device,
    Images,
    Labels,
    Model,
    Pretrained,
    Weights,
    app,
    complain,
    err,
    lens_of,
    out,
)

if TYPE_CHECKING:
    from hookmap.lens import Lens

DEFAULT_METHOD = "{method}"
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


@app.command()
def explain(
    images: Images,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file for one image, a folder for several.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="Class index or label; box:2 (a detection), box:L,T,R,B, point:X,Y, everywhere; repeatable. "
            "Default: the predicted class, or all detections.",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", help="Layer name or glob; repeatable. Default: the best one."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="Method, or all; repeatable. See `hookmap methods`. Default: gradcam, for detectors odam."
        ),
    ] = None,
    versus: Annotated[list[str] | None, typer.Option(help="Why the target rather than this class; repeatable.")] = None,
    part: Annotated[str | None, typer.Option(help="positive, negative (what speaks against) or signed.")] = None,
    fuse: Annotated[str | None, typer.Option(help="One map of several layers: mean, max, product, layercam.")] = None,
    aug_smooth: Annotated[bool, typer.Option("--aug-smooth", help="Average over mirrored and darker copies.")] = False,
    noise_smooth: Annotated[int, typer.Option(min=0, help="Average over so many noisy copies.")] = 0,
    eigen_smooth: Annotated[bool, typer.Option("--eigen-smooth", help="First component of the feature maps.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    budget: Annotated[
        int | None,
        typer.Option(min=1, help="Most masked copies of a photo per method. Default: the papers'; all: 256."),
    ] = None,
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    pretrained: Pretrained = True,
    labels: Labels = None,
    device: Device = None,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 or fp16: faster where the hardware has it.")] = "fp32",
    tile: Annotated[
        int | None, typer.Option(min=16, help="Large photos at full resolution, in tiles of so many pixels.")
    ] = None,
    each: Annotated[bool, typer.Option("--each", help="Also one file per heatmap, beside the sheet.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Through torch.compile; for many images.")] = False,
    batch_size: BatchSize = 16,
    colormap: Annotated[str | None, typer.Option(help="A matplotlib colour map, e.g. inferno, viridis, jet.")] = None,
    opacity: Annotated[str, typer.Option(help="0 to 1, or ramp: the stronger the more opaque.")] = "ramp",
) -> None:
    """Lay a heatmap over each photo: where is the evidence for the decision?

    [dim]Examples[/]

      hookmap explain dog.jpg                              [dim]top-1 class, best layer -> dog_gradcam.png[/]

      hookmap explain dog.jpg -t tabby -t 207 -o cats.png  [dim]two classes on one sheet[/]

      hookmap explain *.jpg -m resnet50 -o heatmaps/       [dim]one file per photo[/]

      hookmap explain dog.jpg --target "tiger cat" --versus tabby   [dim]why this and not that[/]

      hookmap explain dog.jpg --method all -l layer2 -l layer4 -m resnet50   [dim]one page of all methods[/]

      hookmap explain dog.jpg -m net.py:build --weights best.pt --labels names.txt
    """
    from hookmap.errors import ImageError
    from hookmap.images.loading import load
    from hookmap.results.explanation import Explanation
    from hookmap.targets import PREDICTED, Contrast

    look: dict[str, Any] = {"opacity": opacity if opacity == "ramp" else _number(opacity)}
    if colormap is not None:
        look["colormap"] = colormap
    lens = lens_of(model, weights, pretrained, labels, device, precision=precision, compile=compile)
    asked: list[Any] = list(target or [PREDICTED])
    if versus:
        asked = [Contrast(this, that) for this in asked for that in versus]
    if method and "all" in method and budget is None:
        budget = 256
    how: dict[str, Any] = {"part": part, "fuse": fuse, "aug_smooth": aug_smooth, "noise_smooth": noise_smooth}
    how |= {"eigen_smooth": eigen_smooth, "seed": seed, "budget": budget, "batch_size": batch_size}
    how |= {"progress": len(images) <= batch_size}
    places = _places(images, output, "_".join(method) if method else DEFAULT_METHOD)
    failed = 0
    for some in _chunks(list(zip(images, places, strict=True)), batch_size):
        good: list[tuple[Any, Path]] = []
        for path, place in some:
            try:
                good.append((load(path), place))
            except ImageError as error:
                failed += 1
                complain(str(error))
        if not good:
            continue
        found = _explained(lens, [picture for picture, _ in good], asked, layer, method, tile, how)
        for picture, place in good:
            mine = Explanation([heatmap for heatmap in found if heatmap.picture is picture])
            if not mine:
                failed += 1
                continue
            place = place.with_name(place.name.replace(DEFAULT_METHOD, mine[0].method.name))
            mine.save(place, **look)
            if each and len(mine) > 1:
                for number, heatmap in enumerate(mine):
                    heatmap.save(place.with_stem(f"{place.stem}_{number}"), **look)
            named = ", ".join(dict.fromkeys(h.title for h in mine))
            where = ", ".join(dict.fromkeys(h.layer for h in mine))
            out.print(
                f"[bold]{escape(picture.name)}[/]  {escape(named)}  [dim]at {escape(where)}[/] -> {escape(str(place))}"
            )
    if failed:
        raise typer.Exit(1)


@app.command()
def features(
    images: Images,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder. Default: NAME_features.")] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", "-l", help="Names, globs, or kinds: conv, norm, activation, attention, all."),
    ] = None,
    logdir: Annotated[Path | None, typer.Option(help="Also write to TensorBoard in this folder.")] = None,
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    pretrained: Pretrained = True,
    labels: Labels = None,
    device: Device = None,
) -> None:
    """Draw what each layer makes of a photo: an overview page of the network, and every channel of every layer.

    [dim]Examples[/]

      hookmap features dog.jpg                               [dim]all convolutions -> dog_features/overview.png[/]

      hookmap features dog.jpg -m vgg16_bn --logdir runs/    [dim]and to TensorBoard[/]

      hookmap features dog.jpg -l "blocks.*" -o maps/
    """
    lens = lens_of(model, weights, pretrained, labels, device)
    places = _places(images, output, "features", folders=True)
    for path, place in with_progress(list(zip(images, places, strict=True))):
        maps = lens.features(path, layers or "conv")
        maps.save(place)
        out.print(maps)
        out.print(f"[bold]{escape(path.stem)}[/]  {len(maps)} layers -> {escape(str(place / 'overview.png'))}")
        if logdir is not None:
            run = logdir if len(images) == 1 else logdir / place.name
            maps.to_tensorboard(run)
    if logdir is not None:
        out.print(f"tensorboard --logdir {escape(str(logdir))}")


@app.command()
def concepts(
    images: Images,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file. Default: NAME_concepts.png, of several concepts.png.")
    ] = None,
    layer: Annotated[str | None, typer.Option("--layer", "-l", help="Layer name. Default: the best one.")] = None,
    count: Annotated[int, typer.Option("--concepts", "-k", min=1, help="How many.")] = 5,
    method: Annotated[str, typer.Option(help="nmf: parts; pca: directions.")] = "nmf",
    seed: Annotated[int | None, typer.Option(help="Start NMF from random numbers. Default: nothing is random.")] = None,
    model: Model = DEFAULT_MODEL,
    weights: Weights = None,
    pretrained: Pretrained = True,
    labels: Labels = None,
    device: Device = None,
    batch_size: BatchSize = 16,
) -> None:
    """Find the few things that a layer sees in all photos together, and what the model calls them.

    [dim]Examples[/]

      hookmap concepts dog.jpg                               [dim]five concepts -> dog_concepts.png[/]

      hookmap concepts *.jpg -k 8 -o out/concepts.png        [dim]shared by all photos, on one page[/]

      hookmap concepts dog.jpg --method pca --layer blocks.5
    """
    lens = lens_of(model, weights, pretrained, labels, device)
    how: dict[str, Any] = {"method": method, "seed": seed, "batch_size": batch_size}
    found = lens.concepts(list(images), layer, count, **how)
    place = found.save(output or Path(f"{images[0].stem}_concepts.png" if len(images) == 1 else "concepts.png"))
    for number, concept in enumerate(found, 1):
        out.print(f"{number:2}  {concept.share:4.0%}  {escape(concept.title)}", highlight=False)
    names = ", ".join(picture.name for picture in found.pictures[:4]) + (", ..." if len(images) > 4 else "")
    out.print(f"[bold]{escape(names)}[/]  [dim]at {escape(found.layer)}[/] -> {escape(str(place))}")


def _explained(
    lens: Lens,
    pictures: list[Any],
    asked: list[Any],
    layer: list[str] | None,
    methods: Any,
    tile: int | None,
    how: dict[str, Any],
) -> list[Any]:
    """Heatmaps of all pictures; one that can't be asked this (nothing was detected in it) doesn't stop the others."""
    from hookmap.errors import TargetError

    ask = partial(lens.explain_in_tiles, tile=tile) if tile else lens.explain
    try:
        return list(ask(pictures, asked, layer=layer, method=methods, **how))
    except TargetError as error:
        if len(pictures) == 1:
            complain(f"{pictures[0].name}: {error}")
            return []
    return [heatmap for one in pictures for heatmap in _explained(lens, [one], asked, layer, methods, tile, how)]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # the overlay says what it expects


def _places(images: list[Path], output: Path | None, suffix: str, *, folders: bool = False) -> list[Path]:
    """Where each image's result goes; stems that collide are numbered."""
    ending = "" if folders else ".png"
    if output is not None and len(images) == 1 and (folders or (output.suffix and not output.is_dir())):
        return [output]
    if output is not None and len(images) > 1 and not folders and output.suffix.lower() in PICTURES:
        from hookmap.errors import HookmapError

        raise HookmapError(f"-o {output} is one file and {len(images)} images came; pass a folder")
    folder = output or Path()
    places: list[Path] = []
    for image in images:
        place, i = folder / f"{image.stem}_{suffix}{ending}", 2
        while place in places:
            place, i = folder / f"{image.stem}_{i}_{suffix}{ending}", i + 1
        places.append(place)
    return places


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    chunks = [items[i : i + size] for i in range(0, len(items), size)]
    yield from with_progress(chunks)


def with_progress(items: list[Any]) -> Iterator[Any]:
    """The items, with a bar on stderr where there are several."""
    from rich.progress import track

    yield from track(items, console=err, transient=True, disable=len(items) < 2, description="images")
