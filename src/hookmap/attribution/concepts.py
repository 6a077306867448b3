"""From images to concepts: one layer's activations of all images, factorised together and named by the model's head."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hookmap.adapters.outputs import class_scores
from hookmap.errors import HookmapError, LayerError, TargetError
from hookmap.hooks.capture import capture
from hookmap.hooks.matching import LayerSpec, match_layers
from hookmap.images.views import View
from hookmap.layers.layouts import Layout
from hookmap.methods.factorization import Factors, joined_signs, nmf, pca, split_signs
from hookmap.results.concepts import Concept, Concepts, Factorization
from hookmap.targets import Class


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked.

    Attributes:
        layer: where.
        concepts: how many.
        method: how.
        top: classes that name a concept.
        seed: of a random start, or None.
        label: names a class.
        to_model: puts an input where the model is.
    """

    layer: str
    concepts: int
    method: Factorization
    top: int
    seed: int | None
    label: Callable[[int], str]
    to_model: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Seen:
    """One image and what the layer made of it.

    Attributes:
        view: the image.
        layout: how the layer holds its grid.
        activation: ``(C, *grid)``.
    """

    view: View
    layout: Layout
    activation: Tensor


def one_layer(model: nn.Module, spec: LayerSpec) -> str:
    """The name of the only layer that is meant.

    Raises:
        LayerError: if there is none, or there are several.
    """
    names = list(match_layers(model, spec))
    if len(names) > 1:
        raise LayerError(f"concepts are of one layer, and {spec!r} names {len(names)}: {', '.join(names[:4])}, ...")
    return names[0]


def look(model: nn.Module, batch: Sequence[View], x: Tensor, layer: str, layout: Layout) -> list[Seen]:
    """What a layer makes of a batch of B images, ``x`` their input ``(B, C, *size)``."""
    with capture(model, [layer], gradients=False) as seen:
        model(x)
    maps = layout.to_grid(seen[layer].activation)
    return [Seen(view, layout, one) for view, one in zip(batch, maps, strict=True)]


def find_concepts(model: nn.Module, seen: Sequence[Seen], asked: Asked) -> tuple[Concepts, list[str]]:
    """Concepts that all images share, and remarks that the user should read.

    Args:
        model: in evaluation mode.
        seen: all images.
        asked: what is asked.

    Raises:
        HookmapError: if the activation can't be factorised.
    """
    places = torch.cat([one.activation.flatten(1).mT for one in seen])
    memberships, vectors, shares = _factorised(places, asked)
    grids = [one.activation.shape[1:] for one in seen]
    parts = torch.split(memberships, [math.prod(grid) for grid in grids])
    maps = [part.mT.reshape(-1, *grid) for part, grid in zip(parts, grids, strict=True)]
    remarks: list[str] = []
    names: list[list[tuple[Class, float]]] = [[] for _ in vectors]
    if asked.method == "nmf" and asked.top > 0:
        try:
            names = _named(model, seen, maps, vectors, asked)
        except TargetError:
            pass  # the output isn't classes: concepts have no names
        except LayerError as error:
            remarks.append(f"concepts have no names: {error}")
    found = [
        Concept(vector, share, tuple(c for c, _ in some), tuple(p for _, p in some))
        for vector, share, some in zip(vectors, shares.tolist(), names, strict=True)
    ]
    return Concepts(found, maps, [one.view for one in seen], layer=asked.layer, method=asked.method), remarks


def _factorised(places: Tensor, asked: Asked) -> Factors:
    if asked.method == "pca":
        return pca(places, asked.concepts)
    if asked.method != "nmf":
        raise HookmapError(f"there's no factorisation {asked.method!r}; use 'nmf' or 'pca'")
    generator = None if asked.seed is None else torch.Generator().manual_seed(asked.seed)
    if not bool((places < 0).any()):
        return nmf(places, asked.concepts, generator=generator)
    memberships, vectors, shares = nmf(split_signs(places), asked.concepts, generator=generator)
    return Factors(memberships, joined_signs(vectors), shares)


def _named(
    model: nn.Module, seen: Sequence[Seen], maps: Sequence[Tensor], vectors: Tensor, asked: Asked
) -> list[list[tuple[Class, float]]]:
    """Each concept's most probable classes when its vector is at every place.

    What reaches the output past the layer (a residual, a class token) is that of the image where the concept is
    strongest.
    """
    strongest = torch.stack([one.flatten(1).amax(1) for one in maps]).argmax(0).tolist()
    names: list[list[tuple[Class, float]]] = [[] for _ in vectors]
    for image in dict.fromkeys(strongest):
        mine = [j for j in range(len(vectors)) if strongest[j] == image and bool(vectors[j].any())]
        if not mine:
            continue
        logits = class_scores(_replayed(model, seen[image], vectors[mine], asked)).float()
        best = logits.softmax(1).topk(min(asked.top, logits.shape[1]))
        for j, sure, indices in zip(mine, best.values.tolist(), best.indices.tolist(), strict=True):
            names[j] = [(Class(i, asked.label(i)), p) for i, p in zip(indices, sure, strict=True)]
    return names


def _replayed(model: nn.Module, one: Seen, vectors: Tensor, asked: Asked) -> object:
    """The model's output with each of the vectors ``(m, C)`` at every place of the layer."""
    grid = one.activation.shape[1:]
    everywhere = vectors.reshape(*vectors.shape, *[1] * len(grid)).expand(*vectors.shape, *grid)
    with capture(model, [asked.layer], gradients=False) as seen:
        class_scores(model(asked.to_model(one.view.tensor[None])))
        last = len(seen[asked.layer].calls) - 1
        like = seen[asked.layer].calls[last].activation
        changed = one.layout.from_grid(everywhere.to(like.dtype), like)
        return seen.replay(asked.layer, changed, sample=0, call=last)
