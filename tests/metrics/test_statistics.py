from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import hookmap as hm
from hookmap.metrics.statistics import bca_interval, sign_flips, smallest_difference


def test_one_difference_has_the_p_value_of_all_its_signs() -> None:
    values = np.random.default_rng(3).normal(0.4, 1, (9, 1))
    test = sign_flips(values, flips=200_000)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 9)).reshape(9, -1)
    exact = (np.abs(signs.T @ values[:, 0]) >= abs(values.sum()) - 1e-12).mean()
    assert test.p[0] == pytest.approx(exact, abs=0.004)
    assert test.mean[0] == pytest.approx(values.mean())
    assert test.error[0] == pytest.approx(stats.sem(values[:, 0]))


def test_of_equal_methods_hardly_ever_one_is_found_better() -> None:
    """Scores as they are: skewed over images, heavy-tailed, and alike between methods and votes."""
    random = np.random.default_rng(0)
    found, simulations = 0, 400
    for seed in range(simulations):
        of_image = random.exponential(1, (60, 1))
        votes = of_image + random.standard_t(4, (60, 5, 3)).reshape(60, 15) * of_image
        methods = votes.reshape(60, 5, 3)
        differences = np.concatenate([methods[:, a] - methods[:, b] for a in range(5) for b in range(a)], 1)
        found += bool((sign_flips(differences, flips=400, seed=seed).p <= 0.05).any())
    # Of 400 tests at 5 %, more than 33 come by chance once in 200 times.
    assert found <= stats.binom.ppf(0.995, simulations, 0.05)


def test_what_can_be_detected_is_found_eight_times_in_ten() -> None:
    random = np.random.default_rng(1)
    null = sign_flips(random.normal(0, 1, (80, 6)), flips=2000)
    size = smallest_difference(1.0, 80, null.critical)
    found = 0
    for seed in range(300):
        differences = random.normal(0, 1, (80, 6))
        differences[:, 0] += size
        found += bool(sign_flips(differences, flips=400, seed=seed).p[0] <= 0.05)
    assert found / 300 == pytest.approx(0.8, abs=0.08)


def test_differences_that_are_all_alike_are_significant_and_none_is_not() -> None:
    test = sign_flips(np.stack([np.full(20, 0.5), np.zeros(20)], 1), flips=1000)
    assert test.significant().tolist() == [1.0, 0.0]
    assert math.isfinite(test.critical)


def test_the_interval_is_scipys() -> None:
    values = np.random.default_rng(5).exponential(1, 80)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, random_state=0).confidence_interval
    low, high = bca_interval(values, samples=20_000)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert bca_interval(np.ones(5)) == (1.0, 1.0)


@pytest.mark.parametrize("values", [np.ones((1, 2)), np.ones(4), np.full((4, 1), np.nan)])
def test_what_no_test_can_say_anything_of_is_refused(values: np.ndarray) -> None:
    with pytest.raises(hm.HookmapError, match="difference"):
        sign_flips(values)
