"""Two heatmaps of one picture, subtracted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import hookmap as hm
from networks import convnet


def of(heatmap: hm.Heatmap, raw: list[list[float]], geometry: hm.Geometry | None = None) -> hm.Heatmap:
    """The heatmap with another map, laid elsewhere."""
    height, width = heatmap.picture.pixels.shape[:2]
    return replace(heatmap, raw=torch.tensor(raw), geometry=geometry or hm.Geometry.identity((height, width)))


@pytest.fixture(scope="module")
def heatmap(lens: hm.Lens, cat: Path) -> hm.Heatmap:
    return replace(lens.explain(cat)[0], picture=hm.Picture(np.full((40, 80, 3), 128, np.uint8)))


def quarters(found: hm.Difference) -> Tensor:
    """The values in the middle of each quarter of the picture's width."""
    return found.values[found.values.shape[0] // 2, [32, 96, 160, 224]]


def test_each_map_counts_in_shares_of_its_own_scale(heatmap: hm.Heatmap) -> None:
    one, other = of(heatmap, [[8.0, 8.0, 0.0, 0.0]]), of(heatmap, [[0.0, 0.01, 0.02, 0.02]])
    found = hm.difference(one, other)
    assert found.area == (0, 0, 80, 40)
    assert found.values.shape == (128, 256)
    # 8 is all of the first scale, 0.02 all of the second.
    torch.testing.assert_close(quarters(found), torch.tensor([1.0, 0.5, -1.0, -1.0]), atol=0.01, rtol=0)
    torch.testing.assert_close(hm.difference(other, one).values, -found.values)
    assert hm.difference(one, of(heatmap, [[0.5, 0.5, 0.0, 0.0]])).strongest < 1e-6  # in other units it's the same map


def test_where_one_is_signed_both_are(heatmap: hm.Heatmap) -> None:
    positive = of(heatmap, [[-4.0, -4.0, 4.0, 4.0]])
    signed = replace(positive, look=hm.Look("signed", "symmetric"))
    assert hm.difference(positive, signed).strongest < 1e-6
    against = of(heatmap, [[4.0, 4.0, -4.0, -4.0]])
    expected = torch.tensor([-2.0, -2.0, 2.0, 2.0])
    torch.testing.assert_close(quarters(hm.difference(signed, against)), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(quarters(hm.difference(positive, against)), expected / 2, atol=0.02, rtol=0)


def test_grids_and_crops_may_differ_and_only_what_both_saw_counts(heatmap: hm.Heatmap) -> None:
    ramp = [[i / 16 for i in range(17)]]
    whole = of(heatmap, ramp)
    # The middle half of the picture, which spans the ramp's values from a quarter to three quarters, in eighths.
    middle = hm.Geometry((40, 80), (40.0, 40.0), offset=(0.0, -20.0))
    part = of(heatmap, [[0.0] * 4 + [1.0] * 4], middle)
    found = hm.difference(whole, part)
    assert found.area == (20, 0, 60, 40)
    assert found.values.shape == (128, 128)
    column = torch.arange(64, 192)[[16, 112]] + 0.5
    expected = ((column / 256 * 17 - 0.5) / 16) - torch.tensor([0.0, 1.0])
    torch.testing.assert_close(found.values[64, [16, 112]], expected, atol=2e-3, rtol=0)
    with pytest.raises(hm.HookmapError, match="no place of the picture in common"):
        hm.difference(part, of(heatmap, [[0.0, 1.0]], hm.Geometry((40, 80), (40.0, 10.0))))


def test_its_picture_says_which_colour_is_which(heatmap: hm.Heatmap, tmp_path: Path) -> None:
    one, other = of(heatmap, [[1.0, 0.0]]), of(heatmap, [[0.0, 1.0]])
    found = hm.difference(one, other, names=("old", "new"))
    assert found.look.ends == ("more in new", "more in old")
    left, right = (np.asarray(found.overlay(size=400))[60, x].astype(int) for x in (20, 380))
    assert left[1] > left[0] + 40
    assert left[1] > left[2] + 40
    assert right[0] > right[1] + 40
    assert right[2] > right[1] + 40
    found.save(tmp_path / "difference.png")
    with Image.open(tmp_path / "difference.png") as drawn:
        assert drawn.size == (320, 160)
    same = hm.difference(one, one)
    assert len(np.unique(np.asarray(same.overlay(size=400))[:100].reshape(-1, 3), axis=0)) == 1


def test_what_is_nearly_the_same_looks_so(heatmap: hm.Heatmap) -> None:
    found = hm.difference(of(heatmap, [[1.0, 0.5]]), of(heatmap, [[1.0, 0.48]]))
    assert found.strongest == pytest.approx(0.02, abs=1e-3)
    assert found.look.limit == 0.25


@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")
def test_they_are_called_by_what_they_differ_in(lens: hm.Lens, cat: Path, coffee: Path) -> None:
    every = lens.explain(cat, ["tabby", "lynx"], ["blocks.5", "bn2"], ["gradcam", "layercam"])
    one = every[0]

    def names(**which: str) -> tuple[str, str]:
        return hm.difference(one, every.select(**which)[0]).names

    first = {"target": "tabby", "layer": "blocks.5", "method": "gradcam"}
    assert names(**first | {"method": "layercam"}) == ("Grad-CAM", "LayerCAM")
    assert names(**first | {"layer": "bn2"}) == ("blocks.5", "bn2")
    assert names(**first | {"target": "lynx"}) == ("tabby", "lynx")
    assert hm.difference(one, every.select(target="lynx")[0]).caveat == "of different targets: tabby, lynx"
    with pytest.raises(hm.HookmapError, match="different pictures, 'cat' and 'coffee'"):
        hm.difference(one, lens.explain(coffee)[0])
    with pytest.raises(hm.HookmapError, match="a heatmap of 3 dimensions came"):
        hm.difference(one, replace(one, raw=torch.zeros(2, 3, 4)))


def test_two_models_are_told_apart_by_their_names(lens: hm.Lens, cat: Path) -> None:
    """Their inputs and grids differ too: 7 x 7 cells of the middle against 40 x 40 of all."""
    other = hm.Lens(convnet(), preprocessing=hm.Preprocessing((80, 80), (80, 80)))
    one = lens.explain(cat, 281)[0]
    found = hm.difference(one, other.explain(cat, 3)[0])
    assert found.names == ("efficientnet_lite0", "Sequential")
    assert found.area == pytest.approx(one.geometry.seen, abs=3)
