"""Pictures far larger than the model's input, explained tile by tile at their full resolution.

Tiles overlap, and every tile is a whole number of the map's cells away from the first, so the maps of all tiles add up
on one grid. Within a tile each cell counts by a Hann window: most in the middle, hardly at the border, where a tile's
surroundings are missing. What is kept of a tile is its map; the picture's size costs time, not memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hookmap.attribution.batch import Plan, explain_batch
from hookmap.attribution.engine import Engine
from hookmap.errors import HookmapError, ImageError, TargetError
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.images.preprocessing import Preprocessing
from hookmap.results.heatmap import Heatmap
from hookmap.targets import PREDICTED, Class, Contrast, PerImage, Place

FEWEST_CELLS = 4


@dataclass(frozen=True)
class Tiling:
    """Tiles over a picture, on a grid of cells that all tiles share.

    Attributes:
        picture: size (H, W).
        tile: cells per tile (h, w).
        cells: of the whole picture (h, w), at least a tile's.
        starts: the first cells of the tiles along each axis.
    """

    picture: tuple[int, int]
    tile: tuple[int, int]
    cells: tuple[int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...]]

    @classmethod
    def over(cls, picture: tuple[int, int], side: tuple[int, int], tile: tuple[int, int], overlap: float) -> Tiling:
        """Tiles of about ``side`` (h, w) pixels; they are stretched by less than a cell so that they fill the picture.

        Args:
            picture: its size (H, W).
            side: of a tile, in pixels of the picture.
            tile: cells per tile.
            overlap: the least share of a tile that its neighbour covers too.
        """
        cells, starts = [], []
        for length, pixels, count in zip(picture, side, tile, strict=True):
            total = max(count, round(length * count / pixels))
            step = max(1, math.floor(count * (1 - overlap)))
            number = math.ceil((total - count) / step) + 1
            cells.append(total)
            starts.append(tuple(round(i * (total - count) / max(1, number - 1)) for i in range(number)))
        return cls(picture, tile, (cells[0], cells[1]), (starts[0], starts[1]))

    def __len__(self) -> int:
        return len(self.starts[0]) * len(self.starts[1])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The first cell (row, column) of every tile."""
        return ((row, column) for row in self.starts[0] for column in self.starts[1])

    def box(self, start: tuple[int, int]) -> tuple[float, float, float, float]:
        """A tile's (left, top, right, bottom) in pixels of the picture."""
        (h, w), (row, column) = (p / c for p, c in zip(self.picture, self.cells, strict=True)), start
        return column * w, row * h, (column + self.tile[1]) * w, (row + self.tile[0]) * h


class Blend:
    """Maps of tiles, added up by a Hann window on one grid."""

    def __init__(self, tiling: Tiling, like: Tensor) -> None:
        self._finer = tuple(side / cells for side, cells in zip(like.shape, tiling.tile, strict=True))
        self._size = tuple(round(c * f) for c, f in zip(tiling.cells, self._finer, strict=True))
        rows, columns = (torch.hann_window(n + 2, periodic=False, dtype=like.dtype)[1:-1] for n in like.shape)
        self._window = torch.outer(rows, columns).to(like.device)
        self._sum, self._weight = like.new_zeros(self._size), like.new_zeros(self._size)

    def add(self, start: tuple[int, int], tile: Tensor) -> None:
        """One tile's map ``(h, w)``."""
        row, column = (
            min(round(s * f), n - t) for s, f, n, t in zip(start, self._finer, self._size, tile.shape, strict=True)
        )
        place = slice(row, row + tile.shape[0]), slice(column, column + tile.shape[1])
        self._sum[place] += self._window * tile
        self._weight[place] += self._window

    def map(self) -> Tensor:
        """The map of the whole picture ``(h, w)``."""
        return self._sum / self._weight.clamp(min=torch.finfo(self._weight.dtype).tiny)


def explain_in_tiles(
    engine: Engine,
    picture: Picture,
    plan: Plan,
    tile: tuple[int, int] | None,
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
    preprocessing, targets = engine.preprocessing, plan.targets
    if preprocessing is None:
        raise ImageError("tiles are cut from pictures; pass to Lens how they are preprocessed")
    side = tile or preprocessing.size
    if not 0 <= overlap < 1:
        raise HookmapError(f"overlap is {overlap}; expected a share of the tile, 0 or more and less than 1")
    if min(side) < 1:
        raise HookmapError(f"tile is {side}; expected its height and width in pixels of the picture")
    for goal in targets:
        if isinstance(goal, (Place, PerImage)):
            raise TargetError(f"{goal} is no target for tiles: pass one that can be asked of every tile, e.g. a class")
    size = picture.height, picture.width
    side = min(side[0], size[0]), min(side[1], size[1])
    whole = replace(preprocessing, resize=preprocessing.size, any_size=False)

    def inputs(tiling: Tiling) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
        starts = list(tiling)
        for i in range(0, len(starts), batch_size):
            batch = starts[i : i + batch_size]
            yield batch, torch.stack([whole(_cut(picture, tiling.box(start), whole))[0] for start in batch])

    # One tile tells on which grids the maps are.
    corner = whole(_cut(picture, (0, 0, side[1], side[0]), whole))[0][None]
    first = _of_tiles(engine, corner, replace(plan, targets=[_fixed(goal, 0) for goal in targets]))
    grids = [heatmap.raw.shape for heatmap in first]
    if any(len(grid) != 2 for grid in grids):
        raise ImageError(f"maps on a grid of {tuple(grids[0])} came; only still pictures are explained in tiles")
    cells = [math.gcd(*(grid[axis] for grid in grids)) for axis in (0, 1)]
    smallest = [min(grid[axis] for grid in grids) for axis in (0, 1)]
    shared = tuple(c if c >= FEWEST_CELLS else s for c, s in zip(cells, smallest, strict=True))
    tiling = Tiling.over(size, side, (shared[0], shared[1]), overlap)

    if any(_asks_for_predicted(goal) for goal in targets):
        predicted = _most_probable(engine, (x for _, x in inputs(tiling)))
        seen_whole = _most_probable(engine, iter([preprocessing(picture)[0][None]]))
        if seen_whole != predicted:
            engine.remark(
                f"of {picture.name!r} the tiles together show {engine.label(predicted)!r}, which is explained, and the "
                f"picture seen as a whole shows {engine.label(seen_whole)!r}; pass target= the class that you mean"
            )
        plan = replace(plan, targets=[_fixed(goal, predicted) for goal in targets])
    done = plan.track("tiles", len(tiling))
    blends: list[Blend] = []
    pattern: list[Heatmap] = []
    scores: list[float] = []
    sure: list[float] = []
    for starts, x in inputs(tiling):
        heatmaps = _of_tiles(engine, x, plan)
        done(len(starts))
        per = len(heatmaps) // len(starts)
        for i, start in enumerate(starts):
            mine = heatmaps[i * per : (i + 1) * per]
            if not blends:
                pattern, blends = mine, [Blend(tiling, heatmap.raw) for heatmap in mine]
                scores, sure = [0.0] * per, [0.0] * per
            for n, heatmap in enumerate(mine):
                blends[n].add(start, heatmap.raw)
                scores[n] += heatmap.score / len(tiling)
                sure[n] += (heatmap.probability or 0.0) / len(tiling)
    return [
        replace(
            heatmap,
            raw=blends[n].map(),
            picture=picture,
            geometry=Geometry.identity(size),
            score=scores[n],
            probability=None if heatmap.probability is None else sure[n],
            where=f"{len(tiling)} tiles",
            question=None,
            position=replace(heatmap.position, image=number),
        )
        for n, heatmap in enumerate(pattern)
    ]


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


def _most_probable(engine: Engine, tiles: Iterator[Tensor]) -> int:
    """The class with the largest mean probability."""
    total: Tensor | None = None
    for x in tiles:
        for batch in engine.batches(x, len(x)):
            reading = engine.trace(batch.x).reading
            sure = reading.scores(engine.output(batch)).in_full().probabilities.sum(0)
            total = sure if total is None else total + sure
    assert total is not None
    return int(total.argmax())


def _asks_for_predicted(goal: Any) -> bool:
    if isinstance(goal, Contrast):
        return _asks_for_predicted(goal.this) or _asks_for_predicted(goal.that)
    return isinstance(goal, Class) and goal.index == PREDICTED


def _fixed(goal: Any, predicted: int) -> Any:
    """The target about the class that was predicted."""
    if isinstance(goal, Contrast):
        return replace(goal, this=_fixed(goal.this, predicted), that=_fixed(goal.that, predicted))
    return replace(goal, index=predicted) if _asks_for_predicted(goal) else goal
