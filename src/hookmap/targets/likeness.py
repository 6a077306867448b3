"""Targets in a space of embeddings: a vector, a text, another picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hookmap.adapters.outputs import vectors_in
from hookmap.errors import TargetError
from hookmap.hooks.preserve import preserved
from hookmap.targets.classes import Class, Contrast, Goal, PerImage


@dataclass(frozen=True, eq=False)
class Similarity:
    r"""How alike an image's embedding :math:`v` and a reference :math:`r` are: :math:`\frac{v \cdot r}{|v| |r|}`.

    Attributes:
        reference: a vector ``(D,)`` of any length in the model's space.
        name: how it's called in results.

    >>> import torch
    >>> Similarity(torch.tensor([0.0, 2.0]))(torch.tensor([[3.0, 4.0]]))
    tensor([0.8000])
    """

    reference: Tensor = field(repr=False)
    name: str = "the reference"

    def __post_init__(self) -> None:
        if self.reference.ndim != 1 or not self.reference.any() or not self.reference.isfinite().all():
            raise TargetError(
                f"a reference of shape {tuple(self.reference.shape)} came; expected one vector (D,) of finite numbers "
                "that aren't all zero"
            )
        object.__setattr__(self, "reference", self.reference.detach())

    def __call__(self, output: Any) -> Tensor:
        """Cosines ``(B,)``, -1..1, from embeddings ``(B, D)``."""
        vectors = vectors_in(output)
        if vectors.shape[1] != len(self.reference):
            raise TargetError(
                f"the reference has {len(self.reference)} dimensions and the model's embeddings {vectors.shape[1]}; "
                "they must come from one model"
            )
        if vectors.dtype in (torch.float16, torch.bfloat16):
            vectors = vectors.float()
        return F.cosine_similarity(vectors, self.reference.to(vectors)[None])

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Text:
    """A text, for models that read texts: the :class:`Similarity` to its embedding.

    Attributes:
        words: as the model was trained to read them, e.g. ``"a photo of a red car"``.
    """

    words: str

    def __post_init__(self) -> None:
        if not self.words.strip():
            raise TargetError("an empty text was given; pass words, e.g. hm.Text('a red car')")

    def __call__(self, output: Any) -> Tensor:
        """A text has no score before a model has read it."""
        raise TargetError(f"{self.words!r} is a text: pass hm.Text({self.words!r}) to Lens.explain")

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True, eq=False)
class Likeness:
    """What is like another picture: the :class:`Similarity` to its embedding.

    Attributes:
        image: anything that ``Lens.explain`` takes; of several images, the mean direction of their embeddings.
        name: how it's called in results; by default that of the file.
    """

    image: Any
    name: str | None = None

    def __call__(self, output: Any) -> Tensor:
        """A picture has no score before a model has seen it."""
        raise TargetError(f"{str(self)!r} is a picture: pass hm.Likeness to Lens.explain")

    def __str__(self) -> str:
        if self.name is None and isinstance(self.image, (str, Path)):
            return f"like {Path(self.image).stem}"
        return f"like {self.name or 'the other picture'}"


def reader_of(model: nn.Module, text: str) -> Callable[[Sequence[str]], Tensor]:
    """What makes embeddings ``(T, D)`` of T texts, in evaluation mode and without a graph.

    Raises:
        TargetError: for a model that reads none; ``text`` was to be read.
    """
    embed: Callable[[Sequence[str]], Tensor] | None = getattr(model, "embed_texts", None)
    plain: nn.Module = getattr(model, "plain", model)  # an adapter's own layers are those of its image tower
    if embed is None:
        raise TargetError(
            f"{type(plain).__name__} doesn't read texts, so {text!r} can't be found; pass an image-text model (CLIP, "
            "SigLIP: on the command line -m hf/ORG/NAME; your own hm.ImageText), or hm.Likeness(image)"
        )

    def read(texts: Sequence[str]) -> Tensor:
        # Not in inference mode: what was read meets gradients later.
        with preserved(plain), torch.inference_mode(False), torch.no_grad():
            return embed(texts)

    return read


def with_references(goal: Goal, model: nn.Module, embed: Callable[[Any], Tensor]) -> Goal:
    """The target with every text and picture in it replaced by the similarity to its embedding.

    Args:
        goal: what is asked.
        model: has ``embed_texts``, from T texts to ``(T, D)``, if it reads texts.
        embed: from images to their embeddings ``(N, D)``.

    Raises:
        TargetError: for a text where the model reads none, and a contrast of a similarity with a class.
    """
    if isinstance(goal, Contrast):
        this, that = (
            with_references(part, model, embed) if callable(part) else part for part in (goal.this, goal.that)
        )
        if {isinstance(part, Similarity) for part in (this, that)} == {True, False} and isinstance(
            this if isinstance(that, Similarity) else that, Class
        ):
            raise TargetError(f"{goal} compares a similarity with a class's score; pass hm.Text for both")
        return replace(goal, this=this, that=that)
    if isinstance(goal, PerImage):
        specs = (one for one in goal.targets)
        return replace(goal, targets=[with_references(s, model, embed) if callable(s) else s for s in specs])
    if isinstance(goal, Text):
        return Similarity(reader_of(model, goal.words)([goal.words])[0], str(goal))
    if isinstance(goal, Likeness):
        return Similarity(F.normalize(embed(goal.image), dim=1).mean(0), str(goal))
    return goal
