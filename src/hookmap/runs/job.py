"""What is asked of every image of a data set, and what came of it for each image of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from torch import Tensor

from hookmap._text import listed
from hookmap.attribution.batch import Plan
from hookmap.attribution.engine import Batch as ModelBatch
from hookmap.attribution.engine import Failure
from hookmap.attribution.explain import explain_each
from hookmap.datasets.labels import TrueClasses
from hookmap.datasets.reader import Batch, Sample, reason
from hookmap.errors import DataError, ModelError, NothingDetectedError
from hookmap.hooks.matching import LayerSpec
from hookmap.images.loading import Picture
from hookmap.images.views import Prepared, View
from hookmap.metrics.check import checked, scoring_of
from hookmap.results.choice import Choice
from hookmap.results.heatmap import Heatmap
from hookmap.runs.channels import ChannelRecorder
from hookmap.targets import PREDICTED, Goal, PerImage, TargetSpec

if TYPE_CHECKING:
    from hookmap.lens import Lens

LABEL = "label"
"""The target that is each image's true class."""
Target: TypeAlias = "tuple[TargetSpec, Goal | None]"
"""As it was asked for, and looked up."""


@dataclass(eq=False)
class ImageResult:
    """What came of one image.

    Attributes:
        sample: the image.
        label: its true class in words, or None.
        truth: that class among the model's, or None.
        predicted: a heatmap of the predicted class, if the model gives classes.
        heatmaps: each with the target as it was asked for.
        error: why there are none, or nothing.
    """

    sample: Sample
    label: str | None = None
    truth: int | None = None
    predicted: Heatmap | None = None
    heatmaps: list[tuple[str, Heatmap]] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True)
class Chosen:
    """What the model itself decides: found on one image, and the same for all of a run.

    Attributes:
        form: of the model's output.
        choice: of layers and method; None where the user named both.
    """

    form: str
    choice: Choice | None = None


@dataclass(eq=False)
class Job:
    """Explains batches.

    Attributes:
        lens: the model.
        targets: ``"predicted"``, ``"label"`` (each image's true class), or any target.
        classes: how labels become classes.
        layer: as in :meth:`hookmap.Lens.explain`.
        method: likewise.
        options: everything else that it takes.
        channels: layers whose channels are recorded; True: those that are explained; None: none.
        strict: whether an image that can't be read or explained ends the run.
        check: whether it is measured how far each heatmap can be believed.
        proven: whether an image has been explained: then what fails is the fault of images.
        chosen: at the beginning; None until an image was seen.
    """

    lens: Lens
    targets: Sequence[TargetSpec]
    classes: TrueClasses
    layer: Any = None
    method: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    channels: LayerSpec | Literal[True] | None = None
    strict: bool = False
    check: bool = False
    proven: bool = False
    chosen: Chosen | None = None

    def __call__(self, batch: Batch, recorder: ChannelRecorder) -> list[ImageResult]:
        """What comes of each image of a batch, in their order.

        Args:
            batch: of any size.
            recorder: of what channels do.

        Raises:
            HookmapError: if the model, layers or methods can't be asked this of any image, and when strict of one.
        """
        results = [self._begun(sample) for sample in batch.samples]
        for x, positions in batch.inputs:
            x = self.lens.engine.to_model(x)
            self.choose(x)
            here = [results[i] for i in positions]
            for numbers, targets in self._questions(here):
                self._explain(x[numbers], [here[i] for i in numbers], targets, recorder)
        self._check(results)
        return results

    def choose(self, x: Tensor) -> None:
        """Choose what wasn't named, by the first of these inputs ``(B, C, *size)`` the model takes; keep to it."""
        engine = self.lens.engine
        for b in range(len(x) if self.chosen is None else 0):
            with suppress(ModelError):
                form = engine.trace(x[b : b + 1]).form
                self.chosen = Chosen(form, engine.choice(x[b : b + 1]) if self._plan.leaves_choice else None)
                break
        if self.chosen is not None and self.chosen.choice is not None:
            engine.settle(x.shape[1:], self.chosen.choice)

    def _begun(self, sample: Sample) -> ImageResult:
        """What is known of an image before it is explained."""
        sample.boxes = [box._replace(label=self.classes.name(box.label)) for box in sample.boxes]
        return ImageResult(
            sample, self.classes.name(sample.label), self.classes.index(sample.label), error=sample.error
        )

    def _questions(self, results: Sequence[ImageResult]) -> Iterator[tuple[list[int], list[Target]]]:
        """Numbers of images and what is asked of them: those whose class isn't known are asked the rest."""
        rest = [target for target in self._targets if target[0] != LABEL]
        known = [i for i, result in enumerate(results) if result.truth is not None or LABEL not in self.targets]
        others = [i for i in range(len(results)) if i not in known]
        if known:
            yield known, self._targets
        if others and rest:
            yield others, rest
        for result in (results[i] for i in others if not rest):
            result.error = f"the target is each image's label, and {_why_unknown(result)}"

    def _explain(
        self, x: Tensor, results: Sequence[ImageResult], targets: Sequence[Target], recorder: ChannelRecorder
    ) -> None:
        """Every target on every image."""
        if self.chosen is None or self.chosen.form != "detections":
            self._answer(x, results, targets, recorder)
            return
        for b, result in enumerate(results):  # each has detections of its own, and need not have all targets
            for number, target in enumerate(targets):
                given = x[b : b + 1].clone()  # a model may work in place on its input
                self._answer(given, [result], [target], recorder if number == 0 else None)

    def _answer(
        self, x: Tensor, results: Sequence[ImageResult], targets: Sequence[Target], recorder: ChannelRecorder | None
    ) -> None:
        """Ask targets of images; also the predicted class, where the model gives classes."""
        engine, asked = self.lens.engine, [*targets]
        classifies = self.chosen is not None and self.chosen.form == "classes"
        if classifies:
            asked = [(PREDICTED, engine.goal(PREDICTED)), *(target for target in targets if target[0] != PREDICTED)]
        kept = {words_of(spec) for spec, _ in targets}
        goals = [engine.goal(PerImage([r.truth for r in results])) if goal is None else goal for _, goal in asked]  # type: ignore[misc]
        views = [_view(tensor, result.sample) for tensor, result in zip(x, results, strict=True)]

        def recording(batch: ModelBatch) -> AbstractContextManager[object]:
            if recorder is None or self.channels is None:
                return nullcontext()
            layers = engine.grids(None if self.channels is True else self.channels, batch.x)
            return recorder.over(layers, [view.picture.name for view in batch.views])

        plan = replace(self._plan, targets=goals)
        answers = explain_each(engine, Prepared(views, x), plan, batch_size=len(x), on_error="skip", around=recording)
        for result, answer in zip(results, answers, strict=True):
            if isinstance(answer, Failure):
                result.error = "" if isinstance(answer.error, NothingDetectedError) else reason(answer.error)
                continue
            for heatmap in answer:
                spec = asked[heatmap.position.asked][0]
                if classifies and spec == PREDICTED:
                    result.predicted = heatmap
                if words_of(spec) in kept:
                    result.heatmaps.append((words_of(spec), heatmap))
            if not all(heatmap.raw.isfinite().all() for _, heatmap in result.heatmaps):
                result.heatmaps.clear()
                result.error = "a heatmap holds NaN or infinite values; check the model's weights and the input"
        if self.check:
            for batch in engine.batches(Prepared(views, x), len(x)):
                self._check_heatmaps(batch, results)

    def _check_heatmaps(self, batch: ModelBatch, results: Sequence[ImageResult]) -> None:
        """Measure how far the heatmaps of a batch can be believed."""
        scoring = scoring_of(batch)
        for place, number in enumerate(batch.numbers):
            result = results[number]
            result.heatmaps = [
                (asked, replace(heatmap, check=checked(batch[place], heatmap, scoring)))
                for asked, heatmap in result.heatmaps
            ]

    @cached_property
    def _targets(self) -> list[Target]:
        """The targets with their words looked up; that of the label is another for each image."""
        return [(spec, None if spec == LABEL else self.lens.engine.goal(spec)) for spec in self.targets]

    @property
    def _plan(self) -> Plan:
        """How everything is asked; the targets take their places."""
        options: Any = dict(self.options)
        return self.lens.plan(PREDICTED, self.layer, self.method, options)

    def _check(self, results: Sequence[ImageResult]) -> None:
        wrong = [result for result in results if result.error]
        if wrong and self.strict:
            raise DataError(
                f"{wrong[0].sample.id} can't be explained: {wrong[0].error}; leave it out, or have such images noted "
                "instead by leaving out --strict (strict=False)"
            )
        self.proven |= any(result.heatmaps for result in results)
        if self.proven:
            return
        # What is wrong with every image of the first batches in the same way is no fault of theirs.
        judged = [result for result in results if self.targets != [LABEL] or result.truth is not None]
        if len(judged) > 1 and len({result.error for result in judged}) == 1 and judged[0].error:
            raise DataError(f"no image of a batch of {len(judged)} can be explained: {judged[0].error}")


def _why_unknown(result: ImageResult) -> str:
    """Why an image has no class of the model that is its label."""
    if result.label is not None:
        return f"no class is called {result.label!r}"
    several = list(dict.fromkeys(box.label for box in result.sample.boxes if box.label is not None))
    if len(several) > 1:
        return f"its boxes are of several classes ({listed(several)}); name one of them as the target"
    return "it has no label"


def _view(tensor: Tensor, sample: Sample) -> View:
    assert sample.geometry is not None
    # Nobody looks at the picture here: one pixel stands for all of it.
    pixels = np.broadcast_to(np.zeros((), np.uint8), (*sample.geometry.original, 3))
    return View(tensor, Picture(pixels, sample.id), sample.geometry)


def words_of(target: TargetSpec) -> str:
    """How a target is called in the index."""
    return str(target) if not callable(target) or hasattr(type(target), "__dataclass_fields__") else target.__name__
