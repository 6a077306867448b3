"""What is asked of every image of a data set, and the answers for a batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from hookmap.dataset.labels import TrueClasses
from hookmap.dataset.reading import Batch, Sample, reason
from hookmap.dataset.watching import Watch
from hookmap.errors import (
    DataError,
    HookmapWarning,
    LayerError,
    ModelError,
    NothingDetectedError,
)
from hookmap.heatmap import Heatmap
from hookmap.images import Picture
from hookmap.matching import LayerSpec
from hookmap.targets import PREDICTED, PerImage, TargetSpec
from hookmap.views import View

if TYPE_CHECKING:
    from hookmap.lens import Lens

LABEL = "label"
"""The target that is each image's true class."""


@dataclass(eq=False)
class Answer:
    """What was found of one image.

    Attributes:
        sample: the image.
        label: its true class in words, or None.
        truth: that class among the model's, or None.
        predicted: what is read of the predicted class, if the model gives classes.
        heatmaps: each with the target as it was asked for.
        error: why there are none, or nothing.
    """

    sample: Sample
    label: str | None = None
    truth: int | None = None
    predicted: Heatmap | None = None
    heatmaps: list[tuple[str, Heatmap]] = field(default_factory=list)
    error: str = ""


@dataclass(eq=False)
class Job:
    """Explains batches.

    Attributes:
        lens: the model.
        targets: ``"predicted"``, ``"label"`` (each image's true class), or any target.
        classes: how labels become classes.
        layer: as in :meth:`hookmap.Lens.explain`.
        method: likewise.
        how: everything else that it takes.
        channels: layers whose channels are watched; True: those that are explained; None: none.
        strict: whether an image that can't be read or explained ends the run.
    """

    lens: Lens
    targets: Sequence[TargetSpec]
    classes: TrueClasses
    layer: Any = None
    method: Any = None
    how: Mapping[str, Any] = field(default_factory=dict)
    channels: LayerSpec | Literal[True] | None = None
    strict: bool = False

    def __call__(self, batch: Batch, watch: Watch) -> list[Answer]:
        """The answers for a batch, in the order of its images.

        Args:
            batch: of any size.
            watch: counts what channels do.

        Raises:
            HookmapError: if the model, layers or methods can't be asked this of any image, and when strict of one.
        """
        answers = [
            Answer(s, self.classes.name(s.label), self.classes.index(s.label), error=s.error) for s in batch.samples
        ]
        for x, positions in batch.inputs:
            x = x.to(self.lens.device, non_blocking=True)
            some = [answers[i] for i in positions]
            if self.lens.form(x) == "detections":  # each image has its own
                for b, answer in enumerate(some):
                    self._answer(x[b : b + 1], [answer], watch)
            else:
                self._answer(x, some, watch)
        self._check(answers)
        return answers

    def _check(self, answers: Sequence[Answer]) -> None:
        wrong = [answer for answer in answers if answer.error]
        if wrong and self.strict:
            raise DataError(
                f"{wrong[0].sample.id} can't be explained: {wrong[0].error}; leave it out, or have such images noted "
                "instead by leaving out --strict (strict=False)"
            )
        # What is wrong with every image of a batch in the same way is no fault of theirs.
        explained = [answer for answer in answers if not answer.sample.error]
        if len(explained) > 1 and len({answer.error for answer in explained}) == 1 and explained[0].error:
            raise DataError(f"no image of a batch of {len(explained)} can be explained: {explained[0].error}")

    def _answer(self, x: torch.Tensor, answers: list[Answer], watch: Watch) -> None:
        if LABEL in self.targets:
            for answer in answers:
                if answer.truth is None:
                    known = "it has no label" if answer.label is None else f"no class is called {answer.label!r}"
                    answer.error = f"the target is each image's label, and {known}"
            kept = [b for b, answer in enumerate(answers) if not answer.error]
            x, answers = x[kept], [answers[b] for b in kept]
        if not answers:
            return
        try:
            self._explain(x, answers, watch)
        except (ModelError, LayerError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if len(answers) > 1:  # whose fault is it?
                for b, answer in enumerate(answers):
                    self._answer(x[b : b + 1], [answer], watch)
            elif not isinstance(error, NothingDetectedError):
                answers[0].error = reason(error)

    def _explain(self, x: torch.Tensor, answers: Sequence[Answer], watch: Watch) -> None:
        """Every target on every image; also the predicted class, where the model gives classes."""
        form = self.lens.form(x)
        asked = [PREDICTED, *(t for t in self.targets if t != PREDICTED)] if form == "classes" else [*self.targets]
        views = [_view(tensor, answer.sample) for tensor, answer in zip(x, answers, strict=True)]
        # Of one target each where it may become several heatmaps.
        rounds = [[one] for one in asked] if form == "detections" else [asked]
        layers = None if self.channels is True else self.channels
        watched = {} if self.channels is None else self.lens.grids(layers, x)
        for number, targets in enumerate(rounds):
            own = [PerImage([a.truth for a in answers]) if t == LABEL else t for t in targets]  # type: ignore[misc]
            with warnings.catch_warnings(), watch.over(watched if number == 0 else {}, [a.sample.id for a in answers]):
                warnings.simplefilter("ignore", HookmapWarning)  # a map of zeros can be told from its row
                found = self.lens.explain(
                    views, own, layer=self.layer, method=self.method, batch_size=len(x), progress=False, **self.how
                )
            for answer, view in zip(answers, views, strict=True):
                mine = [heatmap for heatmap in found if heatmap.picture is view.picture]
                each = len(mine) // len(targets)
                named = [(_words(targets[i // each]), heatmap) for i, heatmap in enumerate(mine)]
                if form == "classes":
                    answer.predicted = next(heatmap for words, heatmap in named if words == PREDICTED)
                answer.heatmaps += [one for one in named if one[0] in [_words(t) for t in self.targets]]


def _view(tensor: torch.Tensor, sample: Sample) -> View:
    assert sample.geometry is not None
    # Nobody looks at the picture here: one pixel stands for all of it.
    pixels = np.broadcast_to(np.zeros((), np.uint8), (*sample.geometry.original, 3))
    return View(tensor, Picture(pixels, sample.id), sample.geometry)


def _words(target: TargetSpec) -> str:
    return str(target) if not callable(target) or hasattr(type(target), "__dataclass_fields__") else target.__name__
