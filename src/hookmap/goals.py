"""The targets of one batch, and their scores for the batch itself and for changed copies of one of its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hookmap.errors import TargetError
from hookmap.geometry import Geometry
from hookmap.outputs import Detections, class_scores, dense_scores
from hookmap.targets import PREDICTED, Class, Contrast, Goal, Place, name_of
from hookmap.targets.pinning import Pinned, pin_to_detections, pin_to_region


@dataclass(frozen=True)
class Subject:
    """What a target turned out to be on one image.

    Attributes:
        target: in words.
        index: the class that it is about, or None.
        probability: of that class, 0..1, or None.
        where: on the picture, in words, or empty.
        box: of a detection, (left, top, right, bottom) in pixels of the picture, or None.
    """

    target: str
    index: int | None = None
    probability: float | None = None
    where: str = ""
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class _Each:
    """A target that was pinned to each image of a batch."""

    goals: Sequence[Goal]


class Goals:
    """T targets of a batch of B images, pinned to what the model says of the plain images.

    The predicted class stays what it was in changed copies; so do the region of a segment and the candidate of a
    detection. A target that means several detections becomes as many.

    Args:
        goals: what is asked.
        output: the model's output for the plain batch.
        geometries: of the B images; only places need them.
        label: names a class.
    """

    def __init__(
        self,
        goals: Sequence[Goal],
        output: Any,
        geometries: Sequence[Geometry] = (),
        label: Callable[[int], str] = str,
    ) -> None:
        self._label = label
        self.predicted: Tensor | None = None
        self.probabilities: Tensor | None = None
        self.goals: list[Goal | _Each] = list(goals)
        dense = dense_scores(output)
        if isinstance(output, Detections):
            if len(output.boxes) != 1:
                raise TargetError("detections are explained one image at a time; pass batch_size=1")
            self.goals = [
                pinned
                for goal in goals
                for pinned in (
                    pin_to_detections(goal, output, geometries[0], label) if _speaks_of_classes(goal) else [goal]
                )
            ]
        elif dense is not None:
            self.goals = [
                _Each([pin_to_region(goal, dense, b, geometry) for b, geometry in enumerate(geometries)])
                if _speaks_of_classes(goal)
                else goal
                for goal in goals
            ]
        else:
            for goal in goals:
                if isinstance(goal, Place):
                    raise TargetError(f"{goal} is a place, and this model's output has none: it gives one per image")
            self._pin_classes(output)

    def _pin_classes(self, output: Any) -> None:
        try:
            logits = class_scores(output).detach().float()
        except TargetError:
            if any(_asks_for_predicted(goal) for goal in self.goals):
                raise
            return
        self.predicted, self.probabilities = logits.argmax(1), _distribution(logits)

    def __len__(self) -> int:
        return len(self.goals)

    def scores(self, output: Any, sample: int | None = None) -> Tensor:
        """Scores of all targets ``(T, B)``; with ``sample``, of copies of that image, ``(T, K)``."""
        return torch.stack([self._row(output, goal, sample) for goal in self.goals])

    def transformed(self, output: Any, score: Callable[[Tensor, Tensor], Tensor], what: str) -> Tensor:
        """Scores ``(T, B)`` of a method that differentiates a function of the logits and the target classes."""
        classes = self.classes(what)
        logits = class_scores(output)
        return torch.stack([score(logits, some) for some in classes])

    def classes(self, what: str) -> Tensor:
        """The class of each target and image, ``(T, B)``.

        Raises:
            TargetError: if a target isn't the logit of a class; ``what`` needs it.
        """
        plain = [goal for goal in self.goals if type(goal) is Class]
        for goal in self.goals:
            if self.predicted is None or type(goal) is not Class:
                name = "a place" if isinstance(goal, (_Each, Pinned)) else repr(name_of(goal))
                raise TargetError(f"{what} is defined for classes of whole images, and the target {name} isn't one")
        return torch.stack([self._classes(goal) for goal in plain])

    def likely(self, output: Any, sample: int) -> Tensor:
        """Probabilities of all targets for copies of an image, ``(T, K)``; scores, where a target isn't a class."""
        rows = []
        for goal in self.goals:
            if isinstance(goal, _Each):
                goal = goal.goals[sample]
            if isinstance(goal, Pinned):
                rows.append(goal.likelihood(output))
            else:
                of = self.distribution(output) if type(goal) is Class else output
                rows.append(self._row(of, goal, sample).float())
        return torch.stack(rows)

    @staticmethod
    def distribution(output: Any) -> Tensor:
        """Probabilities of all classes, ``(K, classes)``."""
        return _distribution(class_scores(output).float())

    def subject(self, target: int, image: int) -> Subject:
        """What a target turned out to be on an image."""
        goal = self.goals[target]
        if isinstance(goal, _Each):
            goal = goal.goals[image]
        if isinstance(goal, Contrast) and isinstance(goal.this, Pinned):
            this, that = (self._named(part, image) for part in (goal.this, goal.that))
            return Subject(f"{this.split(',')[0]} rather than {that.split(',')[0]}", where=goal.this.where)
        if isinstance(goal, Pinned):
            return Subject(self._label(goal.index), goal.index, goal.probability, goal.where, goal.box)
        index = self._index(goal, image)
        sure = None if index is None or self.probabilities is None else float(self.probabilities[image, index])
        return Subject(self._named(goal, image), index, sure)

    def _named(self, goal: Any, image: int) -> str:
        return name_of(self._labelled(goal, image))

    def _labelled(self, goal: Any, image: int) -> Any:
        """The target with the name of each class that it is about, also where that is the predicted one."""
        if isinstance(goal, Contrast):
            this, that = (self._labelled(part, image) for part in (goal.this, goal.that))
            return replace(goal, this=this, that=that)
        if isinstance(goal, Pinned):
            return Class(goal.index, self._label(goal.index))
        index = self._index(goal, image)
        return goal if index is None else replace(goal, label=self._label(index))

    def _index(self, goal: Any, image: int) -> int | None:
        return int(self._classes(goal)[image]) if isinstance(goal, Class) and self.predicted is not None else None

    def _classes(self, goal: Class) -> Tensor:
        assert self.predicted is not None
        return self.predicted if isinstance(goal.index, str) else torch.full_like(self.predicted, goal.index)

    def _row(self, output: Any, goal: Any, sample: int | None) -> Tensor:
        if isinstance(goal, _Each):
            if sample is not None:
                return self._row(output, goal.goals[sample], sample)
            return torch.stack([self._row(output, one, None)[b] for b, one in enumerate(goal.goals)])
        if isinstance(goal, Contrast):
            this, that = (self._row(output, part, sample) for part in (goal.this, goal.that))
            return goal.difference(this, that)
        if isinstance(goal, Class) and goal.index == PREDICTED:
            assert self.predicted is not None
            scores = goal.scale(class_scores(output))
            if sample is not None:
                return scores[:, self.predicted[sample]]
            return scores.gather(1, self.predicted.to(scores.device)[:, None])[:, 0]
        row = goal(output)
        if not isinstance(row, Tensor) or row.ndim > 1:
            got = f"shape {tuple(row.shape)}" if isinstance(row, Tensor) else f"a {type(row).__name__}"
            raise TargetError(f"the target {name_of(goal)!r} gave {got}; expected one score per image, (B,)")
        return row.reshape(-1)


def _distribution(logits: Tensor) -> Tensor:
    """Softmax over the classes; a single score is a yes or no."""
    return logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()


def _speaks_of_classes(goal: Any) -> bool:
    return isinstance(goal, (Class, Place, Contrast))


def _asks_for_predicted(goal: Any) -> bool:
    if isinstance(goal, Contrast):
        return _asks_for_predicted(goal.this) or _asks_for_predicted(goal.that)
    return isinstance(goal, Class) and goal.index == PREDICTED
