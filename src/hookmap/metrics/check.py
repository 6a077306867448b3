"""One heatmap held against random maps of its own kind; see :class:`hookmap.results.check.Check`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hookmap.attribution.batch import explain_batch
from hookmap.attribution.engine import Batch, Engine
from hookmap.attribution.explain import asked_again
from hookmap.attribution.scoring import Scoring
from hookmap.metrics.cells import CELLS, grid_of, in_cells, ordered
from hookmap.metrics.removal import scores_without, srg
from hookmap.results.check import HOT, RANDOM, Check
from hookmap.results.heatmap import Heatmap

STEPS = 5
NOISE, COPIES = 0.01, 2
TOGETHER = 8


def checked(engine: Engine, heatmap: Heatmap, scoring: Scoring | None = None) -> Check:
    """What random maps, the hot region alone and a little noise say of a heatmap.

    Args:
        engine: of the model that made it.
        heatmap: with its question.
        scoring: made ready before for inputs of this size, where many are checked.

    Raises:
        HookmapError: if the heatmap doesn't know its question.
    """
    engine, batch, plan = asked_again(engine, heatmap)
    batch = batch[0]
    scoring = scoring or Scoring(engine, batch.x, batch_size=TOGETHER)
    goal = plan.targets[0]
    scorer = scoring.of(batch, goal)[0]
    image = batch.x[0]
    grid = grid_of(image, CELLS)
    own = in_cells(heatmap.raw.to(image.device)[None], grid)
    seed = plan.settings.seed
    maps = torch.cat([own, *moved(own, RANDOM, seed)])
    options = {"steps": STEPS, "seed": seed, "batch_size": scoring.batch_size}
    gains = srg(scorer, image, maps, fill="blur", **options)
    rank = ordered(own, seed).rank
    cold = torch.cat([torch.zeros_like(rank), (rank >= max(1, round(HOT * rank.shape[1]))).long()]).float()
    scores, _ = scores_without(scorer, image, iter([cold]), grid, "blur", scoring.batch_size)
    return Check(
        relevance=float(gains[0]),
        spread=float(gains[1:].square().mean().sqrt()),
        score=float(scores[0]),
        kept=float(scores[1]),
        stability=None if heatmap.method.one_by_one else _stability(batch, plan, seed, heatmap),
    )


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


def _stability(batch: Batch, plan: object, seed: int, heatmap: Heatmap) -> float:
    generator = torch.Generator().manual_seed(seed)
    x = batch.x
    size = NOISE * float(x.max() - x.min())
    noise = torch.randn((COPIES, *x.shape[1:]), generator=generator).to(x)
    noisy = replace(batch, views=batch.views * COPIES, x=x + size * noise, numbers=[0] * COPIES)
    maps = torch.stack([other.raw for other in explain_batch(noisy, plan)])  # type: ignore[arg-type]
    rows = torch.cat([heatmap.raw.to(maps)[None], maps]).flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
    return float((rows[1:] @ rows[0]).mean())
