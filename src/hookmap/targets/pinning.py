"""Classes and places pinned to one image's plain output: then they have a score, in changed copies too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hookmap.errors import TargetError
from hookmap.geometry import Geometry
from hookmap.outputs import Detections, dense_scores
from hookmap.targets.classes import PREDICTED, Class, Contrast, Goal, name_of
from hookmap.targets.places import Box, Detection, Mask, Place, Point


@dataclass(frozen=True, eq=False)
class Pinned:
    """A place on one image, with a score.

    Attributes:
        index: the class that it is about.
        probability: of the class there, 0..1, on the plain image.
        where: in words, or empty.
        box: on the picture, (left, top, right, bottom), if it is a detection.
    """

    index: int
    probability: float
    where: str
    box: tuple[float, float, float, float] | None

    def __call__(self, output: Any) -> Tensor:
        """Its score in an output for copies of this image, ``(K,)``."""
        raise NotImplementedError

    def likelihood(self, output: Any) -> Tensor:
        """How probable it still is in copies of this image, ``(K,)``, 0..1."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class RegionScore(Pinned):
    """The score of a class, averaged over a region of a dense output: Seg-Grad-CAM's target.

    Vinogradova, Dibrov and Myers, *Towards Interpretable Semantic Segmentation via Gradient-weighted Class Activation
    Mapping*, AAAI 2020, arXiv:2002.11434, eq. 2 (there a sum: a factor that drawing takes out).
    """

    weights: Tensor

    def __call__(self, output: Any) -> Tensor:
        """Scores ``(K,)``."""
        dense = dense_scores(output)
        assert dense is not None
        return torch.einsum("bhw,hw->b", dense[:, self.index], self.weights.to(dense))

    def likelihood(self, output: Any) -> Tensor:
        """Mean probability of the class in the region, ``(K,)``, 0..1."""
        dense = dense_scores(output)
        assert dense is not None
        sure = dense.float().softmax(1) if dense.shape[1] > 1 else dense.float().sigmoid()
        return torch.einsum("bhw,hw->b", sure[:, self.index], self.weights.to(sure))


@dataclass(frozen=True, eq=False)
class CandidateScore(Pinned):
    """The class score of one candidate of a detector, found through its post-processing."""

    row: int
    on_input: Tensor

    def __call__(self, output: Detections) -> Tensor:
        """Scores ``(K,)``: of the very candidate, or, in copies with other candidates, of the one most like it.

        Most like it is the largest product of overlap and probability of the class, as in D-RISE (Petsiuk et al.,
        *Black-box Explanation of Object Detectors via Saliency Maps*, CVPR 2021, arXiv:2006.03204).
        """
        if output.fixed:
            return output.scores[:, self.row, self.index]
        boxes = output.boxes_of(self.index)
        alike = overlap(self.on_input.to(boxes), boxes) * output.probabilities[..., self.index]
        return output.scores[..., self.index].gather(1, alike.argmax(1, keepdim=True))[:, 0]

    def likelihood(self, output: Detections) -> Tensor:
        """How far this object is still detected in copies, ``(K,)``, 0..1: the similarity of D-RISE, eq. 2.

        The largest product, over candidates, of overlap and probability of the class.
        """
        boxes = output.boxes_of(self.index)
        return (overlap(self.on_input.to(boxes), boxes) * output.probabilities[..., self.index]).amax(1)


def overlap(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of a box ``(4,)`` with boxes ``(..., 4)``."""
    low, high = torch.maximum(box[:2], boxes[..., :2]), torch.minimum(box[2:], boxes[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) for b in (box, boxes)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=torch.finfo(boxes.dtype).tiny)


def pin_to_region(goal: Any, dense: Tensor, image: int, geometry: Geometry) -> Pinned | Contrast:
    """A class or a place as the score of a region of one image's dense output; a bare class's region is its own."""
    scores = dense[image].detach().float()
    if isinstance(goal, Contrast):  # both sides are asked about the same region
        this = pin_to_region(goal.this, dense, image, geometry)
        if not isinstance(this, RegionScore) or not isinstance(goal.that, Class) or isinstance(goal.that.index, str):
            raise TargetError(f"{goal} can't be read from a segmenter; contrast two classes")
        that = RegionScore(goal.that.index, _probability(scores, goal.that.index, this.weights), "", None, this.weights)
        return Contrast(this, that)
    if isinstance(goal, Place):
        weights = _cells(goal, scores.shape[1:], geometry, scores.device)
        of = goal.of if hasattr(goal, "of") else None
        index = of.index if isinstance(of, Class) and isinstance(of.index, int) else _strongest(scores, weights)
        where = str(goal)
    else:
        index = goal.index if isinstance(goal, Class) and isinstance(goal.index, int) else _most_common(scores)
        own = scores.argmax(0) == index if len(scores) > 1 else scores[0] > 0
        weights = _averaging(own if own.any() else torch.ones_like(own))
        where = ""
    if not -len(scores) <= index < len(scores):
        raise TargetError(f"class {index} doesn't exist; the model's output has {len(scores)} classes")
    return RegionScore(index, _probability(scores, index, weights), where, None, weights)


def _cells(place: Place, size: Any, geometry: Geometry, device: torch.device) -> Tensor:
    """A place on the grid of a dense output, as weights ``(h, w)`` that sum to one."""
    h, w = size
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    scale = torch.tensor([geometry.input[1] / w, geometry.input[0] / h])
    points = geometry.to_original(torch.stack([x, y], -1) * scale)
    covered = place.covers(points)
    if not covered.any():
        # Smaller than a cell: the cell that holds its centre.
        at = (geometry.to_input(torch.tensor(place.centre)) / scale).floor().long()
        if not (0 <= at[0] < w and 0 <= at[1] < h):
            raise TargetError(f"{place} lies outside of what the model sees of the picture")
        covered[at[1], at[0]] = True
    return _averaging(covered).to(device)


def _averaging(covered: Tensor) -> Tensor:
    return covered.float() / covered.sum()


def _strongest(scores: Tensor, weights: Tensor) -> int:
    return int(torch.einsum("khw,hw->k", scores, weights).argmax())


def _most_common(scores: Tensor) -> int:
    """The class of most cells; the background, class 0 of most segmenters, only if there is nothing else."""
    if len(scores) == 1:
        return 0
    counts = scores.argmax(0).flatten().bincount(minlength=len(scores))
    return int(counts[1:].argmax()) + 1 if counts[1:].any() else 0


def _probability(scores: Tensor, index: int, weights: Tensor) -> float:
    p = scores.softmax(0)[index] if len(scores) > 1 else scores[0].sigmoid()
    return float((p * weights).sum())


def pin_to_detections(goal: Goal, found: Detections, geometry: Geometry, labels: Any) -> list[Pinned]:
    """The detections of the only image that a target means, the strongest first.

    Raises:
        TargetError: if it means none, with what was detected.
    """
    kept = list(found.kept[0])
    on_input = [found.boxes_of(k.label)[0, k.row].detach() for k in kept]
    boxes = [_on_picture(box, geometry) for box in on_input]
    numbers = _meant(goal, kept, boxes)
    if not numbers:
        names = ", ".join(dict.fromkeys(str(labels(k.label)).split(",")[0] for k in kept)) or "nothing"
        raise TargetError(f"{name_of(goal)!r} wasn't detected in the picture; detected: {names}")
    return [
        CandidateScore(
            kept[n].label,
            float(found.probabilities[0, kept[n].row, kept[n].label]),
            f"box {n}",
            tuple(boxes[n].tolist()),
            kept[n].row,
            on_input[n],
        )
        for n in numbers
    ]


def _on_picture(box: Tensor, geometry: Geometry) -> Tensor:
    """A box on the input as one on the picture, cut off at its edges."""
    corners = geometry.to_original(box.float().cpu().reshape(2, 2))
    limit = torch.tensor([geometry.original[1], geometry.original[0]])
    return torch.minimum(corners.clamp(min=0), limit).flatten()


def _meant(goal: Goal, kept: Any, boxes: list[Tensor]) -> list[int]:
    if isinstance(goal, Class):
        return [n for n, k in enumerate(kept) if goal.index in (PREDICTED, k.label)]
    if isinstance(goal, Detection):
        return [goal.number] if 0 <= goal.number < len(kept) else []
    of = getattr(goal, "of", None)
    wanted = [n for n, k in enumerate(kept) if not isinstance(of, Class) or of.index == k.label]
    if isinstance(goal, Point):
        around = [n for n in wanted if Box(*boxes[n].tolist()).covers(torch.tensor(goal.centre))]
        return sorted(around, key=lambda n: float((boxes[n][2:] - boxes[n][:2]).prod()))[:1]
    if isinstance(goal, (Box, Mask)):
        box = goal.bounds if isinstance(goal, Mask) else goal
        shared = {n: float(overlap(torch.tensor([box.left, box.top, box.right, box.bottom]), boxes[n])) for n in wanted}
        best = max(shared, key=shared.__getitem__, default=None)
        return [best] if best is not None and shared[best] > 0 else []
    raise TargetError(f"{name_of(goal)!r} can't be read from detections; pass a class, hm.Detection(n), Box or Point")
