"""What models give, in three forms that targets read: class scores, dense scores, detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from hookmap.errors import TargetError


class Kept(NamedTuple):
    """A detection that is left after post-processing: the row of its candidate, and its class."""

    row: int
    label: int


@dataclass
class Detections:
    """What a detector says of a batch: all candidates before post-processing, and which of them are left after it.

    Attributes:
        scores: of each candidate for each class before sigmoid or softmax, ``(B, N, K)``: what is differentiated.
        boxes: of all candidates, ``(B, N, 4)`` as x1, y1, x2, y2 in pixels of the input, or ``(B, N, K, 4)`` where each
            class has its own.
        probabilities: what the detector itself ranks by, 0..1, ``(B, N, K)``.
        kept: per image, the strongest first.
        fixed: whether a row is the same candidate in every image (an anchor, a query), so that changed copies of an
            image are compared row by row; otherwise by overlap.
    """

    scores: Tensor
    boxes: Tensor
    probabilities: Tensor
    kept: Sequence[Sequence[Kept]]
    fixed: bool = True

    def boxes_of(self, index: int) -> Tensor:
        """All candidates' boxes for a class, ``(B, N, 4)``."""
        return self.boxes[:, :, index] if self.boxes.ndim == 4 else self.boxes


def keep_best(
    boxes: Tensor, probabilities: Tensor, *, least: float = 0.25, overlap: float = 0.5, most: int = 100
) -> list[list[Kept]]:
    """The usual post-processing: probable candidates, without those that overlap a better one of their class.

    Args:
        boxes: ``(B, N, 4)``.
        probabilities: ``(B, N, K)``.
        least: smallest probability.
        overlap: largest intersection over union of two detections of one class.
        most: detections per image.
    """
    from torchvision.ops import batched_nms

    found = []
    for box, probability in zip(boxes.detach().float(), probabilities.detach().float(), strict=True):
        rows, classes = (probability > least).nonzero(as_tuple=True)
        order = batched_nms(box[rows], probability[rows, classes], classes, overlap)[:most]
        found.append([Kept(int(rows[i]), int(classes[i])) for i in order])
    return found


def scores_in(output: Any) -> Any:
    """The scores in a model's output: the tensor itself, ``.logits``, ``["logits"]``, ``["out"]`` or the first."""
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, dict):
        return output.get("logits", next(iter(output.values()), None))
    return output[0] if isinstance(output, (tuple, list)) and output else output


def class_scores(output: Any) -> Tensor:
    """The ``(B, K)`` class scores in a model's output, found by :func:`scores_in`.

    Raises:
        TargetError: if there's no such tensor, with what to pass instead.
    """
    scores = scores_in(output)
    if isinstance(scores, Tensor) and scores.ndim == 2:
        return scores
    got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else f"a {type(output).__name__}"
    raise TargetError(
        f"the model's output is {got}, expected class scores (B, classes); pass target= a function of the "
        "output that gives one score per image, (B,)"
    )


def dense_scores(output: Any) -> Tensor | None:
    """The ``(B, K, h, w)`` scores of a segmenter's output, or None if it isn't one."""
    scores = scores_in(output)
    return scores if isinstance(scores, Tensor) and scores.ndim == 4 else None
