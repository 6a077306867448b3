"""From what the user wrote to a target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from hookmap.errors import TargetError
from hookmap.targets.classes import PREDICTED, Class, Contrast, Goal, PerImage, Regression, TargetSpec
from hookmap.targets.likeness import Likeness, Text
from hookmap.targets.naming import find_class
from hookmap.targets.places import Box, Detection, Everywhere, Point, Polygon, Proposal
from hookmap.targets.prompts import Prompt

_PLACE = re.compile(r"\s*(box|point|polygon|proposal|everywhere)\s*(?::\s*(.*))?", re.IGNORECASE)

_ALIKE = re.compile(r"\s*(text|like)\s*:(.*)", re.IGNORECASE | re.DOTALL)

_PROMPT = re.compile(r"\s*prompt\s*:(.*)", re.IGNORECASE | re.DOTALL)

_DETECTION = re.compile(r"\s*box\s*:\s*(\d+)\s*(?::\s*(\w[\w -]*?)\s*)?", re.IGNORECASE)


def resolve(spec: TargetSpec, labels: Sequence[str] | None) -> Goal:
    """A target from an index, a label, ``"predicted"``, a place in words, or a target whose words are looked up.

    Places in words are ``"box:2"`` (a detection by its number), ``"box:2:left"`` (how far it reaches; also ``top``,
    ``right``, ``bottom``, ``box`` and ``mask``), ``"box:2:left_shoulder"`` (a keypoint), ``"box:10,20,200,180"``,
    ``"point:120,80"`` (of a volume ``"point:120,80,31"``), ``"polygon:10,20 90,20 50,80"``, ``"everywhere"``,
    ``"proposal:812:17"`` (a detector's candidate, as a class) and, where a model is pointed at things,
    ``"prompt:120,80 90,60 not:40,50 box:10,20,200,180"``, with ``mask:1`` for another of its masks; likenesses are
    ``"text:a red car"`` and ``"like:car.jpg"``.

    Raises:
        TargetError: for other types and words that no class is called.

    >>> resolve("point:120,80", None), resolve("box:2", None)
    (Point(x=120.0, y=80.0, of=None, z=None), Detection(number=2, attribute='class'))
    """
    if isinstance(spec, bool) or not (isinstance(spec, (str, int)) or callable(spec)):
        given = f"{type(spec).__name__} {spec!r}" if isinstance(spec, (float, bytes, bool)) else type(spec).__name__
        raise TargetError(f"a target was given as {given}; expected an index (a whole number), a label or a function")
    if isinstance(spec, str) and (place := _place(spec)) is not None:
        return place
    if isinstance(spec, str) and (match := _PROMPT.fullmatch(spec)) is not None:
        return _prompt(match[1])
    if isinstance(spec, str) and (match := _ALIKE.fullmatch(spec)) is not None:
        return (Text if match[1].casefold() == "text" else Likeness)(match[2].strip())
    if isinstance(spec, (str, int)):
        return Class(PREDICTED) if spec == PREDICTED else find_class(str(spec), labels)
    if isinstance(spec, Contrast):
        return replace(spec, this=resolve(spec.this, labels), that=resolve(spec.that, labels))
    if isinstance(spec, PerImage):
        return replace(spec, targets=[resolve(one, labels) for one in spec.targets])
    if isinstance(spec, (Class, Regression)) and spec.label is None and spec.index != PREDICTED:
        found = find_class(str(spec.index), labels)
        named = isinstance(spec, Regression) and labels and isinstance(found.index, int) and found.index < len(labels)
        return replace(spec, index=found.index, label=labels[found.index] if named else found.label)  # type: ignore[index]
    if getattr(spec, "of", None) is not None:
        unresolved: Any = spec
        return cast(Goal, replace(unresolved, of=resolve(unresolved.of, labels)))
    return spec


def are_detections(spec: object) -> bool:
    """Whether these are the ``supervision.Detections`` of a picture."""
    return type(spec).__module__.partition(".")[0] == "supervision" and hasattr(spec, "xyxy")


def boxes_of(detections: Any, labels: Sequence[str] | None) -> list[Goal]:
    """Each box of a ``supervision.Detections`` as a target, of the class that it names if the model has it.

    Raises:
        TargetError: if there are none.
    """
    if not len(detections):
        raise TargetError("supervision.Detections without boxes came as targets; pass some that hold at least one")
    names = (detections.data or {}).get("class_name")
    goals: list[Goal] = []
    for number, (left, top, right, bottom) in enumerate(detections.xyxy.tolist()):
        of: TargetSpec | None = None
        if names is not None:
            with suppress(TargetError):  # another model's class: then the one that scores highest there
                of = find_class(str(names[number]), labels)
        goals.append(Box(left, top, right, bottom, of))
    return goals


def _place(words: str) -> Goal | None:
    match = _PLACE.fullmatch(words)
    if match is None or (match[2] is None) != (match[1].casefold() == "everywhere"):
        return None
    if match[2] is None:
        return Everywhere()
    detection = _DETECTION.fullmatch(words)
    if detection is not None:
        return Detection(int(detection[1]), (detection[2] or "class").casefold())
    kind = match[1].casefold()
    try:
        numbers = [float(part) for part in re.split(r"[,\s]+" if kind == "polygon" else "[,:]", match[2].strip())]
    except ValueError:
        numbers = []
    if kind == "polygon" and len(numbers) >= 6 and len(numbers) % 2 == 0:
        return Polygon(tuple(zip(numbers[::2], numbers[1::2], strict=True)))
    if kind == "proposal" and len(numbers) == 2 and all(number.is_integer() for number in numbers):
        return Proposal(int(numbers[0]), int(numbers[1]))
    if kind == "point" and len(numbers) in (2, 3):
        return Point(numbers[0], numbers[1], z=numbers[2] if numbers[2:] else None)
    if kind == "box" and len(numbers) == 4:
        left, top, right, bottom = numbers
        return Box(left, top, right, bottom)
    raise TargetError(
        f"{words!r} is no place; expected box:NUMBER of a detection, box:LEFT,TOP,RIGHT,BOTTOM, point:X,Y or "
        "polygon:X,Y X,Y X,Y in pixels of the picture (point:X,Y,Z: with the slice of a volume), or proposal:ROW:CLASS "
        "of a detector"
    )


def _prompt(words: str) -> Prompt:
    found: dict[str, list[tuple[float, ...]]] = {"": [], "not": [], "box": [], "mask": []}
    for part in words.split():
        kind, _, numbers = part.casefold().rpartition(":")
        try:
            found[kind].append(tuple(float(number) for number in numbers.split(",")))
        except (KeyError, ValueError):
            raise TargetError(f"{part!r} is no part of a prompt; {_PROMPT_PARTS}") from None
    boxes, masks = found["box"], found["mask"]
    if len(boxes) > 1 or len(masks) > 1 or any(len(mask) != 1 or not mask[0].is_integer() for mask in masks):
        raise TargetError(f"{words.strip()!r} is no prompt; {_PROMPT_PARTS}")
    given: Any = {"points": found[""], "background": found["not"], "box": boxes[0] if boxes else None}
    return Prompt(**given, mask=int(masks[0][0]) if masks else None)


_PROMPT_PARTS = (
    "expected points X,Y on what is meant, not:X,Y on what isn't, at most one box:LEFT,TOP,RIGHT,BOTTOM, all in pixels "
    "of the picture, and if need be mask:NUMBER, with spaces between them"
)
