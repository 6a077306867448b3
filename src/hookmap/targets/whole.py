"""Classes and values of whole images, read from class scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from hookmap.adapters.outputs import Reading, Scores
from hookmap.errors import TargetError
from hookmap.targets.classes import PREDICTED, Binary, Class, Probability, Regression, existing
from hookmap.targets.resolving import PlainOutput, Resolved


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassScore(Resolved):
    """What is read of a class.

    Attributes:
        of: the class, by its number, and how it is read: its logit, probability, ...
        reading: of the output.
        side: of a yes or no that was predicted, 1 for yes and -1 for no, or one of each image ``(K, 1)``; None where
            that isn't asked.
    """

    index: int
    of: Class
    reading: Reading
    side: float | Tensor | None = None

    def score(self, output: Any) -> Tensor:
        """Scores ``(K,)``."""
        return self.every(output)[:, self.index]

    def every(self, output: Any) -> Tensor:
        """What is read of each class, ``(K, classes)``."""
        scores = self.reading.scores(output)
        if self.side is None and type(self.of) is Class:
            return scores.values
        if isinstance(self.of, Probability):
            return self._probabilities(scores)
        return self.of.scale(self._facing(scores))

    def likelihood(self, output: Any) -> Tensor:
        """Probabilities ``(K,)``, 0..1; of what is neither a class nor a yes or no, the scores."""
        if type(self.of) not in (Class, Binary):
            return self.score(output).float()
        return self._probabilities(self.reading.scores(output).in_full())[:, self.index]

    def _probabilities(self, scores: Scores) -> Tensor:
        by_itself = scores.independent and type(self.of) is Class
        if self.side is None and not isinstance(self.of, Binary) and (scores.squashed or by_itself):
            return scores.probabilities
        return self.of.probability(self._facing(scores))

    def _facing(self, scores: Scores) -> Tensor:
        """Logits of what was predicted: of no, where a single score says no."""
        logits = self.of.logits(scores)
        return logits if self.side is None else logits * self.side

    def of_other(self, index: int) -> ClassScore:
        """The same of another class."""
        of = replace(self.of, index=index, label=None)
        return replace(self, asked=of, name=str(of), index=index, of=of, probability=None)

    @property
    def logit(self) -> int | None:
        """The class, if its plain score is read."""
        return self.index if self.side is None and type(self.of) is Class else None


@dataclass(frozen=True, eq=False, kw_only=True)
class ValueScore(Resolved):
    """One of the values that a model predicts.

    Attributes:
        place: its number among them.
        reading: of the output.
    """

    place: int
    reading: Reading

    def score(self, output: Any) -> Tensor:
        """Values ``(K,)``."""
        return self.reading.scores(output).values[:, self.place]


class ClassOutput(PlainOutput):
    """Class scores of whole images, ``(B, K)``."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        scores = self.reading.scores(self.output)
        self._scores = replace(scores, values=scores.values.detach()).in_full()
        self.device = scores.values.device
        self._predicted: list[int] = self._scores.values.argmax(1).tolist()

    def of_class(self, target: Class, image: int) -> Sequence[Resolved]:
        """What is read of a class; a single score is a yes or no."""
        count, side = self._scores.values.shape[1], None
        if target.index == PREDICTED:
            index = self._predicted[image]
            if count == 1:
                side = -1.0 if self._scores.logits[image, 0] < 0 else 1.0
                read = "probability" if self._scores.squashed else "logit"
                self.assumed = (
                    f"the model gives one number per image, which is read as the {read} of yes or no; pass "
                    "target=hm.Regression() if it is a value, hm.Binary() if it is what you mean"
                )
        elif isinstance(target.index, str):
            raise TargetError(f"{target.index!r} is a word that wasn't looked up; pass it to Lens.explain")
        else:
            index = existing(target.index, count)
        label = target.label or self.label(index)
        of = replace(target, index=index, label=label)
        # Whether yes or no was predicted is found again.
        resolved = ClassScore(
            asked=target if side is not None or target.index != PREDICTED else of,
            name=str(replace(of, label=f"not {label}") if side == -1.0 else of),
            index=index,
            of=of,
            reading=self.reading,
            side=side,
        )
        alone = replace(self._scores, values=self._scores.values[image : image + 1])
        return [replace(resolved, probability=float(resolved._probabilities(alone)[0, index]))]

    def of_value(self, target: Regression, image: int) -> Sequence[Resolved]:
        """One of the values."""
        if isinstance(target.index, str):
            raise TargetError(f"{target.index!r} is a word that wasn't looked up; pass it to Lens.explain")
        place = existing(target.index, self._scores.values.shape[1], "value")
        return [ValueScore(asked=target, name=str(target), place=place, reading=self.reading)]
