"""Removal where the truth is known: the right map is first, the reversed last, random maps are between."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import hookmap as hm
from hookmap.metrics.removal import srg
from worlds import CELLS, WORLDS, linear, pixels, saturation, seeded, watermark

RANDOM = 6
VOTES: dict[str, Callable[..., Tensor]] = {
    "srg mean": lambda *of, **options: hm.metrics.srg(*of, fill="mean", **options),
    "srg blur": lambda *of, **options: hm.metrics.srg(*of, fill="blur", **options),
    "road": hm.metrics.road,
}


@pytest.mark.parametrize("vote", VOTES)
@pytest.mark.parametrize("world", WORLDS)
def test_the_right_map_is_first_the_reversed_last_and_random_ones_between(world: str, vote: str) -> None:
    w = WORLDS[world]()
    maps = torch.cat([w.right[None], seeded(RANDOM, CELLS, CELLS, seed=5), -w.right[None]])
    right, *_, reverse = values = VOTES[vote](w.scorer, w.image, maps, cells=CELLS)
    random = values[1:-1]
    # What ROAD continues depends on what else is gone, which moves scores by some hundredths.
    margin = 0.05 * right if vote == "road" else 1e-12
    assert right >= random.max() - margin
    assert reverse <= random.min() + margin
    assert right > random.mean() + random.std(), "far better than a random map"
    assert reverse < random.mean() - random.std()


def test_the_closed_forms_of_a_linear_model() -> None:
    w = linear()
    count = CELLS * CELLS
    maps = torch.stack([w.right, seeded(CELLS, CELLS)])
    options = {"cells": CELLS, "steps": count, "fill": "zero"}
    place = torch.arange(1, count + 1, dtype=torch.float64)
    for m, deletion, insertion, gain, road in zip(
        maps,
        hm.metrics.deletion(w.scorer, w.image, maps, **options),
        hm.metrics.insertion(w.scorer, w.image, maps, **options),
        hm.metrics.srg(w.scorer, w.image, maps, **options),
        hm.metrics.road(w.scorer, w.image, maps, **options),
        strict=True,
    ):
        # In the map's order; equals are of no contribution, so their order doesn't matter.
        gives = w.right.flatten()[m.flatten().argsort(descending=True, stable=True)]
        torch.testing.assert_close(deletion, (gives * (place - 0.5)).sum() / count)
        torch.testing.assert_close(insertion, (gives * (count - place + 0.5)).sum() / count)
        torch.testing.assert_close(gain, (gives * (count + 1 - 2 * place)).sum() / count)
        kept = gives.cumsum(0)[:-1]
        torch.testing.assert_close(road, (kept.flip(0) - (gives.sum() - kept)).mean() / 2)


def test_what_single_deletions_miss_is_seen_when_more_is_removed() -> None:
    w = saturation()
    alone = w.image * (1 - pixels(torch.eye(CELLS * CELLS).double().reshape(-1, CELLS, CELLS)))[:, None]
    assert (w.scorer(alone) == 1).all()
    assert srg(w.scorer, w.image, w.right[None], cells=CELLS) > 0.5


def test_a_map_of_the_object_loses_to_one_of_the_watermark() -> None:
    w = watermark()
    scene = torch.nn.functional.avg_pool2d(w.image, 4)[0] - w.right
    for vote in VOTES.values():
        sign, thing = vote(w.scorer, w.image, torch.stack([w.right, scene]), cells=CELLS)
        assert sign > thing


def test_ties_are_reported_and_broken_by_the_seed() -> None:
    w = linear()
    ones = torch.ones(1, CELLS, CELLS)
    first, again, other = (hm.metrics.removal(w.scorer, w.image, ones, cells=CELLS, seed=seed) for seed in (0, 0, 1))
    assert first.tied.tolist() == [1.0]
    assert first.scores.equal(again.scores)
    assert not first.scores.equal(other.scores)
    half = ones.clone()
    half[:, : CELLS // 2] = seeded(1, CELLS // 2, CELLS).float()
    curves = hm.metrics.removal(w.scorer, w.image, torch.cat([half, seeded(1, CELLS, CELLS).float()]), cells=CELLS)
    assert curves.tied.tolist() == [0.5, 0.0]


def test_maps_of_other_sizes_are_laid_over_the_same_cells() -> None:
    w = linear()
    fine = pixels(w.right[None])
    coarse, finer = (hm.metrics.srg(w.scorer, w.image, maps, cells=CELLS) for maps in (w.right[None], fine))
    assert coarse.equal(finer)


def test_the_share_that_is_really_removed_is_reported() -> None:
    image = torch.rand(3, 10, 13)
    curves = hm.metrics.removal(
        lambda x: (x != 0).any(1).double().mean((1, 2)),
        image,
        torch.rand(2, 4, 4),
        cells=4,
        steps=7,
        fill="zero",
    )
    assert curves.removed[:, [0, -1]].tolist() == [[0, 1]] * 2
    torch.testing.assert_close(curves.removed, 1 - curves.scores)
    assert (curves.removed.diff(dim=1) > 0).all()
    torch.testing.assert_close(curves.area, torch.full((2,), 0.5, dtype=torch.float64))


def test_maps_share_their_passes_and_batches_change_nothing() -> None:
    w = linear()
    sizes: list[int] = []

    def scorer(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return w.scorer(x)

    maps = seeded(3, CELLS, CELLS)
    whole = hm.metrics.srg(scorer, w.image, maps, cells=CELLS, batch_size=16)
    assert sum(sizes) == 2 * 3 * 9 + 2
    assert sizes[:-1] == [16] * (len(sizes) - 1)
    alone = torch.cat([hm.metrics.srg(w.scorer, w.image, m[None], cells=CELLS, batch_size=1) for m in maps])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)


def test_clips_and_series_are_removed_by_cells_too() -> None:
    for size in ((12,), (4, 6, 6)):
        weights = seeded(*size)
        image, maps = torch.ones(2, *size, dtype=torch.float64), torch.stack([weights, -weights])
        right, reverse = hm.metrics.srg(lambda x, w=weights: (x[:, 0] * w).flatten(1).sum(1), image, maps, fill="zero")
        assert right > 0 > reverse


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"maps": torch.rand(4, 4)}, "laid over the whole input"),
        ({"maps": torch.full((1, 4, 4), torch.nan)}, "NaN or infinity"),
        ({"image": torch.zeros(3, 8, 8, dtype=torch.uint8)}, "floating-point"),
        ({"image": torch.zeros(3)}, "expected the model's input for one image"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1}, "ROAD takes what is between"),
        ({"cells": 0}, "cells is 0"),
        ({"cells": (3, 3, 3)}, "one per axis"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"fill": "blurr"}, "did you mean blur"),
        ({"scorer": lambda x: x}, "expected one score each"),
        ({"scorer": lambda x: [0.0] * len(x)}, "a list"),
        ({"scorer": lambda x: x.flatten(1).sum(1) / 0}, "NaN or infinity"),
    ],
)
def test_what_cannot_be_gets_a_sentence(change: dict, sentence: str) -> None:
    of = {"scorer": lambda x: x.flatten(1).sum(1), "image": torch.ones(3, 8, 8), "maps": torch.rand(1, 4, 4)} | change
    with pytest.raises(hm.HookmapError, match=sentence):
        hm.metrics.road(**of)


def test_a_direction_that_there_is_not_gets_a_sentence() -> None:
    for first in ("last", [], ["most", "last"]):
        with pytest.raises(hm.HookmapError, match="one or several of most, least"):
            hm.metrics.removal(lambda x: x.flatten(1).sum(1), torch.ones(1, 4, 4), torch.rand(1, 4, 4), first=first)


def test_one_step_is_from_everything_to_nothing() -> None:
    w = linear()
    curves = hm.metrics.removal(w.scorer, w.image, w.right[None], cells=CELLS, steps=1, fill="zero")
    torch.testing.assert_close(curves.scores, torch.stack([w.right.sum(), w.right.sum() * 0])[None])
    assert hm.metrics.srg(w.scorer, w.image, w.right[None], cells=CELLS, steps=1).tolist() == [0]
