"""Commands about some photos: explain, predict, ask, words, features, concepts, attention, logit-lens."""

from __future__ import annotations

import dataclasses
import json as _json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hookmap._files import keep_inputs
from hookmap._names import methods_table
from hookmap._progress import tracking
from hookmap._text import counted, listed
from hookmap.cli.commands import command, complain, say, shown
from hookmap.cli.files import PAGE, SEVERAL, check_ending, images_in, is_folder, places
from hookmap.cli.films import are_videos, explain_videos
from hookmap.cli.options import (
    AskOptions,
    DrawingOptions,
    FilmOptions,
    Images,
    Json,
    ModelOptions,
    PrecisionOptions,
    SpeedOptions,
    Top,
)
from hookmap.errors import HookmapError, ImageError, TargetError, first_line

if TYPE_CHECKING:
    from hookmap.images.loading import Picture
    from hookmap.lens import Lens
    from hookmap.results.explanation import Explanation
    from hookmap.results.predictions import Prediction

METHOD = "{method}"
"""Stands in the name of a file for the method that is chosen by default."""


@command(needs="hookmap.lens")
def explain(
    images: Images,
    ask: AskOptions,
    model: ModelOptions,
    speed: SpeedOptions,
    drawing: DrawingOptions,
    frames: FilmOptions,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A file for one image (.png, .jpg, .pdf, .svg), a film for a video (.mp4, .webm, .gif), a folder for "
            "several; .npz: all maps of all images.",
        ),
    ] = None,
    top: Top = None,
    tile: Annotated[
        int | None, typer.Option(min=16, help="Large photos at full resolution, in tiles of so many pixels.")
    ] = None,
    each: Annotated[bool, typer.Option("--each", help="Also one file per heatmap, beside the sheet.")] = False,
    json: Json = False,
) -> None:
    """Lay a heatmap over each photo, or each frame of a video: where is the evidence for the decision?

    [dim]Examples[/]

      hookmap explain dog.jpg                              [dim]top-1 class, best layer -> dog_gradcam.png[/]

      hookmap explain dog.jpg -t tabby -t 207 -o cats.png  [dim]two classes on one sheet[/]

      hookmap explain photos/ -m resnet50 -o heatmaps/     [dim]one file per photo[/]

      hookmap explain dog.jpg --top 3 -o top.pdf           [dim]the three most probable classes[/]

      hookmap explain dog.jpg --target "tiger cat" --versus tabby   [dim]why this and not that[/]

      hookmap explain dog.jpg --method all -l layer2 -l layer4 -m resnet50   [dim]one page of all methods[/]

      hookmap explain clip.mp4 --every 2 -o film.mp4       [dim]a film, of every second frame[/]

      hookmap explain dog.jpg -m net.py:build --weights best.pt --labels names.txt --size 224
    """
    from hookmap.results.explanation import Explanation

    if top is not None and ask.target:
        raise HookmapError("--top asks about the most probable classes; leave out --target")
    look = drawing.look()
    paths = images_in(images)
    if are_videos(paths, frames):
        for name, value in (("top", top), ("tile", tile), ("each", each), ("check", ask.check)):
            if value:
                raise HookmapError(f"--{name} is for photos, and a video came; leave it out")
        films, failures = list[Any](), Failures()
        for path, made in explain_videos(model.lens(speed), paths, output, frames, ask, speed, look, aloud=not json):
            if isinstance(made, HookmapError):
                failures.add(path, {path.stem: made})
            else:
                films.append(made)
        if json:
            _print_json({"films": films, "errors": failures.rows})
        failures.end()
        return
    together = output is not None and not is_folder(output) and Path(output).suffix.lower() == SEVERAL
    wanted = [Path(output or "")] * len(paths) if together else _maps(paths, output, ask.method)
    lens = model.lens(speed)
    answers, failures, rows, kept = _answers(lens, paths, ask, speed, top, tile), Failures(), list[Any](), list[Any]()
    for path, place, explanation in _with_progress(zip(paths, wanted, answers, strict=True), len(paths)):
        failures.add(path, explanation.errors)
        if not explanation:
            continue
        if together:
            kept += explanation
        else:
            place = place.with_name(place.name.replace(METHOD, explanation[0].method.name))
            alone = explanation if each and len(explanation) > 1 else ()
            own = [place.with_stem(f"{place.stem}_{number}") for number in range(len(alone))]
            keep_inputs(paths, own)
            explanation.save(place, **look)
            for heatmap, file in zip(alone, own, strict=True):
                heatmap.save(file, **look)
        rows += [heatmap.row | {"image": str(path), "file": str(place)} for heatmap in explanation]
        if not json:
            titles = ", ".join(dict.fromkeys(heatmap.title for heatmap in explanation))
            layers = ", ".join(dict.fromkeys(explanation.layers))
            say(f"[bold]{shown(path.stem)}[/]  {shown(titles)}  [dim]at {shown(layers)}[/] -> {shown(place)}")
            for heatmap in explanation:
                if heatmap.check is not None:
                    say(f"  [dim]{shown(heatmap.target.split(',')[0])}, {heatmap.method.name}:[/] {heatmap.check}")
    if kept:
        Explanation(kept, failures.errors).save(wanted[0])
    if json:
        _print_json({"heatmaps": rows, "errors": failures.rows})
    failures.end()


@command(needs="hookmap.lens")
def predict(
    images: Images,
    model: ModelOptions,
    speed: SpeedOptions,
    top: Top = None,
    json: Json = False,
) -> None:
    """Say what the model sees in each photo: classes, detections or regions, the strongest first.

    [dim]Examples[/]

      hookmap predict dog.jpg

      hookmap predict photos/ -m resnet50 --top 1 --json
    """
    paths = images_in(images)
    lens = model.lens(speed)
    failures, rows = Failures(), list[Any]()
    for path, picture in _pictures(paths, failures):
        try:
            found = lens.predict(picture, top=top)[0]
        except TargetError as error:
            failures.add(path, {path.stem: error})
            continue
        rows.append({"image": str(path), "predictions": [_said(prediction) for prediction in found]})
        if not json:
            say(f"[bold]{shown(path.stem)}[/]" + ("" if found else "  [dim]nothing was detected[/]"))
            for prediction in found:
                say(f"  {prediction.probability:6.1%}  {shown(_line(prediction))}", highlight=False)
    if json:
        _print_json({"images": rows, "errors": failures.rows})
    failures.end()


@command(needs="hookmap.lens")
def ask(
    image: Annotated[str, typer.Argument(help="A photo.")],
    model: ModelOptions,
    speed: PrecisionOptions,
    question: Annotated[str, typer.Argument(help="What to ask; of a captioner, nothing.")] = "",
    output: Annotated[str | None, typer.Option("--output", "-o", help="The page. Default: NAME_answer.html.")] = None,
    word: Annotated[
        list[str] | None, typer.Option("--word", "-w", help="A word or phrase to show; repeatable. Default: all.")
    ] = None,
    answer: Annotated[str | None, typer.Option(help="An answer of your own instead of the model's.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 64,
    layer: Annotated[str | None, typer.Option("--layer", "-l", help="Layer name. Default: the best one.")] = None,
    method: Annotated[str | None, typer.Option(help="How words are traced. Default: elementwise.")] = None,
    json: Json = False,
) -> None:
    """Ask a vision-language model about a photo, and see where in it each word of the answer comes from.

    [dim]Examples[/]

      hookmap ask street.jpg "What is the man holding?" -m hf/llava-hf/llava-1.5-7b-hf   [dim]-> street_answer.html[/]

      hookmap ask street.jpg "What is it?" -m models/qwen2-vl/ -w umbrella -w "red coat" -o page.html
    """
    paths = images_in([image])
    if len(paths) != 1:
        raise HookmapError(f"{image} is {len(paths)} images; a question is asked about one")
    place = places(paths, output, f"answer{PAGE}")[0]
    keep_inputs(paths, [place])
    said = model.lens(speed).ask(paths[0], question, answer=answer, max_tokens=max_tokens)
    said.save(place, word or None, layer, method)
    if json:
        words = [dataclasses.asdict(one) for one in said]
        _print_json({"image": image, "question": question, "answer": said.text, "words": words, "file": str(place)})
    else:
        say(f"[bold]{shown(paths[0].stem)}[/]  {shown(said.text)} -> {shown(place)}")


@command(needs="hookmap.lens")
def words(
    images: Images,
    model: ModelOptions,
    text: Annotated[str, typer.Option("--text", help="What the photo is compared with, as a sentence.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="A file, of several images a folder. Default: NAME_words.png.")
    ] = None,
    budget: Annotated[int, typer.Option(min=1, help="About how many texts may be read.")] = 512,
    json: Json = False,
) -> None:
    """Say which words of a text make it like a photo, for models that read texts (CLIP, SigLIP).

    [dim]Examples[/]

      hookmap words sofa.jpg --text "a cat on a red sofa" -m hf/openai/clip-vit-base-patch32   [dim]-> sofa_words.png[/]
    """
    paths = images_in(images)
    wanted = places(paths, output, "words.png")
    keep_inputs(paths, wanted)
    place_of = dict(zip(paths, wanted, strict=True))
    lens = model.lens()
    failures, rows = Failures(), list[Any]()
    for path, picture in _pictures(paths, failures):
        found = lens.words(picture, text, budget=budget)
        place = found.save(place_of[path])
        rows.append(found.row | {"image": str(path), "file": str(place)})
        if not json:
            say(f"[bold]{shown(path.stem)}[/]  similarity {found.score:.3f} -> {shown(place)}")
            for word in found:
                say(f"  {word.share:+7.3f}  {shown(word.text)}", highlight=False)
    if json:
        _print_json({"images": rows, "errors": failures.rows})
    failures.end()


@command(needs="hookmap.lens")
def features(
    images: Images,
    model: ModelOptions,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder. Default: NAME_features.")] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", "-l", help="Names, globs, or kinds: conv, norm, activation, attention, all."),
    ] = None,
    channels: Annotated[
        str, typer.Option(help="all, numbers with commas between them, or the 16 of the largest mean or variance.")
    ] = "all",
    logdir: Annotated[Path | None, typer.Option(help="Also write to TensorBoard in this folder.")] = None,
    json: Json = False,
) -> None:
    """Draw what each layer makes of a photo: an overview page of the network, and every channel of every layer.

    [dim]Examples[/]

      hookmap features dog.jpg                               [dim]all convolutions -> dog_features/overview.png[/]

      hookmap features dog.jpg -m vgg16_bn --logdir runs/    [dim]and to TensorBoard[/]

      hookmap features dog.jpg -l "blocks.*" --channels variance -o maps/
    """
    paths = images_in(images)
    folders = _folders(paths, output)
    chosen: Any = _channels(channels)
    lens = model.lens()
    failures, rows = Failures(), list[Any]()
    folder_of = dict(zip(paths, folders, strict=True))
    for path, picture in _pictures(paths, failures):
        folder = folder_of[path]
        maps = lens.features(picture, layers or "conv")
        run = None if logdir is None else logdir if len(paths) == 1 else logdir / folder.name
        maps.save(folder, channels=chosen, logdir=run)
        about = []
        for name, figures in maps.statistics().items() if json else ():
            layer = maps[name]
            about.append({"layer": name, "type": layer.kind, "shape": list(layer.maps.shape[1:]), **vars(figures)})
        rows.append({"image": str(path), "folder": str(folder), "layers": about})
        if not json:
            say(maps)
            say(f"[bold]{shown(path.stem)}[/]  {counted(len(maps), 'layer')} -> {shown(folder / 'overview.png')}")
    if json:
        _print_json({"images": rows, "errors": failures.rows})
    elif logdir is not None:
        say(f"tensorboard --logdir {shown(logdir)}")
    failures.end()


@command(needs="hookmap.lens")
def concepts(
    images: Images,
    model: ModelOptions,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="A file. Default: NAME_concepts.png, of several concepts.png.")
    ] = None,
    layer: Annotated[str | None, typer.Option("--layer", "-l", help="Layer name. Default: the best one.")] = None,
    count: Annotated[int, typer.Option("--concepts", "-k", min=1, help="How many.")] = 5,
    method: Annotated[str, typer.Option(help="nmf: parts; pca: directions.")] = "nmf",
    seed: Annotated[int | None, typer.Option(help="Start NMF from random numbers. Default: nothing is random.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 16,
) -> None:
    """Find the few things that a layer sees in all photos together, and what the model calls them.

    [dim]Examples[/]

      hookmap concepts dog.jpg                               [dim]five concepts -> dog_concepts.png[/]

      hookmap concepts photos/ -k 8 -o out/concepts.png      [dim]shared by all photos, on one page[/]

      hookmap concepts dog.jpg --method pca --layer blocks.5
    """
    paths = images_in(images)
    place = Path(f"{paths[0].stem}_concepts.png" if len(paths) == 1 else "concepts.png")
    if output is not None and is_folder(output):
        place = Path(output) / place
    elif output is not None:
        check_ending(output)
        place = Path(output)
    keep_inputs(paths, [place])
    how: dict[str, Any] = {"method": method, "seed": seed, "batch_size": batch_size}
    found = model.lens().concepts(paths, layer, count, **how)
    found.save(place)
    for number, concept in enumerate(found, 1):
        say(f"{number:2}  {concept.share:4.0%}  {shown(concept.title)}", highlight=False)
    names = listed([path.stem for path in paths], 4)
    say(f"[bold]{shown(names)}[/]  [dim]at {shown(found.layer)}[/] -> {shown(place)}")


@command(needs="hookmap.lens")
def attention(
    images: Images,
    model: ModelOptions,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A file, of several images a folder. Default: NAME_attention.png."),
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", "-l", help="Layer name or glob; repeatable. Default: all.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="X,Y in pixels: what the patch there looks at. Default: the class token.")
    ] = None,
    without_artefacts: Annotated[
        bool, typer.Option("--without-artefacts", help="Leave out tokens that only attract attention.")
    ] = False,
    distance: Annotated[bool, typer.Option("--distance", help="Draw how far each head looks instead.")] = False,
    film: Annotated[
        str | None, typer.Option(help="Also attention rollout up to each layer, as .webp or .gif; a strip as .png.")
    ] = None,
) -> None:
    """Draw what each head of a transformer looks at: of one layer over the photo, of several on a sheet.

    [dim]Examples[/]

      hookmap attention dog.jpg -m vit_small_patch14_dinov2               [dim]-> dog_attention.png[/]

      hookmap attention dog.jpg -m vit_small_patch14_dinov2 -l blocks.11 --at 240,110 -o heads.png

      hookmap attention dog.jpg -m vit_base_patch16_224 --distance --film dog.webp
    """
    paths = images_in(images)
    wanted = places(paths, output, "attention.png")
    films = [] if film is None else places(paths, film, "rollout.webp")
    keep_inputs(paths, [*wanted, *films])
    place_of, film_of = dict(zip(paths, wanted, strict=True)), dict(zip(paths, films, strict=False))
    point = None if at is None else _point(at)
    if distance and (point or without_artefacts):
        raise HookmapError("--distance is of all patches; leave out --at and --without-artefacts")
    lens = model.lens()
    failures = Failures()
    for path, picture in _pictures(paths, failures):
        if distance:
            written = [lens.attention_distances(picture, layer).save(place_of[path])]
        else:
            looked = lens.attention(picture, layer, at=point, without_artefacts=without_artefacts)
            written = [looked.save(place_of[path])]
        if path in film_of:
            written.append(lens.attention_rollout(picture).save(film_of[path]))
        say(f"[bold]{shown(path.stem)}[/] -> {shown(listed(written))}")
    failures.end()


@command(needs="hookmap.lens")
def logit_lens(
    images: Images,
    model: ModelOptions,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A file, of several images a folder. Default: NAME_logit_lens.png."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Class index or label. Default: the predicted class.")
    ] = None,
) -> None:
    """Say what the head of a transformer would make of the tokens after each block: when it knows, and where.

    [dim]Examples[/]

      hookmap logit-lens dog.jpg -m vit_base_patch16_224 -t tabby         [dim]-> dog_logit_lens.png[/]
    """
    paths = images_in(images)
    wanted = places(paths, output, "logit_lens.png")
    keep_inputs(paths, wanted)
    place_of = dict(zip(paths, wanted, strict=True))
    lens = model.lens()
    failures = Failures()
    for path, picture in _pictures(paths, failures):
        place = lens.logit_lens(picture, target).save(place_of[path])
        say(f"[bold]{shown(path.stem)}[/] -> {shown(place)}")
    failures.end()


@command(needs="hookmap.lens")
def view(
    images: Images,
    model: ModelOptions,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="A page, of several images a folder. Default: NAME_view.html.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="What is asked first, as for explain; repeatable.")
    ] = None,
) -> None:
    """Write a page in which a photo can be walked through: classes, layers, channels, looks. No server, no network.

    [dim]Examples[/]

      hookmap view dog.jpg -m resnet50 -t tabby -t beagle         [dim]-> dog_view.html[/]
    """
    paths = images_in(images)
    wanted = places(paths, output, f"view{PAGE}")
    keep_inputs(paths, wanted)
    place_of = dict(zip(paths, wanted, strict=True))
    lens = model.lens()
    failures = Failures()
    for path, picture in _pictures(paths, failures):
        place = lens.save_view(picture, place_of[path], target or "predicted")
        say(f"[bold]{shown(path.stem)}[/] -> {shown(place)}")
    failures.end()


# ---------------------------------------------------------------- what comes of each image


class Failures:
    """Images that couldn't be read or asked; the same sentence is said once.

    Attributes:
        errors: by the images' names.
        rows: as a document holds them.
    """

    def __init__(self) -> None:
        self.errors: dict[str, HookmapError] = {}
        self.rows: list[dict[str, str]] = []
        self._said: Counter[str] = Counter()

    def add(self, path: Path, errors: dict[str, HookmapError]) -> None:
        """What was wrong with an image."""
        for name, error in errors.items():
            self.errors[name] = error
            self.rows.append({"image": str(path), "error": str(error)})
            sentence = str(error)
            self._said[sentence] += 1
            if self._said[sentence] == 1:
                complain(sentence if isinstance(error, ImageError) else f"{path.stem}: {sentence}")

    def end(self) -> None:
        """Exit with 1 if there was one."""
        again = self._said.total() - len(self._said)
        if again:
            complain(f"likewise {counted(again, 'more image')}")
        if self._said:
            raise typer.Exit(1)


def _answers(
    lens: Lens, paths: Sequence[Path], ask: AskOptions, speed: SpeedOptions, top: int | None, tile: int | None
) -> Iterator[Explanation]:
    """The explanation of each image, in order; one that can't be explained holds only why."""
    options: Any = {**ask.options(), "batch_size": speed.batch_size, "on_error": "skip"}
    question: Any = {"layer": ask.layer, "method": ask.method}
    if top is None and tile is None:
        yield from lens.stream(paths, ask.targets(), **question, **options)
        return

    from hookmap.results.explanation import Explanation

    for number, path in enumerate(paths):
        targets = ask.targets(None if top is None else _most_probable(lens, path, top))
        if tile is not None:
            explanation = lens.explain_in_tiles(path, targets, **question, tile=tile, **options)
        else:
            explanation = lens.explain(path, targets, **question, **options)
        heatmaps = (replace(h, position=replace(h.position, image=number)) for h in explanation)
        yield Explanation(heatmaps, explanation.errors)


def _most_probable(lens: Lens, path: Path, top: int) -> list[Any] | None:
    """The strongest predictions for an image as targets: classes, or detections; None: explaining it says why none."""
    with suppress(ImageError, TargetError):
        predictions = lens.predict(path, top=top)[0]
        return [p.index if p.box is None else f"box:{number}" for number, p in enumerate(predictions)] or None
    return None


def _pictures(paths: Sequence[Path], failures: Failures) -> Iterator[tuple[Path, Picture]]:
    """The images that can be read, one after the other, with a bar."""
    from hookmap.images.loading import load

    for path in _with_progress(paths, len(paths)):
        try:
            picture = load(path)
        except ImageError as error:
            failures.add(path, {path.stem: error})
        else:
            yield path, picture


def _with_progress(items: Any, count: int) -> Iterator[Any]:
    with tracking(count > 1) as track:
        advance = track("images", count)
        for item in items:
            yield item
            advance(1)


# ---------------------------------------------------------------- what is said


def _said(prediction: Prediction) -> dict[str, Any]:
    return {key: value for key, value in vars(prediction).items() if value is not None}


def _line(prediction: Prediction) -> str:
    parts = [f"{prediction.label.split(',')[0]} ({prediction.index})"]
    if prediction.box is not None:
        parts.append("at {:.0f},{:.0f},{:.0f},{:.0f}".format(*prediction.box))
    if prediction.share is not None:
        parts.append(f"on {prediction.share:.0%} of the picture")
    return "  ".join(parts)


def _print_json(document: Any) -> None:
    """JSON knows no NaN and no infinity: they are null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(inner) for inner in value]
        return None if isinstance(value, float) and not abs(value) < float("inf") else value

    print(_json.dumps(plain(document), indent=2, allow_nan=False))


# ---------------------------------------------------------------- where it goes


def _maps(paths: Sequence[Path], output: str | None, method: Sequence[str] | None) -> list[Path]:
    """Where heatmaps go; the method that is chosen by default isn't known yet."""
    wanted = places(paths, output, f"{'_'.join(method) if method else METHOD}.png")
    names = methods_table()
    keep_inputs(
        paths,
        (
            place.with_name(place.name.replace(METHOD, name))
            for place in wanted
            for name in (names if METHOD in place.name else [""])
        ),
    )
    return wanted


def _folders(paths: Sequence[Path], output: str | None) -> list[Path]:
    """Where feature maps go."""
    if output is not None and not is_folder(output):
        try:
            check_ending(output)
        except HookmapError:
            pass  # a folder with a dot in its name
        else:
            raise HookmapError(f"-o {output} is a file; feature maps are written as a folder of pictures")
    alone = output is not None and len(paths) == 1
    return [Path(output or "")] if alone else places(paths, f"{output or '.'}/", "features")


def _channels(given: str) -> Any:
    if given in ("all", "mean", "variance"):
        return given
    try:
        return [int(number) for number in given.split(",")]
    except ValueError as error:
        raise HookmapError(
            f"--channels is {given!r} ({first_line(error)}); expected all, mean, variance, or numbers with commas"
        ) from None


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(number) for number in text.split(","))
    except ValueError:
        raise HookmapError(f"--at is {text!r}; expected X,Y in pixels of the photo, such as 240,110") from None
    return x, y
