"""What models give, in forms that targets read: class scores, dense scores and values, detections, embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hookmap.adapters.promptable import Promptable
from hookmap.errors import TargetError

Form: TypeAlias = Literal["classes", "regions", "detections", "embeddings", "masks", "other"]
"""What a model gives: class scores ``(B, K)``, dense scores ``(B, K, *grid)`` or :class:`Values`, :class:`Detections`,
:class:`Embeddings`, the masks of prompts (:class:`hookmap.Promptable`), or another thing."""

Squashed: TypeAlias = Literal["softmax", "sigmoid"] | None
"""What made probabilities of a model's scores within the model; None: nothing, they are logits."""


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


def distribution(scores: Tensor, axis: int = 1) -> Tensor:
    """Probabilities by softmax over an axis of classes; a single score is a yes or no, by sigmoid."""
    return scores.softmax(axis) if scores.shape[axis] > 1 else scores.sigmoid()


@dataclass(frozen=True)
class Scores:
    """The scores of classes in an output, ``(B, K)`` or at each place ``(B, K, *grid)``, and what they are.

    Attributes:
        values: as the model gives them.
        squashed: what the model has applied to them itself, so that they are probabilities already; None: they are
            logits.
        independent: whether each class is a yes or no by itself.
    """

    values: Tensor
    squashed: Squashed = None
    independent: bool = False

    def in_full(self) -> Scores:
        """The same in float32 at least."""
        return replace(self, values=self.values.float() if self.values.dtype != torch.float64 else self.values)

    @property
    def logits(self) -> Tensor:
        """What softmax, or sigmoid where classes are independent, makes the probabilities of."""
        return self._log(self.values) if self.squashed == "softmax" else self.log_odds

    @property
    def log_odds(self) -> Tensor:
        """What sigmoid makes of each class a yes or no: the logits, or the log-odds of what are probabilities."""
        return self.values if self.squashed is None else self._log(self.values) - self._log(1 - self.values)

    def _log(self, share: Tensor) -> Tensor:
        return share.clamp(min=torch.finfo(share.dtype).tiny).log()

    @property
    def probabilities(self) -> Tensor:
        """0..1."""
        if self.squashed is not None:
            return self.values
        return self.values.sigmoid() if self.independent else distribution(self.values)


@dataclass(frozen=True)
class Reading:
    """How the outputs of a model are read: decided on its answer to one image, and the same for every batch.

    Attributes:
        form: what the model gives.
        place: of the scores among the output's tensors: names and numbers, dotted; empty if the output is the tensor.
        classes: how many classes it tells apart, or values it gives at a place; None if neither.
        squashed: what the model has applied to its scores itself.
        remark: what the user should know of this choice, or empty.
    """

    form: Form = "other"
    place: str | None = None
    classes: int | None = None
    squashed: Squashed = None
    remark: str = ""

    def raw(self, output: Any) -> Any:
        """The tensor that is read; of an output that holds none, the output itself."""
        if self.place is None or (isinstance(output, Tensor) and not self.place):
            return output
        tensors = dict(_tensors(output))
        if self.place not in tensors:
            raise TargetError(
                f"the model's output has no {self.place!r} here, as it had for the first image; pass target= a "
                "function of the output that gives one score per image, (B,)"
            )
        return tensors[self.place]

    def scores(self, output: Any) -> Scores:
        """The class scores ``(B, K)``; ``(B,)`` are those of one class.

        Raises:
            TargetError: if there are none, with what to pass instead.
        """
        raw = self.raw(output)
        if not isinstance(raw, Tensor) or not _per_image(raw.shape):
            raise TargetError(_no_classes(output, raw))
        values = raw[:, None] if raw.ndim == 1 else raw.flatten(1)
        return Scores(values, self.squashed, are_independent(output) or self.squashed == "sigmoid")

    def dense(self, output: Any) -> Scores | None:
        """The scores or values at places ``(B, K, *grid)``, or None if the output has no places."""
        raw = self.raw(output)
        if (
            isinstance(output, (Detections, Embeddings, Promptable))
            or not isinstance(raw, Tensor)
            or not _at_places(raw.shape)
        ):
            return None
        return Scores(raw, self.squashed, self.squashed == "sigmoid")


def read(output: Any, labels: int | None = None, size: Sequence[int] = ()) -> Reading:
    """How a model's outputs are read, from its answer to one or more images.

    Where it gives several tensors (tuples, lists, dicts, dataclasses), names that say what they are win (``logits``,
    ``scores``, ``out``, ...), then agreement with the number of labels, then the shape: scores of images and of places
    in the input's own size before feature maps. What then is still open is remarked.

    Args:
        output: of the model.
        labels: how many class names are known, if any.
        size: of the input, (H, W).
    """
    if isinstance(output, Detections):
        return Reading("detections", None, output.scores.shape[-1])
    if isinstance(output, Values):
        return Reading("regions", "dense", output.dense.shape[1])
    if isinstance(output, Promptable):
        return Reading("masks", "features.0")
    place, remark = _choose(dict(_tensors(output)), labels, tuple(size))
    if isinstance(output, Embeddings):
        return Reading("embeddings", "logits" if output.logits is not None else None)
    if place is None:
        return Reading()
    reading = Reading(place=place, remark=remark)
    raw = reading.raw(output)
    if not (_per_image(raw.shape) or _at_places(raw.shape)):
        return reading
    form: Form = "classes" if _per_image(raw.shape) else "regions"
    reading = replace(reading, form=form, classes=raw.shape[1] if raw.ndim > 1 else 1)
    if _sums_to_one(raw):
        said = "the model gives probabilities itself (they sum to one), so no softmax is applied to them again"
        reading = replace(reading, squashed="softmax", remark="; ".join(filter(None, (remark, said))))
    return reading


def may_be_probabilities(reading: Reading, output: Any) -> bool:
    """Whether all scores lie in 0..1 although they don't sum to one: by a sigmoid, or by chance."""
    if reading.classes is None or reading.squashed or isinstance(output, (Detections, Embeddings, Values)):
        return False
    return _in_unit_interval(reading.raw(output))


class Sigmoids(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches which tensors a sigmoid makes while a model runs, whether or not it records gradients."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: list[Tensor] = []  # kept, so that no other tensor takes their memory

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operator; views need no notice, because they share their memory."""
        result = operator(*args, **(kwargs or {}))
        name = operator.name().removeprefix("aten::").partition(".")[0]
        if name in ("sigmoid", "sigmoid_") or (re.match(_REARRANGES, name) and self.made(args[0])):
            self._made.append(result)
        elif name.endswith("_") and self.made(args[0]):  # changed in place, it is no sigmoid's any more
            self._made = [made for made in self._made if _memory(made) != _memory(args[0])]
        return result

    def made(self, tensor: Any) -> bool:
        """Whether this is a sigmoid's, perhaps as a view or at another size."""
        return (
            isinstance(tensor, Tensor)
            and tensor.layout == torch.strided
            and _memory(tensor) in map(_memory, self._made)
        )

    def told(self, reading: Reading, output: Any) -> Reading:
        """The reading of scores in 0..1 of the run that was watched."""
        if not self.made(reading.raw(output)):
            return reading
        said = "the model gives probabilities itself (by a sigmoid), so none is applied to them again"
        return replace(reading, squashed="sigmoid", remark="; ".join(filter(None, (reading.remark, said))))


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


_REARRANGES = "clone|_to_copy|copy|contiguous|upsample|index_select|_unsafe"

# What outputs are called, by the words of their names, best first.
_SAY_SCORES = (
    {"logits", "logit"},
    {"scores", "score"},
    {"probabilities", "probability", "probs", "prob"},
    {"predictions", "prediction", "predicted", "preds", "pred", "yhat"},
    {"out", "output", "outputs"},
    {"classes", "class", "cls", "classification", "classifier"},
)
_SAY_OTHER = {
    *("aux", "auxiliary", "loss", "losses", "feature", "features", "feat", "feats", "embedding", "embeddings"),
    *("embeds", "embed", "hidden", "state", "states", "attention", "attentions", "attn", "box", "boxes", "bbox"),
    *("bboxes", "token", "tokens", "latent", "latents", "pooled", "pooler", "backbone", "anchors", "masks"),
}


def _naming(place: str) -> int:
    """How well a name says that scores are there, 0 best; names that say otherwise come after those that are silent."""
    name = next((part for part in reversed(place.split(".")) if not part.isdigit()), "")
    words = set(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold().replace("y_hat", "yhat")))
    unnamed = len(_SAY_SCORES)
    if words & _SAY_OTHER:
        return unnamed + 1
    return next((rank for rank, known in enumerate(_SAY_SCORES) if words & known), unnamed)


def _choose(tensors: Mapping[str, Tensor], labels: int | None, size: tuple[int, ...]) -> tuple[str | None, str]:
    """The place of the scores, and what is to be said of the choice."""
    best = min(map(_naming, tensors), default=0)
    named = {place: t for place, t in tensors.items() if _naming(place) == best}
    readable = {place: t for place, t in named.items() if _per_image(t.shape) or _at_places(t.shape)} or named
    agreeing = {p: t for p, t in readable.items() if t.shape[1:2] == (labels,)} or readable
    kinds = {place: _likeliness(t.shape, size) for place, t in agreeing.items()}
    likely = [place for place, kind in kinds.items() if kind == min(kinds.values())]
    shapes = {place: tuple(agreeing[place].shape) for place in likely}
    if len(set(shapes.values())) < 2:
        return (likely[0] if likely else None), ""
    listed = ", ".join(f"{place!r} {shape}" for place, shape in shapes.items())
    return likely[0], (
        f"the model gives several tensors that may be its scores ({listed}), and {likely[0]!r} is read; pass labels= "
        "to Lens if it is another, or give the scores alone in an hm.Adapter"
    )


def _likeliness(shape: Sequence[int], size: tuple[int, ...]) -> int:
    """What scores are by their shape, 0 the likeliest: of images or of the input's own places, one number, a grid."""
    if (_per_image(shape) and len(shape) > 1) or (_at_places(shape) and tuple(shape[2:]) == size):
        return 0
    return 1 if _per_image(shape) else 2


def _per_image(shape: Sequence[int]) -> bool:
    """``(B,)``, ``(B, K)``, or ``(B, K, 1, 1)`` of a convolutional head."""
    return len(shape) in (1, 2) or (len(shape) in (4, 5) and set(shape[2:]) == {1})


def _at_places(shape: Sequence[int]) -> bool:
    """``(B, K, h, w)``, or of a volume or a clip ``(B, K, d, h, w)``."""
    return len(shape) in (4, 5) and not _per_image(shape)


def _tensors(output: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors of an output that have a batch axis, by their places."""
    if isinstance(output, Tensor):
        if output.ndim and output.is_floating_point():
            yield place, output
        return
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(output, Mapping):
        parts = output.items()
    elif isinstance(output, (tuple, list)):
        parts = zip(getattr(output, "_fields", range(len(output))), output, strict=True)
    elif hasattr(output, "__dict__"):
        parts = (
            (name, value) for name, value in vars(output).items() if isinstance(value, (Tensor, tuple, list, dict))
        )
    for name, value in parts:
        yield from _tensors(value, f"{place}.{name}" if place else str(name))


def _in_unit_interval(values: Tensor) -> bool:
    return values.device.type != "meta" and bool(((values >= 0) & (values <= 1)).all())


def _sums_to_one(values: Tensor) -> bool:
    """Whether several classes share a whole, as after softmax."""
    if values.ndim < 2 or values.shape[1] < 2 or not _in_unit_interval(values):
        return False
    sums, half = values.detach().float().sum(1), values.dtype in (torch.float16, torch.bfloat16)
    return bool((sums - 1).abs().max() < (0.02 if half else 1e-4))


def _no_classes(output: Any, raw: Any) -> str:
    if isinstance(output, Embeddings):
        return (
            "this model gives an embedding of each image and no classes; pass target=hm.Text('a red car') or, to Lens, "
            "labels=[...] if it reads texts, else target=hm.Likeness(image)"
        )
    if isinstance(output, Values):
        return (
            "this model measures values at places and no classes; ask for one with explain(image, hm.Point(x, y)), "
            "hm.Box or hm.Everywhere()"
        )
    if isinstance(output, Promptable):
        return (
            "this model gives no classes but the mask of what it is pointed at; explain a prompt: hm.Point(x, y), "
            "hm.Box(left, top, right, bottom), hm.Prompt(points=..., background=...), or in words point:X,Y"
        )
    got = f"shape {tuple(raw.shape)}" if isinstance(raw, Tensor) else f"a {type(output).__name__}"
    return (
        f"the model's output is {got}, expected class scores (B, classes); pass target= a function of the "
        "output that gives one score per image, (B,)"
    )


def class_scores(output: Any) -> Tensor:
    """The class scores ``(B, K)`` in an output, found by :func:`read`.

    Raises:
        TargetError: if there are none, with what to pass instead.
    """
    return read(output).scores(output).values


def are_independent(output: Any) -> bool:
    """Whether each class of an output is a yes or no by itself."""
    return isinstance(output, Embeddings) and output.independent


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
