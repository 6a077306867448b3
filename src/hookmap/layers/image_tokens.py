"""Tokens of a picture among those of a sequence: of one view of it, or of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hookmap.errors import LayerError
from hookmap.images.geometry import Geometry
from hookmap.layers.layouts import Layout


@dataclass(frozen=True)
class ImageTokens(Layout):
    """Where each cell of a picture's views lies among the tokens of a sample.

    Attributes:
        grid: ``(h, w)`` of one view, ``(V, h, w)`` of several.
        places: of the cells, view by view and row by row, among the tokens; -1: the cell has none.
        tokens: of a sample.
        flat: the samples' tokens stand one after the other, ``(B * tokens, C)``; else, in whatever way they are shared
            out to rows, ``(..., n, C)``.
        views: from the input's pixels to those of each view.
    """

    places: tuple[int, ...] = ()
    tokens: int = 0
    flat: bool = False
    views: tuple[Geometry, ...] = ()

    def __str__(self) -> str:
        cells = "x".join(map(str, self.grid[-2:]))
        return f"{cells} of {self.tokens} tokens" if len(self.grid) == 2 else f"{self.grid[0]} views of tokens {cells}"

    @property
    def length(self) -> int:
        """How many tokens a sample has."""
        return self.tokens

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an activation of one sample may have this shape."""
        ranks = 2 if self.flat else 3
        return len(shape) == ranks and math.prod(shape[:-1]) == self.tokens

    def to_grid(self, activation: Tensor) -> Tensor:
        """The activation as ``(..., B, C, *grid)``; leading axes are kept.

        Raises:
            LayerError: if the activation's shape doesn't fit this layout.
        """
        lead = activation.ndim - (2 if self.flat else 3)
        count = math.prod(activation.shape[max(lead, 0) : -1])
        if lead < 0 or not count or count % self.tokens:
            raise LayerError(f"an activation of shape {tuple(activation.shape)} doesn't fit the layout {self}")
        front, channels = activation.shape[:lead], activation.shape[-1]
        tokens = activation.reshape(*front, -1, self.tokens, channels)
        places = torch.tensor(self.places, device=activation.device)
        cells = tokens[..., places.clamp(min=0), :] * (places >= 0)[:, None]
        return cells.transpose(-2, -1).reshape(*tokens.shape[:-2], channels, *self.grid)

    def from_grid(self, grid: Tensor, like: Tensor) -> Tensor:
        """Maps ``(K, C, *grid)`` as K activations in this layout; other tokens come from ``like``, one of them.

        Raises:
            LayerError: where the tokens of a sample aren't one row.
        """
        if self.flat or len(self.grid) > 2 or like.shape[1] != self.tokens:
            raise LayerError(
                f"a layer with the layout {self} can't be replayed, because a sample isn't one row of it; take a "
                "method of gradients, or pass a layer of the language model"
            )
        others = like.expand(len(grid), -1, -1).to(grid.dtype).clone()
        others[:, list(self.places)] = grid.flatten(2).mT
        return others

    def whole(self, maps: Tensor) -> Tensor:
        """Maps ``(..., *grid)`` as ``(..., h, w)`` over the input: those of several views added up, as levels are."""
        if len(self.grid) == 2 or maps.shape[-3:] != self.grid:
            return maps
        height, width = self.grid[1:]
        size = self.views[0].original
        finest = [max(view.scale[axis] for view in self.views) for axis in (0, 1)]
        fine = [
            max(1, round(pixels * scale * cells / side))
            for pixels, scale, cells, side in zip(size, finest, (height, width), self.views[0].input, strict=True)
        ]
        laid = [
            _on_cells(view, (fine[0], fine[1]), (height, width)).lay_back(maps[..., number, :, :])
            for number, view in enumerate(self.views)
        ]
        return torch.stack(laid).sum(0)


def _on_cells(view: Geometry, fine: tuple[int, int], cells: tuple[int, int]) -> Geometry:
    """From cells over the whole input to those of a view."""
    share = [count / side for count, side in zip(cells, view.input, strict=True)]
    pixels = [side / count for side, count in zip(view.original, fine, strict=True)]
    scale = [p * s * k for p, s, k in zip(pixels, view.scale, share, strict=True)]
    offset = [o * k for o, k in zip(view.offset, share, strict=True)]
    return Geometry(fine, cells, (scale[0], scale[1]), (offset[0], offset[1]))


def grid_of(tokens: int, view: Sequence[float]) -> tuple[int, int] | None:
    """The grid of so many tokens over a view of a size (h, w), if all cells are square.

    >>> grid_of(576, (336, 336)), grid_of(24, (32, 48)), grid_of(32, (224, 224))
    ((24, 24), (4, 6), None)
    """
    rows = round(math.sqrt(tokens * view[0] / view[1]))
    fits = rows > 0 and tokens % rows == 0 and rows * view[1] == tokens // rows * view[0]
    return (rows, tokens // rows) if fits else None
