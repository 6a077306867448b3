"""Why something wasn't detected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hookmap.results.predictions import Prediction

Died = Literal["detected", "confidence", "suppression", "post-processing", "nowhere"]
"""Where a candidate was lost: nowhere (it was detected); it scored too low; a stronger detection overlaps it; for
another reason; or there is none that overlaps the box."""


@dataclass(frozen=True)
class Missed:
    """What a detector made of a box in which it should have seen something; see :meth:`hookmap.Lens.missed`.

    Attributes:
        died: where its best candidate was lost.
        candidate: the most probable of those that overlap the box well; where none does, the one that overlaps it most.
        row: of the candidate: explain it by ``hm.Proposal(row, candidate.index)``.
        overlap: of the candidate with the box, intersection over union, 0..1.
        least: the probability below which the detector keeps none, if it is known.
        winner: the detection that overlaps the candidate and was kept in its place.
    """

    died: Died
    candidate: Prediction | None = None
    row: int = 0
    overlap: float = 0.0
    least: float | None = None
    winner: Prediction | None = None

    @property
    def target(self) -> str:
        """What explains the candidate, in words."""
        return f"proposal:{self.row}:{self.candidate.index}" if self.candidate is not None else ""

    def __str__(self) -> str:
        if self.candidate is None:
            return "the detector has no candidate in this picture"
        one = f"{_short(self.candidate)} at {self.candidate.probability:.1%}, overlapping the box by {self.overlap:.0%}"
        if self.died == "nowhere":
            return f"no candidate overlaps the box well; the nearest is {one}"
        said = f"the best candidate is {one}"
        if self.died == "detected":
            return f"{said}: it was detected"
        if self.died == "confidence":
            return f"{said}: the detector keeps none below {self.least:.1%}"
        if self.died == "suppression" and self.winner is not None:
            return f"{said}: {_short(self.winner)} at {self.winner.probability:.1%} overlaps it and was kept instead"
        return f"{said}: the detector's post-processing left it out"


def _short(prediction: Prediction) -> str:
    return prediction.label.split(",")[0]
