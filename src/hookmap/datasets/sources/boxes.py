"""Boxes of objects, in the forms that data sets have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hookmap.datasets.sources.base import LabelledBox
from hookmap.datasets.sources.names import LABELS, find


def common(labels: Iterable[str | int | None]) -> str | int | None:
    """The label that all have, if there is one."""
    different = set(labels)
    return different.pop() if len(different) == 1 else None


def with_size(sides: Iterable[float], label: str | int | None) -> LabelledBox:
    """COCO's left, top, width, height as a box."""
    left, top, width, height = map(float, sides)
    return LabelledBox(left, top, left + width, top + height, label)


def boxes_in(target: Any) -> list[LabelledBox]:
    """The boxes of a detection target; none if it isn't one.

    Args:
        target: torchvision's ``{"boxes": (N, 4) with left, top, right, bottom, "labels": (N,)}``, Hugging Face's
            ``{"bbox": N times left, top, width, height, "category": N}``, or COCO's list of
            ``{"bbox": ..., "category_id": ...}``.
    """
    if isinstance(target, Mapping):
        labels = _plain(target[name]) if (name := find(target, LABELS)) else None
        if "boxes" in target:
            edges = _plain(target["boxes"])
            return [
                LabelledBox._make((*map(float, e), one)) for e, one in zip(edges, _each(labels, edges), strict=True)
            ]
        if "bbox" in target:
            sides = _plain(target["bbox"])
            return [with_size(s, one) for s, one in zip(sides, _each(labels, sides), strict=True)]
    if isinstance(target, Sequence) and all(isinstance(one, Mapping) and "bbox" in one for one in target):
        return [with_size(_plain(one["bbox"]), one[name] if (name := find(one, LABELS)) else None) for one in target]
    return []


def _each(labels: Any, boxes: Sequence[Any]) -> Sequence[Any]:
    return labels if isinstance(labels, list) else [labels] * len(boxes)


def _plain(values: Any) -> Any:
    """Tensors and arrays as lists."""
    return values.tolist() if hasattr(values, "tolist") else values
