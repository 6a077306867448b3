"""A question put to a vision-language model: its answer as a batch of one picture, ready to be explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hookmap._devices import free_memory
from hookmap._progress import Track, silent
from hookmap.adapters.wording import Said, Wording
from hookmap.attribution.batch import Plan
from hookmap.attribution.engine import Batch, Engine, Failure
from hookmap.attribution.passes import Passes
from hookmap.errors import HookmapError, ImageError, ModelError, TargetError
from hookmap.hooks.preserve import preserved
from hookmap.hooks.registration import hooked
from hookmap.images.loading import Picture, load_each
from hookmap.images.views import View
from hookmap.layers.trace import Trace
from hookmap.models.vision_language import VisionLanguage
from hookmap.models.vision_language.model import Generated, Prompt
from hookmap.results.choice import Choice
from hookmap.targets import Contrast, Word

METHOD = "elementwise"
"""How words are traced by default: of what costs one gradient, it lies most in what a word names (docs/words.md)."""
MOST = 64
"""Tokens that an answer has at most, if nothing else is said."""


@dataclass(frozen=True, eq=False)
class Spoken:
    """An answer to a question about one picture.

    Attributes:
        batch: the picture, of an engine whose model says this answer whatever the picture is changed to.
        wording: its tokens and its text.
        log_probabilities: of each token after those before it, ``(T,)``.
    """

    batch: Batch
    wording: Wording
    log_probabilities: Tensor


def answerer(engine: Engine) -> VisionLanguage:
    """How an engine's model answers.

    Raises:
        ModelError: if it doesn't.
    """
    if isinstance(engine.called, VisionLanguage):
        return engine.called
    raise ModelError(
        f"{engine.name} gives no answers in words; expected a vision-language model of transformers, such as LLaVA, "
        "Qwen-VL or PaliGemma: hm.Lens('hf/ORG/NAME') (on the command line -m hf/ORG/NAME), or "
        "hm.Lens(hm.VisionLanguage(model, processor))"
    )


def spoken(
    engine: Engine,
    picture: Picture,
    question: str,
    answer: str | Sequence[int] | None = None,
    most: int = MOST,
    track: Track = silent,
) -> Spoken:
    """What a model answers to a question about a picture, or, with ``answer``, how it says that.

    Args:
        engine: of the model.
        picture: that is asked about.
        question: as it was trained to read them; of models with a chat template only the user's own words.
        answer: a text, or ids of tokens, that it is to say instead of its own.
        most: tokens of its own.
        track: called with a description and a total, gives a function that is told of progress.

    Raises:
        HookmapError: if the model, its processor or the answer can't be read.
    """
    adapter = answerer(engine)
    engine.check_weights()
    if most < 1:
        raise HookmapError(f"an answer of {most} tokens was asked for; expected 1 or more")
    with preserved(engine.model), engine.execution.casting(torch.empty(0, device=engine.device)):
        prompt = adapter.prompt(picture, question)
        own: Generated | None = None
        if answer is None:
            own = adapter.generated(prompt, most, track)
            ids = own.ids
        else:
            ids = adapter.ids_of(answer, prompt, picture.pixels) if isinstance(answer, str) else tuple(answer)
            if ids and not adapter.checked:
                own = adapter.generated(prompt, 1)
        if own is not None:
            taken = adapter.as_taken(prompt, own.begun)
            adapter.checked = taken is prompt  # else how it takes a prompt shows only when it generates
            prompt = taken
        wording = Wording(ids, adapter.tokenizer)
        if not ids:
            said = "the answer that was given" if answer is not None else "what the model says of this picture"
            raise TargetError(f"{said} has no words; ask in another way, or pass answer='...' of your own")
        called, levels = adapter.asked(prompt, wording)
    twin = engine.beside(called, {})
    given: list[Said] = []
    batch = twin.only([View(prompt.mosaic.input, picture, prompt.mosaic.geometry)])
    with hooked([called], lambda _, __, output: given.append(output)):
        traced = twin.trace(batch.x)
    logits = given[0].logits[0].detach().float()
    if own is not None and len(own.ids):
        _compare(engine, own.logits.float(), logits[: len(own.ids)])
    twin.settle(batch.x.shape[1:], Choice(tuple(levels), METHOD, "sum" if len(levels) > 1 else "last"))
    _say_if_large(engine, traced, prompt)
    chosen = torch.tensor(ids, device=logits.device)
    return Spoken(
        replace(batch, passes=Passes(levels)),
        wording,
        logits.log_softmax(1).gather(1, chosen[:, None])[:, 0].cpu(),
    )


def _compare(engine: Engine, own: Tensor, forced: Tensor) -> None:
    """A remark where a model says an answer in another way when it is given it than when it made it."""
    apart, scale = float((own - forced).abs().max()), float(own.abs().max())
    half = engine.execution.precision != "fp32" or next(engine.model.parameters()).element_size() < 4
    if not apart <= (0.1 if half else 1e-3) * max(scale, 1e-6):
        engine.remark(
            f"given its own answer, {engine.name} says its words with logits that differ by up to {apart:.2g} (of "
            f"{scale:.2g}) from when it made it, so its maps are of a slightly different reading of the prompt"
        )


def _say_if_large(engine: Engine, traced: Trace, prompt: Prompt) -> None:
    """Say before it is too late that what a gradient keeps won't fit into memory."""
    needed, free = traced.held * prompt.mosaic.input.element_size(), free_memory(engine.device)
    if free is not None and needed > free:
        engine.remark(
            f"explaining this answer keeps about {needed / 1e9:.1f} GB of activations, and {free / 1e9:.1f} GB are "
            "free; take a smaller picture, precision='bf16', a later layer of the language model, or a method without "
            "gradients such as featureablation"
        )


def batches_of_words(engine: Engine, images: Any, plan: Plan) -> Iterator[Batch | Failure]:
    """Each picture as a batch of its own, asked the question of the words that a plan is about.

    Raises:
        TargetError: for targets that aren't words, or of several questions.
    """
    words = [word for goal in plan.targets for word in _words(goal)]
    asked = {(word.question, word.answer if isinstance(word.answer, str) else _ids(word.answer)) for word in words}
    if len(asked) > 1:
        raise TargetError("words of several questions or answers were asked for; ask one question per call")
    question, answer = asked.pop()
    if isinstance(images, Tensor) and images.is_floating_point():
        raise ImageError("a vision-language model is asked about pictures; pass paths or pixels, not prepared tensors")
    for number, picture in enumerate(load_each(images)):
        if not isinstance(picture, Picture):
            yield Failure(number, picture.name, picture.error)
            continue
        try:
            one = spoken(engine, picture, question, answer, track=plan.track)
        except (ImageError, TargetError) as error:
            yield Failure(number, picture.name, error)
        else:
            yield replace(one.batch, numbers=[number])


def _ids(answer: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if answer is None else tuple(answer)


def _words(goal: Any) -> list[Word]:
    if isinstance(goal, Word):
        return [goal]
    if isinstance(goal, Contrast):
        return [*_words(goal.this), *_words(goal.that)]
    raise TargetError(
        f"this model answers in words, and {goal} is none; ask it by lens.ask(picture, question), or pass "
        "hm.Word('umbrella', question='What is the man holding?')"
    )
