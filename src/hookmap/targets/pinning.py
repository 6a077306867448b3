"""Classes and places pinned to one image's plain output: then they have a score, in changed copies too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hookmap.errors import TargetError
from hookmap.geometry import Geometry
from hookmap.outputs import Detections, dense_scores, distribution
from hookmap.targets.classes import PREDICTED, Class, Contrast, Goal, Regression, name_of
from hookmap.targets.places import Box, Detection, Mask, Place, Point


@dataclass(frozen=True, eq=False)
class Pinned:
    """A place on one image, with a score.

    Attributes:
        index: the class that it is about.
        probability: of the class there, 0..1, on the plain image; None for a value.
        where: in words, or empty.
        box: on the picture, (left, top, right, bottom), if it is a detection.
    """

    index: int
    probability: float | None
    where: str
    box: tuple[float, float, float, float] | None

    @property
    def name(self) -> str:
        """What it is about, where that isn't a class."""
        return ""

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
    value: str = ""

    @property
    def name(self) -> str:
        """What the value is called, if it is one."""
        return self.value

    def __call__(self, output: Any) -> Tensor:
        """Scores ``(K,)``."""
        dense = dense_scores(output)
        assert dense is not None
        return torch.einsum("bhw,hw->b", dense[:, self.index], self.weights.to(dense))

    def likelihood(self, output: Any) -> Tensor:
        """Mean probability of the class in the region, ``(K,)``, 0..1; of a value, the value."""
        if self.value:
            return self(output).float()
        dense = dense_scores(output)
        assert dense is not None
        sure = distribution(dense.float())
        return torch.einsum("bhw,hw->b", sure[:, self.index], self.weights.to(sure))


@dataclass(frozen=True, eq=False)
class CandidateScore(Pinned):
    """The class score of one candidate of a detector, found through its post-processing.

    Attributes:
        row: of the candidate.
        on_input: its box.
        boxed: the class whose box that is.
    """

    row: int
    on_input: Tensor
    boxed: int

    def __call__(self, output: Detections) -> Tensor:
        """Scores ``(K,)``."""
        return self._mine(output.scores[..., self.index], output)

    def likelihood(self, output: Detections) -> Tensor:
        """How far this object is still detected in copies, ``(K,)``, 0..1.

        The largest product, over candidates, of overlap and probability of the class: after Petsiuk et al., *Black-box
        Explanation of Object Detectors via Saliency Maps* (D-RISE), CVPR 2021, arXiv:2006.03204, eq. 2.
        """
        boxes = output.boxes_of(self.boxed)
        return (overlap(self.on_input.to(boxes), boxes) * output.probabilities[..., self.index]).amax(1)

    def _mine(self, values: Tensor, output: Detections) -> Tensor:
        """Of values ``(K, N, ...)`` those of the very candidate; where copies have others, of the one in its place."""
        if output.fixed:
            return values[:, self.row]
        boxes = output.boxes_of(self.boxed)
        nearest = overlap(self.on_input.to(boxes), boxes).argmax(1)
        return values[torch.arange(len(values), device=values.device), nearest]


_SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True, eq=False)
class BoxScore(CandidateScore):
    """How far a detection's box reaches to one side from its middle on the plain picture, in pixels of the picture.

    Attributes:
        side: or ``"box"``: all four added up, which is width and height.
        scale: input pixels per pixel of the picture, (x, y).
    """

    side: str
    scale: Tensor

    def __call__(self, output: Detections) -> Tensor:
        """Distances ``(K,)``; their gradient is that of the box's coordinates, through the decoding."""
        boxes = self._mine(output.boxes_of(self.boxed), output)
        middle = self.on_input.to(boxes).reshape(2, 2).mean(0)
        reach = torch.cat([middle - boxes[:, :2], boxes[:, 2:] - middle], 1) / self.scale.to(boxes).repeat(2)
        return reach.sum(1) if self.side == "box" else reach[:, _SIDES.index(self.side)]

    def likelihood(self, output: Detections) -> Tensor:
        """A distance has no probability: the distances themselves."""
        return self(output)


@dataclass(frozen=True, eq=False)
class MaskScore(CandidateScore):
    """The mask logits of a detection, averaged over the mask that it has on the plain picture.

    Attributes:
        number: of the detection.
        area: its mask, as weights ``(h, w)`` across its box that sum to one.
    """

    number: int
    area: Tensor

    def __call__(self, output: Detections) -> Tensor:
        """Scores ``(K,)``."""
        masks = [None if n is None else masks[n] for masks, n in self._masks(output)]
        if any(mask is None for mask in masks):
            raise TargetError(
                "in a changed copy the object isn't detected, so its mask has no score; take a method that "
                "differentiates, or one that weighs copies by probability (drise)"
            )
        return torch.stack([(mask * self.area.to(mask)).sum() for mask in masks if mask is not None])

    def likelihood(self, output: Detections) -> Tensor:
        """Mean probability in the mask, times how far the object is still detected, ``(K,)``; 0 where it isn't."""
        found = [(masks, n) for masks, n in self._masks(output)]
        sure = [
            output.scores.new_zeros(()) if n is None else (masks[n].sigmoid() * self.area.to(masks)).sum()
            for masks, n in found
        ]
        return torch.stack(sure) * super().likelihood(output)

    def _masks(self, output: Detections) -> list[tuple[Tensor, int | None]]:
        """Each copy's masks, and the number of the detection in this one's place; None if none is."""
        assert output.masks is not None
        boxes, result = output.boxes_of(self.boxed), []
        for copy, (masks, kept) in enumerate(zip(output.masks, output.kept, strict=True)):
            mine = {
                n: float(overlap(self.on_input.to(boxes), boxes[copy, k.row].detach()))
                for n, k in enumerate(kept)
                if k.label == self.index
            }
            best = max(mine, key=mine.__getitem__, default=None)
            result.append((masks, best if best is not None and mine[best] > 0.5 else None))
        return result


def overlap(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of a box ``(4,)`` with boxes ``(..., 4)``."""
    low, high = torch.maximum(box[:2], boxes[..., :2]), torch.minimum(box[2:], boxes[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) for b in (box, boxes)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=torch.finfo(boxes.dtype).tiny)


def pin_to_region(goal: Any, dense: Tensor, image: int, geometry: Geometry) -> Pinned | Contrast:
    """A class or a place as the score of a region of one image's dense output; a bare class's region is its own."""
    scores: Tensor = dense[image].detach().float()
    of: Any = None
    if isinstance(goal, Contrast):  # both sides are asked about the same region
        this = pin_to_region(goal.this, dense, image, geometry)
        if not isinstance(this, RegionScore) or not isinstance(goal.that, Class) or isinstance(goal.that.index, str):
            raise TargetError(f"{goal} can't be read from a segmenter; contrast two classes")
        _check_exists(goal.that.index, len(scores))
        that = RegionScore(goal.that.index, _probability(scores, goal.that.index, this.weights), "", None, this.weights)
        return Contrast(this, that)
    if isinstance(goal, Detection):
        raise TargetError(f"{goal} is a detected object, and this model gives scores of places; pass a Box or a Point")
    if isinstance(goal, Place):
        weights = _cells(goal, scores.shape[1:], geometry, scores.device)
        of = getattr(goal, "of", None)
        named = isinstance(of, (Class, Regression)) and isinstance(of.index, int)
        index = of.index if named else _strongest(scores, weights)
        where = str(goal)
    elif isinstance(goal, Regression):
        of, index, where = goal, goal.index, ""
        weights = _averaging(scores.new_ones(scores.shape[1:], dtype=torch.bool))
    elif type(goal) is not Class:
        raise TargetError(
            f"{name_of(goal)!r} is defined for whole images; from a segmenter a class's own score is read"
        )
    else:
        index = goal.index if isinstance(goal.index, int) else _most_common(scores)
        own = scores.argmax(0) == index if len(scores) > 1 else scores[0] > 0
        weights = _averaging(own if own.any() else torch.ones_like(own))
        where = ""
    _check_exists(index, len(scores))
    if isinstance(of, Regression):
        return RegionScore(index, None, where, None, weights, str(of))
    return RegionScore(index, _probability(scores, index, weights), where, None, weights)


def _check_exists(index: int, classes: int) -> None:
    if not -classes <= index < classes:
        raise TargetError(f"class {index} doesn't exist; the model's output has {classes} classes")


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
    return float((distribution(scores, 0)[index] * weights).sum())


def pin_to_detections(goal: Goal, found: Detections, geometry: Geometry, labels: Any) -> list[Pinned | Contrast]:
    """The detections of the only image that a target means, the strongest first.

    Raises:
        TargetError: if it means none, with what was detected.
    """
    if isinstance(goal, Contrast):
        sides = []
        for this in pin_to_detections(goal.this, found, geometry, labels):  # type: ignore[arg-type]
            that = goal.that
            if isinstance(that, Class) and isinstance(that.index, int) and isinstance(this, CandidateScore):
                _check_class(that.index, found)
                # The same candidate as another class.
                sure = float(found.probabilities[0, this.row, that.index].detach())
                other: Any = CandidateScore(that.index, sure, this.where, this.box, this.row, this.on_input, this.boxed)
            else:
                other = pin_to_detections(that, found, geometry, labels)[0]  # type: ignore[arg-type]
            sides.append(Contrast(this, other))
        return list(sides)
    if isinstance(goal, Class) and isinstance(goal.index, int):
        _check_class(goal.index, found)
    kept = list(found.kept[0])
    on_input = [found.boxes_of(k.label)[0, k.row].detach() for k in kept]
    boxes = [on_picture(box, geometry) for box in on_input]
    numbers = _meant(goal, kept, boxes)
    if not numbers:
        raise TargetError(_not_detected(goal, found, labels))
    attribute = goal.attribute if isinstance(goal, Detection) else "class"
    pinned: list[Pinned | Contrast] = []
    for n in numbers:
        row, label = kept[n]
        sure = float(found.probabilities[0, row, label].detach())
        words = str(goal) if attribute != "class" else f"box {n}"
        given = (label, sure, words, tuple(boxes[n].tolist()), row, on_input[n], label)
        if attribute == "class":
            pinned.append(CandidateScore(*given))
        elif attribute == "mask":
            if found.masks is None:
                raise TargetError(f"{goal} can't be explained: this detector gives no masks")
            area = found.masks[0][n].detach() > 0
            pinned.append(MaskScore(*given, n, _averaging(area if area.any() else torch.ones_like(area))))
        else:
            pinned.append(BoxScore(*given, attribute, torch.tensor(geometry.scale[::-1])))
    return pinned


def _check_class(index: int, found: Detections) -> None:
    if not 0 <= index < found.scores.shape[-1]:
        raise TargetError(f"class {index} doesn't exist; the detector has {found.scores.shape[-1]} classes")


def _not_detected(goal: Goal, found: Detections, labels: Any) -> str:
    """Why a target means no detection, in one sentence."""
    kept, sure = found.kept[0], found.probabilities[0].detach()
    if kept:
        names = ", ".join(dict.fromkeys(str(labels(k.label)).split(",")[0] for k in kept))
        own = isinstance(goal, Class) and isinstance(goal.index, int) and len(sure)
        best = f" (its best candidate has {float(sure[:, goal.index].max()):.0%})" if own else ""  # type: ignore[attr-defined]
        return f"{name_of(goal)!r} wasn't detected in the picture{best}; detected: {names}"
    if not len(sure):
        return "nothing was detected in the picture, and the detector has no candidates there"
    tops = sure.amax(0).topk(min(3, sure.shape[1]))
    nearly = ", ".join(
        f"{str(labels(i)).split(',')[0]} {p:.0%}"
        for p, i in zip(tops.values.tolist(), tops.indices.tolist(), strict=True)
    )
    least = f", and only those above {found.least:.0%} are kept" if found.least is not None else ""
    return (
        f"nothing was detected in the picture: the best candidates are {nearly}{least}; lower the detector's threshold"
    )


def on_picture(box: Tensor, geometry: Geometry) -> Tensor:
    """A box on the input as one on the picture, cut off at its edges."""
    corners = geometry.to_original(box.float().cpu().reshape(2, 2))
    limit = torch.tensor([geometry.original[1], geometry.original[0]])
    return torch.minimum(corners.clamp(min=0), limit).flatten()


def _meant(goal: Goal, kept: Any, boxes: list[Tensor]) -> list[int]:
    if type(goal) is Class:
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
