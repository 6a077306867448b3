"""Targets that are somewhere on the picture: a detection, a box, a point, a mask, a region.

Coordinates are pixels of the original picture. What they mean depends on the output: in dense scores they say where the
score is read, in detections which of them is meant. In a volume or a clip ``(D, H, W)`` they span all slices, but for a
:class:`Point` with a ``z``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hookmap.errors import TargetError
from hookmap.targets.classes import TargetSpec
from hookmap.targets.resolving import PlainOutput, Resolved

PARTS = ("class", "left", "top", "right", "bottom", "box", "mask")
"""What of a detection can be explained beside its keypoints."""


@dataclass(frozen=True)
class Place:
    """Somewhere on the picture. Pinned to an image's plain output before it has a score."""

    def __call__(self, output: Any) -> Tensor:
        """A place has no score by itself."""
        raise TargetError(f"{self} is a place: pass it to Lens.explain, for a detector or a segmenter")

    def resolved(self, plain: PlainOutput, image: int) -> Sequence[Resolved]:
        """What is read there in dense scores, or the detection that is meant."""
        return plain.of_place(self, image)

    def covers(self, points: Tensor) -> Tensor:
        """Which of the points ``(..., 2)``, as (x, y) on the picture, belong to it."""
        raise NotImplementedError

    def check(self, size: tuple[int, int]) -> None:
        """Raise a :class:`hookmap.TargetError` if it can't be of a picture of this size, (H, W)."""

    @property
    def centre(self) -> tuple[float, float]:
        """Its middle, (x, y)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Box(Place):
    """A rectangle: the dense score of a class in it, or the detection that overlaps it most.

    Attributes:
        left: first column, in pixels of the picture.
        top: first row.
        right: end of the columns.
        bottom: end of the rows.
        of: the class; by default the one that scores highest there.
    """

    left: float
    top: float
    right: float
    bottom: float
    of: TargetSpec | None = None

    def __post_init__(self) -> None:
        if not (self.left < self.right and self.top < self.bottom):
            raise TargetError(f"{self} is empty; expected left < right and top < bottom, in pixels of the picture")

    def __str__(self) -> str:
        return f"box ({self.left:g}, {self.top:g}, {self.right:g}, {self.bottom:g})"

    def covers(self, points: Tensor) -> Tensor:
        """Points inside."""
        x, y = points.unbind(-1)
        return (x >= self.left) & (x < self.right) & (y >= self.top) & (y < self.bottom)

    @property
    def centre(self) -> tuple[float, float]:
        """Its middle."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


@dataclass(frozen=True)
class Point(Place):
    """A point: the dense score of a class there, or the smallest detection around it.

    Attributes:
        x: column, in pixels of the picture.
        y: row.
        of: the class; by default the one that scores highest there.
        z: of a volume or a clip the slice or frame of the input, from 0; None: all of them.
    """

    x: float
    y: float
    of: TargetSpec | None = None
    z: float | None = None

    def __str__(self) -> str:
        return f"point ({self.x:g}, {self.y:g}{'' if self.z is None else f', {self.z:g}'})"

    def covers(self, points: Tensor) -> Tensor:
        """None: a point is the cell that it lies in."""
        return torch.zeros(points.shape[:-1], dtype=torch.bool, device=points.device)

    @property
    def centre(self) -> tuple[float, float]:
        """The point."""
        return self.x, self.y


@dataclass(frozen=True, eq=False)
class Mask(Place):
    """Any area: the dense score of a class in it, or the detection that overlaps its bounds most.

    Attributes:
        area: ``(H, W)`` of the picture, true where it is meant; an array, a tensor or a PIL image.
        of: the class; by default the one that scores highest there.
    """

    area: Any
    of: TargetSpec | None = None

    def __post_init__(self) -> None:
        given = self.area if isinstance(self.area, Tensor) else np.array(self.area)
        if not isinstance(given, Tensor) and given.dtype.kind not in "biuf":
            raise TargetError(
                f"a mask was given as {type(self.area).__name__}; expected an array, a tensor or a PIL image (H, W)"
            )
        mask = torch.as_tensor(given).bool()
        if mask.ndim != 2 or not mask.any():
            raise TargetError(
                f"a mask of shape {tuple(mask.shape)} came; expected (H, W) of the picture, true somewhere"
            )
        object.__setattr__(self, "area", mask)

    def __str__(self) -> str:
        return "mask"

    def covers(self, points: Tensor) -> Tensor:
        """Points whose pixel is in the mask."""
        height, width = self.area.shape
        x, y = points.floor().long().cpu().unbind(-1)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        found: Tensor = self.area[y.clamp(0, height - 1), x.clamp(0, width - 1)] & inside
        return found.to(points.device)

    def check(self, size: tuple[int, int]) -> None:
        """Raise a :class:`hookmap.TargetError` if the mask isn't of the picture's size."""
        if self.area.shape != size:
            given, wanted = ("x".join(map(str, shape)) for shape in (self.area.shape, size))
            raise TargetError(f"the mask is {given}, and the picture {wanted} (height x width); pass one of that size")

    @property
    def bounds(self) -> Box:
        """The smallest box around it."""
        rows, columns = self.area.any(1).nonzero()[:, 0], self.area.any(0).nonzero()[:, 0]
        return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1), self.of)

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of its bounds."""
        return self.bounds.centre


@dataclass(frozen=True)
class Polygon(Place):
    """An area inside of a closed line: what a :class:`hookmap.Mask` of it means.

    Attributes:
        corners: (x, y) of each, three or more, in pixels of the picture; inside is what a ray crosses the line an odd
            number of times from.
        of: the class; by default the one that scores highest there.
    """

    corners: tuple[tuple[float, float], ...]
    of: TargetSpec | None = None

    def __post_init__(self) -> None:
        if len(self.corners) < 3:
            raise TargetError(f"a polygon of {len(self.corners)} corners came; expected three or more")

    def __str__(self) -> str:
        return f"polygon of {len(self.corners)} corners"

    def covers(self, points: Tensor) -> Tensor:
        """Points inside."""
        x, y = points.unbind(-1)
        inside = torch.zeros_like(x, dtype=torch.bool)
        for (x1, y1), (x2, y2) in zip(self.corners, self.corners[1:] + self.corners[:1], strict=True):
            if y1 != y2:
                inside ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
        return inside

    @property
    def bounds(self) -> Box:
        """The smallest box around it."""
        xs, ys = zip(*self.corners, strict=True)
        return Box(min(xs), min(ys), max(xs), max(ys), self.of)

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of its bounds."""
        return self.bounds.centre


@dataclass(frozen=True)
class Everywhere(Place):
    """The whole picture: a class's dense score, averaged over all of it.

    Attributes:
        of: the class; by default the one that scores highest on average.
    """

    of: TargetSpec | None = None

    def __str__(self) -> str:
        return "the whole picture"

    def covers(self, points: Tensor) -> Tensor:
        """All points."""
        return torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)


@dataclass(frozen=True)
class Detection(Place):
    """One detected object by its number: 0 is the strongest.

    Attributes:
        number: among the detections that are left after post-processing.
        attribute: what of it is explained: its ``"class"``; how far its box reaches to the ``"left"``, ``"top"``,
            ``"right"`` or ``"bottom"`` of its middle, or all of them added up, ``"box"``; its ``"mask"``, where the
            detector gives one; or one of its keypoints, by name (``"left_shoulder"``) or number (``"keypoint 5"``).
    """

    number: int
    attribute: str = "class"

    def __str__(self) -> str:
        return f"box {self.number}" + ("" if self.attribute == "class" else f", its {self.attribute}")


@dataclass(frozen=True)
class Proposal(Place):
    """One of a detector's candidates before its post-processing, detected or not; see :meth:`hookmap.Lens.missed`.

    Attributes:
        row: of the candidate.
        label: the class that it is asked as.
    """

    row: int
    label: int

    def __str__(self) -> str:
        return f"proposal {self.row}"
