"""The mask that a prompt points at: points, a box, and which of the model's masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookmap.adapters.promptable import Promptable
from hookmap.errors import TargetError
from hookmap.images.geometry import Geometry
from hookmap.targets.places import Box, Place, Point
from hookmap.targets.resolving import PlainOutput, Resolved, averaging

Spot: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Prompt:
    """What a promptable segmenter (SAM) is pointed at; explained are the logits of its mask, averaged over the mask.

    A :class:`hookmap.Point` or a :class:`hookmap.Box` alone is the prompt of that point or box.

    Attributes:
        points: (x, y) of each on what is meant, in pixels of the picture.
        background: (x, y) of each on what isn't meant.
        box: (left, top, right, bottom) around what is meant, or None.
        mask: the number of the mask among those that the model gives for one prompt, from 0; by default the one whose
            predicted IoU is largest.

    >>> str(Prompt(points=[(120, 80), (90, 60)], background=[(40, 50)]))
    'points (120, 80), (90, 60), not (40, 50)'
    """

    points: Sequence[Spot] = ()
    background: Sequence[Spot] = ()
    box: tuple[float, float, float, float] | None = None
    mask: int | None = None

    def __post_init__(self) -> None:
        for name in ("points", "background"):
            given: Any = getattr(self, name)
            spots = [given] if len(given) == 2 and all(isinstance(part, (int, float)) for part in given) else given
            object.__setattr__(self, name, tuple(_numbers(spot, 2, "a point (x, y)") for spot in spots))
        if self.box is not None:
            object.__setattr__(self, "box", _numbers(self.box, 4, "a box (left, top, right, bottom)"))
            Box(*self.box)  # which says what is wrong with an empty one
        if not self.points and self.box is None:
            raise TargetError("a prompt without a point or box on what is meant was given; pass points= or box=")
        if self.mask is not None and self.mask < 0:
            raise TargetError(f"mask {self.mask} doesn't exist; masks are numbered from 0")

    def __call__(self, output: Any) -> Tensor:
        """A prompt has no score before a model has seen a picture."""
        raise TargetError(f"{self} is a prompt: pass it to Lens.explain, for SAM and its like")

    def resolved(self, plain: PlainOutput, image: int) -> Sequence[Resolved]:
        """The mask that it gives on an image."""
        return plain.of_prompt(self, image)

    def __str__(self) -> str:
        parts = []
        if self.points:
            parts.append(("point " if len(self.points) == 1 else "points ") + ", ".join(map(_spot, self.points)))
        if self.background:
            parts.append("not " + ", ".join(map(_spot, self.background)))
        if self.box is not None:
            parts.append(str(Box(*self.box)))
        if self.mask is not None:
            parts.append(f"mask {self.mask}")
        return ", ".join(parts)


def _numbers(given: Any, count: int, what: str) -> Any:
    try:
        numbers = tuple(float(number) for number in given)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise TargetError(f"{given!r} came; expected {what} in pixels of the picture")
    return numbers


def _spot(spot: Spot) -> str:
    return f"({spot[0]:g}, {spot[1]:g})"


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskScore(Resolved):
    """The mask of a prompt.

    Attributes:
        points: of the prompt in pixels of the input, ``(P, 2)``.
        labels: whether each lies on what is meant, ``(P,)`` of 1 and 0.
        on_input: its box ``(4,)``, or None.
        chosen: the number of the mask among the model's.
        weights: of the cells ``(h, w)`` of its region on the plain picture; they sum to one.
    """

    points: Tensor
    labels: Tensor
    on_input: Tensor | None
    chosen: int
    weights: Tensor

    kind = "the mask of a prompt"

    def score(self, output: Promptable) -> Tensor:
        """The mask's logits, averaged over the region, ``(K,)``."""
        return self._mean(self._logits(output))

    def likelihood(self, output: Promptable) -> Tensor:
        """How probable the region still is, on average, ``(K,)``, 0..1."""
        return self._mean(self._logits(output).float().sigmoid())

    def _logits(self, output: Promptable) -> Tensor:
        return output.masks(self.points, self.labels, self.on_input)[0][:, self.chosen]

    def _mean(self, cells: Tensor) -> Tensor:
        return cells.flatten(1) @ self.weights.to(cells).flatten()

    def mirrored(self, width: int) -> MaskScore:
        """The mask of the prompt on the other side."""
        # A coordinate is that of a pixel, whose middle lies half a pixel further.
        sign, last = self.points.new_tensor([-1.0, 1.0]), self.points.new_tensor([width - 1.0, 0.0])
        box = None
        if self.on_input is not None:
            left, top, right, bottom = self.on_input
            box = torch.stack([width - 1 - right, top, width - 1 - left, bottom])
        return replace(self, points=self.points * sign + last, on_input=box, weights=self.weights.flip(-1))


class MasksOutput(PlainOutput):
    """Features of which the masks of prompts are decoded."""

    output: Promptable

    def of_place(self, target: Place, image: int) -> Sequence[Resolved]:
        """The mask of a point or a box."""
        if getattr(target, "of", None) is not None or getattr(target, "z", None) is not None:
            raise TargetError(
                f"{target} came with a class or a slice, and this model's masks have none; leave out of=, z="
            )
        if isinstance(target, Point):
            return self.of_prompt(Prompt(points=((target.x, target.y),)), image)
        if isinstance(target, Box):
            return self.of_prompt(Prompt(box=(target.left, target.top, target.right, target.bottom)), image)
        raise TargetError(
            f"{target} can't be a prompt of this model, which is pointed at things by points and boxes; pass "
            "hm.Point(x, y), hm.Box(left, top, right, bottom) or hm.Prompt"
        )

    def of_prompt(self, target: Prompt, image: int) -> Sequence[Resolved]:
        """The mask that the model gives for a prompt, and its region."""
        geometry = self.geometries[image]
        _check_inside(target, geometry)
        spots = [*target.points, *target.background]
        points = _on_input(spots, geometry)
        labels = torch.tensor([1] * len(target.points) + [0] * len(target.background))
        box = None if target.box is None else _on_input([target.box[:2], target.box[2:]], geometry).flatten()
        with torch.no_grad():
            masks, quality = self.output.of(image).masks(points, labels, box)
        if target.mask is not None and target.mask >= masks.shape[1]:
            raise TargetError(f"mask {target.mask} doesn't exist; the model gives {masks.shape[1]} for one prompt")
        chosen = int(quality[0].argmax()) if target.mask is None else target.mask
        resolved = MaskScore(
            asked=replace(target, mask=chosen),
            name="mask",
            where=str(target),
            points=points,
            labels=labels,
            on_input=box,
            chosen=chosen,
            weights=self._region(masks[0, chosen], target, geometry),
        )
        with torch.no_grad():
            sure = float(resolved.likelihood(self.output.of(image)))
        return [replace(resolved, probability=sure)]

    def _region(self, logits: Tensor, target: Prompt, geometry: Geometry) -> Tensor:
        """Where the mask is, on the picture and not on what was padded to it, as weights that sum to one."""
        seen = torch.zeros_like(logits, dtype=torch.bool)
        seen[geometry.cells(logits.shape)] = True
        own = (logits > 0) & seen
        if not own.any():
            self.assumed = (
                f"the mask of {target} is empty: its logits are explained over all of the picture; pass another prompt"
            )
        return averaging(own if own.any() else seen)


def _on_input(spots: Sequence[Sequence[float]], geometry: Geometry) -> Tensor:
    """Pixels of the picture in pixels of the input, ``(P, 2)``, computed as the model's own processor does it."""
    points = torch.tensor([tuple(spot) for spot in spots], dtype=torch.float64).reshape(-1, 2)
    return geometry.to_input(points).float()


def _check_inside(target: Prompt, geometry: Geometry) -> None:
    height, width = geometry.original
    for x, y in (*target.points, *target.background):
        if not (0 <= x <= width and 0 <= y <= height):
            raise TargetError(f"the point {_spot((x, y))} lies outside of the picture, which is {width}x{height}")
    if target.box is not None:
        left, top, right, bottom = target.box
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            raise TargetError(f"{Box(*target.box)} lies outside of the picture, which is {width}x{height}")
