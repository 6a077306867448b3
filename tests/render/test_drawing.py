"""How a heatmap is drawn: what is bright is strong, what the model saw is marked, and a look is data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hookmap as hm
from hookmap.methods import METHODS
from hookmap.render.colors import STEPS, heat_of, shades
from hookmap.render.grid import tiles
from hookmap.render.overlay import UNSEEN, size_for_people

GEOMETRY = hm.Geometry.identity((320, 320))
GREY = hm.Picture(np.full((320, 320, 3), 120, np.uint8))


def heatmap(
    raw: torch.Tensor, picture: hm.Picture = GREY, geometry: hm.Geometry = GEOMETRY, **facts: Any
) -> hm.Heatmap:
    facts = {"method": METHODS["gradcam"], "layer": "layer4", "target": "cat", "index": 0, "score": 4.25} | facts
    return hm.Heatmap(raw=raw, picture=picture, geometry=geometry, probability=0.5, **facts)


def colour(drawn: Image.Image) -> np.ndarray:
    """How far each pixel is from the grey photo."""
    return np.abs(np.asarray(drawn, int) - 120).max(-1)


@pytest.mark.parametrize(
    ("share", "caveat"), [(0.0002, "next to no evidence"), (0.05, "weak: 5% of the evidence against")]
)
def test_what_is_weak_beside_what_speaks_against_is_not_lit_and_is_said(share: float, caveat: str) -> None:
    raw = torch.full((7, 7), -1.0)
    raw[3, 3] = share
    found = heatmap(raw)
    assert found.caveat == caveat
    assert colour(found.painted())[:280].max() < 12  # below stands the caveat
    raw[3, 3] = 1
    assert colour(heatmap(raw).painted()).max() > 100


@pytest.mark.parametrize("raw", [torch.zeros(7, 7), torch.ones(7, 7), torch.full((7, 7), float("nan"))])
@pytest.mark.parametrize("opacity", ["ramp", 0.5])
def test_no_evidence_and_the_same_everywhere_are_never_heat(raw: torch.Tensor, opacity: Any) -> None:
    assert colour(heatmap(raw).painted(opacity=opacity))[:280].max() == 0


def test_a_look_is_data_and_draws_the_same_when_it_is_read_again() -> None:
    raw = torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    look = hm.Look("signed", "symmetric", limit=2.5, ends=("unlike", "like"), opacity=0.6)
    again = hm.Look.from_json(json.loads(json.dumps(look.as_json())))
    drawn, redrawn = (heatmap(raw, look=one).overlay() for one in (look, again))
    assert np.array_equal(np.asarray(drawn), np.asarray(redrawn))


@pytest.mark.parametrize(
    ("look", "sentence"),
    [
        ({"opacity": 2}, "opacity is 2; expected a number from 0 to 1, or 'ramp'"),
        ({"threshold": 30}, "threshold is 30; expected a share from 0 to 1"),
        ({"scale": "log"}, "there's no scale 'log'; use 'max', 'minmax' or 'symmetric'"),
        ({"limit": 0}, "limit is 0; expected the value drawn as the strongest, above 0"),
        ({"grey": 1}, "grey is 1; expected True or False"),
        (
            {"color": "jet"},
            "a heatmap's look has no color; it has colormap, opacity, threshold, scale, limit, outliers, grey",
        ),
        ({"colormap": "infernal"}, "there's no colour map 'infernal'; did you mean inferno"),
    ],
)
def test_a_look_that_cannot_be_is_one_sentence(look: Any, sentence: str) -> None:
    with pytest.raises(hm.HookmapError, match=sentence):
        heatmap(torch.rand(7, 7)).overlay(**look)


def test_what_the_model_saw_is_marked_and_the_rest_stays_in_colour() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (320, 480, 3), np.uint8)
    geometry = hm.Geometry.identity((320, 480)).shifted((320, 320), 0, 80)
    drawn = np.asarray(heatmap(torch.rand(7, 7), hm.Picture(pixels), geometry).painted(), float)
    assert np.abs(drawn[:, :70] - pixels[:, :70] * UNSEEN).max() <= 1
    for y in (2, -3):
        for x in (81, 398):
            assert (drawn[y, x] == 255).all()


@pytest.mark.parametrize("look", [hm.Look(), hm.Look("signed", "symmetric"), hm.Look(opacity=0.5)])
def test_below_the_threshold_nothing_is_drawn(look: hm.Look) -> None:
    heat = heat_of(np.linspace(-1, 1, 100)[None], look, (-1.0 if look.symmetric else 0.0, 1.0))
    share = np.linspace(0, 1, STEPS, dtype=np.float32)
    strength = np.abs(2 * share - 1) if look.symmetric else share
    cut = shades(replace(heat, look=replace(look, threshold=0.7)))[1]
    assert np.array_equal(cut, shades(heat)[1] * (strength >= 0.7))
    assert 0 < (cut > 0).sum() < STEPS / 2


def test_the_ramp_begins_where_the_weakest_fifth_of_the_map_ends() -> None:
    values = torch.linspace(0.2, 1, 100).reshape(10, 10)
    heat = heatmap(values).heat()
    assert heat.start == pytest.approx(float(values.quantile(0.2)), abs=1e-6)
    assert heatmap(0.95 + values / 20).heat().start == 0.5  # what is nearly even isn't made to look uneven


def test_padding_has_no_part_in_the_scale() -> None:
    letterbox = hm.Geometry((160, 320), (320, 320), (1.0, 1.0), (80.0, 0.0))
    raw = torch.zeros(8, 8)
    raw[0] = 100  # on the padding
    raw[4, 4] = 1
    found = heatmap(raw, hm.Picture(np.full((160, 320, 3), 120, np.uint8)), letterbox)
    assert found.planes()[0].span(found.look) == (0, 1)


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (5, 400), (300, 200), (6000, 8000)])
def test_pictures_are_drawn_at_a_size_for_people(size: tuple[int, int]) -> None:
    assert 320 <= max(size_for_people(size)) <= 2048
    assert size_for_people((28, 28)) == (336, 336)
    assert size_for_people((300, 451)) == (300, 451)


def test_a_volume_is_three_planes_through_the_strongest_place() -> None:
    clip = np.full((16, 40, 60, 3), 90, np.uint8)
    raw = torch.zeros(8, 10, 15)
    raw[3, 4, 12] = 1
    found = heatmap(raw, hm.Picture(clip[8]), hm.Geometry.identity((40, 60)), frames=clip)
    planes = found.planes()
    assert [plane.name for plane in planes] == ["slice 8 of 16", "row 19 of 40", "column 51 of 60"]
    assert [plane.picture.pixels.shape[:2] for plane in planes] == [(40, 60), (16, 60), (16, 40)]
    assert all(plane.values.max() == 1 for plane in planes)
    assert found.overlay().width > 3 * 300
    colours = np.random.default_rng(0).integers(0, 255, clip.shape, np.uint8)
    assert len(replace(found, frames=colours).planes()) == 1  # a film is one frame


def test_a_figure_says_what_it_shows_and_keeps_its_text(tmp_path: Path) -> None:
    raw = torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    found = heatmap(raw, look=METHODS["gradcam"].look_of("signed"))
    text = found.save(tmp_path / "x.svg").read_text()
    for words in ("cat 50%", "Grad-CAM at layer4, score 4.25", "against", "for"):
        assert f">{words}</text>" in text
    assert b"/FontFile2" in found.save(tmp_path / "x.pdf").read_bytes()  # TrueType: text that can be searched


@pytest.mark.parametrize("scale", ["each", "shared", "symmetric"])
def test_maps_that_hold_nan_are_drawn_as_zeros_and_numpy_says_nothing(scale: Any) -> None:
    """A network that diverged while it was trained."""
    maps = np.array([[[-1.0, 0.0, 3.0]], [[-1.0, 0.0, 3.0]], [[0.0, 0.0, 0.0]]])
    some, nothing = maps.copy(), np.full((2, 1, 3), np.nan)
    some[1, 0, 1], some[2] = np.nan, np.nan
    how = {"scale": scale, "upsample": None}
    for one, other in zip(tiles(some, **how), tiles(maps, **how), strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
    for one, other in zip(tiles(nothing, **how), tiles(np.zeros((2, 1, 3)), **how), strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
