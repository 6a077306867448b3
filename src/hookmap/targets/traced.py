"""Targets that are settled inside of a graph: each picture's own class, region or candidate, in tensors alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hookmap.adapters.outputs import Detections, Reading, Values
from hookmap.errors import TargetError
from hookmap.targets.classes import PREDICTED, Class, Contrast, Goal, PerImage, Regression, existing, name_of
from hookmap.targets.places import Everywhere, Place, Proposal
from hookmap.targets.regions import RegionScore, channel, most_common, own_region
from hookmap.targets.resolved import ResolvedTargets
from hookmap.targets.resolving import FunctionScore, Resolved, against
from hookmap.targets.whole import ClassScore, ValueScore


class TracedTargets(ResolvedTargets):
    """T targets of whatever images come: no number leaves the graph, so a traced one settles them anew each time.

    Args:
        goals: what is asked.
        output: the model's output for a batch.
        reading: how it is read.

    Raises:
        TargetError: for what can only be settled outside of a graph: a place in one picture, a detection by its number.
    """

    def __init__(self, goals: Sequence[Goal], output: Any, reading: Reading) -> None:
        self._reading = reading
        self._settled = [_settled(goal, output, reading) for goal in goals]
        self.assumed = ""
        whole = reading.form == "classes" or (reading.form == "embeddings" and reading.place is not None)
        self._device = reading.scores(output).values.device if whole else None

    def __getitem__(self, target: Any) -> Any:
        return [self._settled[target]]

    def __len__(self) -> int:
        return len(self._settled)

    def scores(self, output: Any, of: int | slice | None = None) -> Tensor:
        """Scores of all targets ``(T, B)``."""
        return torch.stack([settled.score(output) for settled in self._settled])

    def classes(self, what: str) -> Tensor:
        """The class of each target and image, ``(T, B)``.

        Raises:
            TargetError: if a target isn't the logit of a class; ``what`` needs it.
        """
        owned = [settled.own for settled in self._settled if isinstance(settled, OwnClassScore) and settled.of_logit]
        if len(owned) < len(self):
            raise TargetError(f"{what} is defined for classes of whole images, and a target isn't one")
        return torch.stack(owned)

    def _every(self) -> list[Resolved]:
        return self._settled


@dataclass(frozen=True, eq=False, kw_only=True)
class OwnClassScore(ClassScore):
    """What is read of each image's own class.

    Attributes:
        own: its number, ``(B,)``.
    """

    own: Tensor

    def score(self, output: Any) -> Tensor:
        """Scores ``(B,)``."""
        return channel(self.every(output), self.own)

    @property
    def of_logit(self) -> bool:
        """Whether its plain score is read."""
        return self.logit is not None


@dataclass(frozen=True, eq=False, kw_only=True)
class OwnRegionScore(RegionScore):
    """What is read in each image's own region, whose weights are ``(B, *grid)``.

    Attributes:
        own: the number of the class or value, ``(B,)``.
    """

    own: Tensor

    def _mean(self, dense: Tensor) -> Tensor:
        return (channel(dense, self.own) * self.weights.to(dense)).flatten(1).sum(1)


@dataclass(frozen=True, eq=False, kw_only=True)
class BestCandidateScore(Resolved):
    """The score of each image's most probable candidate, which every post-processing keeps, if it keeps any.

    Attributes:
        place: of its score among those of all candidates and classes, ``(B,)``.
    """

    place: Tensor

    is_detection = True

    def score(self, output: Detections) -> Tensor:
        """Scores ``(B,)``."""
        return channel(output.scores.flatten(1), self.place)


def _settled(goal: Any, output: Any, reading: Reading) -> Resolved:
    """What a target means on each image of a batch."""
    if isinstance(goal, PerImage):
        raise TargetError(f"{goal} names the targets of some images, and others will come; pass one target for all")
    if isinstance(goal, Contrast):
        this = _settled(goal.this, output, reading)
        if isinstance(this, OwnRegionScore) and isinstance(goal.that, (Class, Regression)):
            rival = _region(goal.that, output, reading)
            return against(goal, this, replace(rival, weights=this.weights))
        return against(goal, this, _settled(goal.that, output, reading))
    if isinstance(output, Detections):
        return _candidate(goal, output)
    if isinstance(goal, (Class, Regression, Everywhere)):
        return _region(goal, output, reading) if reading.form == "regions" else _class(goal, output, reading)
    if isinstance(goal, Place):
        raise TargetError(
            f"{goal} is a place in one picture, and others will come; pass a class, or hm.Everywhere(of=...)"
        )
    return FunctionScore(asked=goal, name=name_of(goal))


def _class(goal: Any, output: Any, reading: Reading) -> Resolved:
    if isinstance(goal, Everywhere):
        raise TargetError(f"{goal} is a place, and this model's output has none: it gives one per image")
    scores = reading.scores(output)
    scores = replace(scores, values=scores.values.detach()).in_full()
    images, count = scores.values.shape
    if isinstance(goal, Regression):
        return ValueScore(asked=goal, name=str(goal), place=existing(_number(goal), count, "value"), reading=reading)
    side = None
    if goal.index != PREDICTED:
        own = scores.values.new_full((images,), existing(_number(goal), count), dtype=torch.long)
    else:
        own = scores.values.argmax(1)
        if count == 1:
            side = torch.where(scores.logits < 0, -1.0, 1.0).to(scores.values)
    index = 0 if goal.index == PREDICTED else _number(goal)
    return OwnClassScore(asked=goal, name=str(goal), index=index, of=goal, reading=reading, side=side, own=own)


def _region(goal: Any, output: Any, reading: Reading) -> OwnRegionScore:
    place = goal if isinstance(goal, Everywhere) else None
    of: Any = (goal.of or Class(PREDICTED)) if isinstance(goal, Everywhere) else goal
    if isinstance(output, Values) and isinstance(of, Class):
        of = Regression(0 if of.index == PREDICTED else of.index, of.label)
    dense = reading.dense(output)
    assert dense is not None
    scores = replace(dense, values=dense.values.detach()).in_full()
    images, count = scores.values.shape[:2]
    if of.index != PREDICTED:
        number = existing(_number(of), count, "value" if isinstance(of, Regression) else "class")
        own = scores.values.new_full((images,), number, dtype=torch.long)
    elif place is not None:
        own = scores.logits.flatten(2).mean(2).argmax(1)
    else:
        own = most_common(scores.logits)
    all_of_it = torch.full_like(scores.values[:, 0], 1 / scores.values[0, 0].numel())
    return OwnRegionScore(
        asked=goal,
        name=str(goal),
        index=0,
        of=of,
        weights=all_of_it if place is not None else own_region(of, own, scores),
        reading=reading,
        own=own,
    )


def _candidate(goal: Any, output: Detections) -> Resolved:
    if not output.fixed:
        raise TargetError(
            "this detector proposes other candidates in every picture, so no graph can hold one; explain its pictures "
            "with Lens.explain"
        )
    sure, classes = output.probabilities.detach(), output.scores.shape[2]
    if isinstance(goal, Proposal):
        place = goal.row * classes + existing(goal.label, classes)
        places = torch.full_like(sure[:, 0, 0], place, dtype=torch.long)
    elif type(goal) is Class and goal.index == PREDICTED:
        places = sure.flatten(1).argmax(1)
    elif type(goal) is Class:
        number = existing(_number(goal), classes)
        places = sure[:, :, number].argmax(1) * classes + number
    else:
        raise TargetError(
            f"{name_of(goal)!r} can't be settled inside of a graph, where nothing is post-processed; pass a class, "
            '"predicted" (the most probable candidate) or hm.Proposal(row, class)'
        )
    return BestCandidateScore(asked=goal, name=name_of(goal), place=places)


def _number(goal: Class | Regression) -> int:
    if isinstance(goal.index, str):
        raise TargetError(f"{goal.index!r} is a word that wasn't looked up; pass it to Lens.export")
    return goal.index
