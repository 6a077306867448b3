"""What is asked of every image of a data set, and the answers for a batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from hookmap.datasets.labels import TrueClasses
from hookmap.datasets.reader import Batch, Sample, reason
from hookmap.runs.channels import ChannelRecorder
from hookmap.errors import (
    DataError,
    HookmapWarning,
    LayerError,
    NothingDetectedError,
)
from hookmap.hooks.matching import LayerSpec
from hookmap.images.loading import Picture
from hookmap.images.views import Prepared, View
from hookmap.results.heatmap import Heatmap
from hookmap.runs.watching import Watch
from hookmap.targets import PREDICTED, PerImage, TargetSpec

if TYPE_CHECKING:
    from hookmap.lens import Lens

LABEL = "label"
"""The target that is each image's true class."""


@dataclass(eq=False)
class ImageResult:
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
        proven: whether an image has been explained: then what fails is the fault of images.
    """

    lens: Lens
    targets: Sequence[TargetSpec]
    classes: TrueClasses
    layer: Any = None
    method: Any = None
    how: Mapping[str, Any] = field(default_factory=dict)
    channels: LayerSpec | Literal[True] | None = None
    strict: bool = False
    proven: bool = False

    def __call__(self, batch: Batch, recorder: ChannelRecorder) -> list[ImageResult]:
        """The answers for a batch, in the order of its images.

        Args:
            batch: of any size.
            recorder: counts what channels do.

        Raises:
            HookmapError: if the model, layers or methods can't be asked this of any image, and when strict of one.
        """
        answers = [self._begun(sample) for sample in batch.samples]
        for x, positions in batch.inputs:
            x = self.lens.engine.to_model(x)
            rows, some = [*range(len(x))], [answers[i] for i in positions]
            if LABEL in self.targets:
                rows = [b for b in rows if some[b].truth is not None]
                self._answer_unlabelled(x, some, recorder)
            if rows:
                self._answer(x[rows], [some[b] for b in rows], self.targets, recorder)
        self._check(answers)
        return answers

    def _answer_unlabelled(self, x: torch.Tensor, answers: Sequence[ImageResult], recorder: ChannelRecorder) -> None:
        """Images whose class isn't known are asked the rest."""
        rows = [b for b, answer in enumerate(answers) if answer.truth is None]
        rest = [target for target in self.targets if target != LABEL]
        if rows and rest:
            self._answer(x[rows], [answers[b] for b in rows], rest, recorder)
        elif rows:
            for answer in (answers[b] for b in rows):
                known = "it has no label" if answer.label is None else f"no class is called {answer.label!r}"
                answer.error = f"the target is each image's label, and {known}"

    def _begun(self, sample: Sample) -> ImageResult:
        """What is known of an image before it is explained."""
        sample.boxes = [box._replace(label=self.classes.name(box.label)) for box in sample.boxes]
        return ImageResult(sample, self.classes.name(sample.label), self.classes.index(sample.label), error=sample.error)

    def _check(self, answers: Sequence[ImageResult]) -> None:
        wrong = [answer for answer in answers if answer.error]
        if wrong and self.strict:
            raise DataError(
                f"{wrong[0].sample.id} can't be explained: {wrong[0].error}; leave it out, or have such images noted "
                "instead by leaving out --strict (strict=False)"
            )
        self.proven |= any(answer.heatmaps for answer in answers)
        if self.proven:
            return
        # What is wrong with every image of the first batches in the same way is no fault of theirs.
        judged = [answer for answer in answers if self.targets != [LABEL] or answer.truth is not None]
        if len(judged) > 1 and len({answer.error for answer in judged}) == 1 and judged[0].error:
            raise DataError(f"no image of a batch of {len(judged)} can be explained: {judged[0].error}")

    def _answer(self, x: torch.Tensor, answers: list[ImageResult], targets: Sequence[TargetSpec], recorder: ChannelRecorder) -> None:
        try:
            if len(answers) == 1 or self.lens.engine.trace(x).form != "detections":
                self._explain(x, answers, targets, recorder)
                return
        except (LayerError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if len(answers) == 1:
                answers[0].heatmaps.clear()
                answers[0].error = reason(error)
                return
        # One by one: to see whose fault it is, or because each image has detections of its own.
        for b, answer in enumerate(answers):
            self._answer(x[b : b + 1], [answer], targets, recorder)

    def _explain(self, x: torch.Tensor, answers: Sequence[ImageResult], targets: Sequence[TargetSpec], recorder: ChannelRecorder) -> None:
        """Every target on every image; also the predicted class, where the model gives classes."""
        form = self.lens.engine.trace(x).form
        asked = [PREDICTED, *(t for t in targets if t != PREDICTED)] if form == "classes" else [*targets]
        views = [_view(tensor, answer.sample) for tensor, answer in zip(x, answers, strict=True)]
        # Of one target each where it may become several heatmaps.
        rounds = [[one] for one in asked] if form == "detections" else [asked]
        layers = None if self.channels is True else self.channels
        watched = {} if self.channels is None else self.lens.engine.grids(layers, x)
        for number, some in enumerate(rounds):
            own = [PerImage([a.truth for a in answers]) if t == LABEL else t for t in some]  # type: ignore[misc]
            found: Sequence[Heatmap] = ()
            given = x if len(rounds) == 1 else x.clone()  # a model may work in place on its input
            with (
                suppress(NothingDetectedError),
                warnings.catch_warnings(),
                recorder.over(watched if number == 0 else {}, [a.sample.id for a in answers]),
            ):
                warnings.simplefilter("ignore", HookmapWarning)  # a map of zeros can be told from its row
                found = self.lens.explain(
                    Prepared(views, given),
                    own,
                    layer=self.layer,
                    method=self.method,
                    batch_size=len(x),
                    progress=False,
                    **self.how,
                )
            for answer, view in zip(answers, views, strict=True):
                mine = [heatmap for heatmap in found if heatmap.picture is view.picture]
                each = len(mine) // len(some)
                named = [(some[i // each], heatmap) for i, heatmap in enumerate(mine)]
                if form == "classes":
                    answer.predicted = next(heatmap for target, heatmap in named if target == PREDICTED)
                answer.heatmaps += [(_words(target), heatmap) for target, heatmap in named if target in targets]
                if not all(heatmap.raw.isfinite().all() for _, heatmap in answer.heatmaps):
                    answer.heatmaps.clear()
                    answer.error = "a heatmap holds NaN or infinite values; check the model's weights and the input"


def _view(tensor: torch.Tensor, sample: Sample) -> View:
    assert sample.geometry is not None
    # Nobody looks at the picture here: one pixel stands for all of it.
    pixels = np.broadcast_to(np.zeros((), np.uint8), (*sample.geometry.original, 3))
    return View(tensor, Picture(pixels, sample.id), sample.geometry)


def _words(target: TargetSpec) -> str:
    return str(target) if not callable(target) or hasattr(type(target), "__dataclass_fields__") else target.__name__
