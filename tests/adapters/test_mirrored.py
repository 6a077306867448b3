"""Mirrored copies of a detector's input: each target is asked about what is found at its place on the other side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

import hookmap as hm
from detectors import detector, picture, scene, squares
from hookmap.attribution.modifiers import Variation
from hookmap.hooks.registration import hooked
from networks import noise
from segmenters import CORNERS, Padding, photo, segmenter

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
KINDS = [(factor, mirrored) for factor in (0.9, 1.0, 1.1) for mirrored in (False, True)]


@pytest.mark.parametrize("target", ["box:0", "box:1", "green", hm.Contrast("box:0", 1), hm.Contrast("box:1", "box:0")])
def test_of_a_detector_that_commutes_with_mirroring_the_mirrored_map_is_the_plain_one(target: Any) -> None:
    """This one's gradients are constant and its layer is linear in the picture: the mean of six is the plain map."""
    lens, x, how = squares(), scene((0, 20, 12), (1, 36, 68)), {"method": "hirescam", "layer": "cells"}
    (plain,), (smooth,) = (lens.explain(x, target, aug_smooth=smooth, **how) for smooth in (False, True))
    assert plain.raw.any()
    assert not torch.allclose(plain.raw, plain.raw.flip(-1), atol=0.1)
    assert torch.allclose(smooth.raw, plain.raw, atol=1e-5)
    assert (smooth.box, smooth.score, smooth.title) == (plain.box, plain.score, plain.title)


def by_hand(lens: hm.Lens, x: Tensor, levels: list[str], number: int, scores: list[Any]) -> list[Tensor]:
    """The mean over six copies of scores of the candidate that overlaps a detection's place most, in plain PyTorch."""
    model, (height, width) = lens.engine.called, x.shape[1:]
    with torch.no_grad():
        plain = model(x[None])
    row, label = plain.kept[0][number]
    total: list[Any] = [0] * (len(scores) * len(levels))
    for factor, mirrored in KINDS:
        gave: dict[Any, Tensor] = {}
        modules = [lens.model.get_submodule(level) for level in levels]
        with hooked(modules, lambda module, _, output, gave=gave: gave.__setitem__(module, output)):
            found = model(factor * (x.flip(-1) if mirrored else x)[None])
        place = plain.boxes_of(label)[0, row]
        if mirrored:
            place = torch.stack([width - place[2], place[1], width - place[0], place[3]])
        boxes = found.boxes_of(label)[0]
        mine = row if found.fixed and not mirrored else int(box_iou(place[None], boxes.detach())[0].argmax())
        for n, score in enumerate(scores):
            value = score(found.scores[0, mine, label], boxes[mine], mirrored)
            activations = [gave[module] for module in modules]
            gradients = torch.autograd.grad(value, activations, retain_graph=True, materialize_grads=True)
            for k, (a, g) in enumerate(zip(activations, gradients, strict=True)):
                one = (a * g).detach().sum((0, 1))
                total[n * len(levels) + k] += turned(one, lens, height, width) if mirrored else one
    return [one / 6 for one in total]


def turned(one: Tensor, lens: hm.Lens, height: int, width: int) -> Tensor:
    """A map of the mirrored picture mirrored back, column by column, about the picture's middle and not the grid's."""
    images, _ = lens.model.transform([torch.zeros(3, height, width, dtype=torch.float64)])
    filled = images.image_sizes[0][1] / images.tensors.shape[-1] * one.shape[1]
    columns = np.arange(one.shape[1]) + 0.5
    back = [np.interp(filled - columns, columns, row) for row in one.numpy()]
    return torch.from_numpy(np.stack(back))


@pytest.mark.parametrize(
    ("name", "height", "width"), [("faster", 110, 150), ("retinanet", 96, 160), ("fcos", 110, 150)]
)
def test_it_is_the_mean_of_six_explanations(name: str, height: int, width: int) -> None:
    """Two of these pictures are padded by the model."""
    lens, x = hm.Lens(detector(name).double()), picture(height, width).permute(2, 0, 1).double() / 255
    levels = list(lens.engine.called.levels)[:3]
    middle = sum(lens.predict(x)[0][1].box[::2]) / 2

    def left(_: Tensor, box: Tensor, mirrored: bool) -> Tensor:
        return box[2] - (width - middle) if mirrored else middle - box[0]

    expected = by_hand(lens, x, levels, 1, [lambda score, box, mirrored: score, left])
    found = lens.explain(x, ["box:1", "box:1:left"], levels, "hirescam", aug_smooth=True)
    for mine, theirs in ((found[:3], expected[:3]), (found[3:], expected[3:])):
        largest = max(float(one.abs().max()) for one in theirs)
        assert largest > 0
        for heatmap, one in zip(mine, theirs, strict=True):
            assert torch.allclose(heatmap.raw, one, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize(("columns", "filled"), [(8, 1.0), (8, 0.75), (10, 0.83)])
def test_a_grid_that_is_wider_than_the_picture_is_mirrored_about_the_pictures_middle(
    columns: int, filled: float
) -> None:
    """A slope along the columns stays a slope, and lies about the picture's middle."""
    ramp = (torch.arange(columns) + 0.5).double().expand(2, 1, 4, -1)
    back = Variation(noise(1, 3, 4, 4), mirrored=True).undo(ramp, filled)
    inside = filled * columns - ramp >= 0.5
    assert torch.allclose(back[inside], (filled * columns - ramp)[inside])


@pytest.mark.parametrize(("top", "left"), CORNERS)
def test_smoothed_heatmaps_lie_where_the_square_is_also_of_a_model_that_pads(top: int, left: int) -> None:
    lens = segmenter(hm.Preprocessing(size=(160, 250), resize=None, mean=(0.0,) * 3, std=(1.0,) * 3), Padding)
    box = hm.Box(left, top, left + 24, top + 24, of=0)
    plain, smooth = (lens.explain(photo(top, left), box, "cells", "hirescam", aug_smooth=s)[0] for s in (False, True))
    columns = torch.arange(240) + 0.5
    at = [float((h.map.clamp(min=0).sum(0) * columns).sum() / h.map.clamp(min=0).sum()) for h in (plain, smooth)]
    assert at[1] == pytest.approx(at[0], abs=1)
