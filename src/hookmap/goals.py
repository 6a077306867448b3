"""The targets of one batch, and their scores for the batch itself and for changed copies of one of its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hookmap.errors import TargetError
from hookmap.targets import Class, class_scores, name_of

Goal = Callable[[Any], Tensor] | None
"""A target's function, or None for each image's own top-1 class."""


class Goals:
    """T targets of a batch of B images; the predicted class is pinned to what the plain image was predicted as.

    Args:
        goals: functions from the model's output to ``(B,)`` scores, or None for the predicted class.
        output: the model's output for the plain batch.
    """

    def __init__(self, goals: Sequence[Goal], output: Any) -> None:
        self.goals = list(goals)
        try:
            logits: Tensor | None = class_scores(output).detach().float()
        except TargetError:
            if None in self.goals:
                raise
            logits = None
        self.predicted = logits.argmax(1) if logits is not None else None
        self.probabilities = logits.softmax(1) if logits is not None else None

    def __len__(self) -> int:
        return len(self.goals)

    def scores(self, output: Any, sample: int | None = None) -> Tensor:
        """Scores of all targets ``(T, B)``; with ``sample``, of copies of that image, ``(T, K)``."""
        return torch.cat([self._row(output, goal, sample) for goal in self.goals])

    def transformed(self, output: Any, score: Callable[[Tensor, Tensor], Tensor], what: str) -> Tensor:
        """Scores ``(T, B)`` of a method that differentiates a function of the logits and the target classes."""
        logits = class_scores(output)
        return torch.stack([score(logits, self._classes(goal, len(logits), what)) for goal in self.goals])

    def classes(self, what: str) -> Tensor:
        """The class of each target and image, ``(T, B)``.

        Raises:
            TargetError: if a target isn't a class; ``what`` needs it.
        """
        count = len(self.probabilities) if self.probabilities is not None else 0
        return torch.stack([self._classes(goal, count, what) for goal in self.goals])

    def likely(self, output: Any, sample: int) -> Tensor:
        """Probabilities of all targets for copies of an image, ``(T, K)``; scores, where a target isn't a class."""
        rows = []
        for goal in self.goals:
            if isinstance(goal, Class) or goal is None:
                rows.append(self._row(self.distribution(output), goal, sample))
            else:
                rows.append(self._row(output, goal, sample).float())
        return torch.cat(rows)

    @staticmethod
    def distribution(output: Any) -> Tensor:
        """Probabilities of all classes, ``(K, classes)``."""
        return class_scores(output).float().softmax(1)

    def _classes(self, goal: Goal, count: int, what: str) -> Tensor:
        if self.predicted is None or not (goal is None or isinstance(goal, Class)):
            raise TargetError(
                f"{what} is defined for classes, and the target {name_of(goal) if goal else ''!r} isn't one"
            )
        return self.predicted if goal is None else torch.full_like(self.predicted[:count], goal.index)

    def _row(self, output: Any, goal: Goal, sample: int | None) -> Tensor:
        if goal is None:
            assert self.predicted is not None
            scores = class_scores(output)
            if sample is not None:
                return scores[:, self.predicted[sample]][None]
            return scores.gather(1, self.predicted.to(scores.device)[:, None]).T
        row = goal(output)
        if not isinstance(row, Tensor) or row.ndim > 1:
            got = f"shape {tuple(row.shape)}" if isinstance(row, Tensor) else f"a {type(row).__name__}"
            raise TargetError(f"the target {name_of(goal)!r} gave {got}; expected one score per image, (B,)")
        return row.reshape(1, -1)
