"""What of one or several pictures is like one place: feature vectors compared patch by patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap.attribution.concepts import LayerOutput, outputs_of_layer
from hookmap.attribution.engine import Engine
from hookmap.errors import LayerError, TargetError
from hookmap.hooks.matching import LayerSpec
from hookmap.images.geometry import Geometry
from hookmap.layers.choice import last_layer
from hookmap.methods import Method
from hookmap.methods.weighting import full_precision
from hookmap.render.look import Look
from hookmap.results.explanation import Explanation
from hookmap.results.heatmap import Heatmap
from hookmap.results.question import Position


def patch_similarity(activation: Tensor, vector: Tensor) -> Tensor:
    r"""Cosine of the feature vector at each place with one vector: :math:`\frac{A_{xy} \cdot v}{|A_{xy}| |v|}`.

    Args:
        activation: ``(B, C, *grid)``.
        vector: ``(C,)``.

    Returns:
        ``(B, *grid)``, -1..1.
    """
    shape = (1, -1, *[1] * (activation.ndim - 2))
    return F.cosine_similarity(activation, vector.reshape(shape), dim=1)


PATCHES = Method(
    "patchsimilarity",
    "Patch similarity",
    patch_similarity,
    family="activation",
    rectified=False,
    summary="cosine of each place's feature vector with that of one place",
    look=Look("signed", "symmetric", limit=1.0, ends=("unlike", "like")),
)


def similar_patches(
    engine: Engine, images: Any, point: tuple[float, float], layer: LayerSpec | None, *, centred: bool, batch_size: int
) -> Explanation:
    """One heatmap per image: how like the point's patch in the first image every patch is.

    Args:
        engine: of the model.
        images: as in :meth:`hookmap.Lens.explain`.
        point: (x, y) in pixels of the first picture.
        layer: whose features; by default the last that has places.
        centred: subtract the mean of all patches first.
        batch_size: images per forward pass.

    Raises:
        LayerError: if the layer has no rows and columns.
        TargetError: if the model doesn't see the point.
    """
    name, outputs = outputs_of_layer(engine, images, layer, lambda x: last_layer(engine.trace(x)), batch_size)
    first = outputs[0]
    if any(output.activation.ndim != 3 for output in outputs):
        raise LayerError(f"layer {name!r} holds a grid of {first.layout}, and a point needs rows and columns")

    def spanning(output: LayerOutput) -> Geometry:
        return output.view.geometry.spanning(engine.trace(output.view.tensor[None]).field)

    row, column = cell_at(spanning(first), first.activation.shape[1:], point)
    maps = [full_precision(output.activation) for output in outputs]
    if centred:
        mean = torch.cat([features.flatten(1) for features in maps], 1).mean(1)
        maps = [features - mean[:, None, None] for features in maps]
    vector = maps[0][:, row, column]
    x, y = point
    here = patch_at(spanning(first), first.activation.shape[1:], row, column)
    heatmaps = []
    for number, (output, features) in enumerate(zip(outputs, maps, strict=True)):
        raw = patch_similarity(features[None], vector)[0]
        heatmaps.append(
            Heatmap(
                raw=raw,
                picture=output.view.picture,
                geometry=spanning(output),
                method=PATCHES,
                look=PATCHES.look if centred else Look("signed", limit=1.0),
                layer=name,
                target=f"like {first.view.picture.name} at x {x:g} y {y:g}",
                index=None,
                score=float(raw.max()),
                box=here if number == 0 else None,
                position=Position(image=number),
            )
        )
    return Explanation(heatmaps)


def cell_at(geometry: Geometry, grid: Sequence[int], point: tuple[float, float]) -> tuple[int, int]:
    """The row and column of the cell that holds a point of the picture."""
    left, top, right, bottom = geometry.seen
    if not (left <= point[0] < right and top <= point[1] < bottom):
        raise TargetError(
            f"the point ({point[0]:g}, {point[1]:g}) lies outside of what the model sees of the picture: x from "
            f"{left:.0f} to {right:.0f}, y from {top:.0f} to {bottom:.0f}"
        )
    x, y = geometry.to_input(torch.tensor(point, dtype=torch.float64)).tolist()
    row, column = (int(at * cells // length) for at, cells, length in zip((y, x), grid, geometry.input, strict=True))
    return min(row, grid[0] - 1), min(column, grid[1] - 1)


def patch_at(geometry: Geometry, grid: Sequence[int], row: int, column: int) -> tuple[float, float, float, float]:
    """A cell on the picture, (left, top, right, bottom)."""
    high, wide = (length / cells for length, cells in zip(geometry.input, grid, strict=True))
    corners = [[column * wide, row * high], [(column + 1) * wide, (row + 1) * high]]
    left, top, right, bottom = geometry.to_original(torch.tensor(corners)).flatten().tolist()
    return max(left, 0.0), max(top, 0.0), min(right, geometry.original[1]), min(bottom, geometry.original[0])
