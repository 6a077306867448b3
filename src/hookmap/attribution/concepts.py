"""From images to concepts: one layer's activations of all images, factorised together and named by the model's head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hookmap.attribution.engine import Engine
from hookmap.errors import HookmapError, ImageError, LayerError, TargetError
from hookmap.hooks.capture import capture
from hookmap.hooks.matching import LayerSpec, match_layers
from hookmap.hooks.preserve import preserved
from hookmap.images.views import View
from hookmap.layers.layouts import Layout
from hookmap.methods.factorization import Factors, joined_signs, nmf, pca, split_signs
from hookmap.results.concepts import Concept, Concepts, Factorization
from hookmap.targets import Class

CONCEPTS = 5
"""So many are found where no number is named."""


@dataclass(frozen=True, eq=False)
class LayerOutput:
    """One image and what a layer made of it.

    Attributes:
        view: the image.
        layout: how the layer holds its grid.
        activation: ``(C, *grid)``.
    """

    view: View
    layout: Layout
    activation: Tensor


def outputs_of_layer(
    engine: Engine, images: Any, layer: LayerSpec | None, default: Callable[[Tensor], str], batch_size: int
) -> tuple[str, list[LayerOutput]]:
    """What one layer makes of images, and its name.

    Args:
        engine: of the model.
        images: as in :meth:`hookmap.Lens.explain`.
        layer: which; None: what ``default`` says for the first batch's input.
        default: from an input to a layer's name.
        batch_size: images per forward pass.

    Raises:
        LayerError: if several layers are named.
    """
    if isinstance(images, Mapping):
        raise ImageError("inputs by name are for explain, features and predict; pass the preprocessed image alone")
    name, outputs = "", list[LayerOutput]()
    for batch in engine.batches(images, batch_size):
        name = name or (default(batch.x) if layer is None else _only_layer(engine.called, layer))
        layout = engine.trace(batch.x).layout(name)
        with preserved(engine.model), capture(engine.called, [name], gradients=False) as captured:
            engine.called(batch.x)
        maps = layout.to_grid(captured[name].activation)
        outputs += [LayerOutput(view, layout, grid) for view, grid in zip(batch.views, maps, strict=True)]
    return name, outputs


def _only_layer(model: nn.Module, spec: LayerSpec) -> str:
    """The name of the only layer that is meant.

    Raises:
        LayerError: if there is none, or there are several.
    """
    names = list(match_layers(model, spec))
    if len(names) > 1:
        raise LayerError(f"this is about one layer, and {spec!r} names {len(names)}: {', '.join(names[:4])}, ...")
    return names[0]


def find_concepts(
    engine: Engine,
    images: Any,
    layer: LayerSpec | None,
    count: int,
    method: Factorization,
    *,
    top: int,
    seed: int | None,
    batch_size: int,
) -> Concepts:
    """Concepts that all images share: see :meth:`hookmap.Lens.concepts`.

    Raises:
        HookmapError: if the activation can't be factorised.
    """
    name, outputs = outputs_of_layer(engine, images, layer, engine.default_layer, batch_size)
    places = torch.cat([output.activation.flatten(1).mT for output in outputs])
    memberships, vectors, shares = _factorised(places, count, method, seed)
    grids = [output.activation.shape[1:] for output in outputs]
    parts = torch.split(memberships, [math.prod(grid) for grid in grids])
    maps = [part.mT.reshape(-1, *grid) for part, grid in zip(parts, grids, strict=True)]
    classes: list[list[tuple[Class, float]]] = [[] for _ in vectors]
    if method == "nmf" and top > 0:
        try:
            with preserved(engine.model):
                classes = _classes_of(engine, name, outputs, maps, vectors, top)
        except TargetError:
            pass  # the output isn't classes: concepts have no names
        except LayerError as error:
            engine.remark(f"concepts have no names: {error}")
    concepts = [
        Concept(vector, share, tuple(c for c, _ in likely), tuple(p for _, p in likely))
        for vector, share, likely in zip(vectors, shares.tolist(), classes, strict=True)
    ]
    return Concepts(concepts, maps, [output.view for output in outputs], layer=name, method=method)


def _factorised(places: Tensor, count: int, method: Factorization, seed: int | None) -> Factors:
    if method == "pca":
        return pca(places, count)
    if method != "nmf":
        raise HookmapError(f"there's no factorisation {method!r}; use 'nmf' or 'pca'")
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    if not bool((places < 0).any()):
        return nmf(places, count, generator=generator)
    memberships, vectors, shares = nmf(split_signs(places), count, generator=generator)
    return Factors(memberships, joined_signs(vectors), shares)


def _classes_of(
    engine: Engine, layer: str, outputs: Sequence[LayerOutput], maps: Sequence[Tensor], vectors: Tensor, top: int
) -> list[list[tuple[Class, float]]]:
    """Each concept's most probable classes when its vector is at every place.

    What reaches the output past the layer (a residual, a class token) is that of the image where the concept is
    strongest.
    """
    strongest = torch.stack([grid.flatten(1).amax(1) for grid in maps]).argmax(0).tolist()
    classes: list[list[tuple[Class, float]]] = [[] for _ in vectors]
    for image in dict.fromkeys(strongest):
        mine = [j for j in range(len(vectors)) if strongest[j] == image and bool(vectors[j].any())]
        if not mine:
            continue
        reading = engine.trace(engine.to_model(outputs[image].view.tensor[None])).reading
        probabilities = reading.scores(_replayed(engine, layer, outputs[image], vectors[mine])).in_full().probabilities
        best = probabilities.topk(min(top, probabilities.shape[1]))
        for j, sure, indices in zip(mine, best.values.tolist(), best.indices.tolist(), strict=True):
            classes[j] = [(Class(i, engine.label(i)), p) for i, p in zip(indices, sure, strict=True)]
    return classes


def _replayed(engine: Engine, layer: str, output: LayerOutput, vectors: Tensor) -> object:
    """The model's output with each of the vectors ``(m, C)`` at every place of the layer."""
    grid = output.activation.shape[1:]
    everywhere = vectors.reshape(*vectors.shape, *[1] * len(grid)).expand(*vectors.shape, *grid)
    with capture(engine.called, [layer], gradients=False) as captured:
        engine.called(engine.to_model(output.view.tensor[None]))
        last = len(captured[layer].calls) - 1
        axis = output.layout.batch_axis
        like = captured[layer].calls[last].activation.movedim(axis, 0)
        changed = output.layout.from_grid(everywhere.to(like.dtype), like)
        return captured.replay(layer, changed, sample=0, call=last, axis=axis)
