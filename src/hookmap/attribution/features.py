"""From captured layers to feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hookmap.attribution.engine import Batch
from hookmap.errors import ImageError, LayerError
from hookmap.hooks.capture import Capture, capture
from hookmap.hooks.matching import LayerSpec, match_layers
from hookmap.hooks.preserve import preserved
from hookmap.layers.trace import Trace
from hookmap.results.features import LayerMaps
from hookmap.targets import Goal
from hookmap.targets.resolved import ResolvedTargets


def features_of_batch(batch: Batch, layers: LayerSpec, goal: Goal | None = None) -> list[LayerMaps]:
    """Feature maps of the layers of a batch, with gradients of a target if one is given.

    Raises:
        LayerError: if a layer that was named can't be read as a grid, or none of a pattern's can.
    """
    engine, x = batch.engine, batch.x
    traced = engine.trace(x)
    names = list(match_layers(engine.called, layers))
    model = engine.execution.module(names)

    def differentiated(seen: Capture, output: Any) -> None:
        if goal is not None:
            geometries = [view.geometry for view in batch.views]
            goals = ResolvedTargets([goal], output, geometries, engine.label, traced.reading, x.shape[2:])
            seen.differentiate(goals.scores(output)[0], layers=names)

    if batch.passes is not None:
        with preserved(engine.model), torch.enable_grad():
            kept = batch.passes.over(model, x, names, engine.execution.casting(x), attention=False)
            differentiated(*kept)
        return layer_maps(kept[0].without_graph(names), traced, layers)
    with preserved(engine.model), capture(model, names, gradients=goal is not None) as seen:
        with engine.execution.casting(x):
            output = model(x)
        differentiated(seen, output)
    return layer_maps(seen, traced, layers)


def layer_maps(seen: Capture, traced: Trace, spec: LayerSpec) -> list[LayerMaps]:
    """Feature maps of the captured layers, each under its own name, in the order in which they ran.

    Raises:
        LayerError: if a layer that was named can't be read as a grid, or none of a pattern's can.
    """
    # A layer asked for by its very name must be readable; what a pattern brought along may be left out.
    asked = [spec] if isinstance(spec, (str, nn.Module, type)) else list(spec)
    features = []
    for name in seen.order:
        info = traced.info(name)
        vector = info.shape is not None and len(info.shape) == 2
        if info.layout is None and not vector and name not in asked:
            continue
        layout = None if vector else traced.layout(name)
        for i, call in enumerate(seen[name].calls):
            key = next(iter(call.activations))
            maps, gradient = call.activation, call.gradients.get(key)
            if layout is not None:
                own = layout.of_call(maps)
                maps = own.to_grid(maps)
                gradient = own.to_grid(gradient) if gradient is not None else None
            title = name if i == 0 else f"{name}#{i + 1}"
            features.append(LayerMaps(title, info.kind, maps, str(layout or "vector"), gradient))
    if not features:
        raise LayerError(f"none of the layers {list(seen)[:5]} ran and gave feature maps; pass other layers")
    return features


def joined(parts: Sequence[list[LayerMaps]]) -> list[LayerMaps]:
    """Feature maps of several batches as those of one.

    Raises:
        ImageError: if the batches have different input sizes.
    """
    if len(parts) == 1:
        return parts[0]
    joined = []
    for same in zip(*parts, strict=True):
        first = same[0]
        if any(layer.maps.shape[1:] != first.maps.shape[1:] for layer in same):
            raise ImageError("the images have different input sizes; ask for the features of each size on its own")
        gradients = [layer.gradient for layer in same if layer.gradient is not None]
        joined.append(
            LayerMaps(
                first.name,
                first.kind,
                torch.cat([layer.maps for layer in same]),
                first.layout,
                torch.cat(gradients) if gradients else None,
            )
        )
    return joined
