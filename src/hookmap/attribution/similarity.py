"""What of one or several pictures is like one place: feature vectors compared patch by patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap.attribution.concepts import LayerOutput, outputs_of_layer
from hookmap.attribution.engine import Engine
from hookmap.errors import LayerError, TargetError
from hookmap.hooks.matching import LayerSpec
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
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


ROOM = 2**27
"""So many bytes of feature vectors does a bank hold."""

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
    name, outputs = _flat_outputs(engine, images, layer, batch_size)
    first = outputs[0]
    row, column = cell_at(_span(engine, first), first.activation.shape[1:], point)
    maps = [full_precision(output.activation) for output in outputs]
    if centred:
        maps = _centred(maps)
    vector = maps[0][:, row, column]
    x, y = point
    here = patch_at(_span(engine, first), first.activation.shape[1:], row, column)
    heatmaps = []
    for number, (output, features) in enumerate(zip(outputs, maps, strict=True)):
        raw = patch_similarity(features[None], vector)[0]
        heatmaps.append(
            Heatmap(
                raw=raw,
                picture=output.view.picture,
                geometry=_span(engine, output),
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


@dataclass(frozen=True, eq=False)
class Neighbour:
    """The patch of a picture that is most like another picture's.

    Attributes:
        key: of the picture.
        picture: that it is in.
        box: the patch, (left, top, right, bottom) in pixels of the picture.
        similarity: cosine of the two centred feature vectors, -1..1.
    """

    key: str
    picture: Picture
    box: tuple[float, float, float, float]
    similarity: float


@dataclass(frozen=True, eq=False)
class _Kept:
    picture: Picture
    geometry: Geometry
    features: Tensor


class PatchBank:
    """What a layer makes of every patch of many pictures, kept: another patch is compared without a pass of theirs.

    Args:
        engine: of the model.
        layer: whose features.
        room: in bytes of feature vectors.
    """

    def __init__(self, engine: Engine, layer: LayerSpec, room: int = ROOM) -> None:
        self._engine, self._layer, self._room = engine, layer, room
        self._kept: dict[str, _Kept] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._kept

    @property
    def full(self) -> bool:
        """Whether a picture like the largest of those that it holds has no room any more."""
        held = [kept.features.nbytes for kept in self._kept.values()]
        return sum(held) + max(held, default=0) > self._room

    def add(self, key: str, image: Any) -> None:
        """Keep the patches of a picture.

        Raises:
            ImageError: if it can't be read.
            LayerError: if the layer has no rows and columns.
        """
        self._kept[key] = self._seen(image)

    def nearest(self, image: Any, point: tuple[float, float], keys: Sequence[str], top: int) -> list[Neighbour]:
        """Of some of the pictures the patch that is most like the one at a point of an image, the most alike first.

        It is where :func:`similar_patches` of the image and these pictures, centred, is largest.

        Args:
            image: that holds the point.
            point: (x, y) in its pixels.
            keys: of the pictures.
            top: how many patches.

        Raises:
            LayerError: if the layer has no rows and columns.
            TargetError: if the model doesn't see the point.
        """
        asked = self._seen(image)
        row, column = cell_at(asked.geometry, asked.features.shape[1:], point)
        kept = [self._kept[key] for key in keys]
        first, *others = _centred([asked.features, *(one.features for one in kept)])
        found = []
        for key, one, features in zip(keys, kept, others, strict=True):
            alike = patch_similarity(features[None], first[:, row, column])[0]
            best = int(alike.argmax())
            box = patch_at(one.geometry, alike.shape, *divmod(best, alike.shape[1]))
            found.append(Neighbour(key, one.picture, box, float(alike.flatten()[best])))
        return sorted(found, key=lambda neighbour: -neighbour.similarity)[:top]

    def _seen(self, image: Any) -> _Kept:
        output = _flat_outputs(self._engine, image, self._layer, 1)[1][0]
        features = full_precision(output.activation).cpu()
        return _Kept(output.view.picture, _span(self._engine, output), features)


def _flat_outputs(
    engine: Engine, images: Any, layer: LayerSpec | None, batch_size: int
) -> tuple[str, list[LayerOutput]]:
    """What a layer makes of images, in rows and columns, and its name."""
    name, outputs = outputs_of_layer(engine, images, layer, lambda x: last_layer(engine.trace(x)), batch_size)
    if any(output.activation.ndim != 3 for output in outputs):
        raise LayerError(f"layer {name!r} holds a grid of {outputs[0].layout}, and a point needs rows and columns")
    return name, outputs


def _span(engine: Engine, output: LayerOutput) -> Geometry:
    return output.view.geometry.spanning(engine.trace(output.view.tensor[None]).field)


def _centred(maps: Sequence[Tensor]) -> list[Tensor]:
    """Feature maps ``(C, h, w)`` less the mean of all their places."""
    mean = torch.cat([features.flatten(1) for features in maps], 1).mean(1)
    return [features - mean[:, None, None] for features in maps]


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
