"""Targets that are about classes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from hookmap.errors import TargetError
from hookmap.outputs import class_scores

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
        if not -scores.shape[1] <= self.index < scores.shape[1]:
            raise TargetError(f"class {self.index} doesn't exist; the model's output has {scores.shape[1]} classes")
        return scores[:, self.index]

    def scale(self, logits: Tensor) -> Tensor:
        """What is read of the class, for all classes ``(B, K)``: here the logits themselves."""
        return logits

    def __str__(self) -> str:
        return self.label or (self.index if isinstance(self.index, str) else f"class {self.index}")


@dataclass(frozen=True)
class Probability(Class):
    """The softmax probability of a class, in 0..1; its gradient also holds what speaks for the other classes."""

    def scale(self, logits: Tensor) -> Tensor:
        """Probabilities ``(B, K)``."""
        return logits.softmax(1)

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
        return logits + logits.log_softmax(1)

    def __str__(self) -> str:
        return f"ReST of {super().__str__()}"


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

    def difference(self, this: Tensor, that: Tensor) -> Tensor:
        """The contrast of two targets' scores."""
        return this - that

    def __str__(self) -> str:
        this, that = (
            spec if isinstance(spec, str) else f"class {spec}" if isinstance(spec, int) else name_of(spec)
            for spec in (self.this, self.that)
        )
        return f"{this.split(',')[0]} rather than {that.split(',')[0]}"


def name_of(target: Goal) -> str:
    """How a target is called in results."""
    return getattr(target, "__name__", None) or str(target)


def find_class(word: str, labels: Sequence[str] | None) -> Class:
    """The class that a word names: a number, a label, one of a label's synonyms, or a word that only one has.

    Raises:
        TargetError: with suggestions if none or several match.

    >>> find_class("tabby", ["goldfish, Carassius auratus", "tabby, tabby cat", "tiger cat"]).index
    1
    """
    if re.fullmatch(r"-?\d+", word.strip()):
        index = int(word)
        return Class(index, labels[index] if labels and -len(labels) <= index < len(labels) else None)
    if not labels:
        raise TargetError(f"the labels of this model aren't known, so {word!r} can't be found; pass the class's index")
    wanted = _plain(word)
    synonyms = [[_plain(s) for s in label.split(",")] for label in labels]
    ways: list[Callable[[int], bool]] = [
        lambda i: wanted == _plain(labels[i]),
        lambda i: wanted == synonyms[i][0],
        lambda i: wanted in synonyms[i],
        lambda i: f" {wanted} " in f" {_plain(labels[i])} ",
    ]
    for matches in ways:
        found = [i for i in range(len(labels)) if matches(i)]
        if len(found) == 1:
            return Class(found[0], labels[found[0]])
        if found:
            names = "; ".join(f"{labels[i]} ({i})" for i in found[:6])
            raise TargetError(f"{word!r} could be {len(found)} classes: {names}; pass one of them or its index")
    every = {name: i for i, some in enumerate(synonyms) for s in some for name in (s, *s.split())}
    close = difflib.get_close_matches(wanted, every, n=6, cutoff=0.6)
    indices = list(dict.fromkeys(every[name] for name in close))[:4]
    names = ", ".join(f"{labels[i].split(',')[0]} ({i})" for i in indices)
    hint = f"did you mean {names}?" if names else "pass a label or an index"
    raise TargetError(f"no class is called {word!r}; {hint}")


def _plain(text: str) -> str:
    return re.sub(r"[\s_\-]+", " ", text).strip().casefold()
