"""One heatmap held against random maps of its own kind; see :class:`hookmap.results.check.Check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hookmap.attribution.batch import Plan, explain_batch
from hookmap.attribution.engine import Batch, Engine
from hookmap.attribution.explain import asked_again, plan_of, question_of
from hookmap.attribution.scoring import Scoring
from hookmap.metrics.cells import CELLS, grid_of, in_cells, ordered
from hookmap.metrics.correlation import pearson
from hookmap.metrics.removal import scores_without, srg
from hookmap.metrics.sanity import noisy
from hookmap.results.check import HOT, RANDOM, Check
from hookmap.results.heatmap import Heatmap

STEPS = 5
NOISE, COPIES = 0.01, 2
TOGETHER = 8


def checked(batch: Batch, heatmap: Heatmap, scoring: Scoring) -> Check:
    """What random maps, the hot region alone and a little noise say of a heatmap.

    Args:
        batch: of its image alone.
        heatmap: with its question.
        scoring: made ready for inputs of this size.

    Raises:
        HookmapError: if the heatmap doesn't know its question.
    """
    plan = plan_of(heatmap)
    scorer = scoring.of(batch, plan.targets[0])[0]
    image, seed = batch.x[0], plan.settings.seed
    grid = grid_of(image, CELLS)
    own = in_cells(heatmap.raw.to(image.device)[None], grid)
    maps = torch.cat([own, *moved(own, RANDOM, seed)])
    gains = srg(scorer, image, maps, fill="blur", steps=STEPS, seed=seed, batch_size=scoring.batch_size)
    rank = ordered(own, seed).rank
    cold = torch.cat([torch.zeros_like(rank), (rank >= max(1, round(HOT * rank.shape[1]))).long()]).float()
    scores, _ = scores_without(scorer, image, iter([cold]), grid, "blur", scoring.batch_size)
    return Check(
        relevance=float(gains[0]),
        spread=float(gains[1:].square().mean().sqrt()),
        score=float(scores[0]),
        kept=float(scores[1]),
        stability=None if heatmap.method.one_by_one else _stability(batch, plan, heatmap),
    )


def checked_each(engine: Engine, heatmaps: Sequence[Heatmap]) -> list[Heatmap]:
    """Heatmaps with how far each can be believed; the model is made ready once for all inputs of one size.

    Raises:
        HookmapError: if a heatmap doesn't know its question.
    """
    ready: dict[tuple[nn.Module, tuple[int, ...]], Scoring] = {}
    checked_too = []
    for heatmap in heatmaps:
        _, batch, _ = asked_again(engine, heatmap)
        batch = batch[question_of(heatmap).place[1]]
        asked = batch.engine.called, tuple(batch.x.shape[1:])
        ready[asked] = ready.get(asked) or scoring_of(batch)
        checked_too.append(replace(heatmap, check=checked(batch, heatmap, ready[asked])))
    return checked_too


def scoring_of(batch: Batch) -> Scoring:
    """A model made ready to check heatmaps of inputs of a batch's size."""
    return Scoring(batch.engine, batch.x, batch_size=TOGETHER)


def moved(own: Tensor, count: int, seed: int) -> list[Tensor]:
    """A map ``(1, *grid)`` moved around its edges, mirrored and turned upside down at random, ``count`` times.

    What is drawn stays as large and as smooth as it is; only where it lies is left to chance.
    """
    generator = torch.Generator().manual_seed(seed)
    axes = list(range(1, own.ndim))
    maps = []
    for _ in range(count):
        shifts = [int(torch.randint(0, side, (), generator=generator)) for side in own.shape[1:]]
        mirrored = [axis for axis in axes if bool(torch.rand((), generator=generator) < 0.5)]
        maps.append(own.flip(mirrored).roll(shifts, axes))
    return maps


def _stability(batch: Batch, plan: Plan, heatmap: Heatmap) -> float:
    x = noisy(batch.x[0], NOISE, COPIES, plan.settings.seed)
    maps = explain_batch(replace(batch, views=batch.views * COPIES, x=x, numbers=[0] * COPIES), plan)
    rows = torch.stack([heatmap.raw, *(other.raw.to(heatmap.raw) for other in maps)]).flatten(1).double()
    return float(pearson(rows[1:], rows[:1]).mean())
