"""What models give, in forms that targets read: class scores, dense scores and values, detections, embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Tensor

from hookmap._nested import tensors_in
from hookmap.errors import TargetError

Form: TypeAlias = Literal["classes", "regions", "detections", "embeddings", "other"]
"""What a model gives: class scores ``(B, K)``, dense scores ``(B, K, h, w)`` or :class:`Values`, :class:`Detections`,
:class:`Embeddings`, or another thing."""


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
        least: the probability below which candidates aren't kept, if it is known; only messages need it.
        masks: per image, of the detections that are kept, in their order and for their own class, before the sigmoid,
            ``(D, h, w)`` across their box; or None.
        keypoints: per image, of the detections that are kept, in their order, what each keypoint scores where it is
            found, before sigmoid or softmax, ``(D, J)``; or None.
        joints: the names of the J keypoints, if they are known.
    """

    scores: Tensor
    boxes: Tensor
    probabilities: Tensor
    kept: Sequence[Sequence[Kept]]
    fixed: bool = True
    least: float | None = None
    masks: Sequence[Tensor] | None = None
    keypoints: Sequence[Tensor] | None = None
    joints: Sequence[str] = ()

    def boxes_of(self, index: int) -> Tensor:
        """All candidates' boxes for a class, ``(B, N, 4)``."""
        return self.boxes[:, :, index] if self.boxes.ndim == 4 else self.boxes


@dataclass
class Values:
    """What a model measures at each place of a batch, where that is no score of a class: depth, height, flow.

    Attributes:
        dense: ``(B, R, h, w)``, in the model's own units; labels name the R values.
    """

    dense: Tensor


@dataclass
class Embeddings:
    """What a model makes of a batch: one vector per image, so that what is alike is near.

    Attributes:
        vectors: ``(B, D)``, of any length.
        logits: of the classes that have names, ``(B, K)``, where the model reads texts and knows the names.
        independent: whether each name is a yes or no by itself, by sigmoid, as SigLIP is trained, and not one of all.
    """

    vectors: Tensor
    logits: Tensor | None = None
    independent: bool = False


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
    """The scores in a model's output: the tensor itself, ``logits``, ``out``, or the first that has a batch axis.

    Outputs are tensors, or tuples, lists, dicts and dataclasses that hold tensors.
    """
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "out"):
        if hasattr(output, name):
            return getattr(output, name)
        if isinstance(output, Mapping) and name in output:
            return output[name]
    return next((t for t in tensors_in(output).values() if t.ndim and t.is_floating_point()), output)


def distribution(scores: Tensor, axis: int = 1) -> Tensor:
    """Probabilities by softmax over an axis of classes; a single score is a yes or no, by sigmoid."""
    return scores.softmax(axis) if scores.shape[axis] > 1 else scores.sigmoid()


def class_scores(output: Any) -> Tensor:
    """The ``(B, K)`` class scores in a model's output, found by :func:`scores_in`; ``(B,)`` are those of one class.

    Raises:
        TargetError: if there's no such tensor, with what to pass instead.
    """
    scores = scores_in(output)
    if isinstance(scores, Tensor) and scores.ndim in (1, 2):
        return scores if scores.ndim == 2 else scores[:, None]
    if isinstance(output, Embeddings):
        raise TargetError(
            "this model gives an embedding of each image and no classes; pass target=hm.Text('a red car') or, to Lens, "
            "labels=[...] if it reads texts, else target=hm.Likeness(image)"
        )
    if isinstance(output, Values):
        raise TargetError(
            "this model measures values at places and no classes; ask for one with explain(image, hm.Point(x, y)), "
            "hm.Box or hm.Everywhere()"
        )
    got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else f"a {type(output).__name__}"
    raise TargetError(
        f"the model's output is {got}, expected class scores (B, classes); pass target= a function of the "
        "output that gives one score per image, (B,)"
    )


def probabilities_in(output: Any) -> Tensor:
    """Probabilities ``(B, K)`` of the classes, 0..1: by softmax, of a yes or no by sigmoid.

    Raises:
        TargetError: if there are no class scores.
    """
    scores = class_scores(output).float()
    return scores.sigmoid() if are_independent(output) else distribution(scores)


def are_independent(output: Any) -> bool:
    """Whether each class of an output is a yes or no by itself."""
    return isinstance(output, Embeddings) and output.independent


def form_of(output: Any) -> Form:
    """What a model's output is to targets."""
    if isinstance(output, Detections):
        return "detections"
    if isinstance(output, Embeddings):
        return "embeddings"
    scores = scores_in(output)
    if not isinstance(scores, Tensor) or scores.ndim not in (1, 2, 4):
        return "other"
    return "regions" if scores.ndim == 4 else "classes"


def classes_in(output: Any) -> int | None:
    """How many classes a model's output tells apart, or None if it gives none."""
    if isinstance(output, Detections):
        return output.scores.shape[-1]
    form = form_of(output)
    if form == "classes":
        return class_scores(output).shape[1]
    dense = dense_scores(output) if form == "regions" else None
    return None if dense is None else dense.shape[1]


def dense_scores(output: Any) -> Tensor | None:
    """The ``(B, K, h, w)`` scores or values of a dense output, or None if it isn't one."""
    scores = scores_in(output)
    return scores if isinstance(scores, Tensor) and scores.ndim == 4 else None


def vectors_in(output: Any) -> Tensor:
    """The embeddings in a model's output, ``(B, D)``: of :class:`Embeddings`, or the tensor itself.

    Raises:
        TargetError: if there's no such tensor.
    """
    vectors = output.vectors if isinstance(output, Embeddings) else output
    if isinstance(vectors, Tensor) and vectors.ndim == 2:
        return vectors
    got = f"shape {tuple(vectors.shape)}" if isinstance(vectors, Tensor) else f"a {type(vectors).__name__}"
    raise TargetError(
        f"the model's output is {got}, expected embeddings (B, D); wrap the model in hm.Embedder, or give "
        "hm.Embeddings in an adapter of yours"
    )
