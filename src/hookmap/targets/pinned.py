"""The targets of one batch, and their scores for the batch itself and for changed copies of one of its images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from hookmap.adapters.outputs import Detections, Values, are_independent, class_scores, dense_scores, probabilities_in
from hookmap.errors import TargetError
from hookmap.images.geometry import Geometry
from hookmap.targets import PREDICTED, Binary, Class, Contrast, Goal, PerImage, Place, Regression, name_of
from hookmap.targets.objects import CandidateScore, pin_to_detections
from hookmap.targets.pinning import Pinned
from hookmap.targets.regions import RegionScore, about_values, pin_to_region


@dataclass(frozen=True)
class Subject:
    """What a target turned out to be on one image.

    Attributes:
        target: in words.
        index: the class that it is about, or None.
        probability: of that class, 0..1, or None.
        where: on the picture, in words, or empty.
        box: of a detection, (left, top, right, bottom) in pixels of the picture, or None.
        number: of a detection, 0 for the strongest, or None.
    """

    target: str
    index: int | None = None
    probability: float | None = None
    where: str = ""
    box: tuple[float, float, float, float] | None = None
    number: int | None = None


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
        self.assumed = ""
        self._logits: Tensor | None = None
        self._sides: Tensor | None = None
        self._independent = are_independent(output)
        self.goals: list[Goal | _Each] = list(goals)
        self._given = [*range(len(goals))]
        for goal in goals:
            if isinstance(goal, PerImage) and geometries and len(goal.targets) != len(geometries):
                raise TargetError(f"{goal} came for {len(geometries)} images; pass one target per image")
        dense = dense_scores(output)
        if isinstance(output, Detections):
            if len(output.boxes) != 1:
                raise TargetError("detections are explained one image at a time; pass batch_size=1")
            pinned = [
                (number, one)
                for number, goal in enumerate(_each(some, 1)[0] for some in goals)
                for one in (
                    pin_to_detections(goal, output, geometries[0], label) if _speaks_of_classes(goal) else [goal]
                )
            ]
            self.goals, self._given = [one for _, one in pinned], [number for number, _ in pinned]
        elif dense is not None:
            goals = [about_values(goal, label) for goal in goals] if isinstance(output, Values) else goals
            self.goals = [
                _Each([_in_region(one, dense, b, geometries[b]) for b, one in enumerate(_each(goal, len(geometries)))])
                if _speaks_of_classes(goal) or isinstance(goal, PerImage)
                else goal
                for goal in goals
            ]
        else:
            self.goals = [_Each([*_each(goal, 0)]) if isinstance(goal, PerImage) else goal for goal in goals]
            for goal in goals:
                if any(isinstance(one, Place) for one in _each(goal, 1)):
                    raise TargetError(f"{goal} is a place, and this model's output has none: it gives one per image")
            self._pin_classes(output)

    def _pin_classes(self, output: Any) -> None:
        try:
            logits = class_scores(output).detach().float()
        except TargetError:
            if any(_asks_for_predicted(goal) for goal in self.goals):
                raise
            return
        self.predicted, self._logits = logits.argmax(1), logits
        if logits.shape[1] == 1 and any(_asks_for_predicted(goal) for goal in self.goals):
            self._sides = torch.where(logits[:, 0] < 0, -1.0, 1.0)
            self.assumed = (
                "the model gives one number per image, which is read as the logit of yes or no; pass "
                "target=hm.Regression() if it is a value, hm.Binary() if it is what you mean"
            )

    def mirrored(self, width: int) -> Goals:
        """The same targets for the mirrored batch, whose input is ``width`` pixels wide: places change sides."""
        other = copy.copy(self)
        other.goals = [
            _Each([_mirrored(one, width) for one in goal.goals]) if isinstance(goal, _Each) else _mirrored(goal, width)
            for goal in self.goals
        ]
        return other

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
        rows = []
        for goal in self.goals:
            each = goal.goals if isinstance(goal, _Each) else [goal]
            for one in each:
                if self.predicted is None or type(one) is not Class or self._turned(one) is not None:
                    place = "a region" if isinstance(one, RegionScore) else "a detected object"
                    name = place if isinstance(one, Pinned) else repr(name_of(one))
                    raise TargetError(f"{what} is defined for classes of whole images, and the target {name} isn't one")
            columns = [self._classes(one) for one in each if isinstance(one, Class)]
            own = isinstance(goal, _Each)
            rows.append(torch.stack([c[b] for b, c in enumerate(columns)]) if own else columns[0])
        return torch.stack(rows)

    def check_objects(self, what: str) -> None:
        """Raise a :class:`TargetError` if a target isn't a detected object; ``what`` needs that."""
        for goal in self.goals:
            if not isinstance(goal, CandidateScore):
                name = "a region" if isinstance(goal, _Each) else repr(name_of(goal))
                raise TargetError(f"{what} is defined for detected objects, and the target {name} isn't one")

    def likely(self, output: Any, sample: int) -> Tensor:
        """Probabilities of all targets for copies of an image, ``(T, K)``; scores, where a target isn't a class."""
        rows = []
        for goal in self.goals:
            if isinstance(goal, _Each):
                goal = goal.goals[sample]
            if isinstance(goal, Pinned):
                rows.append(goal.likelihood(output))
            elif type(goal) in (Class, Binary):
                logits = self._facing(goal, class_scores(output).float(), sample)
                rows.append(self._column(goal, logits, sample, sure=True))
            else:
                rows.append(self._row(output, goal, sample).float())
        return torch.stack(rows)

    def distribution(self, output: Any) -> Tensor:
        """Probabilities of all classes, ``(K, classes)``.

        Raises:
            TargetError: if the output isn't one score per class and image.
        """
        if self.predicted is None:
            raise TargetError(
                "sidu compares the probabilities of all classes of whole images, and this model gives none; take "
                "scorecam or rise"
            )
        return probabilities_in(output)

    def subject(self, target: int, image: int) -> Subject:
        """What a target turned out to be on an image."""
        goal = self.goals[target]
        if isinstance(goal, _Each):
            goal = goal.goals[image]
        if isinstance(goal, Contrast) and isinstance(goal.this, Pinned):
            this, that = (self._named(part, image).split(",")[0] for part in (goal.this, goal.that))
            other = getattr(goal.that, "where", "") if this == that else that
            words = f"{this} rather than {other or that}"
            return Subject(words, where=goal.this.where, box=goal.this.box, number=_number(goal.this))
        if isinstance(goal, Pinned):
            return Subject(goal.name(self._label), goal.index, goal.probability, goal.where, goal.box, _number(goal))
        index = self._index(goal, image)
        sure = None
        if index is not None and self._logits is not None:
            sure = float(self._column(goal, self._facing(goal, self._logits, None), None, sure=True)[image])
        return Subject(self._named(goal, image), index, sure)

    def asked(self, target: int, image: int) -> tuple[int, Goal]:
        """The number of a target as it was given, and what means the very same on this image again."""
        goal = self.goals[target]
        return self._given[target], self._again(goal.goals[image] if isinstance(goal, _Each) else goal, image)

    def _again(self, goal: Any, image: int) -> Goal:
        if isinstance(goal, Contrast):
            return replace(goal, this=self._again(goal.this, image), that=self._again(goal.that, image))
        if isinstance(goal, Pinned):
            return cast(Goal, goal.asked)
        index = self._index(goal, image)
        # Whether yes or no was predicted is found again.
        if index is None or goal.index != PREDICTED or self._sides is not None:
            return cast(Goal, goal)
        return cast(Goal, replace(goal, index=index, label=self._label(index)))

    def _named(self, goal: Any, image: int) -> str:
        return name_of(self._labelled(goal, image))

    def _labelled(self, goal: Any, image: int) -> Any:
        """The target with the name of each class that it is about, also where that is the predicted one."""
        if isinstance(goal, Contrast):
            this, that = (self._labelled(part, image) for part in (goal.this, goal.that))
            return replace(goal, this=this, that=that)
        if isinstance(goal, Pinned):
            return Class(goal.index, goal.name(self._label))
        index = self._index(goal, image)
        if index is None:
            return goal
        sides = self._turned(goal)
        denied = "not " if sides is not None and sides[image] < 0 else ""
        return replace(goal, label=denied + (goal.label or self._label(index)))

    def _index(self, goal: Any, image: int) -> int | None:
        return int(self._classes(goal)[image]) if isinstance(goal, Class) and self.predicted is not None else None

    def _classes(self, goal: Class) -> Tensor:
        assert self.predicted is not None
        assert self._logits is not None
        if isinstance(goal.index, str):
            return self.predicted
        return torch.full_like(self.predicted, goal.index % self._logits.shape[1])

    def _turned(self, goal: Any) -> Tensor | None:
        """1 where the prediction is yes, -1 where it is no, ``(B,)``; None where the target isn't about that."""
        return self._sides if isinstance(goal, Class) and goal.index == PREDICTED else None

    def _facing(self, goal: Any, logits: Tensor, sample: int | None) -> Tensor:
        """Logits of what was predicted: of no, where a single score says no."""
        sides = self._turned(goal)
        if sides is None:
            return logits
        return logits * (sides.to(logits)[:, None] if sample is None else sides[sample].to(logits))

    def _column(self, goal: Any, logits: Tensor, sample: int | None, *, sure: bool = False) -> Tensor:
        """What is read of a target's class, or how probable it is: ``(B,)``, of copies of an image ``(K,)``."""
        classes = self._classes(goal).to(logits.device)
        alone = sure and self._independent and type(goal) is Class
        scores: Tensor = logits.sigmoid() if alone else goal.probability(logits) if sure else goal.scale(logits)
        return scores.gather(1, classes[:, None])[:, 0] if sample is None else scores[:, classes[sample]]

    def _row(self, output: Any, goal: Any, sample: int | None) -> Tensor:
        if isinstance(goal, _Each):
            if sample is not None:
                return self._row(output, goal.goals[sample], sample)
            return torch.stack([self._row(output, one, None)[b] for b, one in enumerate(goal.goals)])
        if isinstance(goal, Contrast):
            this, that = (self._row(output, part, sample) for part in (goal.this, goal.that))
            return goal.difference(this, that)
        if isinstance(goal, Class) and goal.index == PREDICTED:
            return self._column(goal, self._facing(goal, class_scores(output), sample), sample)
        row = goal(output)
        if not isinstance(row, Tensor) or row.ndim > 1:
            got = f"shape {tuple(row.shape)}" if isinstance(row, Tensor) else f"a {type(row).__name__}"
            raise TargetError(f"the target {name_of(goal)!r} gave {got}; expected one score per image, (B,)")
        return row.reshape(-1)


def _number(goal: Pinned) -> int | None:
    return goal.number if isinstance(goal, CandidateScore) else None


def _each(goal: Any, images: int) -> Sequence[Any]:
    """The target of each image."""
    return goal.targets if isinstance(goal, PerImage) else [goal] * images


def _in_region(goal: Any, dense: Tensor, image: int, geometry: Geometry) -> Any:
    return pin_to_region(goal, dense, image, geometry) if _speaks_of_classes(goal) else goal


def _mirrored(goal: Any, width: int) -> Any:
    if isinstance(goal, Contrast):
        return replace(goal, this=_mirrored(goal.this, width), that=_mirrored(goal.that, width))
    return goal.mirrored(width) if isinstance(goal, Pinned) else goal


def _speaks_of_classes(goal: Any) -> bool:
    return isinstance(goal, (Class, Regression, Place, Contrast))


def _asks_for_predicted(goal: Any) -> bool:
    if isinstance(goal, _Each):
        return any(_asks_for_predicted(one) for one in goal.goals)
    if isinstance(goal, Contrast):
        return _asks_for_predicted(goal.this) or _asks_for_predicted(goal.that)
    return isinstance(goal, Class) and goal.index == PREDICTED
