"""From images to heatmaps, one image after the other; a bad image need not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

from hookmap._devices import out_of_memory
from hookmap._text import counted
from hookmap._warnings import warn
from hookmap.attribution.answering import batches_of_words, spoken
from hookmap.attribution.batch import Plan, each_by_itself, explain_batch
from hookmap.attribution.engine import Batch, Engine, Failure
from hookmap.attribution.tiles import explain_in_tiles, explain_volume_in_tiles
from hookmap.errors import HookmapError, ImageError, ModelError, TargetError, first_line
from hookmap.images.loading import Picture, Unreadable, load_each
from hookmap.images.views import is_input, tensor_views
from hookmap.models.vision_language import VisionLanguage
from hookmap.results.heatmap import Heatmap
from hookmap.results.question import Question
from hookmap.targets import Word

OnError = Literal["raise", "skip"]


def explain_each(
    engine: Engine,
    images: Any,
    plan: Plan,
    *,
    batch_size: int,
    on_error: OnError = "raise",
    around: Callable[[Batch], AbstractContextManager[object]] = nullcontext,
) -> Iterator[list[Heatmap] | Failure]:
    """The heatmaps of each image, in the order of the images; they are decoded and run batch by batch.

    Args:
        engine: of the model.
        images: as in :meth:`hookmap.Lens.explain`.
        plan: what is asked of each.
        batch_size: images per forward pass.
        on_error: ``"raise"``, or ``"skip"``: an image that can't be read, that can't be asked this (nothing was
            detected in it, it hasn't this target), or on which the model itself fails, is a :class:`Failure`, and the
            others are explained.
        around: a context in which each batch is explained.

    Raises:
        HookmapError: for what is wrong with an image, unless it is skipped; for what is wrong with the model, the
            layers or the methods always.
    """
    _check(on_error)
    count = 0
    answers = isinstance(engine.called, VisionLanguage)
    batches = batches_of_words(engine, images, plan) if answers else engine.batches_and_failures(images, batch_size)
    for batch in batches:
        if isinstance(batch, Failure):
            if on_error == "raise":
                raise batch.error
            count += 1
            yield batch
            continue
        count += len(batch.views)
        yield from _answers(batch, plan, on_error, around)
    plan.check(count)


def _answers(
    batch: Batch, plan: Plan, on_error: OnError, around: Callable[[Batch], AbstractContextManager[object]]
) -> Iterator[list[Heatmap] | Failure]:
    def explained() -> list[Heatmap]:
        with around(batch):
            return explain_batch(batch, plan)

    apart = False
    with suppress(HookmapError):  # what is wrong with the model is said when it is explained
        apart = each_by_itself(batch)
    if apart:  # what many objects of many images take isn't held at once
        for place in range(len(batch.views)):
            yield from _answers(batch[place], plan, on_error, around)
        return
    answer = _attempted(explained, batch.numbers[0], batch.views[0].picture.name, on_error)
    if not isinstance(answer, Failure):
        for number in batch.numbers:
            yield [heatmap for heatmap in answer if heatmap.position.image == number]
    elif len(batch.views) > 1:  # whose fault it is shows one by one
        for place in range(len(batch.views)):
            yield from _answers(batch[place], plan, on_error, around)
    else:
        yield answer


def explain_each_in_tiles(
    engine: Engine,
    images: Any,
    plan: Plan,
    tile: Sequence[int] | None,
    overlap: float,
    *,
    batch_size: int,
    on_error: OnError = "raise",
) -> Iterator[list[Heatmap] | Failure]:
    """Likewise of pictures, or of volumes that are preprocessed, in tiles: see :mod:`hookmap.attribution.tiles`."""
    _check(on_error)
    volumes = is_input(images)
    for number, image in enumerate(tensor_views(images, engine.preprocessing, 3) if volumes else load_each(images)):
        if isinstance(image, Unreadable):
            if on_error == "raise":
                raise image.error
            yield Failure(number, image.name, image.error)
            continue
        how = (plan, tile, overlap, batch_size, number)
        if isinstance(image, Picture):
            yield _attempted(partial(explain_in_tiles, engine, image, *how), number, image.name, on_error)
        else:
            explained = partial(explain_volume_in_tiles, engine, image, *how)
            yield _attempted(explained, number, image.picture.name, on_error)


def _check(on_error: OnError) -> None:
    if on_error not in get_args(OnError):
        raise HookmapError(f"on_error is {on_error!r}; expected one of {', '.join(get_args(OnError))}")


def _attempted(
    explained: Callable[[], list[Heatmap]], number: int, name: str, on_error: OnError
) -> list[Heatmap] | Failure:
    """Heatmaps, or why an image that may be skipped has none."""
    try:
        return explained()
    except Exception as error:
        if on_error == "raise" or not _may_be_of_an_image(error):
            raise
        if isinstance(error, HookmapError):
            return Failure(number, name, error)
        failure = ModelError(f"{type(error).__name__}: {first_line(error)}")
        failure.__cause__ = error
        return Failure(number, name, failure)


def _may_be_of_an_image(error: Exception) -> bool:
    """Whether another image might not have met this error; layers, methods and memory are the same for all."""
    if isinstance(error, HookmapError):
        return isinstance(error, (TargetError, ImageError, ModelError))
    return not (isinstance(error, OSError) or out_of_memory(error))


def explain_again(engine: Engine, heatmap: Heatmap) -> Heatmap:
    """The same question asked again of the same image: with the same weights the same map, bit for bit.

    Raises:
        HookmapError: if the heatmap doesn't know its question.
    """
    engine, batch, plan = asked_again(engine, heatmap)
    question = question_of(heatmap)
    (count, _), (target, image) = question.together, question.place
    made = explain_batch(batch, plan)[image * count + target]
    return replace(made, picture=heatmap.picture, frames=heatmap.frames, position=heatmap.position, look=heatmap.look)


def asked_again(engine: Engine, heatmap: Heatmap) -> tuple[Engine, Batch, Plan]:
    """The batch in which a heatmap was asked and what was asked, with an engine that preprocesses as then.

    Raises:
        HookmapError: if the heatmap doesn't know its question.
    """
    question = question_of(heatmap)
    name, fingerprint, precision, preprocessing = engine.about()
    if fingerprint != question.fingerprint:
        engine.remark(
            f"this heatmap was made by {question.model} with other weights than those of {name}; asked of these, it is "
            "another map"
        )
    if precision != question.precision:
        engine.remark(f"this heatmap was made in {question.precision}, and this lens runs in {precision}")
    if question.preprocessing is not None and question.preprocessing != preprocessing:
        engine = engine.preprocessed_by(question.preprocessing)
    # As many copies as were asked together: other numbers may round in another way.
    count, size = question.together
    plan = plan_of(heatmap)
    plan = replace(plan, targets=[question.target] * count)
    if isinstance(word := question.target, Word):
        said = spoken(engine, heatmap.picture, word.question, word.answer)
        return said.batch.engine, said.batch, plan
    images = [heatmap.picture] * size if question.input is None else question.input.expand(size, *question.input.shape)
    batch = next(engine.batches(images, size))
    return engine, replace(batch, numbers=[0] * size), plan


def question_of(heatmap: Heatmap) -> Question:
    """What a heatmap answers.

    Raises:
        HookmapError: if it doesn't know.
    """
    if heatmap.question is None:
        raise HookmapError("this heatmap wasn't made by Lens.explain, so it can't be asked again; explain its picture")
    return heatmap.question


def plan_of(heatmap: Heatmap) -> Plan:
    """What was asked for a heatmap alone.

    Raises:
        HookmapError: if it doesn't know its question.
    """
    question = question_of(heatmap)
    return Plan([question.target], [question.method], list(question.layers) or None, question.settings)


def warn_of_maps_that_show_nothing(heatmaps: Iterable[Heatmap]) -> None:
    """A warning for the maps that have no evidence to show: one for all that a method and layer leave so alike."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for heatmap in heatmaps:
        which = f"the heatmap of {heatmap.target!r} on {heatmap.picture.name!r} by {heatmap.method.name}"
        if not heatmap.raw.isfinite().all():
            fault = (
                f"isn't finite: the weights, or what layer {heatmap.layer!r} gives, hold NaN or infinity; look for "
                "them, or take precision='fp32'"
            )
        elif heatmap.evidence == "none":
            fault = (
                f"is zero everywhere: nothing in layer {heatmap.layer!r} speaks for it; look at .raw (what speaks "
                "against), or pass another layer"
            )
        elif heatmap.caution:
            advice = "; take a larger budget=" if "budget" in heatmap.method.needs else ""
            fault = f"is {heatmap.caution}{advice}"
        else:
            continue
        kind = heatmap.method.name, heatmap.layer, fault.partition(":")[0]
        alike.setdefault(kind, []).append(f"{which} {fault}")
    for first, *others in alike.values():
        warn(f"{first} (so it is with {counted(len(others), 'other')})" if others else first)
