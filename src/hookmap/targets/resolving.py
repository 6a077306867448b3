"""What a target becomes on one image, and what it is resolved against: the model's answer to the plain image.

A kind of target is a class with a method ``resolved(plain, image)`` that gives a :class:`Resolved` for each thing that
it means on that image: one, but of a detector as many as there are detections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from hookmap.adapters.outputs import Reading
from hookmap.errors import TargetError
from hookmap.images.geometry import Geometry

Own = TypeVar("Own", bound="Resolved")


@dataclass(frozen=True, eq=False, kw_only=True)
class Resolved:
    """A target on one image: it means the very same in changed copies of that image (ablated, masked, noisy).

    Attributes:
        asked: the target that means the very same on this image again.
        name: what it is about, in words.
        index: the class that it is about, or None.
        probability: of that class on the plain image, 0..1, or None.
        where: on the picture, in words, or empty.
        box: of a detection, (left, top, right, bottom) in pixels of the picture, or None.
        number: of a detection, 0 for the strongest, or None.
    """

    asked: Any
    name: str
    index: int | None = None
    probability: float | None = None
    where: str = ""
    box: tuple[float, float, float, float] | None = None
    number: int | None = None

    kind: ClassVar[str] = ""
    """What kind of thing it is, in words, where that says more than its name."""

    is_detection: ClassVar[bool] = False
    """Whether it is the score of a detected object."""

    def score(self, output: Any) -> Tensor:
        """Its score in an output for K copies of this image, ``(K,)``."""
        raise NotImplementedError

    def likelihood(self, output: Any) -> Tensor:
        """How probable it still is in copies of this image, ``(K,)``, 0..1; of what has no probability, its score."""
        return self.score(output).float()

    def mirrored(self: Own, width: int) -> Own:
        """The same in the mirrored picture, whose input is ``width`` pixels wide."""
        return self

    def of_other(self: Own, index: int) -> Own:
        """The same of another class, where it has a :attr:`logit`."""
        raise NotImplementedError

    @property
    def logit(self) -> int | None:
        """The class of the whole image whose plain score this is, or None."""
        return None

    @property
    def short(self) -> str:
        """Its name without a class's synonyms."""
        return self.name if self.index is None else self.name.split(",")[0]

    def __str__(self) -> str:
        return self.kind or repr(self.name)


class PlainOutput:
    """What a model says of the plain images of a batch, and how targets are read from it; one subclass per form.

    Args:
        output: of the model.
        reading: how it is read.
        geometries: of the images, from the picture to the input.
        label: names a class.
        size: of the input, ``(H, W)`` or ``(D, H, W)``.

    Attributes:
        assumed: about the output while targets were resolved, in a sentence, or empty.
    """

    def __init__(
        self,
        output: Any,
        reading: Reading,
        geometries: Sequence[Geometry],
        label: Callable[[int], str],
        size: Sequence[int] = (),
    ) -> None:
        self.output = output
        self.reading = reading
        self.geometries = geometries
        self.label = label
        self.size = size
        self.assumed = ""
        self._functions: dict[int, FunctionScore] = {}

    def resolved(self, target: Any, image: int) -> Sequence[Resolved]:
        """What a target means on an image of the batch; any function of the output is a target too."""
        own = getattr(target, "resolved", None)
        return own(self, image) if own is not None else [self.of_function(target)]

    def the_one(self, target: Any, image: int) -> Resolved:
        """What a target means on an image, the strongest if that is several things."""
        return self.resolved(target, image)[0]

    def of_function(self, target: Callable[[Any], Tensor]) -> Resolved:
        """A function of the output of a whole batch, the same for all images."""
        return self._functions.setdefault(
            id(target), FunctionScore(asked=target, name=getattr(target, "__name__", None) or str(target))
        )

    def of_class(self, target: Any, image: int) -> Sequence[Resolved]:
        """What is read of a class; here there are none."""
        self.reading.scores(self.output)
        kind = self.output.dtype if isinstance(self.output, Tensor) else type(self.output).__name__
        what = f"complex numbers ({kind})" if isinstance(kind, torch.dtype) and kind.is_complex else f"of {kind}"
        raise TargetError(f"the scores are {what} and none of a class; pass a target that gives real ones, (B,)")

    def of_value(self, target: Any, image: int) -> Sequence[Resolved]:
        """One of the values that a model gives."""
        return self.of_class(target, image)

    def of_place(self, target: Any, image: int) -> Sequence[Resolved]:
        """What is read at a place; here there are none."""
        raise TargetError(f"{target} is a place, and this model's output has none: it gives one per image")

    def of_prompt(self, target: Any, image: int) -> Sequence[Resolved]:
        """The mask of a prompt; here there are none."""
        raise TargetError(
            f"{target} is a prompt for models that segment what they are pointed at (SAM), and this isn't one; pass "
            "hm.Point or hm.Box to ask what it gives there"
        )

    def of_contrast(self, target: Any, image: int) -> Sequence[Resolved]:
        """One thing rather than another."""
        return [against(target, self.the_one(target.this, image), self.the_one(target.that, image))]


@dataclass(frozen=True, eq=False, kw_only=True)
class FunctionScore(Resolved):
    """A function of the output."""

    def score(self, output: Any) -> Tensor:
        """Its scores ``(K,)``.

        Raises:
            TargetError: if it gives something else.
        """
        row = self.asked(output)
        if not isinstance(row, Tensor) or row.ndim > 1:
            got = f"shape {tuple(row.shape)}" if isinstance(row, Tensor) else f"a {type(row).__name__}"
            raise TargetError(f"the target {self.name!r} gave {got}; expected one score per image, (B,)")
        return row.reshape(-1)


@dataclass(frozen=True, eq=False, kw_only=True)
class ContrastScore(Resolved):
    """The score of one thing minus that of another.

    Attributes:
        this: what is explained.
        that: what it is told from.
    """

    this: Resolved
    that: Resolved

    def score(self, output: Any) -> Tensor:
        """Differences of scores ``(K,)``."""
        return self.asked.difference(self.this.score(output), self.that.score(output))  # type: ignore[no-any-return]

    def mirrored(self, width: int) -> ContrastScore:
        """The contrast of both on the other side."""
        return replace(self, this=self.this.mirrored(width), that=self.that.mirrored(width))


def against(target: Any, this: Resolved, that: Resolved) -> ContrastScore:
    """The contrast of two resolved targets."""
    other = that.where if this.short == that.short and that.where else that.short
    asked = replace(target, this=this.asked, that=that.asked)
    return ContrastScore(
        asked=asked,
        name=f"{this.short} rather than {other}",
        where=this.where,
        box=this.box,
        number=this.number,
        this=this,
        that=that,
    )


def averaging(covered: Tensor) -> Tensor:
    """Weights that sum to one, the same wherever it is true."""
    return covered.float() / covered.sum()
