"""Detectors: what they detect is what they say, and why is traced through their post-processing."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import hookmap as hm
from detectors import CHANNELS, FAMILIES, Bright, Squares, detector, picture, scene, squares
from hookmap.hooks.registration import hooked
from hookmap.methods import METHODS
from hookmap.render.overlay import BOX_COLORS
from hookmap.results.sheet import _windows
from hookmap.targets.resolved import ResolvedTargets
from networks import noise
from tiny import OF_ATTENTION, close
from trained import PHOTOS, centerface, fastestdet

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")


@functools.cache
def lens_of(name: str, dtype: torch.dtype = torch.float32) -> hm.Lens:
    return hm.Lens(detector(name).to(dtype))


def image(dtype: torch.dtype = torch.float32) -> Tensor:
    return picture().permute(2, 0, 1).to(dtype) / 255


# ---------------------------------------------------------------- torchvision's


@pytest.mark.parametrize("name", FAMILIES)
def test_detections_are_the_models_own(name: str) -> None:
    lens = lens_of(name)
    with torch.no_grad():
        (own,) = lens.model([image()])
    (found,) = lens.predict(picture().numpy())
    assert len(found) == len(own["boxes"]) > 1
    assert [one.index for one in found] == own["labels"].tolist()
    assert torch.allclose(torch.tensor([one.probability for one in found]), own["scores"])
    assert torch.allclose(torch.tensor([one.box for one in found]), own["boxes"], atol=1e-4)
    assert [one.box for one in lens.predict(picture().numpy(), top=2)[0]] == [one.box for one in found[:2]]


def test_a_batch_is_detected_as_each_image_alone() -> None:
    lens = lens_of("faster")
    other = picture().flip(0).contiguous().numpy()
    together = lens.predict([picture().numpy(), other])
    for found, one in zip(together, [picture().numpy(), other], strict=True):
        (alone,) = lens.predict(one)
        assert [p.index for p in found] == [p.index for p in alone]
        assert torch.allclose(torch.tensor([p.box for p in found]), torch.tensor([p.box for p in alone]), atol=1e-2)


def by_hand(model: nn.Module, x: Tensor, number: int, levels: list[str]) -> tuple[list[Tensor], list[Tensor]]:
    """A detection's class logit, differentiated at layers in plain PyTorch: (activations, gradients).

    The detector's final score leads back to its candidate: where it has a gradient among the logits.
    """
    two_stage = hasattr(model, "roi_heads")
    head = model.roi_heads.box_predictor if two_stage else model.head
    gave: dict[nn.Module, Any] = {}
    modules = [head, *(model.get_submodule(level) for level in levels)]
    with hooked(modules, lambda module, _, output: gave.__setitem__(module, output)):
        (own,) = model([x])
    score, label = own["scores"][number], own["labels"][number]
    activations = [gave[module] for module in modules[1:]]
    logits = gave[head][0] if two_stage else gave[head]["cls_logits"]
    if two_stage or type(model).__name__ == "SSD":  # softmax: its logit is another function of all scores
        row = torch.autograd.grad(score, logits, retain_graph=True)[0].flatten(0, -2).abs().sum(1).nonzero()
        assert row.shape == (1, 1)
        wanted = logits.flatten(0, -2)[row[0, 0], label]
    else:
        wanted = torch.logit(score)
    gradients = torch.autograd.grad(wanted, activations, allow_unused=True)
    filled = [torch.zeros_like(a) if g is None else g for a, g in zip(activations, gradients, strict=True)]
    return [a.detach() for a in activations], filled


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradient_of_a_detection_is_traced_through_post_processing(name: str) -> None:
    dtype, tolerance = (torch.float32, 1e-3) if name == "ssd" else (torch.float64, 1e-9)  # VGG takes long in float64
    lens, x = lens_of(name, dtype), image(dtype)
    levels = list(lens.engine.called.levels)
    activations, gradients = by_hand(lens.model, x, 1, levels)
    found = lens.explain(x, target=hm.Detection(1), method="hirescam", layer=levels)
    assert any(gradient.any() for gradient in gradients)
    for heatmap, a, g in zip(found, activations, gradients, strict=True):
        expected = (a * g).sum((0, 1))
        assert bool((heatmap.raw - expected).abs().max() <= tolerance * expected.abs().max())
    assert lens.explain(x, target="box:1", method="hirescam")[0].raw.any()


@pytest.mark.parametrize("attribute", ["class", "right"])
@pytest.mark.parametrize("name", ["faster", "retinanet", "fcos", "ssdlite"])
def test_the_gradient_of_a_detection_is_a_finite_difference_in_feature_space(name: str, attribute: Any) -> None:
    lens, x = lens_of(name, torch.float64), image(torch.float64)
    model, levels = lens.engine.called, list(lens.engine.called.levels)
    target, step = hm.Detection(0, attribute), 1e-7

    def gradient_of(gradient: Tensor) -> Tensor:
        return gradient[:, :8].sum(1)

    maps = lens.explain(x, target=target, method=gradient_of, layer=levels)
    level = max(range(len(levels)), key=lambda i: float(maps[i].raw.abs().sum()))
    with hm.capture(model, levels[level]) as seen:
        output = model(x[None])
        goals = ResolvedTargets([target], output, [hm.Geometry.identity((110, 150))])
        activation = seen[levels[level]].activation.detach()
        direction = torch.zeros_like(activation)
        direction[:, :8] = noise(*activation.shape[2:]).to(activation)
        held: list[Any] = []

        def hold(_: nn.Module, __: Any, given: Any) -> Any:
            """What is proposed stays what it was: no gradient leads through it."""
            held.append(given)
            return held[0]

        with hooked([model.plain.rpn] if name == "faster" else [], hold):
            model(x[None])
            ends = [
                goals.scores(seen.replay(levels[level], activation + sign * step * direction))[0, 0] for sign in (1, -1)
            ]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert torch.allclose(slope, (maps[level].raw * direction[0, 0]).sum(), rtol=1e-4)


def test_a_detector_of_another_class_count_has_no_names_of_coco() -> None:
    assert lens_of("ssdlite").labels is None
    assert lens_of("faster").labels is None


def test_levels_that_make_one_another_are_not_added_up() -> None:
    """SSD reads each object from one level, and the levels before it made that one."""
    lens, x = lens_of("ssdlite", torch.float64), image(torch.float64)
    levels = list(lens.engine.called.levels)
    for number in (0, 1):
        each = lens.explain(x, target=hm.Detection(number), method="hirescam", layer=levels)
        last = [h.raw for h in each if h.raw.any()][-1]
        (one,) = lens.explain(x, target=hm.Detection(number), method="hirescam")
        assert one.layer.startswith("last of backbone")
        grown = nn.functional.interpolate(last[None, None], one.raw.shape, mode="bilinear")[0, 0]
        assert torch.allclose(one.raw, grown)


def test_the_pyramid_above_the_backbone_is_looked_at_where_it_is_not_made_from_the_levels_below() -> None:
    assert lens_of("retinanet without P5").engine.called.levels[-1] == "backbone.fpn.extra_blocks.p6"
    assert lens_of("retinanet").engine.called.levels[-1] == "backbone.fpn.layer_blocks.2"


def test_a_level_that_is_normalised_place_by_place_is_looked_at_before_that() -> None:
    lens = lens_of("ssd")
    assert lens.engine.called.levels[:2] == ["backbone.features.12", "backbone.extra.0"]
    where = ["backbone.features.12", "backbone.features.14"]
    before, after = lens.explain(image(), target="box:0", method="hirescam", layer=where, part="signed")
    assert after.raw.abs().max() < 1e-3 * before.raw.abs().max()


# ---------------------------------------------------------------- box and mask


@pytest.mark.parametrize("name", ["faster", "fcos"])
def test_how_far_a_box_reaches_is_a_target(name: str) -> None:
    lens = lens_of(name)
    box = lens.predict(picture().numpy())[0][1].box
    parts = ("left", "top", "right", "bottom")
    found = lens.explain(picture().numpy(), target=[*(f"box:1:{p}" for p in parts), "box:1:box"], method="hirescam")
    width, height = box[2] - box[0], box[3] - box[1]
    if min(box) > 0 and box[2] < 150 and box[3] < 110:  # not cut off at the picture's edge
        assert [h.score for h in found[:4]] == pytest.approx([width / 2, height / 2] * 2, rel=1e-4)
    assert found[4].score == pytest.approx(sum(h.score for h in found[:4]), rel=1e-5)
    assert close(found[4].raw, sum(h.raw for h in found[:4]), 1e-4)
    assert [h.where for h in found][::4] == ["box 1, its left", "box 1, its box"]
    assert found[0].box == pytest.approx(box)


def test_a_detections_own_mask_is_a_target() -> None:
    lens, x = lens_of("mask", torch.float64), image(torch.float64)
    levels = list(lens.engine.called.levels)
    gave: dict[nn.Module, Any] = {}
    modules = [lens.model.roi_heads.mask_predictor, *(lens.model.get_submodule(level) for level in levels)]
    with hooked(modules, lambda module, _, output: gave.__setitem__(module, output)):
        (own,) = lens.model([x])
    logits = gave[modules[0]][1, own["labels"][1]]
    score = logits[logits > 0].mean() if (logits > 0).any() else logits.mean()
    activations = [gave[module] for module in modules[1:]]
    gradients = torch.autograd.grad(score, activations, allow_unused=True)
    found = lens.explain(x, target=hm.Detection(1, "mask"), method="hirescam", layer=levels)
    assert found[0].score == pytest.approx(score.item())
    assert any(gradient is not None for gradient in gradients)
    for heatmap, a, g in zip(found, activations, gradients, strict=True):
        expected = torch.zeros_like(a) if g is None else a * g
        assert torch.allclose(heatmap.raw, expected.detach().sum((0, 1)), rtol=1e-6)
    with pytest.raises(hm.TargetError, match="box 0, its mask can't be explained: this detector gives no masks"):
        lens_of("faster").explain(picture().numpy(), target="box:0:mask")


def test_what_of_a_detection_there_is_not_is_said() -> None:
    with pytest.raises(hm.TargetError, match="attribute is 'width'; expected one of class, left, top, right, bottom"):
        squares().explain(scene((0, 8, 8)), target="box:0:width")


# ---------------------------------------------------------------- a known answer


def test_places_classes_and_numbers_mean_the_detections_that_they_say() -> None:
    lens, x = squares(), scene((0, 8, 8), (1, 40, 64), (0, 40, 16))
    everything = lens.explain(x)
    assert [(h.target, h.where) for h in everything] == [("red", "box 0"), ("red", "box 1"), ("green", "box 2")]
    by_box = {h.where: h.box for h in everything}
    green = by_box["box 2"]
    for target in ("green", 1, "box:2", hm.Point(72, 48), hm.Box(60, 40, 80, 60), "point:72,48"):
        (one,) = lens.explain(x, target=target)
        assert one.box == green
    area = torch.zeros(64, 96, dtype=torch.bool)
    area[40:56, 64:80] = True
    assert lens.explain(x, target=hm.Mask(area))[0].box == green
    assert len(lens.explain(x, target="red")) == 2
    assert {h.box for h in lens.explain(x, target=hm.Box(0, 0, 96, 64, of="green"))} == {green}
    (contrast,) = lens.explain(x, target=hm.Contrast("box:2", "red"), method="hirescam")
    (this,) = lens.explain(x, target="box:2", method="hirescam")
    assert (contrast.target, contrast.where, contrast.box) == ("green rather than red", "box 2", green)
    assert not torch.equal(contrast.raw, this.raw)
    (two,) = lens.explain(x, target=hm.Contrast("box:2", "box:0"), method="hirescam")
    other = lens.explain(x, target="box:0", method="hirescam")[0]
    assert torch.allclose(two.raw, this.raw - other.raw)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("box:7", "'box 7' wasn't detected in the picture; detected: red"),
        ("green", r"'green' wasn't detected in the picture \(its best candidate has \d+%\); detected: red"),
        (5, "class 5 doesn't exist; the detector has 2 classes"),
        (hm.Contrast("box:0", 5), "class 5 doesn't exist"),
        (hm.Point(90, 60), r"'point \(90, 60\)' wasn't detected"),
        ("everywhere", "can't be read from detections"),
        (hm.Probability(0), "hm.Probability is defined for whole images and places.*of a detection its own score"),
        (hm.Regression(), "hm.Regression is defined for whole images"),
        (hm.Point(16, 16, of=hm.Binary(0)), "hm.Binary is defined for whole images"),
        (hm.Contrast("box:0", hm.ReST(1)), "hm.ReST is defined for whole images"),
        (hm.Mask(np.ones((4, 4))), "the mask is 4x4, and the picture 64x96"),
        ("box:0:mask", "this detector gives no masks"),
    ],
)
def test_what_is_not_detected_is_said(target: Any, sentence: str) -> None:
    with pytest.raises(hm.TargetError, match=sentence):
        squares().explain(scene((0, 8, 8)), target=target)


def test_nothing_detected_is_said_with_what_nearly_was() -> None:
    lens = squares()
    assert lens.predict(scene()) == [[]]
    with pytest.raises(hm.TargetError) as error:
        lens.explain(scene())
    assert str(error.value) == (
        "nothing was detected in the picture: the best candidates are red 2%, green 2%, and only those above 50% are "
        "kept; lower the detector's threshold"
    )
    model = detector("faster")
    model.roi_heads.score_thresh = 1.1
    with pytest.raises(hm.TargetError, match=r"best candidates are class \d \d+%.*above 110% are kept"):
        hm.Lens(model).explain(picture().numpy())


def test_images_of_a_batch_are_explained_as_each_alone() -> None:
    lens, scenes = squares(), [scene((0, 8, 8)), scene((1, 24, 40), (0, 40, 8)), scene((0, 16, 64))]
    together = lens.explain(scenes)
    assert [len(lens.explain(one)) for one in scenes] == [1, 2, 1]
    alone = [h for one in scenes for h in lens.explain(one)]
    assert [h.box for h in together] == [h.box for h in alone]
    assert all(torch.equal(a.raw, b.raw) for a, b in zip(together, alone, strict=True))
    assert [len(found) for found in lens.predict(scenes)] == [1, 2, 1]


def test_sidu_says_what_it_needs() -> None:
    with pytest.raises(hm.TargetError, match="sidu compares the probabilities of all classes of whole images"):
        squares().explain(scene((0, 8, 8)), method="sidu")


def test_noisy_copies_of_a_detectors_input() -> None:
    lens, x = squares(), scene((0, 8, 8))
    assert lens.explain(x, noise_smooth=3)[0].raw.any()
    assert lens_of("faster").explain(picture().numpy(), target="box:0", noise_smooth=2)[0].raw.any()


def test_feature_maps_of_a_detector_with_and_without_a_target() -> None:
    lens, x = squares(), scene((0, 8, 8))
    assert lens.features(x, ["blur", "cells"])["cells"].maps.shape == (1, 3, 8, 12)
    assert lens.features(x, ["cells"], target="box:0")["cells"].gradient.any()
    found = lens_of("retinanet").features(picture().numpy(), "backbone.fpn.layer_blocks.*")
    assert [maps.maps.shape[1] for maps in found.values()] == [CHANNELS] * 3
    head = lens_of("faster").features(picture().numpy(), "rpn.head.cls_logits")  # runs on each level
    assert [tuple(maps.maps.shape[2:]) for maps in head.values()] == [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
    assert len(lens.features(scene(), ["cells"])) == 1  # nothing is detected, and there is nothing to lay over it


def test_a_backbone_under_no_grad_is_explained_from_the_input_on() -> None:
    lens = squares()
    net = lens.engine.called.plain
    (plain,) = lens.explain(scene((0, 8, 8)), layer="blur", target="box:0")

    def forward(x: Tensor) -> Tensor:
        with torch.no_grad():
            seen = net.blur(x)
        return net.head(net.cells(seen))

    net.forward = forward
    (found,) = lens.explain(scene((0, 8, 8)), layer="blur", target="box:0")
    assert torch.equal(found.raw, plain.raw)


# ---------------------------------------------------------------- methods


def test_the_usual_method_is_odam_for_detections_and_grad_cam_for_others(lens: hm.Lens, cat: Any) -> None:
    assert squares().explain(scene((0, 8, 8)))[0].method.name == "odam"
    assert lens.explain(cat)[0].method.name == "gradcam"


def test_drise_finds_the_object_and_not_the_other_one() -> None:
    lens, x = squares(), scene((0, 8, 8), (0, 40, 64))
    first, second = lens.explain(x, method="drise", budget=600)
    for heatmap, other in ((first, second), (second, first)):
        left, top, right, bottom = map(int, heatmap.box)
        heat = heatmap.map - heatmap.map.median()
        far = [int(side) for side in other.box]
        assert heat[top:bottom, left:right].mean() > 4 * heat[far[1] : far[3], far[0] : far[2]].mean().abs()
        at = heat.argmax()
        assert top - 4 <= at // 96 < bottom + 4
        assert left - 4 <= at % 96 < right + 4
    assert METHODS["drise"].needs == {"image", "probe", "generator", "budget", "caution"}


def test_drise_gives_places_that_say_nothing_nothing() -> None:
    """The mean score of all masks is no evidence for any place."""
    heatmap = squares().explain(scene((0, 8, 8), (0, 40, 64)), target="box:0", method="drise", budget=2000)[0]
    left, top, right, bottom = map(int, heatmap.box)
    inside, area = heatmap.map[top:bottom, left:right].sum() / heatmap.map.sum(), 16 * 16 / (64 * 96)
    assert inside > 6 * area
    assert abs(heatmap.raw.mean()) < 0.1 * heatmap.raw.max()


def test_gcame_is_defined_for_detected_objects_only(lens: hm.Lens, cat: Any) -> None:
    assert squares().explain(scene((0, 8, 8)), method="gcame")[0].raw.any()
    sentence = "gcame is defined for detected objects, and the target 'tiger cat' isn't one"
    with pytest.raises(hm.TargetError, match=sentence):
        lens.explain(cat, method="gcame")


LEAVES_OUT = {"cam", "finercam", "sidu"}  # for classes of whole images
LEAVES_OUT |= {"guidedbackprop", "guidedgradcam", *OF_ATTENTION}  # for networks with ReLUs, and with attention


@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
def test_all_methods_that_do_not_need_classes_work_on_detections() -> None:
    found = squares().explain(scene((0, 8, 8), (1, 40, 64)), target="box:0", method="all", budget=24)
    assert {h.method.name for h in found} == METHODS.keys() - LEAVES_OUT
    assert all(torch.isfinite(h.raw).all() for h in found)


@pytest.mark.parametrize("method", ["featureocclusion", "drise"])
def test_methods_that_run_copies_work_on_detectors_whose_candidates_move(method: str) -> None:
    lens = lens_of("faster")
    layer = lens.engine.called.levels[-1]
    (found,) = lens.explain(picture().numpy(), target="box:0", method=method, layer=layer, budget=8)
    assert torch.isfinite(found.raw).all()


def test_what_was_made_for_one_image_is_run_copy_by_copy() -> None:
    """As models from ONNX often are."""

    class Alone(Squares):
        def forward(self, x: Tensor) -> hm.Detections:
            return super().forward(x.reshape(1, 3, 64, 96))

    lens, x = squares(), scene((0, 8, 8))
    alone = hm.Lens(Alone(Bright()), preprocessing=lens.preprocessing, labels=lens.labels)
    how: dict[str, Any] = {"method": ["drise", "occlusion", "featureocclusion"], "budget": 20}
    for one, other in zip(alone.explain(x, **how), lens.explain(x, **how), strict=True):
        assert torch.allclose(one.raw, other.raw, atol=1e-4)


def test_second_derivatives_that_there_are_not_are_said() -> None:
    with pytest.raises(hm.LayerError, match="shapleycam needs second derivatives, and this model has none"):
        lens_of("faster").explain(picture().numpy(), target="box:0", method="shapleycam")
    found = lens_of("retinanet").explain(picture().numpy(), target="box:0", method="shapleycam")
    assert torch.isfinite(found[0].raw).all()


# ---------------------------------------------------------------- drawn


def colors_in(drawn: Image.Image) -> set[str]:
    return {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.unique(np.array(drawn).reshape(-1, 3), axis=0)}


def test_a_box_is_drawn_on_its_edges_with_the_name_and_nothing_else_is_touched() -> None:
    (heatmap,) = squares().explain(scene((0, 24, 40), height=128, width=160))
    drawn, painted = (np.array(picture) for picture in (heatmap.overlay(size=160), heatmap.painted(size=160)))
    left, top, right, bottom = map(round, heatmap.box)
    bright = [int(BOX_COLORS[0][i : i + 2], 16) for i in (1, 3, 5)]
    for y, x in [(top, (left + right) // 2), (bottom, (left + right) // 2), ((top + bottom) // 2, right)]:
        assert drawn[y, x].tolist() == bright
    inside = (slice(top + 4, bottom - 3), slice(left + 4, right - 3))
    assert np.array_equal(drawn[inside], painted[inside])
    changed = (drawn != painted).any(-1).nonzero()
    assert changed[0].min() >= top - 20  # the name is above the box
    assert changed[0].max() <= bottom + 2


def test_each_object_has_a_color_and_a_number_in_the_overview_and_on_its_tile() -> None:
    found = squares().explain(scene((0, 8, 8), (0, 40, 64), (1, 8, 72)))
    assert {h.where for h in found} == {"box 0", "box 1", "box 2"}
    assert set(BOX_COLORS[:3]) <= colors_in(found.overlay())
    assert not {BOX_COLORS[0], BOX_COLORS[2]} & colors_in(found["box 1"].overlay())
    several = squares().explain([scene((0, 8, 8), (1, 40, 64)), scene((1, 8, 8))], method=["odam", "gradcam"])
    assert set(BOX_COLORS[:2]) <= colors_in(several.overlay())
    methods = squares().explain(scene((0, 8, 8), (1, 40, 64)), method=["odam", "hirescam", "gcame"])
    sheet = methods.overlay()
    assert set(BOX_COLORS[:2]) <= colors_in(sheet)
    assert sheet.width > 2 * 240


def test_small_objects_are_shown_large_and_all_alike_unless_the_map_is_everywhere() -> None:
    found = squares().explain(scene((0, 8, 8), (1, 100, 200), height=160, width=240), method="hirescam")
    windows = [_windows(found)[h.position.image, h.box] for h in found]
    assert len({(right - left, bottom - top) for left, top, right, bottom in windows}) == 1
    for h, (left, top, right, bottom) in zip(found, windows, strict=True):
        assert 0 <= left <= h.box[0] < h.box[2] <= right <= 240
        assert 0 <= top <= h.box[1] < h.box[3] <= bottom <= 160
        assert (right - left) / (bottom - top) == pytest.approx(240 / 160, rel=0.05)
        assert right - left < 120
    everywhere = [replace(h, raw=torch.ones_like(h.raw)) for h in found]
    assert set(_windows(everywhere).values()) == {(0, 0, 240, 160)}


# ---------------------------------------------------------------- really trained


def energy(heatmap: hm.Heatmap) -> tuple[float, float]:
    """The share of the map's positive part in the box, and the box's share of the picture."""
    heat = heatmap.map.clamp(min=0)
    left, top, right, bottom = (round(side) for side in heatmap.box)
    inside = heat[top:bottom, left:right].sum() / heat.sum()
    return float(inside), (right - left) * (bottom - top) / heat.numel()


def test_a_trained_detector_sees_a_dog_and_a_cat() -> None:
    found = fastestdet().predict(PHOTOS / "both.png")[0]
    assert [(one.label, round(one.probability, 2)) for one in found[:2]] == [("dog", 0.87), ("cat", 0.73)]
    dog, cat = (one.box for one in found[:2])
    assert dog[3] < 160
    assert cat[1] > 120


def test_a_trained_detector_looks_at_what_it_detects() -> None:
    lens = fastestdet()
    shares = [energy(h) for photo in ("both.png", "puppies.jpg") for h in lens.explain(PHOTOS / photo)]
    assert len(shares) == 8
    assert sum(inside / area for inside, area in shares) / len(shares) > 6
    assert all(inside > 1.5 * area for inside, area in shares)
    for photo in ("both.png", "puppies.jpg"):  # a mean over all places forgets where the object is
        means = [energy(h) for h in lens.explain(PHOTOS / photo, method="gradcam")]
        assert sum(inside for inside, _ in means) < sum(energy(h)[0] for h in lens.explain(PHOTOS / photo))


def test_six_faces_are_found_and_explained() -> None:
    lens = centerface()
    found = lens.explain(PHOTOS / "multiface.jpg")
    assert [h.target for h in found] == ["face"] * 6
    assert all(inside > 20 * area for inside, area in map(energy, found))
    assert all(h.probability > 0.8 for h in found)
