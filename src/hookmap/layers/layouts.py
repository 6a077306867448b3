"""Read how a layer lays its activation out, and turn it into channels over a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from hookmap.errors import LayerError

Order = Literal["channels first", "channels last", "tokens"]
MAX_PREFIX = 17  # class, distillation and register tokens; the most seen in published models is 1 + 16


@dataclass(frozen=True)
class Layout:
    """How an activation holds its grid.

    Attributes:
        order: ``"channels first"`` ``(B, C, *grid)``, ``"channels last"`` ``(B, *grid, C)``, or ``"tokens"``
            ``(B, prefix + prod(grid) + suffix, C)``.
        grid: cells per axis: ``(h, w)``, ``(t, h, w)`` for video and volumes, ``(l,)`` for sequences.
        prefix: tokens before the patches (class, distillation, registers).
        suffix: tokens after them (a detector's queries).
        sequence_first: tokens are (N, B, C).
        frames: where a grid (t, h, w) of tokens has its frames: ``"first"``, one after the other; ``"last"``, those of
            one place together; ``"batch"``, each frame is a sample of its own, (B * t, prefix + h * w + suffix, C).
    """

    order: Order
    grid: tuple[int, ...]
    prefix: int = 0
    sequence_first: bool = False
    suffix: int = 0
    frames: Literal["first", "last", "batch"] = "first"

    def __str__(self) -> str:
        grid = "x".join(map(str, self.grid[1:] if self.frames == "batch" else self.grid))
        if self.order == "tokens":
            tokens = "+".join(str(part) for part in (self.prefix, grid, self.suffix) if part)
            if self.frames == "batch":
                return f"{self.grid[0]} frames of tokens {tokens}"
            return f"{'N B C' if self.sequence_first else 'tokens'} {tokens}"
        axes = {1: "L", 2: "HW", 3: "THW"}[len(self.grid)]
        return f"{f'NC{axes}' if self.order == 'channels first' else f'N{axes}C'} {grid}"

    @property
    def batch_axis(self) -> int:
        """Along which axis the activation holds its samples."""
        return 1 if self.sequence_first else 0

    @property
    def length(self) -> int:
        """How many tokens a sample has, or a frame of it."""
        return self.prefix + math.prod(self.grid[1:] if self.frames == "batch" else self.grid) + self.suffix

    def whole(self, maps: Tensor) -> Tensor:
        """Maps ``(..., *grid)`` as one over the whole input: here they are."""
        return maps

    def to_grid(self, activation: Tensor) -> Tensor:
        """The activation as ``(..., B, C, *grid)``, a view where possible; leading axes are kept.

        Raises:
            LayerError: if the activation's shape doesn't fit this layout.
        """
        rank = len(self.grid)
        lead = activation.ndim - (3 if self.order == "tokens" else rank + 2)
        shape = activation.shape[max(lead, 0) :]
        if lead >= 0 and self.fits(shape):
            if self.order == "channels first":
                return activation
            if self.order == "channels last":
                return activation.movedim(-1, -1 - rank)
            tokens = activation.transpose(-3, -2) if self.sequence_first else activation
            patches = tokens[..., self.prefix : tokens.shape[-2] - self.suffix, :]
            if self.frames == "batch":
                time, space = self.grid[0], self.grid[1:]
                maps = patches.reshape(*patches.shape[:-3], -1, time, *space, patches.shape[-1])
                return maps.movedim(-1, -4)
            grid = (*self.grid[1:], self.grid[0]) if self.frames == "last" else self.grid
            maps = patches.transpose(-2, -1).reshape(*patches.shape[:-2], patches.shape[-1], *grid)
            return maps.movedim(-1, -3) if self.frames == "last" else maps
        raise LayerError(f"an activation of shape {tuple(activation.shape)} doesn't fit the layout {self}")

    def of_call(self, activation: Tensor) -> Layout:
        """The layout of another call of the layer, whose grid may have another size: a head that runs on each level."""
        rank = len(self.grid)
        if self.order == "tokens" or activation.ndim < rank + 2:
            return self
        shape = activation.shape
        return replace(self, grid=tuple(shape[-rank:] if self.order == "channels first" else shape[-rank - 1 : -1]))

    def from_grid(self, grid: Tensor, like: Tensor) -> Tensor:
        """Maps ``(K, C, *grid)`` as K activations in this layout, with the samples first.

        Other tokens come from ``like``, one such activation.

        Raises:
            LayerError: for layers that hold frames as a batch.
        """
        if self.frames == "batch":
            raise LayerError(
                f"a layer with the layout {self} can't be replayed; pass a layer that holds a clip's frames together"
            )
        if self.order == "channels first":
            return grid
        if self.order == "channels last":
            return grid.movedim(1, -1)
        others = like.expand(len(grid), -1, -1).to(grid.dtype)
        end = like.shape[1] - self.suffix
        grid = grid.movedim(-3, -1) if self.frames == "last" else grid
        return torch.cat([others[:, : self.prefix], grid.flatten(2).mT, others[:, end:]], 1)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an activation of one sample may have this shape."""
        rank = len(self.grid)
        if self.order == "channels first":
            return tuple(shape[-rank:]) == self.grid
        if self.order == "channels last":
            return tuple(shape[-rank - 1 : -1]) == self.grid
        whole = self.frames != "batch" or shape[0] % self.grid[0] == 0
        return whole and shape[0 if self.sequence_first else 1] == self.length

    def channels(self, activation: Tensor) -> int:
        """How many feature maps the activation holds."""
        return activation.shape[-1 - len(self.grid) if self.order == "channels first" else -1]


def read_layout(
    shape: Sequence[int],
    field: Sequence[int],
    *,
    channels: Literal["first", "last"] | None = None,
    grids: Sequence[tuple[int, ...]] = (),
    prefix: int | None = None,
    suffix: int = 0,
    tokens: Sequence[Layout] = (),
) -> Layout | None:
    """Read a layout from the shape that a layer gives for a batch of ONE input.

    A grid is believed only where it is a plausible down-sampling of the input: the same stride along every
    spatial axis. So (1, 197, 768) on a 224x224 input is 1 + 14x14 tokens, (1, 7, 7, 768) is channels last,
    and (1, 12, 197, 64), the heads of an attention, is nothing that can be drawn.

    Args:
        shape: of the activation, with a batch axis of 1.
        field: size of the input's spatial axes: (H, W), (T, H, W) or (L,).
        channels: where the channels are known to be, from the layers that made the tensor.
        grids: grids of layers that ran before, the newest last: tokens come from one of them.
        prefix: number of prefix tokens, where the model says it.
        suffix: number of tokens after the grid's, in layers that have them.
        tokens: how sequences of tokens may be laid out, where the model says it.

    Returns:
        The layout, or None where the shape can't be read as a grid.
    """
    shape, field, rank = tuple(shape), tuple(field), len(field)
    # A series (B, C, L) and its tokens (B, L, C) have one rank: known lengths tell them apart.
    series = rank == 1 and shape[2:] in grids and shape[1:-1] not in grids
    if len(shape) == rank + 2 and shape[0] == 1 and (rank > 1 or channels == "first" or series):
        first, last = Layout("channels first", shape[2:]), Layout("channels last", shape[1:-1])
        if channels == "first":
            return first
        if channels == "last":
            return last if _plausible(last.grid, field) else None
        fits = [layout for layout in (first, last) if layout.grid in grids or _plausible(layout.grid, field)]
        return fits[0] if fits else None
    for told in tokens:
        if len(shape) == 3 and shape[0] == (told.grid[0] if told.frames == "batch" else 1) and told.fits(shape):
            return told
    if len(shape) == 3 and 1 in shape[:2]:
        sequence_first = shape[0] != 1
        length = shape[0] if sequence_first else shape[1]
        for after in dict.fromkeys((suffix, 0)):
            found = _token_grid(length - after, field, grids, prefix)
            if found:
                return Layout("tokens", *found, sequence_first=sequence_first, suffix=after)
    return None


def _token_grid(
    tokens: int, field: tuple[int, ...], grids: Sequence[tuple[int, ...]], prefix: int | None
) -> tuple[tuple[int, ...], int] | None:
    prefixes = range(MAX_PREFIX + 1) if prefix is None else [prefix, 0]
    for grid in reversed(grids):
        extra = tokens - math.prod(grid)
        if math.prod(grid) > 1 and extra in prefixes and len(grid) == len(field):
            return grid, extra
    if len(field) != 2:
        return None
    # Where grids are known, tokens on another one are no more than pooled: a class token may be with them.
    for extra in [few for few in prefixes if few < 2 or not grids]:
        for h in range(2, tokens - extra + 1):
            w, rest = divmod(tokens - extra, h)
            if rest == 0 and w > 1 and field[0] % h == 0 and field[1] % w == 0 and field[0] * w == field[1] * h:
                return (h, w), extra
    return None


def _plausible(grid: tuple[int, ...], field: tuple[int, ...]) -> bool:
    """Whether the grid is the field divided by one stride (up to rounding) along the last two axes."""
    grid, field = grid[-2:], field[-2:]
    if any(g > f for g, f in zip(grid, field, strict=True)):
        return False
    stride = max(1, round(field[0] / grid[0]))
    strides = {stride, max(1, field[0] // grid[0]), math.ceil(field[0] / grid[0])}
    return any(all(f // s <= g <= math.ceil(f / s) for g, f in zip(grid, field, strict=True)) for s in strides)
