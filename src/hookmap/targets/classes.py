"""Targets that are about classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap.adapters.outputs import Scores, class_scores, distribution
from hookmap.errors import TargetError
from hookmap.targets.resolving import PlainOutput, Resolved

PREDICTED = "predicted"
"""The word for each image's own top-1 class."""


@runtime_checkable
class Target(Protocol):
    """One thing to explain. Any callable from the model's output to ``(B,)`` scores is one."""

    def __call__(self, output: Any) -> Tensor:
        """The score of each image, ``(B,)``, from the model's output."""
        ...


Goal: TypeAlias = Callable[[Any], Tensor]
"""A target whose words are looked up; of words, only "predicted" is left."""

TargetSpec: TypeAlias = "str | int | Goal"


@dataclass(frozen=True)
class Class:
    """The score (logit) of one class: ``output[:, index]``.

    Attributes:
        index: of the class; or its label, or ``"predicted"``: each image's own top-1 class. Only a number can be
            called; words are looked up by :class:`hookmap.Lens`.
        label: its name, if known.
    """

    index: int | str
    label: str | None = None

    def __call__(self, output: Any) -> Tensor:
        """Scores ``(B,)`` of the class from logits ``(B, K)``, or an output that holds them."""
        scores = self.scale(class_scores(output))
        if isinstance(self.index, str):
            raise TargetError(f"{self.index!r} is a word; pass {type(self).__name__}({self.index!r}) to Lens.explain")
        return scores[:, existing(self.index, scores.shape[1])]

    def resolved(self, plain: PlainOutput, image: int) -> Sequence[Resolved]:
        """The class on one image: of the whole image, in its region, or of each detection."""
        return plain.of_class(self, image)

    def logits(self, scores: Scores) -> Tensor:
        """The logits that it is read from, of all classes ``(B, K)``."""
        return scores.logits

    def scale(self, logits: Tensor) -> Tensor:
        """What is read of the class, for all classes ``(B, K)``: here the logits themselves."""
        return logits

    def probability(self, logits: Tensor) -> Tensor:
        """How probable each class is, ``(B, K)``, 0..1: by softmax, of a single score by sigmoid."""
        return distribution(logits)

    def __str__(self) -> str:
        return self.label or (self.index if isinstance(self.index, str) else f"class {self.index}")


@dataclass(frozen=True)
class Probability(Class):
    """The probability of a class, in 0..1; after softmax its gradient also holds what speaks for the other classes."""

    def scale(self, logits: Tensor) -> Tensor:
        """Probabilities ``(B, K)``."""
        return self.probability(logits)

    def __str__(self) -> str:
        return f"probability of {super().__str__()}"


@dataclass(frozen=True)
class ReST(Class):
    r"""Residual softmax target: :math:`y_c + \log p_c`, the target that ShapleyCAM was made for.

    Cai, *CAMs as Shapley Value-based Explainers*, 2025, arXiv:2501.06261: the logit keeps the gradient alive where the
    probability is saturated, the log-probability tells the class from the others.
    """

    def scale(self, logits: Tensor) -> Tensor:
        """Logits plus log-probabilities ``(B, K)``."""
        return logits + (logits.log_softmax(1) if logits.shape[1] > 1 else F.logsigmoid(logits))

    def __str__(self) -> str:
        return f"ReST of {super().__str__()}"


@dataclass(frozen=True)
class Binary(Class):
    """Yes or no about one class, whatever the others score: for heads with one logit and heads of many labels.

    Its score is the logit, its probability the sigmoid of that.

    Attributes:
        index: of the label; 0 where the head has one logit.
        positive: with False, that it isn't there: the negative logit.

    >>> import torch
    >>> Binary(1, positive=False)(torch.tensor([[3.0, 2.0]]))
    tensor([-2.])
    """

    index: int | str = 0
    positive: bool = True

    def logits(self, scores: Scores) -> Tensor:
        """Log-odds of yes and no for each class, ``(B, K)``."""
        return scores.log_odds

    def scale(self, logits: Tensor) -> Tensor:
        """Logits of yes, or of no, ``(B, K)``."""
        return logits if self.positive else -logits

    def probability(self, logits: Tensor) -> Tensor:
        """Probabilities of yes, or of no, ``(B, K)``."""
        return self.scale(logits).sigmoid()

    def __str__(self) -> str:
        return super().__str__() if self.positive else f"not {super().__str__()}"


@dataclass(frozen=True)
class Regression:
    """A value that the model predicts, ``(B,)`` or ``(B, R)``; of a dense output, its mean over a place.

    Attributes:
        index: which of R values, or its label.
        label: its name, if known.

    >>> import torch
    >>> Regression(1)(torch.tensor([[3.0, 37.5]]))
    tensor([37.5000])
    """

    index: int | str = 0
    label: str | None = None

    def __call__(self, output: Any) -> Tensor:
        """Values ``(B,)``."""
        return Class(self.index)(output)

    def resolved(self, plain: PlainOutput, image: int) -> Sequence[Resolved]:
        """The value on one image, or in all of its places."""
        return plain.of_value(self, image)

    def __str__(self) -> str:
        return self.label or f"value {self.index}"


@dataclass(frozen=True)
class PerImage:
    """One target per image: the first for the first image, and so on; as many targets as images.

    Attributes:
        targets: class indices, labels, ``"predicted"``, or any targets.

    >>> import torch
    >>> PerImage([0, 2])(torch.tensor([[3.0, 0.0, 1.0], [4.0, 5.0, 6.0]]))
    tensor([3., 6.])
    """

    targets: Sequence[TargetSpec]

    def __call__(self, output: Any) -> Tensor:
        """Each image's own score ``(B,)``."""
        rows = [(spec if callable(spec) else Class(spec))(output) for spec in self.targets]
        if any(len(row) != len(rows) for row in rows):
            raise TargetError(f"{self} came for {len(rows[0])} images; pass one target per image")
        return torch.stack([row[b] for b, row in enumerate(rows)])

    def resolved(self, plain: PlainOutput, image: int) -> Sequence[Resolved]:
        """The image's own target."""
        spec = self.targets[image]
        return plain.resolved(spec if callable(spec) else Class(spec), image)

    def chosen(self, images: Sequence[int]) -> PerImage:
        """The targets of the images of these numbers.

        Raises:
            TargetError: if there are more images than targets.
        """
        if max(images) >= len(self.targets):
            raise TargetError(
                f"{self} came, and there are more images; pass one target per image, or a list to ask all of each"
            )
        return replace(self, targets=[self.targets[number] for number in images])

    def __str__(self) -> str:
        return f"PerImage of {len(self.targets)} targets"


@dataclass(frozen=True)
class Contrast:
    """Why this and not that: the score of one target minus that of another.

    Attributes:
        this: a class index, a label, ``"predicted"``, or any target.
        that: likewise.

    >>> import torch
    >>> Contrast(0, 2)(torch.tensor([[3.0, 0.0, 1.0]]))
    tensor([2.])
    """

    this: TargetSpec
    that: TargetSpec

    def __call__(self, output: Any) -> Tensor:
        """Differences of scores ``(B,)``."""
        this, that = (spec if callable(spec) else Class(spec) for spec in (self.this, self.that))
        return self.difference(this(output), that(output))

    def resolved(self, plain: PlainOutput, image: int) -> Sequence[Resolved]:
        """Both sides on one image."""
        return plain.of_contrast(self, image)

    def difference(self, this: Tensor, that: Tensor) -> Tensor:
        """The contrast of two targets' scores."""
        return this - that

    def __str__(self) -> str:
        return f"{_short(self.this)} rather than {_short(self.that)}"


def _short(spec: TargetSpec) -> str:
    """Without a class's synonyms."""
    target = Class(spec) if isinstance(spec, (str, int)) else spec
    return name_of(target).split(",")[0] if isinstance(target, Class) else name_of(target)


def name_of(target: Goal) -> str:
    """How a target is called in results."""
    return getattr(target, "__name__", None) or str(target)


def existing(index: int, count: int, what: str = "class") -> int:
    """The index, if there are so many.

    Raises:
        TargetError: if there aren't.
    """
    if 0 <= index < count:
        return index
    several = {"class": "classes", "value": "values"}[what]
    counted = f"{count} {several if count > 1 else what}"
    raise TargetError(f"{what} {index} doesn't exist; the model's output has {counted}, numbered from 0")
