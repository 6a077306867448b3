"""Keypoints of detected objects: what they score is the detector's own, and each is a target by name or number."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights

import hookmap as hm
from detectors import Bright, Squares, detector, picture, scene, squares
from hookmap.hooks.registration import hooked

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
NAMES = KeypointRCNN_ResNet50_FPN_Weights.DEFAULT.meta["keypoint_names"]


@functools.cache
def lens_of(name: str) -> hm.Lens:
    return hm.Lens(detector(name).double())


def image() -> Tensor:
    return picture().permute(2, 0, 1).double() / 255


def test_keypoints_score_what_torchvision_says() -> None:
    lens = lens_of("keypoint")
    with torch.no_grad():
        (own,) = lens.model([image()])
        found = lens.engine.called(image()[None])
    assert torch.equal(found.keypoints[0], own["keypoints_scores"])
    assert found.joints == NAMES
    targets = [hm.Detection(1, name) for name in NAMES]
    scores = [h.score for h in lens.explain(image(), target=targets)]
    assert scores == pytest.approx(own["keypoints_scores"][1].tolist())
    assert lens_of("faster").engine.called(image()[None]).keypoints is None


def test_a_keypoint_is_the_gradient_of_its_heatmap_where_it_is_largest() -> None:
    """By hand: the head's heatmap, enlarged to the box by bicubic interpolation as torchvision does it, at its top."""
    lens, x = lens_of("keypoint"), image()
    levels, heads = list(lens.engine.called.levels), lens.model.roi_heads
    gave: dict[nn.Module, Any] = {}
    modules = [heads.keypoint_roi_pool, heads.keypoint_predictor, *(lens.model.get_submodule(n) for n in levels)]
    boxes: list[Tensor] = []
    first = heads.keypoint_roi_pool.register_forward_pre_hook(lambda _, given: boxes.append(given[1][0]))
    with hooked(modules, lambda module, _, output: gave.__setitem__(module, output)):
        lens.model([x])
    first.remove()
    sides = (boxes[0][1, 2:] - boxes[0][1, :2]).clamp(min=1)
    wide, high = (math.ceil(side) for side in sides.tolist())
    for name in ("left_shoulder", "nose"):
        heat = gave[modules[1]][1, NAMES.index(name)]
        score = nn.functional.interpolate(heat[None, None], (high, wide), mode="bicubic").max()
        activations = [gave[module] for module in modules[2:]]
        gradients = torch.autograd.grad(score, activations, allow_unused=True, retain_graph=True)
        assert any(gradient is not None and gradient.any() for gradient in gradients)
        found = lens.explain(x, target=f"box:1:{name}", method="hirescam", layer=levels)
        assert found[0].score == pytest.approx(score.item(), rel=1e-6)
        for heatmap, a, g in zip(found, activations, gradients, strict=True):
            expected = torch.zeros_like(a) if g is None else a * g
            assert torch.allclose(heatmap.raw, expected.detach().sum((0, 1)), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("word", ["left_shoulder", "Left Shoulder", "left-shoulder", "keypoint 5"])
def test_a_keypoint_is_called_by_name_or_number(word: str) -> None:
    lens = lens_of("keypoint")
    one, other = lens.explain(image(), target=[f"box:0:{word}", hm.Detection(0, word)])
    assert NAMES[5] == "left_shoulder"
    assert one.where == other.where == "box 0, its left_shoulder"
    assert one.title == f"{one.target} {one.probability:.0%}, box 0, its left_shoulder"
    assert one.box == lens.predict(image())[0][0].box
    assert torch.equal(one.raw, other.raw)


def test_a_contrast_of_two_keypoints_is_the_difference_and_says_which() -> None:
    wrists = [hm.Detection(0, "left_wrist"), hm.Detection(0, "right_wrist")]
    both, left, right = lens_of("keypoint").explain(image(), [hm.Contrast(*wrists), *wrists], method="hirescam")
    assert torch.allclose(both.raw, left.raw - right.raw)
    assert both.target == f"{left.target} rather than box 0, its right_wrist"
    assert both.where == "box 0, its left_wrist"


class Jointed(Squares):
    """Each square has three joints: what its class scores one cell to the left, one to the right and in its middle."""

    names: tuple[str, ...] = ("left hand", "right hand", "middle")

    def forward(self, x: Tensor) -> hm.Detections:
        found = super().forward(x)
        (scores,), (kept,) = found.scores.mT.unflatten(2, (x.shape[2] // 8, -1)), found.kept
        joints = [torch.stack([scores[k.label].flatten()[k.row + step] for step in (-1, 1, 0)]) for k in kept]
        points = torch.stack(joints) if joints else scores.new_zeros(0, 3)
        return replace(found, keypoints=[points], joints=self.names)


def jointed(*names: str) -> hm.Lens:
    plain = squares()
    adapter = Jointed(Bright())
    adapter.names = names
    return hm.Lens(adapter, preprocessing=plain.preprocessing, labels=plain.labels)


def test_without_names_keypoints_have_numbers() -> None:
    x = scene((0, 8, 24))
    (h,) = jointed().explain(x, target="box:0:keypoint 1")
    assert h.where == "box 0, its keypoint 1"
    (named,) = jointed("left hand", "right hand", "middle").explain(x, target="box:0:right hand")
    assert torch.equal(h.raw, named.raw)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (
            "box:0:tail",
            "attribute is 'tail'; expected one of class, .*, mask; or of its keypoints: left hand, right hand",
        ),
        (hm.Detection(0, "keypoint 3"), "attribute is 'keypoint 3'; expected one of class"),
        ("box:0:mask", "this detector gives no masks"),
    ],
)
def test_what_is_no_keypoint_is_said_with_those_that_are(target: Any, sentence: str) -> None:
    with pytest.raises(hm.TargetError, match=sentence):
        jointed("left hand", "right hand", "middle").explain(scene((0, 8, 24)), target=target)
    with pytest.raises(hm.TargetError, match="'tail'; expected one of class, .*mask; this detector gives no keypoints"):
        squares().explain(scene((0, 8, 24)), target="box:0:tail")


def test_a_keypoint_in_copies_in_which_its_object_is_hidden() -> None:
    """By probability it is 0 there; a score it has none."""
    lens, x = jointed("left hand", "right hand", "middle"), scene((0, 24, 40))
    (found,) = lens.explain(x, target="box:0:middle", method="drise", budget=60)
    assert torch.isfinite(found.raw).all()
    assert found.raw[24:40, 40:56].mean() > found.raw.mean()
    with pytest.raises(hm.TargetError, match="the object isn't detected, so its middle has no score; take a method"):
        lens.explain(x, target="box:0:middle", method="occlusion")


def test_a_mirrored_objects_left_is_where_its_right_was() -> None:
    """Of a network that commutes with mirroring, and is linear, the mean over the six copies is the plain map."""
    x, how = scene((0, 20, 44)), {"method": "hirescam", "layer": "cells"}
    for names, word in ((("left hand", "right hand", "middle"), "left hand"), (("Left", "Right", "Middle"), "Middle")):
        lens = jointed(*names)
        plain, smooth = (lens.explain(x, f"box:0:{word}", aug_smooth=smooth, **how)[0] for smooth in (False, True))
        assert plain.raw.any()
        assert torch.allclose(smooth.raw, plain.raw, atol=1e-5)
    for names in ((), ("front", "back", "middle")):
        with pytest.raises(hm.TargetError, match="which keypoint .* is there isn't known.*take noise_smooth"):
            jointed(*names).explain(x, target="box:0:keypoint 0", aug_smooth=True)
