"""The targets of one batch, and their scores for the batch itself and for changed copies of one of its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookmap.errors import TargetError
from hookmap.targets import PREDICTED, Class, Contrast, class_scores, name_of

Goal: TypeAlias = Callable[[Any], Tensor]
"""A target whose words are looked up; of words, only "predicted" is left."""


class Goals:
    """T targets of a batch of B images; the predicted class is pinned to what the plain image was predicted as.

    Args:
        goals: functions from the model's output to ``(B,)`` scores.
        output: the model's output for the plain batch.
    """

    def __init__(self, goals: Sequence[Goal], output: Any) -> None:
        self.goals = list(goals)
        try:
            logits: Tensor | None = class_scores(output).detach().float()
        except TargetError:
            if any(_asks_for_predicted(goal) for goal in self.goals):
                raise
            logits = None
        self.predicted = logits.argmax(1) if logits is not None else None
        self.probabilities = logits.softmax(1) if logits is not None else None

    def __len__(self) -> int:
        return len(self.goals)

    def scores(self, output: Any, sample: int | None = None) -> Tensor:
        """Scores of all targets ``(T, B)``; with ``sample``, of copies of that image, ``(T, K)``."""
        return torch.stack([self._row(output, goal, sample) for goal in self.goals])

    def transformed(self, output: Any, score: Callable[[Tensor, Tensor], Tensor], what: str) -> Tensor:
        """Scores ``(T, B)`` of a method that differentiates a function of the logits and the target classes."""
        logits = class_scores(output)
        return torch.stack([score(logits, classes) for classes in self.classes(what)])

    def classes(self, what: str) -> Tensor:
        """The class of each target and image, ``(T, B)``.

        Raises:
            TargetError: if a target isn't the logit of a class; ``what`` needs it.
        """
        for goal in self.goals:
            if self.predicted is None or type(goal) is not Class:
                raise TargetError(f"{what} is defined for classes, and the target {name_of(goal)!r} isn't one")
        assert self.predicted is not None
        return torch.stack([self._classes(goal) for goal in self.goals if isinstance(goal, Class)])

    def likely(self, output: Any, sample: int) -> Tensor:
        """Probabilities of all targets for copies of an image, ``(T, K)``; scores, where a target isn't a class."""
        rows = []
        for goal in self.goals:
            of = self.distribution(output) if type(goal) is Class else output
            rows.append(self._row(of, goal, sample).float())
        return torch.stack(rows)

    @staticmethod
    def distribution(output: Any) -> Tensor:
        """Probabilities of all classes, ``(K, classes)``."""
        return class_scores(output).float().softmax(1)

    def index(self, goal: Goal, image: int) -> int | None:
        """The class that a target is about on an image, or None."""
        return int(self._classes(goal)[image]) if isinstance(goal, Class) and self.predicted is not None else None

    def _classes(self, goal: Class) -> Tensor:
        assert self.predicted is not None
        return self.predicted if isinstance(goal.index, str) else torch.full_like(self.predicted, goal.index)

    def _row(self, output: Any, goal: Goal, sample: int | None) -> Tensor:
        if isinstance(goal, Contrast):
            this, that = (self._row(output, part, sample) for part in (goal.this, goal.that) if callable(part))
            return goal.of(this, that)
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


def _asks_for_predicted(goal: Any) -> bool:
    if isinstance(goal, Contrast):
        return _asks_for_predicted(goal.this) or _asks_for_predicted(goal.that)
    return isinstance(goal, Class) and goal.index == PREDICTED
