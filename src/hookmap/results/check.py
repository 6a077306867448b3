"""How far one heatmap can be believed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Word = Literal["strong", "weak", "no better than random"]
STRONG, WEAK = 95.0, 80.0
"""Percentiles from which a heatmap is called strong, and weak: of maps that are noise, 5 % and 15 % are called so."""
HOT = 0.25
"""The hot region is this share of the cells."""
RANDOM = 5
"""So many random maps it is compared with."""


@dataclass(frozen=True)
class Check:
    """What was measured of one heatmap, in at most 60 forward passes.

    Attributes:
        relevance: symmetric relevance gain under a blur: how much longer the score stays when the least important cells
            go first than when the most important do, in the units of the score; see :func:`hookmap.metrics.srg`.
        spread: what maps that know nothing get: the root mean square of the gains of the same map moved, mirrored and
            turned at random, whose expected value is 0.
        score: of the target on the whole image; its probability where it has one.
        kept: the score when only the hottest quarter of the cells is seen, and the rest is blurred.
        stability: the mean correlation with the maps of slightly noisy copies of the input, -1..1; None for methods
            that mask, of which that would take too long.
    """

    relevance: float
    spread: float
    score: float
    kept: float
    stability: float | None = None

    @property
    def percentile(self) -> float:
        r"""Of the gain among those of random maps, 0..100, by Student's t with five degrees of freedom.

        .. math:: \frac{1}{2} + \frac{1}{\pi} \Big(\theta + \sin\theta \cos\theta \, \big(1 + \tfrac{2}{3}
                  \cos^2\theta\big)\Big), \qquad \theta = \arctan \frac{t}{\sqrt 5}
        """
        if self.spread <= 0:
            return 50.0 if self.relevance == 0 else 100.0 * (self.relevance > 0)
        angle = math.atan(self.relevance / self.spread / math.sqrt(RANDOM))
        tail = math.sin(angle) * math.cos(angle) * (1 + 2 / 3 * math.cos(angle) ** 2)
        return 100 * (0.5 + (angle + tail) / math.pi)

    @property
    def word(self) -> Word:
        """``"strong"``: better than 95 % of random maps; ``"weak"``: than 80 %; else ``"no better than random"``.

        A single heatmap is weak evidence: of the same map on other photos' decisions one in four is called weak, and so
        are many right ones. What a method is worth for a model is what :func:`hookmap.compare` says.
        """
        if self.percentile >= STRONG:
            return "strong"
        return "weak" if self.percentile >= WEAK else "no better than random"

    @property
    def row(self) -> dict[str, str | float | None]:
        """What a table says of it."""
        numbers = {"percentile": self.percentile, "kept": self.kept, "stability": self.stability}
        return {"check": self.word, **{f"check_{name}": number for name, number in numbers.items()}}

    def __str__(self) -> str:
        parts = [f"{self.word}: better than {_share(self.percentile)} of random maps"]
        parts.append(f"the hot quarter alone scores {self.kept:.2g} of {self.score:.2g}")
        if self.stability is not None:
            parts.append(f"stability {self.stability:.2f}")
        return "; ".join(parts)


def _share(percentile: float) -> str:
    if percentile > 99:
        return "over 99 %"
    return "under 1 %" if percentile < 1 else f"{percentile:.0f} %"
