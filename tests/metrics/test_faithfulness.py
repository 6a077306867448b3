"""Scores without a vote: what they are, and what wins them without being right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import torch
from torch import Tensor

import hookmap as hm
from hookmap.images.loading import load
from networks import noise
from worlds import CELLS, cells_of, linear, pixels, seeded

Confidence: TypeAlias = Callable[[Path], tuple[Callable[[Tensor], Tensor], Tensor, Tensor]]


def left_half(x: Tensor) -> Tensor:
    """A confidence that is the mean of an image's left half."""
    return x[:, 0, :, : x.shape[-1] // 2].mean((1, 2))


def dipped(x: Tensor) -> Tensor:
    """A confidence to which the left half adds and from which the right takes."""
    return (left_half(x) - 0.5 * left_half(x.flip(-1))).clamp(0, 1)


def halves(*values: float) -> Tensor:
    """A map ``(1, 4, 4)`` of two values, left and right."""
    return torch.tensor(values, dtype=torch.float32).repeat_interleave(2).expand(1, 4, 4)


def spot(size: tuple[int, int], width: float) -> Tensor:
    """A Gaussian in the middle, so many half sides wide, which knows neither image nor model, ``(1, h, w)``."""
    y, x = (torch.linspace(-1, 1, side) for side in size)
    return torch.exp(-(y[:, None] ** 2 + x**2) / (2 * width**2))[None]


def test_closed_forms_of_drop_increase_and_gain() -> None:
    image = torch.full((1, 4, 4), 0.8)
    both, right, left = halves(1, 1), halves(0, 3), halves(5, 0)
    maps = torch.cat([both, right, left])
    torch.testing.assert_close(hm.metrics.average_drop(left_half, image, maps), torch.tensor([0, 1, 0.0]).double())
    # 0.8 - 0.4 as a whole, 0.8 of the left half alone.
    assert hm.metrics.increase(dipped, image, maps).tolist() == [0, 0, 1]
    torch.testing.assert_close(hm.metrics.gain(dipped, image, maps), torch.tensor([0, 0, 0.4 / 0.6]).double())


def test_what_speaks_against_is_not_shown_and_the_scale_does_not_matter() -> None:
    image, m = torch.rand(1, 8, 8), noise(1, 4, 4)
    for metric in (hm.metrics.average_drop, hm.metrics.gain):
        values = [metric(left_half, image, maps) for maps in (m, 1e3 * m.relu(), m.half().relu())]
        torch.testing.assert_close(values[0], values[1])
        torch.testing.assert_close(values[0], values[2], rtol=0, atol=1e-3)
    assert hm.metrics.average_drop(left_half, image, -m.abs()).tolist() == [1], "a map of nothing shows nothing"


def test_confidences_are_asked_for() -> None:
    with pytest.raises(hm.HookmapError, match=r"scores from -?\d.* let it give probabilities"):
        hm.metrics.gain(lambda x: 9 * left_half(x), torch.ones(1, 4, 4), halves(1, 0))


def test_adcc_is_the_harmonic_mean_of_its_three() -> None:
    image, m = torch.full((1, 4, 4), 0.8), torch.tensor([[[4.0, 4, 2, 0]]]).expand(1, 4, 4)
    same = hm.metrics.adcc(left_half, image, m, lambda x: m)
    drop, complexity, coherency = 0.0, 2.5 / 4, 1.0
    assert same.item() == pytest.approx(3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop)))
    reverse = hm.metrics.adcc(left_half, image, m, lambda x: m.flip(-1))
    assert reverse < same
    assert hm.metrics.adcc(left_half, image, halves(0, 1), lambda x: halves(0, 1)).item() == 0
    with pytest.raises(hm.HookmapError, match="expected a map each"):
        hm.metrics.adcc(left_half, image, m, lambda x: m[0])


def test_infidelity_of_a_linear_models_own_attribution_is_zero_at_any_scale() -> None:
    w = linear()
    maps = torch.cat([w.right[None], 40 * w.right[None], seeded(1, CELLS, CELLS)])
    values = hm.metrics.infidelity(w.scorer, w.image, maps, cells=CELLS, fill="zero")
    assert values[:2].max() < 1e-24
    assert values[2] > 1e-3
    again = hm.metrics.infidelity(w.scorer, w.image, maps, cells=CELLS, fill="zero", batch_size=5)
    torch.testing.assert_close(values, again, rtol=0, atol=1e-12)


def test_max_sensitivity_of_the_gradient_of_a_square_is_that_of_the_noise() -> None:
    image = torch.ones(1, 4, 4, dtype=torch.float64)
    value = hm.metrics.max_sensitivity(lambda x: 2 * x[:, 0], image, radius=0.1, samples=50)
    assert 0.05 < value < 0.1
    assert value == hm.metrics.max_sensitivity(lambda x: 2 * x[:, 0], image, radius=0.1, samples=50)


def test_complexity_and_sparseness_at_their_ends() -> None:
    one = torch.zeros(1, 4, 4)
    one[0, 2, 1] = -3
    maps = torch.cat([one, torch.ones(1, 4, 4), torch.zeros(1, 4, 4)])
    complexity, sparseness = hm.metrics.complexity(maps), hm.metrics.sparseness(maps)
    assert complexity[:2].tolist() == pytest.approx([0, torch.tensor(16.0).log().item()])
    assert sparseness[:2].tolist() == pytest.approx([15 / 16, 0])
    assert complexity[2].isnan()
    assert sparseness[2].isnan()


# ---------------------------------------------------------------- what wins without being right


@pytest.fixture(scope="module")
def confidence(lens: hm.Lens) -> Confidence:
    """Of a photo: the scorer of the predicted class, the input, and the default method's map."""

    def of(path: Path) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
        image, _ = lens.preprocessing(load(path))
        with torch.no_grad():
            index = int(lens.model(image[None]).argmax())

        @torch.no_grad()
        def scorer(x: Tensor) -> Tensor:
            return lens.model(x).softmax(1)[:, index]

        return scorer, image, lens.explain(image[None], target=index).raw

    return of


def test_an_all_ones_map_wins_average_drop(confidence: Confidence, coffee: Path) -> None:
    scorer, image, m = confidence(coffee)
    ours, ones = hm.metrics.average_drop(scorer, image, torch.cat([m, torch.ones_like(m)]))
    assert ones < 1e-5
    assert ours > 0.05


def test_a_spot_in_the_middle_wins_gain(confidence: Confidence, coffee: Path) -> None:
    """And the increase of confidence, over a map that follows the model."""
    scorer, image, m = confidence(coffee)
    maps = torch.cat([m, spot((7, 7), 1.6)])
    for metric in (hm.metrics.gain, hm.metrics.increase):
        ours, middle = metric(scorer, image, maps)
        assert ours == 0
        assert middle > 0
    ours, middle = hm.metrics.srg(scorer, image, maps, steps=5)
    assert ours > middle, "what may vote isn't taken in"


def test_a_spot_that_sees_nothing_is_coherent_and_insensitive() -> None:
    seen = spot((4, 4), 0.2)
    blind = lambda x: seen.expand(len(x), 4, 4)  # noqa: E731
    assert hm.metrics.max_sensitivity(blind, torch.rand(1, 8, 8)).item() == 0
    maps = torch.cat([seen, noise(1, 4, 4).abs()])
    again = torch.cat([seen, noise(1, 4, 4, seed=9).abs()])
    middle, other = hm.metrics.adcc(lambda x: torch.full((len(x),), 0.5), torch.rand(1, 8, 8), maps, lambda x: again)
    assert middle > other


def test_an_even_map_is_hard_to_beat_in_infidelity() -> None:
    """Any object of several cells falls with how much is missing."""
    bright = pixels((seeded(CELLS, CELLS, seed=4) < 0.7).double())[None]
    scorer = lambda x: cells_of(x).mean((1, 2))  # noqa: E731
    single = torch.zeros(1, CELLS, CELLS)
    single[0, 0, 0] = 1
    options = {"cells": CELLS, "fill": "zero"}
    even, one = hm.metrics.infidelity(scorer, bright, torch.cat([torch.ones_like(single), single]), **options)
    assert even < one / 10
