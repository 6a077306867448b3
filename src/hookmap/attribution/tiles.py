"""Pictures and volumes far larger than the model's input, explained tile by tile at their full resolution.

Tiles overlap, and every tile is a whole number of the map's cells away from the first, so the maps of all tiles add up
on one grid. Within a tile a cell counts most in the middle, and hardly at the border, where a tile's surroundings are
missing: by a Hann window in pictures, and in volumes by a Gaussian, as nnU-Net has it. What is kept of a tile is its
map; the size of a picture costs time, not memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from hookmap.attribution.batch import Plan, explain_batch
from hookmap.attribution.engine import Engine
from hookmap.errors import HookmapError, ImageError, TargetError
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.images.preprocessing import Preprocessing
from hookmap.images.views import View
from hookmap.results.heatmap import Heatmap
from hookmap.targets import PREDICTED, Class, Contrast, PerImage, Place

FEWEST_CELLS = 4

Start: TypeAlias = "tuple[int, ...]"
"""The first cell of a tile along each axis."""


@dataclass(frozen=True)
class Tiling:
    """Tiles over a picture or a volume, on a grid of cells that all tiles share.

    Attributes:
        size: of the whole, in pixels, such as (H, W).
        tile: cells per tile, such as (h, w).
        cells: of the whole, at least a tile's.
        starts: the first cells of the tiles along each axis.
    """

    size: tuple[int, ...]
    tile: tuple[int, ...]
    cells: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    @classmethod
    def over(cls, size: Sequence[int], side: Sequence[int], tile: Sequence[int], overlap: float) -> Tiling:
        """Tiles of about ``side`` pixels; they are stretched by less than a cell so that they fill the whole.

        Args:
            size: of the whole, such as (H, W).
            side: of a tile, in pixels, such as (h, w).
            tile: cells per tile.
            overlap: the least share of a tile that its neighbour covers too.
        """
        cells, starts = [], []
        for length, pixels, count in zip(size, side, tile, strict=True):
            total = max(count, round(length * count / pixels))
            step = max(1, math.floor(count * (1 - overlap)))
            number = math.ceil((total - count) / step) + 1
            cells.append(total)
            starts.append(tuple(round(i * (total - count) / max(1, number - 1)) for i in range(number)))
        return cls(tuple(size), tuple(tile), tuple(cells), tuple(starts))

    def __len__(self) -> int:
        return math.prod(map(len, self.starts))

    def __iter__(self) -> Iterator[Start]:
        """The first cell of every tile along each axis, such as (row, column)."""
        return itertools.product(*self.starts)

    def corner(self, start: Start) -> tuple[float, ...]:
        """Where a tile begins, in pixels."""
        return tuple(first * size / cells for first, size, cells in zip(start, self.size, self.cells, strict=True))

    def box(self, start: Start) -> tuple[float, float, float, float]:
        """A tile's (left, top, right, bottom) in pixels of the picture."""
        top, left = self.corner(start)
        bottom, right = self.corner(tuple(first + cells for first, cells in zip(start, self.tile, strict=True)))
        return left, top, right, bottom


Window: TypeAlias = "Callable[[int], Tensor]"
"""How much each of so many cells in a row counts, above 0 and up to 1."""


def hann(cells: int) -> Tensor:
    """A Hann window, float64, without its zeros at either end."""
    return torch.hann_window(cells + 2, periodic=False, dtype=torch.float64)[1:-1]


def gaussian(cells: int) -> Tensor:
    """A Gaussian of an eighth of the tile, float64: nnU-Net's (Isensee et al., Nature Methods 2021).

    >>> gaussian(5).max().item(), gaussian(64)[0].item() > 0
    (1.0, True)
    """
    away = (torch.arange(cells, dtype=torch.float64) - (cells - 1) / 2) / (cells / 8)
    return torch.exp(-(away**2) / 2)


class Blend:
    """Maps of tiles, added up on one grid, where each cell counts by its place in the tile."""

    def __init__(self, tiling: Tiling, like: Tensor, window: Window) -> None:
        self._finer = tuple(side / cells for side, cells in zip(like.shape, tiling.tile, strict=True))
        self._size = tuple(round(c * f) for c, f in zip(tiling.cells, self._finer, strict=True))
        sides = [window(n) for n in like.shape]
        self._window = reduce(lambda one, other: one[..., None] * other, sides).to(like)
        self._sum, self._weight = like.new_zeros(self._size), like.new_zeros(self._size)

    def add(self, start: Start, tile: Tensor) -> None:
        """One tile's map, such as ``(h, w)``."""
        sizes = zip(start, self._finer, self._size, tile.shape, strict=True)
        firsts = [(min(round(s * f), n - t), t) for s, f, n, t in sizes]
        place = tuple(slice(first, first + t) for first, t in firsts)
        self._sum[place] += self._window * tile
        self._weight[place] += self._window

    def map(self) -> Tensor:
        """The map of the whole."""
        return self._sum / self._weight.clamp(min=torch.finfo(self._weight.dtype).tiny)


def explain_in_tiles(
    engine: Engine,
    picture: Picture,
    plan: Plan,
    tile: Sequence[int] | None,
    overlap: float,
    batch_size: int,
    number: int = 0,
) -> list[Heatmap]:
    """Heatmaps of one picture, target by target, then layer and method, each blended from all tiles.

    Args:
        engine: of the model.
        picture: of any size.
        plan: what is asked, of all tiles the same; ``"predicted"`` is the class with the largest mean probability.
        tile: (h, w) in pixels of the picture; by default the model's input size. A tile is resized to the model's
            input, and nothing is cropped.
        overlap: the least share of a tile that its neighbour covers too.
        batch_size: tiles per forward pass.
        number: of the picture among all that were given.

    Raises:
        HookmapError: for an overlap or a tile that can't be.
        TargetError: for targets that are somewhere on the picture, or differ from image to image.
    """
    preprocessing = engine.preprocessing
    if preprocessing is None:
        raise ImageError("tiles are cut from pictures; pass to Lens how they are preprocessed")
    size = picture.height, picture.width
    side = _side(tile or preprocessing.size, size, overlap)
    whole = replace(preprocessing, resize=preprocessing.size, any_size=False)

    def cut(tiling: Tiling, start: Start) -> Tensor:
        return whole(_cut(picture, tiling.box(start), whole))[0]

    corner = whole(_cut(picture, (0, 0, side[1], side[0]), whole))[0]
    tiling = Tiling.over(size, side, _shared_cells(engine, corner, plan, 2), overlap)
    tiles = _Tiles(engine, tiling, batch_size, cut)
    if _asks_for_predicted(plan):
        predicted = tiles.most_probable()
        seen_whole = _most_probable(engine, [preprocessing(picture)[0][None]])
        if seen_whole != predicted:
            engine.remark(
                f"of {picture.name!r} the tiles together show {engine.label(predicted)!r}, which is explained, and the "
                f"picture seen as a whole shows {engine.label(seen_whole)!r}; pass target= the class that you mean"
            )
        plan = _fixed(plan, predicted)
    return [
        replace(
            heatmap,
            picture=picture,
            geometry=Geometry.identity(size),
            position=replace(heatmap.position, image=number),
        )
        for heatmap in tiles.explained(plan, hann)
    ]


def explain_volume_in_tiles(
    engine: Engine,
    volume: View,
    plan: Plan,
    tile: Sequence[int] | None,
    overlap: float,
    batch_size: int,
    number: int = 0,
) -> list[Heatmap]:
    """Likewise of one volume, by a sliding window weighted by a Gaussian, as nnU-Net predicts.

    A volume is repeated at its far edges to a whole number of cells, and to the size of a tile where it is smaller.

    Args:
        engine: of the model.
        volume: that is preprocessed already, ``(C, D, H, W)``.
        plan: as for pictures.
        tile: (d, h, w) in voxels: the size of the model's input.
        overlap: as for pictures.
        batch_size: likewise.
        number: of the volume among all that were given.

    Raises:
        HookmapError: likewise, and without a tile.
        TargetError: likewise.
    """
    if tile is None:
        raise HookmapError("a volume has no usual tile; pass tile= the size (d, h, w) of the model's input in voxels")
    x, frames = volume.tensor, volume.frames
    assert frames is not None, "what has four axes is a volume"
    side, size = _side(tile, None, overlap), x.shape[1:]
    corner = _continued(x[:, : side[0], : side[1], : side[2]], side)
    cells = _shared_cells(engine, corner, plan, 3)
    sizes = zip(size, side, cells, strict=True)
    filled = [
        max(pixels, round(math.ceil(length * count / pixels) * pixels / count)) for length, pixels, count in sizes
    ]
    x = _continued(x, filled)
    tiling = Tiling.over(filled, side, cells, overlap)

    def cut(tiling: Tiling, start: Start) -> Tensor:
        first = [min(round(c), n - s) for c, n, s in zip(tiling.corner(start), filled, side, strict=True)]
        return x[:, *(slice(f, f + s) for f, s in zip(first, side, strict=True))]

    tiles = _Tiles(engine, tiling, batch_size, cut)
    if _asks_for_predicted(plan):
        plan = _fixed(plan, tiles.most_probable())
    frames = np.concatenate([frames, *[frames[-1:]] * (filled[0] - len(frames))])
    return [
        replace(
            heatmap,
            picture=volume.picture,
            frames=frames,
            geometry=volume.geometry.spanning(filled),
            position=replace(heatmap.position, image=number),
        )
        for heatmap in tiles.explained(plan, gaussian)
    ]


def _side(tile: Sequence[int], size: Sequence[int] | None, overlap: float) -> tuple[int, ...]:
    """The sides of a tile, no larger than the whole where that has a size."""
    if not 0 <= overlap < 1:
        raise HookmapError(f"overlap is {overlap}; expected a share of the tile, 0 or more and less than 1")
    if min(tile) < 1:
        raise HookmapError(f"tile is {tuple(tile)}; expected its sides in pixels, 1 or more")
    return tuple(tile) if size is None else tuple(map(min, tile, size))


def _shared_cells(engine: Engine, corner: Tensor, plan: Plan, axes: int) -> list[int]:
    """Into how many cells a tile is divided along each axis: one tile tells on which grids the maps are.

    Args:
        engine: of the model.
        corner: the first tile, ``(C, *side)``.
        plan: what is asked.
        axes: of the grids.

    Raises:
        TargetError: for targets that can't be asked of every tile.
        ImageError: for maps on other grids.
    """
    for goal in plan.targets:
        if isinstance(goal, (Place, PerImage)):
            raise TargetError(f"{goal} is no target for tiles: pass one that can be asked of every tile, e.g. a class")
    grids = [heatmap.raw.shape for heatmap in _of_tiles(engine, corner[None], _fixed(plan, 0))]
    if any(len(grid) != axes for grid in grids):
        raise ImageError(f"maps on a grid of {tuple(grids[0])} came; tiles are of still pictures or of volumes")
    cells = [math.gcd(*(grid[axis] for grid in grids)) for axis in range(axes)]
    smallest = [min(grid[axis] for grid in grids) for axis in range(axes)]
    return [c if c >= FEWEST_CELLS else s for c, s in zip(cells, smallest, strict=True)]


@dataclass(frozen=True)
class _Tiles:
    """The tiles of one picture or volume.

    Attributes:
        engine: of the model.
        tiling: where they lie.
        batch_size: tiles per forward pass.
        cut: gives the input ``(C, *side)`` of a tile.
    """

    engine: Engine
    tiling: Tiling
    batch_size: int
    cut: Callable[[Tiling, Start], Tensor]

    def batches(self) -> Iterator[tuple[list[Start], Tensor]]:
        """First cells and inputs, batch by batch."""
        starts = iter(self.tiling)
        while batch := list(itertools.islice(starts, self.batch_size)):
            yield batch, torch.stack([self.cut(self.tiling, start) for start in batch])

    def most_probable(self) -> int:
        """The class with the largest mean probability."""
        return _most_probable(self.engine, (x for _, x in self.batches()))

    def explained(self, plan: Plan, window: Window) -> list[Heatmap]:
        """The heatmaps of the first tile, with maps, scores and probabilities of all."""
        count, done = len(self.tiling), plan.track("tiles", len(self.tiling))
        pattern: list[Heatmap] = []
        blends: list[Blend] = []
        scores: list[float] = []
        sure: list[float] = []
        for starts, x in self.batches():
            heatmaps = _of_tiles(self.engine, x, plan)
            done(len(starts))
            per = len(heatmaps) // len(starts)
            for i, start in enumerate(starts):
                mine = heatmaps[i * per : (i + 1) * per]
                if not blends:
                    pattern, blends = mine, [Blend(self.tiling, heatmap.raw, window) for heatmap in mine]
                    scores, sure = [0.0] * per, [0.0] * per
                for n, heatmap in enumerate(mine):
                    blends[n].add(start, heatmap.raw)
                    scores[n] += heatmap.score / count
                    sure[n] += (heatmap.probability or 0.0) / count
        return [
            replace(
                heatmap,
                raw=blends[n].map(),
                score=scores[n],
                probability=None if heatmap.probability is None else sure[n],
                where=f"{count} tiles",
                question=None,
            )
            for n, heatmap in enumerate(pattern)
        ]


def _continued(x: Tensor, size: Sequence[int]) -> Tensor:
    """A volume ``(C, D, H, W)`` of at least this size: its last slices, rows and columns are repeated."""
    more = [max(0, wanted - there) for wanted, there in zip(size, x.shape[1:], strict=True)]
    if not any(more):
        return x
    return torch.nn.functional.pad(x[None], (0, more[2], 0, more[1], 0, more[0]), mode="replicate")[0]


def _cut(picture: Picture, box: tuple[float, float, float, float], whole: Preprocessing) -> Picture:
    """A tile, resized to the model's input; nothing but the tile is copied."""
    from PIL import Image

    left, top, right, bottom = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
    pixels = picture.pixels[top:bottom, left:right]
    inner = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    inner = (inner[0], inner[1], min(inner[2], pixels.shape[1]), min(inner[3], pixels.shape[0]))
    h, w = whole.size
    way = Image.Resampling[whole.interpolation.upper()]
    return Picture(np.asarray(Image.fromarray(pixels).resize((w, h), way, box=inner)))


def _of_tiles(engine: Engine, x: Tensor, plan: Plan) -> list[Heatmap]:
    """Heatmaps of a batch of tiles, tile by tile; that nothing in a tile speaks for the target is no news."""
    return [heatmap for batch in engine.batches(x, len(x)) for heatmap in explain_batch(batch, plan)]


def _most_probable(engine: Engine, tiles: Iterable[Tensor]) -> int:
    """The class with the largest mean probability."""
    total: Tensor | None = None
    for x in tiles:
        for batch in engine.batches(x, len(x)):
            reading = engine.trace(batch.x).reading
            sure = reading.scores(engine.output(batch)).in_full().probabilities.sum(0)
            total = sure if total is None else total + sure
    assert total is not None
    return int(total.argmax())


def _asks_for_predicted(plan: Plan) -> bool:
    return any(map(_is_predicted, plan.targets))


def _is_predicted(goal: Any) -> bool:
    if isinstance(goal, Contrast):
        return _is_predicted(goal.this) or _is_predicted(goal.that)
    return isinstance(goal, Class) and goal.index == PREDICTED


def _fixed(plan: Plan, predicted: int) -> Plan:
    """The plan about the class that was predicted."""
    return replace(plan, targets=[_about(goal, predicted) for goal in plan.targets])


def _about(goal: Any, predicted: int) -> Any:
    if isinstance(goal, Contrast):
        return replace(goal, this=_about(goal.this, predicted), that=_about(goal.that, predicted))
    return replace(goal, index=predicted) if _is_predicted(goal) else goal
