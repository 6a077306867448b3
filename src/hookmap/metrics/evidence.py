"""Perturb once, score every map: what the model says of an image without some cells, whatever a map says of it.

The forward passes are taken once per image; each map then costs one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hookmap.errors import HookmapError
from hookmap.metrics.cells import grid_of, in_cells
from hookmap.metrics.correlation import pearson, spearman
from hookmap.metrics.fills import FillSpec
from hookmap.metrics.removal import BATCH, Scorer, scores_without

CELLS = 7
MASKS = 256


@dataclass(frozen=True, eq=False)
class Evidence:
    """How much the score of one image falls without some of its cells, K times.

    Attributes:
        removed: ``(K, N)``, 1 for cells that were removed and 0 for those that stayed.
        falls: ``(K,)``, float64: how much the score fell, in the scorer's units.
        grid: cells per axis, N in all.
    """

    removed: Tensor
    falls: Tensor
    grid: tuple[int, ...]

    def agreement(self, maps: Tensor) -> Tensor:
        r"""How well maps foretell the falls: Spearman's correlation of their sums over removed cells with the falls.

        .. math:: \rho\Big(\sum_{c \in R_k} m_c, \; f(x) - f(x \setminus R_k)\Big)_{k = 1 \dots K}

        For single cells this is the single-deletion score (arXiv:2407.11910), for many random masks the faithfulness
        correlation of Bhatt et al. 2020 (arXiv:2005.00631) by ranks. It has no order of removal to tune.

        Args:
            maps: ``(M, h, w)``, signed, laid over the whole input.

        Returns:
            ``(M,)``, -1..1; 0 for maps that are the same everywhere.
        """
        said = in_cells(maps, self.grid).flatten(1).double().cpu() @ self.removed.double().T
        return spearman(said, self.falls[None])

    @property
    def reliability(self) -> float | None:
        """How alike two halves of the masks see the cells, -1..1; None where every cell was removed only once.

        Each half estimates what a cell is worth (the mean fall with it removed less that with it there); their
        correlation is stepped up to all masks (Spearman and Brown: ``2 r / (1 + r)``). Low, when the model is hardly
        moved by what is removed, or when cells work only together: then draw more masks, or believe no ranking.
        """
        halves = [effects(self.removed[part::2], self.falls[part::2]) for part in (0, 1)]
        if not all(bool(half.isfinite().all()) for half in halves):
            return None
        r = float(pearson(halves[0][None], halves[1][None])[0])
        return 2 * r / (1 + r) if r > -1 else -1.0


def effects(removed: Tensor, falls: Tensor) -> Tensor:
    """What each cell is worth: the mean fall with it removed, less that with it there, ``(N,)``."""
    gone = removed.double()
    there = 1 - gone
    return falls @ gone / gone.sum(0) - falls @ there / there.sum(0)


def single_deletions(
    scorer: Scorer,
    image: Tensor,
    *,
    cells: int | Sequence[int] = CELLS,
    fill: FillSpec = "mean",
    batch_size: int = BATCH,
) -> Evidence:
    """The fall of the score without each cell alone; see :meth:`Evidence.agreement`.

    Args:
        scorer: of changed inputs; see :mod:`hookmap.metrics.removal`.
        image: ``(C, *size)``.
        cells: along each axis.
        fill: what stands in place of what is removed.
        batch_size: changed images per forward pass.
    """
    grid = grid_of(image, cells)
    return _taken(scorer, image, torch.eye(math.prod(grid)), grid, fill, batch_size)


def random_removals(
    scorer: Scorer,
    image: Tensor,
    *,
    masks: int = MASKS,
    cells: int | Sequence[int] = CELLS,
    fill: FillSpec = "mean",
    seed: int = 0,
    batch_size: int = BATCH,
) -> Evidence:
    """The fall of the score without random halves of the cells.

    Args:
        scorer: of changed inputs; see :mod:`hookmap.metrics.removal`.
        image: ``(C, *size)``.
        masks: how many; each removes another half of the cells.
        cells: along each axis.
        fill: what stands in place of what is removed.
        seed: of the masks.
        batch_size: changed images per forward pass.

    Raises:
        HookmapError: for fewer than four masks, of which halves can't be compared.
    """
    if masks < 4:
        raise HookmapError(f"masks is {masks}; expected 4 or more")
    grid = grid_of(image, cells)
    count = math.prod(grid)
    generator = torch.Generator().manual_seed(seed)
    # All masks remove equally much: how much is missing is no evidence of what.
    rank = torch.rand(masks, count, generator=generator).argsort(1).argsort(1)
    removed = (rank < (count + 1) // 2).float()
    return _taken(scorer, image, removed, grid, fill, batch_size)


def _taken(
    scorer: Scorer, image: Tensor, removed: Tensor, grid: tuple[int, ...], fill: FillSpec, batch_size: int
) -> Evidence:
    plain = torch.zeros(1, removed.shape[1])
    scores, _ = scores_without(scorer, image, iter((plain, removed)), grid, fill, batch_size)
    return Evidence(removed, scores[0] - scores[1:], grid)
