"""What becomes of the score when the cells of an image are removed in the order that a map gives them.

A metric here is a function of a scorer, an image and maps: ``srg(scorer, image, maps)``.

- ``scorer`` gives the score of each of K changed inputs: ``(K, C, *size)`` to ``(K,)``. :meth:`hookmap.Lens.scorer`
  makes one for a target of an image. Logits and probabilities give other curves: a probability that is near 1 hardly
  falls at first. Say which you took.
- ``image`` is the model's input for one image, ``(C, *size)``.
- ``maps`` are M maps of it, ``(M, h, w)``, signed, each laid over the whole input; their grids may be finer or coarser
  than the cells.

All maps of a call share their forward passes in batches, and the ends of the curves, which are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict, Unpack, get_args

import torch
from torch import Tensor

from hookmap.errors import HookmapError
from hookmap.metrics.cells import CELLS, grid_of, in_cells, on_pixels, ordered
from hookmap.metrics.fills import FillSpec, fill_of

Scorer: TypeAlias = Callable[[Tensor], Tensor]
"""From changed inputs ``(K, C, *size)`` to their scores ``(K,)``."""
First: TypeAlias = Literal["most", "least"]
"""Which cells go first: the most or the least important."""
BATCH = 32
STEPS = 10


class RemovalOptions(TypedDict, total=False):
    """How cells are removed; see :func:`removal`."""

    steps: int
    cells: int | Sequence[int]
    seed: int
    batch_size: int


@dataclass(frozen=True, eq=False)
class Curves:
    """Scores along the removal of an image's cells.

    Attributes:
        scores: ``(M, steps + 1)``, from the plain image to the one of which everything is removed.
        removed: ``(M, steps + 1)``, 0..1: the share of pixels that is really removed; cells needn't be equally large.
        tied: ``(M,)``, 0..1: the share of cells whose value in the map another cell has too. Their order is the seed's.
    """

    scores: Tensor
    removed: Tensor
    tied: Tensor

    @property
    def area(self) -> Tensor:
        """``(M,)``: the mean score over the share removed, by the trapezoid rule; in the scorer's units."""
        return torch.trapezoid(self.scores, self.removed, dim=1)


def removal(
    scorer: Scorer,
    image: Tensor,
    maps: Tensor,
    *,
    first: First | Sequence[First] = "most",
    fill: FillSpec = "mean",
    steps: int = STEPS,
    cells: int | Sequence[int] = CELLS,
    seed: int = 0,
    batch_size: int = BATCH,
) -> Curves:
    """The scores while the cells that each map finds most (or least) important are removed step by step.

    Args:
        scorer: of changed inputs.
        image: ``(C, *size)``.
        maps: ``(M, h, w)``.
        first: which cells go first; of several the curves of all maps by the one, then by the other.
        fill: what stands in place of what is removed; see ``hookmap.metrics.fills``.
        steps: so many equal shares of the cells are removed one after the other.
        cells: along each axis.
        seed: of the order among cells of the same value.
        batch_size: changed images per forward pass.

    Raises:
        HookmapError: for maps, images or settings that can't be.
    """
    grid = grid_of(image, cells)
    one_or_more(steps=steps)
    order = ordered(in_cells(maps, grid), seed)
    count = order.rank.shape[1]
    directions = [first] if isinstance(first, str) else list(first)
    if not directions or not {*directions} <= {*get_args(First)}:
        raise HookmapError(f"first is {first!r}; expected one or several of {', '.join(get_args(First))}")
    ranks = torch.cat([order.rank if way == "most" else count - 1 - order.rank for way in directions])
    ends = [round(count * step / steps) for step in range(steps + 1)]
    inner = [(row, end) for row in range(len(ranks)) for end in ends[1:-1]]

    def masks() -> Iterator[Tensor]:
        yield torch.zeros(1, count)
        yield torch.ones(1, count)
        for row, end in inner:
            yield (ranks[row : row + 1] < end).float()

    scores, shares = scores_without(scorer, image, masks(), grid, fill, batch_size)
    rows = (values[2:].reshape(len(ranks), steps - 1) for values in (scores, shares))
    whole = [
        torch.cat([v[:1].expand(len(r), 1), r, v[1:2].expand(len(r), 1)], 1)
        for v, r in zip((scores, shares), rows, strict=True)
    ]
    return Curves(whole[0], whole[1], order.tied.repeat(len(directions)))


def scores_without(
    scorer: Scorer,
    image: Tensor,
    removed: Iterator[Tensor],
    grid: Sequence[int],
    fill: FillSpec = "mean",
    batch_size: int = BATCH,
) -> tuple[Tensor, Tensor]:
    """Scores of copies of an image without some of its cells, in float64, and the share of pixels that went.

    Args:
        scorer: of changed inputs.
        image: ``(C, *size)``.
        removed: parts of ``(K, N)``, 1 for cells that are removed and 0 for those that stay.
        grid: cells per axis, N in all.
        fill: what stands in place of what is removed.
        batch_size: copies per forward pass.

    Returns:
        Scores ``(K,)`` and shares ``(K,)``, on the CPU.

    Raises:
        HookmapError: if the scorer gives anything but K scores, or scores that aren't finite.
    """
    one_or_more(batch_size=batch_size)
    filled = fill_of(fill, image)
    scores, shares = [], []
    for part in _in_batches(removed, batch_size):
        gone = on_pixels(part.to(image.device), grid, image.shape[1:]) > 0.5
        changed = torch.where(gone[:, None], filled(gone).to(image.dtype), image)
        scores.append(scored(scorer, changed))
        shares.append(gone.flatten(1).double().mean(1).cpu())
    return torch.cat(scores), torch.cat(shares)


def scored(scorer: Scorer, changed: Tensor) -> Tensor:
    """The scores of changed inputs ``(K, C, *size)``, ``(K,)`` in float64 on the CPU.

    Raises:
        HookmapError: if the scorer gives anything but K scores, or scores that aren't finite.
    """
    given = scorer(changed)
    if not isinstance(given, Tensor) or given.shape != (len(changed),):
        got = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
        raise HookmapError(
            f"the scorer gave {got} for {len(changed)} images; expected one score each, ({len(changed)},)"
        )
    if not bool(given.isfinite().all()):
        raise HookmapError("the scorer gave NaN or infinity, which can't be compared; look at the model's weights")
    return given.detach().double().cpu()


def one_or_more(**numbers: int) -> None:
    """Nothing, or a sentence about the setting that is below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise HookmapError(f"{name} is {number}; expected 1 or more")


def _in_batches(parts: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    kept: list[Tensor] = []
    for part in parts:
        for row in part:
            kept.append(row[None])
            if len(kept) == size:
                yield torch.cat(kept)
                kept = []
    if kept:
        yield torch.cat(kept)


# ---------------------------------------------------------------- metrics that may vote


def srg(
    scorer: Scorer, image: Tensor, maps: Tensor, *, fill: FillSpec = "mean", **options: Unpack[RemovalOptions]
) -> Tensor:
    r"""Symmetric relevance gain: how much longer the score stays when the least important cells go first.

    .. math:: \mathrm{SRG} = \int_0^1 f(x \setminus S^{\text{least}}_r) - f(x \setminus S^{\text{most}}_r) \, dr

    Insertion minus deletion under one fill: removing the least important first is inserting the most important first,
    read backwards. Blücher, Vielhaben and Strodthoff, *Decoupling Pixel Flipping and Occlusion Strategy for Consistent
    XAI Benchmarks*, TMLR 2024, arXiv:2401.06654. Because the fill's own effect is in both curves, it cancels: of random
    maps the expected value is 0.

    Returns:
        ``(M,)``, in the scorer's units; larger is better, below 0 the map is upside down.

    Costs ``2 M (steps - 1) + 2`` forward passes.
    """
    least, most = removal(scorer, image, maps, first=("least", "most"), fill=fill, **options).area.chunk(2)
    return least - most


def road(
    scorer: Scorer, image: Tensor, maps: Tensor, *, fill: FillSpec = "linear", **options: Unpack[RemovalOptions]
) -> Tensor:
    r"""ROAD combined: half the difference of the scores without the least and without the most important pixels.

    .. math:: \mathrm{ROAD} = \frac{1}{n - 1} \sum_{i=1}^{n-1} \tfrac{1}{2} \big(f(x \setminus S^{\text{least}}_{i/n})
              - f(x \setminus S^{\text{most}}_{i/n})\big)

    with what is removed continued from its surroundings plus a little noise (``hookmap.metrics.fills.linear``), so
    that the shape of the hole says little. Rong et al., *A Consistent and Efficient Evaluation Strategy for
    Attribution Methods*, ICML 2022, arXiv:2202.00449; combined as in pytorch-grad-cam.

    Returns:
        ``(M,)``, in the scorer's units; larger is better.

    Raises:
        HookmapError: for a single step, which has nothing between its ends.

    Costs ``2 M (steps - 1) + 2`` forward passes, and a linear system for each.
    """
    if options.get("steps", STEPS) < 2:
        raise HookmapError(f"steps is {options['steps']}; ROAD takes what is between the ends, so expected 2 or more")
    curves = removal(scorer, image, maps, first=("least", "most"), fill=fill, **options)
    least, most = curves.scores[:, 1:-1].mean(1).chunk(2)
    return (least - most) / 2


# ---------------------------------------------------------------- shown, without a vote


def deletion(
    scorer: Scorer, image: Tensor, maps: Tensor, *, fill: FillSpec = "mean", **options: Unpack[RemovalOptions]
) -> Tensor:
    r"""Deletion: the mean score while the most important cells go first; smaller is better.

    .. math:: \int_0^1 f(x \setminus S^{\text{most}}_r) \, dr

    Petsiuk et al., *RISE*, BMVC 2018, arXiv:1806.07421 (pixel by pixel, filled with 0: ``cells`` of the input's size,
    ``fill="zero"``). Pitfall: holes alone make the score fall, so a map that scatters its order makes holes everywhere
    and wins: it never votes.

    Returns:
        ``(M,)``, in the scorer's units.
    """
    return removal(scorer, image, maps, first="most", fill=fill, **options).area


def insertion(
    scorer: Scorer, image: Tensor, maps: Tensor, *, fill: FillSpec = "blur", **options: Unpack[RemovalOptions]
) -> Tensor:
    r"""Insertion: the mean score while the most important cells come first into a blurred image; larger is better.

    .. math:: \int_0^1 f(x \setminus S^{\text{least}}_{1 - r}) \, dr

    Petsiuk et al., *RISE*, BMVC 2018, arXiv:1806.07421. Pitfall: a compact map wins over a right one of several places,
    because a whole object is seen where scattered parts aren't: it never votes.

    Returns:
        ``(M,)``, in the scorer's units.
    """
    return removal(scorer, image, maps, first="least", fill=fill, **options).area
