"""Cells, their order, and what stands in place of what is removed."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import hookmap as hm
from hookmap.metrics.cells import grid_of, in_cells, on_pixels, ordered
from hookmap.metrics.correlation import pearson, ranks, spearman
from hookmap.metrics.fills import FILLS, blurred, fill_of, imputed
from hookmap.metrics.removal import road
from networks import noise


def test_cells_are_never_smaller_than_pixels() -> None:
    assert grid_of(torch.zeros(3, 224, 5), 14) == (14, 5)
    assert grid_of(torch.zeros(3, 224, 224), (7, 9)) == (7, 9)


def test_a_finer_map_in_cells_is_its_mean_over_each() -> None:
    maps = noise(2, 6, 8)
    torch.testing.assert_close(in_cells(maps, (3, 4)), F.avg_pool2d(maps, 2))
    assert in_cells(maps.double(), (6, 8)).equal(maps.double()), "on its own grid a map stays as it is"


def test_cells_cover_each_pixel_once() -> None:
    for size in ((10, 13), (14, 14), (4, 9)):
        cells = on_pixels(torch.eye(16), (4, 4), size)
        assert cells.sum(0).equal(torch.ones(size))
        assert (cells.flatten(1).sum(1) > 0).all()


def test_the_order_is_from_the_most_to_the_least_important() -> None:
    order = ordered(torch.tensor([[3.0, -1.0, 7.0, 0.0]]))
    assert order.rank.tolist() == [[1, 3, 0, 2]]
    assert order.tied.tolist() == [0]
    assert ordered(torch.tensor([[0.0, -0.0, 1.0, 1.0]])).tied.tolist() == [1]


def test_among_equals_all_maps_have_one_order_and_each_place_its_chance() -> None:
    first = [ordered(torch.zeros(2, 5), seed).rank for seed in range(200)]
    assert all(rank[0].equal(rank[1]) for rank in first)
    place = torch.stack([rank[0] for rank in first]).double().mean(0)
    assert (place - 2).abs().max() < 0.35


@pytest.mark.parametrize("fill", FILLS)
def test_a_plain_image_stays_plain_but_for_the_fills_zero_and_noise(fill: str) -> None:
    image = torch.tensor([0.3, -1.0, 2.0])[:, None, None].expand(3, 20, 24)
    removed = noise(2, 20, 24) > 0
    filled = fill_of(fill, image)(removed).expand(2, 3, 20, 24)
    where = removed[:, None].expand_as(filled)
    expected = torch.zeros(()) if fill == "zero" else image.expand_as(filled)[where]
    assert (filled[where] - expected).abs().max() < (0.06 if fill == "linear" else 1e-5)


def test_a_gradient_is_continued_into_a_hole() -> None:
    ramp = torch.linspace(0, 1, 32).expand(1, 32, 32)
    hole = torch.zeros(1, 32, 32, dtype=torch.bool)
    hole[:, 8:24, 8:24] = True
    assert (imputed(ramp, hole)[0] - ramp).abs().max() < 5e-3


def test_a_blur_keeps_the_mean_of_what_is_far_from_the_border() -> None:
    image = torch.zeros(1, 31, 31, dtype=torch.float64)
    image[0, 15, 15] = 1
    spread = blurred(image, 2.0)
    assert float(spread.sum()) == pytest.approx(1)
    assert spread.argmax() == 15 * 31 + 15


def test_an_image_or_a_function_is_a_fill_too() -> None:
    image, removed = noise(3, 8, 8), torch.ones(2, 8, 8, dtype=torch.bool)
    assert fill_of(torch.ones(3, 1, 1), image)(removed).equal(torch.ones(1, 3, 8, 8))
    assert fill_of(lambda x, gone: x[None] + 1, image)(removed).equal(image[None] + 1)


def test_linear_says_that_it_is_for_images() -> None:
    with pytest.raises(hm.HookmapError, match=r"defined for images \(C, H, W\)"):
        fill_of("linear", torch.zeros(1, 9))(torch.ones(1, 9, dtype=torch.bool))


def test_correlations_are_scipys() -> None:
    from scipy import stats

    a, b = noise(1, 40).round(decimals=1), noise(1, 40, seed=4).round(decimals=1)
    assert len(a.unique()) < 40, "with ties"
    assert ranks(a)[0].add(1).tolist() == stats.rankdata(a[0]).tolist()
    assert pearson(a, b).item() == pytest.approx(stats.pearsonr(a[0], b[0]).statistic, abs=1e-6)
    assert spearman(a, b).item() == pytest.approx(stats.spearmanr(a[0], b[0]).statistic, abs=1e-12)
    assert spearman(a, torch.zeros(1, 40)).item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_in_half_precision_are_measured_too(dtype: torch.dtype) -> None:
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    maps = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(2))
    expected = road(lambda x: x[:, 0].mean((1, 2)), image, maps, cells=4)
    half = road(lambda x: x[:, 0].float().mean((1, 2)), image.to(dtype), maps.to(dtype), cells=4)
    torch.testing.assert_close(half, expected, atol=5e-3, rtol=0)
