"""Whether a map lies on an object: counted by hand."""

from __future__ import annotations

import pytest
import torch

import hookmap as hm
from networks import noise


def at(*places: tuple[int, int], size: tuple[int, int] = (8, 8)) -> torch.Tensor:
    values = torch.zeros(size)
    for row, column in places:
        values[row, column] = 1
    return values


OBJECT = at(*((row, column) for row in range(2, 6) for column in range(1, 4))).bool()


def test_pointing_asks_for_the_strongest_place() -> None:
    maps = torch.stack([at((3, 2)), at((3, 4)), -at((3, 2)) - 1])
    assert hm.metrics.pointing(maps[:2], OBJECT).tolist() == [1, 0]
    assert hm.metrics.pointing(maps[:2], OBJECT, tolerance=1).tolist() == [1, 1]
    assert hm.metrics.pointing(at((7, 4))[None], OBJECT, tolerance=2).tolist() == [0], "the corner is farther away"
    assert hm.metrics.pointing(at((7, 4))[None], OBJECT, tolerance=2.3).tolist() == [1]


def test_of_equals_the_share_on_the_object_counts() -> None:
    maps = torch.stack([at((3, 2), (7, 7)), torch.ones(8, 8), -torch.ones(8, 8)])
    share = OBJECT.double().mean().item()
    assert hm.metrics.pointing(maps, OBJECT).tolist() == [0.5, share, share]


def test_iou_counts_what_is_above_a_share_of_the_maximum() -> None:
    m = OBJECT.float() * 4 + at((0, 0), (7, 7)) * 2.2 + at((7, 0)) * -9
    maps = torch.stack([m, -OBJECT.float()])
    assert hm.metrics.iou(maps, OBJECT).tolist() == pytest.approx([12 / 14, 0])
    assert hm.metrics.iou(maps, OBJECT, threshold=0.6).tolist() == [1, 0]
    with pytest.raises(hm.HookmapError, match="threshold is 0"):
        hm.metrics.iou(maps, OBJECT, threshold=0)


def test_energy_is_the_share_of_what_speaks_for() -> None:
    m = OBJECT.float() - 5 * at((0, 0)) + 3 * at((7, 7))
    maps = torch.stack([m, torch.ones(8, 8), -torch.ones(8, 8)])
    inside = hm.metrics.energy(maps, OBJECT)
    assert inside[:2].tolist() == pytest.approx([12 / 15, 12 / 64])
    assert inside[2].isnan()


def test_boxes_cover_parts_of_pixels() -> None:
    mask = hm.metrics.in_boxes([(1, 2, 4, 6)], (8, 8))
    assert mask.bool().equal(OBJECT)
    assert hm.metrics.in_boxes([(0.5, 0, 2, 1), (0, 0, 1, 1)], (1, 3)).tolist() == [[1, 1, 0]]
    even = hm.metrics.energy(torch.ones(1, 8, 8), hm.metrics.in_boxes([(0.25, 0, 4, 8)], (8, 8)))
    assert even.item() == pytest.approx(3.75 / 8)


def test_coarse_maps_are_laid_over_the_mask() -> None:
    mask = torch.zeros(64, 96, dtype=torch.bool)
    mask[:32, :32] = True
    m = at((0, 0), size=(2, 3))[None]
    assert hm.metrics.pointing(m, mask).item() == 1
    assert 0.5 < hm.metrics.energy(m, mask).item() < 1
    with pytest.raises(hm.HookmapError, match=r"expected \(H, W\)"):
        hm.metrics.energy(m, mask[None])


def test_the_measures_of_a_heatmap_say_the_same() -> None:
    from hookmap.images.geometry import Geometry
    from hookmap.metrics.summary import measured

    m, mask = noise(64, 64), torch.zeros(64, 64, dtype=torch.bool)
    mask[10:40, 20:60] = True
    box = (20, 10, 60, 40)
    measures = measured(m, Geometry.identity((64, 64)), [box], mask.numpy())
    share = hm.metrics.energy(m[None], mask).item()
    assert measures.in_mask == pytest.approx(share, abs=0.02)
    assert measures.in_box == pytest.approx(share, abs=0.02)
    assert hm.metrics.energy(m[None], hm.metrics.in_boxes([box], (64, 64))).item() == pytest.approx(share)


def test_grid_pointing_is_the_share_in_the_right_image() -> None:
    m = torch.tensor([[[3.0, 1], [0, -7]]])
    assert [hm.metrics.grid_pointing(m, cell).item() for cell in ((0, 0), (0, 1), (1, 0), (1, 1))] == [0.75, 0.25, 0, 0]
    even = torch.ones(1, 7, 7)
    assert hm.metrics.grid_pointing(even, (1, 0)).item() == pytest.approx(1 / 4), "the middle row is half of each"
    assert hm.metrics.grid_pointing(even, (2, 1), (3, 3)).item() == pytest.approx(1 / 9)
    with pytest.raises(hm.HookmapError, match="a mosaic of 2 x 2"):
        hm.metrics.grid_pointing(even, (0, 2))
