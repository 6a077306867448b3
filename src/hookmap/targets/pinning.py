"""What classes and places are once they are pinned to one image's plain output: a score, in changed copies too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Pinned:
    """A place on one image, with a score.

    Attributes:
        asked: the target that means the very same on this image again.
        index: the class that it is about.
        probability: of the class there, 0..1, on the plain image; None for a value.
        where: in words, or empty.
        box: on the picture, (left, top, right, bottom), if it is a detection.
    """

    asked: Any
    index: int
    probability: float | None
    where: str
    box: tuple[float, float, float, float] | None

    def name(self, label: Callable[[int], str]) -> str:
        """What it is about, where ``label`` names a class."""
        return label(self.index)

    def __call__(self, output: Any) -> Tensor:
        """Its score in an output for copies of this image, ``(K,)``."""
        raise NotImplementedError

    def likelihood(self, output: Any) -> Tensor:
        """How probable it still is in copies of this image, ``(K,)``, 0..1."""
        raise NotImplementedError

    def mirrored(self, width: int) -> Pinned:
        """The same in the mirrored picture, whose input is ``width`` pixels wide."""
        raise NotImplementedError


def averaging(covered: Tensor) -> Tensor:
    """Weights that sum to one, the same wherever it is true."""
    return covered.float() / covered.sum()
