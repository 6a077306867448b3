"""The targets of one batch, resolved on what the model says of the plain images, and their scores."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hookmap.adapters.outputs import Form, Reading, Scores, Values, read
from hookmap.errors import TargetError
from hookmap.images.geometry import Geometry
from hookmap.targets.classes import Goal, PerImage
from hookmap.targets.objects import DetectionOutput
from hookmap.targets.prompts import MasksOutput
from hookmap.targets.regions import DenseOutput, ValuesOutput
from hookmap.targets.resolving import PlainOutput, Resolved
from hookmap.targets.whole import ClassOutput

_OUTPUTS: dict[Form, type[PlainOutput]] = {
    "classes": ClassOutput,
    "regions": DenseOutput,
    "detections": DetectionOutput,
    "embeddings": PlainOutput,
    "masks": MasksOutput,
    "other": PlainOutput,
}


def plain_output(
    output: Any,
    reading: Reading,
    geometries: Sequence[Geometry],
    label: Callable[[int], str],
    size: Sequence[int] = (),
) -> PlainOutput:
    """What a model says of plain images, in its form."""
    kind = _OUTPUTS[reading.form]
    if isinstance(output, Values):
        kind = ValuesOutput
    elif reading.form == "embeddings" and reading.place is not None:
        kind = ClassOutput
    return kind(output, reading, geometries, label, size)


class ResolvedTargets(Sequence[Sequence[Resolved]]):
    """T targets of a batch of B images: of each, what it means on every image.

    The predicted class stays what it was in changed copies; so do the region of a segment and the candidate of a
    detection. A target that means several detections becomes as many.

    Args:
        goals: what is asked.
        output: the model's output for the plain batch.
        geometries: of the B images.
        label: names a class.
        reading: how the output is read, if that is decided already.
        size: of the input, ``(H, W)`` or ``(D, H, W)``.

    Attributes:
        assumed: about the output, in a sentence, or empty.
    """

    def __init__(
        self,
        goals: Sequence[Goal],
        output: Any,
        geometries: Sequence[Geometry],
        label: Callable[[int], str] = str,
        reading: Reading | None = None,
        size: Sequence[int] = (),
    ) -> None:
        self._reading = reading or read(output)
        plain = plain_output(output, self._reading, geometries, label, size)
        self._rows: list[list[Resolved]] = []
        self._given: list[int] = []
        for number, goal in enumerate(goals):
            if isinstance(goal, PerImage) and len(goal.targets) != len(geometries):
                raise TargetError(
                    f"{goal} came for {len(geometries)} images; pass one target per image, or a list to ask all of each"
                )
            each = [plain.resolved(goal, image) for image in range(len(geometries))]
            # Several things are meant only where images come one by one.
            rows = [list(row) for row in zip(*each, strict=True)]
            self._rows += rows
            self._given += [number] * len(rows)
        self.assumed = plain.assumed
        self._device = plain.device if isinstance(plain, ClassOutput) else None

    def __getitem__(self, target: Any) -> Any:
        return self._rows[target]

    def __len__(self) -> int:
        return len(self._rows)

    def given(self, target: int) -> int:
        """The number of a target as it was given."""
        return self._given[target]

    def with_rivals(self, output: Any, count: int) -> ResolvedTargets:
        """The T targets, then of all the most probable other class, then the second, and so on: ``(1 + count) T``.

        Raises:
            TargetError: if a target isn't the logit of a class, or there are fewer other classes.
        """
        classes, scores = self.classes("a competition of rival classes"), self.class_scores(output)
        assert scores is not None
        if (others := scores.values.shape[1] - 1) < count:
            raise TargetError(f"rivals is {count}, and the model has {others} other classes; ask for so many at most")
        order = scores.values.detach().argsort(1, descending=True)  # (B, K)
        rivals = [
            [[c for c in order[b].tolist() if c != own][:count] for b, own in enumerate(row)]
            for row in classes.tolist()
        ]
        rows = [
            [one.of_other(best[rank]) for one, best in zip(each, found, strict=True)]
            for rank in range(count)
            for each, found in zip(self._rows, rivals, strict=True)
        ]
        other = copy.copy(self)
        other._rows = [*self._rows, *rows]
        return other

    def mirrored(self, width: int) -> ResolvedTargets:
        """The same targets for the mirrored batch, whose input is ``width`` pixels wide: places change sides."""
        other = copy.copy(self)
        other._rows = [[resolved.mirrored(width) for resolved in row] for row in self._rows]
        return other

    def scores(self, output: Any, of: int | slice | None = None) -> Tensor:
        """Scores of all targets ``(T, B)``; ``of`` K copies of one image, or of some of the images, ``(T, K)``."""
        return torch.stack([self._row(output, each, of) for each in self._rows])

    def _row(self, output: Any, each: Sequence[Resolved], of: int | slice | None) -> Tensor:
        if isinstance(of, int):
            return each[of].score(output)
        each = each if of is None else each[of]
        # A function is the same for all images and called once.
        rows = {resolved: resolved.score(output) for resolved in dict.fromkeys(each)}
        if len(rows) == 1:
            return rows[each[0]]
        return torch.stack([rows[resolved][b] for b, resolved in enumerate(each)])

    def likely(self, output: Any, sample: int) -> Tensor:
        """Probabilities of all targets for copies of an image, ``(T, K)``; scores, where a target has none."""
        return torch.stack([each[sample].likelihood(output) for each in self._rows])

    def class_scores(self, output: Any) -> Scores | None:
        """The scores of all classes of whole images; None where the model gives none."""
        return self._reading.scores(output) if self._device is not None else None

    def transformed(self, output: Any, score: Callable[[Tensor, Tensor], Tensor], what: str) -> Tensor:
        """Scores ``(T, B)`` of a method that differentiates a function of the logits and the target classes."""
        classes = self.classes(what)
        logits = self._reading.scores(output).logits
        return torch.stack([score(logits, row) for row in classes])

    def classes(self, what: str) -> Tensor:
        """The class of each target and image, ``(T, B)``.

        Raises:
            TargetError: if a target isn't the logit of a class; ``what`` needs it.
        """
        for resolved in self._every():
            if resolved.logit is None:
                raise TargetError(f"{what} is defined for classes of whole images, and the target {resolved} isn't one")
        return torch.tensor([[resolved.logit for resolved in each] for each in self._rows], device=self._device)

    def check_objects(self, what: str) -> None:
        """Raise a :class:`TargetError` if a target isn't a detected object; ``what`` needs that."""
        for resolved in self._every():
            if not resolved.is_detection:
                raise TargetError(f"{what} is defined for detected objects, and the target {resolved} isn't one")

    def distribution(self, output: Any) -> Tensor:
        """Probabilities of all classes, ``(K, classes)``.

        Raises:
            TargetError: if the output isn't one score per class and image.
        """
        scores = self.class_scores(output)
        if scores is None:
            raise TargetError(
                "sidu compares the probabilities of all classes of whole images, and this model gives none; take "
                "scorecam or rise"
            )
        return scores.in_full().probabilities

    def _every(self) -> list[Resolved]:
        return [resolved for each in self._rows for resolved in each]
