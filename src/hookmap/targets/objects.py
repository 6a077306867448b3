"""Detected objects of one image: the class score of a candidate, how far its box reaches, its mask, its keypoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from hookmap.adapters.outputs import Detections
from hookmap.errors import NothingDetectedError, TargetError
from hookmap.images.geometry import Geometry
from hookmap.targets.classes import PREDICTED, Class, Contrast, Goal, Regression, name_of
from hookmap.targets.naming import simplified
from hookmap.targets.places import PARTS, Box, Detection, Mask, Point, Polygon, Proposal
from hookmap.targets.resolving import PlainOutput, Resolved, against, averaging

Candidate = TypeVar("Candidate", bound="CandidateScore")


@dataclass(frozen=True, eq=False, kw_only=True)
class CandidateScore(Resolved):
    """The class score of one candidate of a detector, found through its post-processing.

    Attributes:
        row: of the candidate; None in the mirrored picture, where it has another.
        on_input: its box.
        boxed: the class whose box that is.
    """

    index: int
    row: int | None
    on_input: Tensor
    boxed: int

    kind = "a detected object"
    is_detection = True

    def score(self, output: Detections) -> Tensor:
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
        if output.fixed and self.row is not None:
            return values[:, self.row]
        boxes = output.boxes_of(self.boxed)
        nearest = overlap(self.on_input.to(boxes), boxes).argmax(1)
        return values[torch.arange(len(values), device=values.device), nearest]

    def mirrored(self: Candidate, width: int) -> Candidate:
        """What is found at its box on the other side."""
        left, top, right, bottom = self.on_input
        return replace(self, row=None, on_input=torch.stack([width - right, top, width - left, bottom]))


_SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True, eq=False, kw_only=True)
class BoxScore(CandidateScore):
    """How far a detection's box reaches to one side from its middle on the plain picture, in pixels of the picture.

    Attributes:
        side: or ``"box"``: all four added up, which is width and height.
        scale: input pixels per pixel of the picture, (x, y).
    """

    side: str
    scale: Tensor

    def score(self, output: Detections) -> Tensor:
        """Distances ``(K,)``; their gradient is that of the box's coordinates, through the decoding."""
        boxes = self._mine(output.boxes_of(self.boxed), output)
        middle = self.on_input.to(boxes).reshape(2, 2).mean(0)
        reach = torch.cat([middle - boxes[:, :2], boxes[:, 2:] - middle], 1) / self.scale.to(boxes).repeat(2)
        return reach.sum(1) if self.side == "box" else reach[:, _SIDES.index(self.side)]

    def likelihood(self, output: Detections) -> Tensor:
        """A distance has no probability: the distances themselves."""
        return self.score(output)

    def mirrored(self, width: int) -> BoxScore:
        """How far it reaches to the other side."""
        sides = {"left": "right", "right": "left"}
        return replace(super().mirrored(width), side=sides.get(self.side, self.side))


@dataclass(frozen=True, eq=False, kw_only=True)
class KeptScore(CandidateScore):
    """Logits that a candidate has only if it is left after post-processing, averaged.

    In a changed copy they are those of the detection of the same class that overlaps it most, by more than one half.

    Attributes:
        part: what the logits are of, in words.
        weights: of the logits; they sum to one.
    """

    part: str
    weights: Tensor

    def score(self, output: Detections) -> Tensor:
        """Scores ``(K,)``."""
        numbers = self._numbers(output)
        if None in numbers:
            raise TargetError(
                f"in a changed copy the object isn't detected, so its {self.part} has no score; take a method that "
                "differentiates, without smoothing, or one that weighs copies by probability (drise)"
            )
        return torch.stack([self._mean(self._logits(output, k, n)) for k, n in enumerate(numbers) if n is not None])

    def likelihood(self, output: Detections) -> Tensor:
        """Mean sigmoid of the logits, times how far the object is still detected, ``(K,)``; 0 where it isn't."""
        sure = [
            output.scores.new_zeros(()) if n is None else self._mean(self._logits(output, k, n).sigmoid())
            for k, n in enumerate(self._numbers(output))
        ]
        return torch.stack(sure) * super().likelihood(output)

    def _mean(self, values: Tensor) -> Tensor:
        return (values * self.weights.to(values)).sum()

    def _logits(self, output: Detections, copy: int, number: int) -> Tensor:
        """Of a detection in a copy."""
        raise NotImplementedError

    def _numbers(self, output: Detections) -> list[int | None]:
        """The detection in this one's place in each copy; None if none is."""
        boxes, numbers = output.boxes_of(self.boxed), list[int | None]()
        for copy, kept in enumerate(output.kept):
            mine = {
                n: float(overlap(self.on_input.to(boxes), boxes[copy, k.row].detach()))
                for n, k in enumerate(kept)
                if k.label == self.index
            }
            best = max(mine, key=mine.__getitem__, default=None)
            numbers.append(best if best is not None and mine[best] > 0.5 else None)
        return numbers


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskScore(KeptScore):
    """The mask logits of a detection, averaged over the mask that it has on the plain picture."""

    def _logits(self, output: Detections, copy: int, number: int) -> Tensor:
        assert output.masks is not None
        return output.masks[copy][number]

    def mirrored(self, width: int) -> MaskScore:
        """The mask on the other side."""
        return replace(super().mirrored(width), weights=self.weights.flip(-1))


@dataclass(frozen=True, eq=False, kw_only=True)
class KeypointScore(KeptScore):
    """What a keypoint of a detection scores where it is found; in a changed copy where it is found there.

    Its sigmoid is a probability where the model learns whether a keypoint is visible; of a heatmap's logit, which is
    learnt by softmax over places, it only grows with the score.

    Attributes:
        joint: its number.
        other: that of the same keypoint of the mirrored object: its right shoulder for its left; None if unknown.
    """

    joint: int
    other: int | None

    def _logits(self, output: Detections, copy: int, number: int) -> Tensor:
        assert output.keypoints is not None
        return output.keypoints[copy][number, self.joint]

    def mirrored(self, width: int) -> KeypointScore:
        """The keypoint that the mirrored object has there.

        Raises:
            TargetError: if it isn't known which that is.
        """
        if self.other is None:
            raise TargetError(
                f"aug_smooth mirrors the picture, and which keypoint {self.part} is there isn't known, because this "
                "detector's keypoints aren't called left and right; take noise_smooth"
            )
        return replace(super().mirrored(width), joint=self.other, other=self.joint)


def overlap(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of a box ``(4,)`` with boxes ``(..., 4)``."""
    low, high = torch.maximum(box[:2], boxes[..., :2]), torch.minimum(box[2:], boxes[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) for b in (box, boxes)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=torch.finfo(boxes.dtype).tiny)


class DetectionOutput(PlainOutput):
    """Candidates and detections of one image."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        if len(self.output.boxes) != 1:
            raise TargetError("detections are explained one image at a time; pass batch_size=1")
        self._geometry = self.geometries[0]

    def of_class(self, target: Any, image: int) -> Sequence[Resolved]:
        """The detections of a class, or all, the strongest first.

        Raises:
            NothingDetectedError: if there are none, with what was detected.
        """
        if isinstance(target.index, int):
            _check_class(target.index, self.output)
        return self._detections(target)

    def of_value(self, target: Any, image: int) -> Sequence[Resolved]:
        """Values aren't read from detections."""
        return self._detections(target)

    def of_place(self, target: Any, image: int) -> Sequence[Resolved]:
        """The detection of a number, or at a place."""
        target.check(self._geometry.original)
        return [self._proposed(target)] if isinstance(target, Proposal) else self._detections(target)

    def of_contrast(self, target: Contrast, image: int) -> Sequence[Resolved]:
        """Each detection as one class rather than another, or rather than another detection."""
        return [
            against(target, this, self._other(this, target.that, image)) for this in self.resolved(target.this, image)
        ]

    def _other(self, this: Resolved, that: Any, image: int) -> Resolved:
        if not (type(that) is Class and isinstance(that.index, int) and isinstance(this, CandidateScore)):
            return self.the_one(that, image)
        _check_class(that.index, self.output)
        # The same candidate as another class.
        return CandidateScore(
            asked=that,
            name=self.label(that.index),
            index=that.index,
            probability=float(self.output.probabilities[0, this.row, that.index].detach()),
            where=this.where,
            box=this.box,
            number=this.number,
            row=this.row,
            on_input=this.on_input,
            boxed=this.boxed,
        )

    def _proposed(self, target: Proposal) -> CandidateScore:
        output: Detections = self.output
        _check_class(target.label, output)
        if not 0 <= target.row < output.scores.shape[1]:
            raise TargetError(f"{target} doesn't exist; the detector has {output.scores.shape[1]} in this picture")
        on_input = output.boxes_of(target.label)[0, target.row].detach()
        return CandidateScore(
            asked=target,
            name=self.label(target.label),
            index=target.label,
            probability=float(output.probabilities[0, target.row, target.label].detach()),
            where=str(target),
            box=tuple(on_picture(on_input, self._geometry).tolist()),
            row=target.row,
            on_input=on_input,
            boxed=target.label,
        )

    def _detections(self, target: Any) -> Sequence[Resolved]:
        output: Detections = self.output
        kept = list(output.kept[0])
        on_input = [output.boxes_of(k.label)[0, k.row].detach() for k in kept]
        boxes = [on_picture(box, self._geometry) for box in on_input]
        numbers = _meant(target, kept, boxes)
        if not numbers:
            raise NothingDetectedError(_not_detected(target, output, self.label))
        attribute = target.attribute if isinstance(target, Detection) else "class"
        return [_part(attribute, n, output, boxes[n], on_input[n], self._geometry, self.label) for n in numbers]


def _part(
    attribute: str,
    n: int,
    output: Detections,
    box: Tensor,
    on_input: Tensor,
    geometry: Geometry,
    label_of: Callable[[int], str],
) -> CandidateScore:
    """What is asked of detection n of the only image; its box is on the picture."""
    row, label = output.kept[0][n]
    part, joint, names = attribute, 0, _keypoints(output)
    if attribute not in PARTS:
        joint = _keypoint(attribute, names)
        part = names[joint]
    of: dict[str, Any] = {
        "asked": Detection(n, attribute),
        "name": label_of(label),
        "number": n,
        "index": label,
        "probability": float(output.probabilities[0, row, label].detach()),
        "where": f"box {n}" if part == "class" else f"box {n}, its {part}",
        "box": tuple(box.tolist()),
        "row": row,
        "on_input": on_input,
        "boxed": label,
    }
    if attribute == "class":
        return CandidateScore(**of)
    if attribute == "mask":
        if output.masks is None:
            raise TargetError(f"box {n}, its mask can't be explained: this detector gives no masks")
        area = output.masks[0][n].detach() > 0
        weights = averaging(area if area.any() else torch.ones_like(area))
        return MaskScore(**of, part=part, weights=weights)
    if attribute in PARTS:
        return BoxScore(**of, side=part, scale=torch.tensor(geometry.scale[::-1]))
    across = _across(joint, output.joints)
    return KeypointScore(**of, part=part, weights=torch.tensor(1.0), joint=joint, other=across)


def _keypoints(output: Detections) -> Sequence[str]:
    """What the keypoints are called, or numbered; empty where there are none."""
    count = output.keypoints[0].shape[1] if output.keypoints is not None else 0
    return output.joints if len(output.joints) == count else [f"keypoint {joint}" for joint in range(count)]


def _keypoint(word: str, names: Sequence[str]) -> int:
    """The number of the keypoint that is called so.

    Raises:
        TargetError: if none is, with all that are.
    """
    wanted = simplified(word)
    for joint, name in enumerate(names):
        if wanted in (simplified(name), f"keypoint {joint}"):
            return joint
    known = f"; or of its keypoints: {', '.join(names)}" if names else "; this detector gives no keypoints"
    raise TargetError(f"attribute is {word!r}; expected one of {', '.join(PARTS)}{known}")


def _across(joint: int, joints: Sequence[str]) -> int | None:
    """The keypoint that a mirrored object has in this one's place: left and right change names; None if none has."""
    names, sides = [simplified(name) for name in joints], {"left": "right", "right": "left"}
    there = [re.sub("left|right", lambda side: sides[side[0]], name) for name in names]
    return names.index(there[joint]) if names != there and set(names) == set(there) else None


def _check_class(index: int, output: Detections) -> None:
    if not 0 <= index < output.scores.shape[-1]:
        raise TargetError(f"class {index} doesn't exist; the detector has {output.scores.shape[-1]} classes")


def _not_detected(goal: Goal, output: Detections, labels: Any) -> str:
    """Why a target means no detection, in one sentence."""
    kept, sure = output.kept[0], output.probabilities[0].detach()
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
    least = f", and only those above {output.least:.0%} are kept" if output.least is not None else ""
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
    for read in (goal, of):
        if isinstance(read, (Class, Regression)) and type(read) is not Class:
            raise TargetError(
                f"hm.{type(read).__name__} is defined for whole images and places in dense scores; of a detection its "
                "own score is read: pass the class itself"
            )
    wanted = [n for n, k in enumerate(kept) if not isinstance(of, Class) or of.index == k.label]
    if isinstance(goal, Point):
        around = [n for n in wanted if Box(*boxes[n].tolist()).covers(torch.tensor(goal.centre))]
        return sorted(around, key=lambda n: float((boxes[n][2:] - boxes[n][:2]).prod()))[:1]
    if isinstance(goal, (Box, Mask, Polygon)):
        box = goal if isinstance(goal, Box) else goal.bounds
        shared = {n: float(overlap(torch.tensor([box.left, box.top, box.right, box.bottom]), boxes[n])) for n in wanted}
        best = max(shared, key=shared.__getitem__, default=None)
        return [best] if best is not None and shared[best] > 0 else []
    raise TargetError(f"{name_of(goal)!r} can't be read from detections; pass a class, hm.Detection(n), Box or Point")
