"""Where things lie: a bright square in a picture that isn't square, through every way to preprocess it, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import hookmap as hm
from detectors import Bright, Squares, detector, picture
from hookmap.adapters.detection import PIXELS
from segmenters import CORNERS, HEIGHT, SIDE, WIDTH, Padding, photo, segmenter

pytestmark = pytest.mark.filterwarnings("ignore:the heatmap of:hookmap.HookmapWarning")

PLAIN: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
WAYS = {
    "resize and crop": hm.Preprocessing(size=(128, 160), resize=144, **PLAIN),
    "squash": hm.Preprocessing(size=(128, 128), resize=(128, 128), **PLAIN),
    "letterbox": hm.Preprocessing(size=(192, 128), resize="letterbox", **PLAIN),
    "shorter side, any size": hm.Preprocessing(size=(96, 96), resize=96, any_size=True, **PLAIN),
    "crop without resize": hm.Preprocessing(size=(128, 200), resize=None, **PLAIN),
    "padding": hm.Preprocessing(size=(224, 320), resize=None, **PLAIN),
    "pixels as they are": PIXELS,
}


def centre(heat: Tensor) -> tuple[float, float]:
    """The centre of mass (x, y)."""
    y, x = torch.meshgrid(torch.arange(heat.shape[0]) + 0.5, torch.arange(heat.shape[1]) + 0.5, indexing="ij")
    return float((heat * x).sum() / heat.sum()), float((heat * y).sum() / heat.sum())


def lies_on(found: tuple[float, float], top: int, left: int, within: float) -> bool:
    return abs(found[0] - left - SIDE / 2) <= within and abs(found[1] - top - SIDE / 2) <= within


@pytest.mark.parametrize(("top", "left"), CORNERS)
@pytest.mark.parametrize("way", WAYS)
def test_the_heatmap_and_places_lie_where_the_square_is(way: str, top: int, left: int) -> None:
    check_places(segmenter(WAYS[way]), top, left)


@pytest.mark.parametrize(("top", "left"), CORNERS)
def test_a_model_that_resizes_and_pads_by_itself(top: int, left: int) -> None:
    check_places(segmenter(PIXELS, Padding), top, left)


def check_places(lens: hm.Lens, top: int, left: int) -> None:
    image = photo(top, left)
    box = hm.Box(left, top, left + SIDE, top + SIDE, of=0)
    area = np.zeros((HEIGHT, WIDTH), bool)
    area[top : top + SIDE, left : left + SIDE] = True
    middle = hm.Point(left + SIDE / 2, top + SIDE / 2, of=0)
    found = lens.explain(image, ["red", box, hm.Mask(area, of=0), middle], "cells", "hirescam")
    for heatmap in found:
        assert heatmap.map.shape == (HEIGHT, WIDTH)
        # A point is one cell.
        assert lies_on(centre(heatmap.map), top, left, within=9 if "point" in heatmap.where else 5)
        assert heatmap.index == 0
    red, in_box, in_mask, at_point = (h.score for h in found)
    assert in_box == pytest.approx(in_mask)
    assert 2 < at_point < 4.1  # 8 times full red, less the bias; the cell may hold an edge
    assert in_box > 0
    beside = hm.Point(left - 14, top + SIDE + 14, of=0)
    assert lens.explain(image, beside, "cells", "hirescam")[0].score < -3
    assert red > -3  # cells at the edges are partly red


@pytest.mark.parametrize(("top", "left"), CORNERS)
@pytest.mark.parametrize("way", WAYS)
def test_boxes_lie_where_the_square_is(way: str, top: int, left: int) -> None:
    lens = hm.Lens(Squares(Bright()), preprocessing=WAYS[way], labels=["red", "green"])
    found = lens.explain(photo(top, left), "red")
    assert [h.box for h in found] == [p.box for p in lens.predict(photo(top, left))[0]]
    box = found[0].box
    assert lies_on(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), top, left, within=13)
    assert lies_on(centre(found[0].map), top, left, within=15)
    inside = hm.Point((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    assert box in {h.box for h in lens.explain(photo(top, left), inside)}


@pytest.mark.parametrize("name", ["faster", "retinanet", "ssdlite"])
def test_the_grids_of_torchvisions_detectors_span_the_padded_picture(name: str) -> None:
    """A single cell of a level, laid back, lies where that level's stride puts it on the picture."""
    model = detector(name)
    lens, image = hm.Lens(model), picture(110, 150)

    def one_cell(activation: Tensor, gradient: Tensor) -> Tensor:
        maps = torch.zeros_like(activation[:, 0])
        maps[:, 2, 3] = 1
        return maps

    images, _ = model.transform([image.permute(2, 0, 1) / 255])
    (high, wide), padded = images.image_sizes[0], images.tensors.shape[2:]
    level = lens.engine.called.levels[0]
    (found,) = lens.explain(image.numpy(), "box:0", level, one_cell)
    stride = [side / cells for side, cells in zip(padded, found.raw.shape, strict=True)]
    x, y = centre(found.map)
    assert x == pytest.approx(3.5 * stride[1] * 150 / wide, abs=0.6)
    assert y == pytest.approx(2.5 * stride[0] * 110 / high, abs=0.6)


def test_places_have_no_score_by_themselves_and_classifiers_none(lens: hm.Lens, cat: Any) -> None:
    for place in (hm.Box(0, 0, 5, 5), hm.Point(1, 1), hm.Mask(np.ones((2, 2))), hm.Everywhere(), hm.Detection(0)):
        with pytest.raises(hm.TargetError, match="is a place: pass it to Lens.explain"):
            place(torch.zeros(1, 3))
        with pytest.raises(hm.TargetError, match="is a place, and this model's output has none"):
            lens.explain(cat, target=place)
    with pytest.raises(hm.TargetError, match=r"box \(5, 5, 5, 9\) is empty"):
        hm.Box(5, 5, 5, 9)
    with pytest.raises(hm.TargetError, match=r"a mask of shape \(3,\) came"):
        hm.Mask(np.ones(3))
    with pytest.raises(hm.TargetError, match="true somewhere"):
        hm.Mask(np.zeros((3, 3)))


@pytest.mark.parametrize("words", ["box:1,2", "point:3", "box:a", "box:-1", "box:1:2:3", "everywhere:3", "point"])
def test_words_that_are_no_place_are_said(words: str) -> None:
    with pytest.raises(hm.TargetError):
        segmenter(PIXELS).explain(photo(*CORNERS[0]), words)
