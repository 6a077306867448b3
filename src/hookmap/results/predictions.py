"""What a model says of images, in numbers: classes, detections or regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hookmap.adapters.outputs import Detections, Reading, Scores, Values
from hookmap.errors import HookmapError, TargetError
from hookmap.images.geometry import Geometry
from hookmap.targets.objects import on_picture


@dataclass(frozen=True)
class Prediction:
    """One thing that a model sees in an image: a class, a detected object or a region.

    Attributes:
        index: of the class.
        label: its name.
        score: its logit; of a region the mean over it.
        probability: 0..1; of a region the mean over it.
        box: of a detected object, (left, top, right, bottom) in pixels of the picture.
        share: of a region, how much of the model's view it covers, 0..1.
    """

    index: int
    label: str
    score: float
    probability: float
    box: tuple[float, float, float, float] | None = None
    share: float | None = None


def predictions(
    output: Any, reading: Reading, geometries: Sequence[Geometry], top: int | None, label: Callable[[int], str]
) -> list[list[Prediction]]:
    """The strongest of each image first.

    Args:
        output: of the model for a batch.
        reading: how it is read.
        geometries: of its images.
        top: how many; None: five classes, or all detections or regions.
        label: names a class.

    Raises:
        TargetError: if the output is none of the three, or its probabilities are no numbers.
        HookmapError: if less than one is asked for.
    """
    if top is not None and top < 1:
        raise HookmapError(f"top is {top}; expected how many predictions, 1 or more")
    rows = _predictions(output, reading, geometries, top, label)
    if any(math.isnan(prediction.probability) for row in rows for prediction in row):
        raise TargetError(
            "the model's scores aren't numbers: its weights, or the input, hold NaN or infinity; look for them, or "
            "take precision='fp32'"
        )
    return rows


def _predictions(
    output: Any, reading: Reading, geometries: Sequence[Geometry], top: int | None, label: Callable[[int], str]
) -> list[list[Prediction]]:
    if isinstance(output, Detections):
        return [_detections(output, b, geometry, label)[:top] for b, geometry in enumerate(geometries)]
    dense = reading.dense(output)
    if dense is not None and not isinstance(output, Values):
        dense = dense.in_full()
        images = (replace(dense, values=dense.values[b : b + 1]) for b in range(len(dense.values)))
        return [_regions(scores, label)[:top] for scores in images]
    scores = reading.scores(output).in_full()
    best = scores.values.topk(min(5 if top is None else top, scores.values.shape[1]))
    sure = scores.probabilities.gather(1, best.indices)
    return [
        [Prediction(i, label(i), s, p) for i, s, p in zip(*row, strict=True)]
        for row in zip(best.indices.tolist(), best.values.tolist(), sure.tolist(), strict=True)
    ]


def _detections(output: Detections, image: int, geometry: Geometry, label: Callable[[int], str]) -> list[Prediction]:
    result = []
    for row, index in output.kept[image]:
        left, top, right, bottom = on_picture(output.boxes_of(index)[image, row], geometry).tolist()
        score, sure = (float(t[image, row, index]) for t in (output.scores, output.probabilities))
        result.append(Prediction(index, label(index), score, sure, (left, top, right, bottom)))
    return result


def _regions(scores: Scores, label: Callable[[int], str]) -> list[Prediction]:
    """The classes that some place is of, from one image's ``(1, K, *grid)``; of a single score, where it says yes."""
    values, logits, sure = scores.values[0], scores.logits[0], scores.probabilities[0]
    winner = logits.argmax(0) if len(logits) > 1 else (logits[0] <= 0).long()
    result = []
    for index in range(len(values)):
        own = winner == index
        if own.any():
            score, probability = (float(t[index][own].mean()) for t in (values, sure))
            share = float(own.float().mean())
            result.append(Prediction(index, label(index), score, probability, share=share))
    return sorted(result, key=lambda region: -(region.share or 0))
