from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

import hookmap as hm
from hookmap.metrics.evidence import random_removals, single_deletions
from networks import noise


def linear(size: int = 28) -> tuple[Tensor, Tensor, Tensor]:
    """A linear model's weights, an image, and what each pixel adds to the score beyond the fill's colour."""
    weights, image = noise(1, size, size, seed=1).double(), noise(1, size, size, seed=2).double()
    return weights, image, ((image - image.mean()) * weights)[0]


@pytest.mark.parametrize("take", [single_deletions, random_removals])
def test_the_right_map_of_a_linear_model_agrees_wholly_and_the_reversed_one_not_at_all(take) -> None:
    weights, image, right = linear()
    evidence = take(lambda x: (x * weights).sum((1, 2, 3)), image)
    other = noise(28, 28, seed=4).double()
    agreement = evidence.agreement(torch.stack([right, -right, other, torch.ones_like(right)]))
    assert agreement[:2].tolist() == pytest.approx([1, -1])
    assert abs(agreement[2]) < 0.4
    assert agreement[3] == 0


def test_agreement_is_spearmans() -> None:
    weights, image, _ = linear()
    evidence = random_removals(lambda x: (x * weights).sum((1, 2, 3)).tanh(), image, masks=64)
    maps = noise(3, 7, 7, seed=8)
    said = maps.flatten(1).double() @ evidence.removed.double().T
    expected = [stats.spearmanr(row, evidence.falls).statistic for row in said]
    assert evidence.agreement(maps).tolist() == pytest.approx(expected, abs=1e-9)
    assert (evidence.removed.sum(1) == 25).all()


def test_reliability_tells_a_model_that_sees_from_one_that_answers_at_random() -> None:
    weights, image, _ = linear()
    generator = torch.Generator().manual_seed(0)
    sees = random_removals(lambda x: (x * weights).sum((1, 2, 3)), image)
    guesses = random_removals(lambda x: torch.rand(len(x), generator=generator), image)
    assert sees.reliability is not None
    assert sees.reliability > 0.7
    assert guesses.reliability is not None
    assert abs(guesses.reliability) < 0.5
    assert single_deletions(lambda x: x.sum((1, 2, 3)), image).reliability is None


def test_scorers_that_give_something_else_are_refused() -> None:
    image = noise(1, 8, 8)
    with pytest.raises(hm.HookmapError, match=r"the scorer gave shape \(32, 8\)"):
        single_deletions(lambda x: x.sum((1, 2)), image, cells=8)
    with pytest.raises(hm.HookmapError, match="NaN or infinity"):
        single_deletions(lambda x: x.sum((1, 2, 3)) / 0, image)
