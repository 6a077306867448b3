"""Ultralytics models: they see and say what the library's own ``predict`` does, and why is traced through heads."""

from __future__ import annotations

import copy
import functools
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Where the library writes its settings, and that it asks nobody for anything: read when it is imported.
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())
os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false")

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import hookmap as hm
from hookmap import models
from hookmap.hooks.registration import hooked
from hookmap.images.loading import load_all
from hookmap.methods import METHODS
from hookmap.models.ultralytics.adapters import Detector
from hookmap.targets.resolved import ResolvedTargets
from networks import noise
from tiny import OF_ATTENTION

ultralytics = pytest.importorskip("ultralytics")
pytestmark = pytest.mark.filterwarnings("ignore")

from ultralytics.utils.nms import non_max_suppression  # noqa: E402

DETECTORS = ["yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"]
OTHERS = ["yolo11n-seg", "yolo26n-seg", "yolo11n-pose", "yolo26n-pose", "yolo11n-obb", "yolo26n-obb"]
END2END = ["yolov10n", "yolo26n", "yolo26n-seg", "yolo26n-pose", "yolo26n-obb"]
QUERIES = "yolov8n-rtdetr"


def image(height: int = 128, width: int = 160) -> Tensor:
    """Coarse and fine noise ``(3, H, W)``, 0..1: no two places are alike."""
    coarse = nn.functional.interpolate(noise(1, 3, height // 16, width // 16), (height, width), mode="bicubic")[0]
    return (coarse * 0.15 + noise(3, height, width) * 0.1 + 0.5).clamp(0, 1)


def built(name: str) -> Any:
    torch.manual_seed(0)
    kind = ultralytics.RTDETR if "rtdetr" in name else ultralytics.YOLO
    return kind(f"{name}.yaml")


def lively(name: str) -> Any:
    """A model with random weights that sees its input, and finds fifteen candidates probable in :func:`image`.

    Batch norms are set to what they get there, so that the signal doesn't fade on its way; the last convolutions are
    scaled to a usual spread.
    """
    yolo = built(name)
    network, head = yolo.model.eval(), yolo.model.model[-1]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.training, norm.momentum = True, 1.0
    with torch.no_grad():
        network(image()[None])
    network.eval()
    # Distances from a cell's middle to its box's sides are one to three cells, each from 16 bins or told directly.
    near = torch.arange(16.0).repeat(4) * -0.6 if getattr(head, "reg_max", 16) > 1 else torch.tensor(8.0)
    middles = {"cv2": near, "cv3": torch.zeros(()), "cv4": torch.zeros(()), "cv4_kpts": torch.zeros(())}
    last: dict[nn.Module, Tensor] = {}
    for word, middle in middles.items():
        for branch in [*(getattr(head, word, None) or []), *(getattr(head, f"one2one_{word}", None) or [])]:
            conv = branch if isinstance(branch, nn.Conv2d) else branch[-1]
            last |= {conv: middle} if isinstance(conv, nn.Conv2d) else {}

    def spread(conv: nn.Module, _: Any, output: Tensor) -> None:
        factor = 1.3 / output.std((0, 2, 3))
        conv.weight.mul_(factor[:, None, None, None])
        conv.bias.sub_(output.mean((0, 2, 3))).mul_(factor).add_(last[conv])
        if last[conv].ndim == 0 and last[conv] > 0:
            conv.weight.mul_(0.3)
            conv.bias.mul_(0.3)

    with torch.no_grad(), hooked(list(last), spread):
        network(image()[None])
    for branch in ("", "one2one_"):
        classes = [sequence[-1] for sequence in getattr(head, f"{branch}cv3", None) or []]
        found: list[Tensor] = []
        with (
            torch.no_grad(),
            hooked(classes, lambda _, __, output, found=found: found.append(output.amax(1).flatten())),
        ):
            network(image()[None])
        for conv in classes:
            conv.bias.data.sub_(torch.cat(found).topk(15).values[-1] + 1)
    if hasattr(head, "cal_a"):  # a depth of more than 148 m is cut off
        head.head[-1].weight.data.mul_(0.01)
    if hasattr(head, "dec_score_head"):
        nn.init.normal_(head.dec_score_head[-1].weight, std=0.2)
        nn.init.normal_(head.dec_bbox_head[-1].layers[-1].weight, std=0.05)
    return yolo


@functools.cache
def yolo_of(name: str) -> Any:
    return lively(name)


@functools.cache
def lens_of(name: str, end2end: bool = False, dtype: torch.dtype = torch.float32) -> hm.Lens:
    """On the network of :func:`yolo_of`: the library builds another one from the same seed after others were built."""
    network = copy.deepcopy(yolo_of(name).model).to(dtype)
    if end2end:
        network.end2end = True
    return hm.Lens(network)


def predicted(name: str, x: Any, end2end: bool = False, **how: Any) -> Any:
    """The library's own result; how an earlier one was post-processed is forgotten."""
    yolo = yolo_of(name)
    yolo.predictor = None
    source = x[None] if isinstance(x, Tensor) else np.ascontiguousarray(x[..., ::-1])
    (own,) = yolo.predict(source, verbose=False, nms=False if end2end else None, **how)
    return own


FORMS = [(name, False) for name in [*DETECTORS, *OTHERS]] + [(name, True) for name in END2END]


# ---------------------------------------------------------------- detections


@pytest.mark.parametrize(("name", "end2end"), FORMS)
def test_detections_are_the_librarys_own(name: str, end2end: bool) -> None:
    x = image()
    own = predicted(name, x, end2end)
    boxes = own.boxes if own.obb is None else own.obb
    (found,) = lens_of(name, end2end).predict(x)
    assert len(found) == len(boxes) > 3
    assert [one.index for one in found] == boxes.cls.int().tolist()
    assert torch.allclose(torch.tensor([one.probability for one in found]), boxes.conf, atol=1e-3)
    edges = torch.tensor([160.0, 128, 160, 128])
    expected = torch.minimum(boxes.xyxy.clamp(min=0), edges)
    assert torch.allclose(torch.tensor([one.box for one in found]), expected, atol=0.1)


def test_what_nothing_is_found_in_is_said() -> None:
    found = hm.Lens(Detector(yolo_of("yolo11n"), least=0.9999))
    with pytest.raises(hm.TargetError, match=r"best candidates are class \d+ \d+%.*only those above 100% are kept"):
        found.explain(image())


@pytest.mark.parametrize("how", [{"least": 0.6}, {"overlap": 0.2}, {"most": 3}])
def test_limits_are_the_librarys(how: Any) -> None:
    names = {"least": "conf", "overlap": "iou", "most": "max_det"}
    own = predicted("yolo11n", image(), **{names[word]: value for word, value in how.items()})
    (found,) = hm.Lens(Detector(yolo_of("yolo11n"), **how)).predict(image())
    assert 0 < len(found) == len(own.boxes) < len(lens_of("yolo11n").predict(image())[0])


def test_queries_of_rt_detr_are_the_librarys_own() -> None:
    """Of the very network: queries of an untrained one are so alike that folded batch norms change their order."""
    yolo, edges = yolo_of(QUERIES), torch.tensor([160.0, 128, 160, 128])
    with torch.no_grad():
        own = yolo.model(image()[None])[0][0]
    own = own[own[:, 4] > 0.25]
    (found,) = hm.Lens(yolo).predict(image())
    assert len(found) == len(own) > 3
    assert [one.index for one in found] == own[:, 5].int().tolist()
    assert torch.allclose(torch.tensor([one.probability for one in found]), own[:, 4], atol=1e-6)
    corners = torch.cat([own[:, :2] - own[:, 2:4] / 2, own[:, :2] + own[:, 2:4] / 2], 1) * edges
    assert torch.allclose(
        torch.tensor([one.box for one in found]), torch.minimum(corners.clamp(min=0), edges), atol=1e-3
    )


@pytest.mark.parametrize(("name", "end2end"), [("yolo11n-seg", False), ("yolo26n-seg", False), ("yolo26n-seg", True)])
def test_masks_are_the_librarys_own_across_their_boxes(name: str, end2end: bool) -> None:
    """Where most of a cell is on one side of the library's mask, so is the cell."""
    own = predicted(name, image(), end2end)
    with torch.no_grad():
        found = lens_of(name, end2end).engine.called(image()[None])
    boxes = torch.stack([found.boxes[0, k.row] for k in found.kept[0]])
    assert len(boxes) == len(found.masks[0]) == len(own.masks.data) > 3
    agreed = []
    for mask, box, drawn in zip(found.masks[0], boxes, own.masks.data, strict=True):
        left, top, right, bottom = box.round().int().tolist()
        if min(left, top) < 0 or right > 160 or bottom > 128:
            continue  # cut off at the picture's edge
        share = nn.functional.adaptive_avg_pool2d(drawn[None, None, top:bottom, left:right].float(), mask.shape)[0, 0]
        sure = (share - 0.5).abs() > 0.4
        agreed.append(float(((mask > 0) == (share > 0.5))[sure].float().mean()))
    assert len(agreed) > 1
    assert min(agreed) > 0.9


def test_a_turned_box_is_shown_upright() -> None:
    """Its four corners, from the library, touch the upright box's edges."""
    own = predicted("yolo11n-obb", image())
    with torch.no_grad():
        found = lens_of("yolo11n-obb").engine.called(image()[None])
    for kept, corners in zip(found.kept[0], own.obb.xyxyxyxy, strict=True):
        expected = torch.cat([corners.amin(0), corners.amax(0)])
        assert torch.allclose(found.boxes[0, kept.row], expected, atol=0.1)


@pytest.mark.parametrize("name", ["yolo11n-pose", "yolo26n-pose"])
def test_keypoints_are_as_visible_as_the_library_says(name: str) -> None:
    own = predicted(name, image())
    with torch.no_grad():
        found = lens_of(name).engine.called(image()[None])
    assert found.keypoints[0].shape == (len(own.boxes), 17)
    assert torch.allclose(found.keypoints[0].sigmoid(), own.keypoints.conf, atol=1e-3)


def test_keypoints_have_names_where_they_are_known() -> None:
    network = copy.deepcopy(yolo_of("yolo11n-pose").model)
    assert hm.Lens(network).engine.called.joints == ()  # 17, but of what?
    network.names = {0: "person"}
    assert list(hm.Lens(network).engine.called.joints)[:2] == ["nose", "left_eye"]
    network.kpt_names = {0: [str(number) for number in range(17)]}
    assert list(hm.Lens(network).engine.called.joints)[5] == "left_shoulder"
    network.kpt_names = {0: [f"leg {number}" for number in range(17)]}
    (one,) = hm.Lens(network).explain(image(), target="box:0:leg 3", method="hirescam")
    assert one.where == "box 0, its leg 3"
    assert one.raw.any()


@pytest.mark.parametrize("size", [224, 640])
def test_classes_are_the_librarys_own_from_the_photo_on(size: int, cat: Path) -> None:
    yolo = yolo_of("yolo11n-cls")
    yolo.overrides["imgsz"] = size
    own = predicted("yolo11n-cls", np.array(Image.open(cat).convert("RGB")))
    lens = hm.Lens(yolo)
    (found,) = lens.predict(cat)
    assert [one.index for one in found] == own.probs.top5
    assert torch.allclose(torch.tensor([one.probability for one in found]), own.probs.top5conf, rtol=1e-3)
    assert lens.explain(cat, method=["gradcam", "cam"])[1].raw.any()


def test_semantic_classes_are_the_librarys_own() -> None:
    own, x = predicted("yolo26n-sem", image()), image()
    lens = hm.Lens(yolo_of("yolo26n-sem"))
    with torch.no_grad():
        scores = lens.engine.called(x[None])
    large = nn.functional.interpolate(scores, x.shape[1:], mode="bilinear").argmax(1)[0]
    assert float((large == own.semantic_mask.data.reshape(large.shape)).float().mean()) > 0.99
    (heatmap,) = lens.explain(x, target=hm.Point(100, 60))
    assert heatmap.layer == "model.10"
    assert heatmap.raw.any()


def test_depth_is_the_librarys_own() -> None:
    own, x = predicted("yolo26n-depth", image()), image()
    lens = hm.Lens(yolo_of("yolo26n-depth"))
    with torch.no_grad():
        depth = lens.engine.called(x[None])
    large = nn.functional.interpolate(depth, x.shape[1:], mode="bilinear", align_corners=True)[0, 0]
    assert torch.allclose(large, own.depth.data.reshape(large.shape), rtol=1e-2)
    (heatmap,) = lens.explain(x, target=hm.Point(100, 60, of=hm.Regression("depth")))
    assert heatmap.raw.any()


# ---------------------------------------------------------------- pictures


def input_of(yolo: Any, pixels: Any) -> Tensor:
    """What the library's own ``predict`` gives to its network."""
    yolo.predictor = None
    with pytest.MonkeyPatch.context() as patch:
        kind, seen = yolo._smart_load("predictor"), []
        own = kind.preprocess
        patch.setattr(kind, "preprocess", lambda self, images: seen.append(own(self, images)) or seen[-1])
        yolo.predict(np.ascontiguousarray(pixels[..., ::-1]), verbose=False)
    return seen[0]


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n-sem", "yolo26n-depth", QUERIES])
@pytest.mark.parametrize("size", [(300, 451), (451, 300), (97, 31), (640, 640), (1000, 999)])
def test_pictures_are_prepared_as_by_the_library(name: str, size: tuple[int, int], cat: Path) -> None:
    yolo = yolo_of(name)
    yolo.overrides["imgsz"] = 320
    pixels = np.array(Image.open(cat).convert("RGB").resize(size[::-1]))
    steps = hm.Lens(yolo).preprocessing
    x, geometry = steps(load_all(pixels)[0])
    assert torch.equal(x[None], input_of(yolo, pixels))
    assert geometry.original == size
    corners = geometry.to_input(torch.tensor([[0.0, 0.0], [size[1], size[0]]]))
    grey = (x * 255 == 114).all(0)
    left, top, right, bottom = corners.flatten().round().int().tolist()
    inside = torch.zeros_like(grey)
    inside[top:bottom, left:right] = True
    assert bool(grey[~inside].all())
    assert float(grey[inside].float().mean()) < 0.1
    del yolo.overrides["imgsz"]


def test_boxes_lie_on_the_photo_where_the_library_says(cat: Path) -> None:
    own = predicted("yolo11n", np.array(Image.open(cat).convert("RGB")), conf=0.5)
    (found,) = hm.Lens(Detector(yolo_of("yolo11n"), least=0.5)).predict(cat)
    boxes = torch.tensor([one.box for one in found])
    away = (boxes[:, None] - own.boxes.xyxy[None]).abs().amax(-1).amin(1)
    assert len(found) > 3
    # Where cells of the grey margin tie, another of them may be kept.
    assert float((away < 1).float().mean()) > 0.8


# ---------------------------------------------------------------- why


def by_hand(network: Any, x: Tensor, number: int, levels: list[str]) -> tuple[list[Tensor], list[Tensor]]:
    """A detection's class logit, differentiated at layers in plain PyTorch: (activations, gradients).

    The library's final score leads back to its candidate: where it has a gradient among the logits.
    """
    head, gave = network.model[-1], {}
    modules = [network.get_submodule(level) for level in levels]
    with hooked(modules, lambda module, _, output: gave.__setitem__(module, output)):
        rows, raw = network(x)
    rows = rows[0] if isinstance(rows, tuple) else rows
    logits = raw.get("one2one" if head.end2end else "one2many", raw)["scores"]
    turned = "OBB" in type(head).__name__
    how = {"nc": head.nc, "end2end": head.end2end, "rotated": turned, "conf_thres": 0.25, "iou_thres": 0.7}
    (own,) = non_max_suppression(rows, **how)
    (there,) = torch.autograd.grad(own[number, 4], logits, retain_graph=True)
    ((_, label, row),) = there.nonzero().tolist()
    assert label == int(own[number, 5])
    activations = [gave[module] for module in modules]
    gradients = torch.autograd.grad(logits[0, label, row], activations, allow_unused=True)
    filled = [torch.zeros_like(a) if g is None else g for a, g in zip(activations, gradients, strict=True)]
    return [a.detach() for a in activations], filled


@pytest.mark.parametrize(("name", "end2end"), FORMS)
def test_the_gradient_of_a_detection_is_traced_through_the_head(name: str, end2end: bool) -> None:
    lens, x = lens_of(name, end2end), image()
    levels = list(lens.engine.called.levels)
    assert len(levels) == 3
    number = len(lens.predict(x)[0]) - 1  # the least sure: its probability has a gradient
    activations, gradients = by_hand(lens.model, x[None], number, levels)
    found = lens.explain(x, target=hm.Detection(number), method="hirescam", layer=levels)
    assert any(gradient.any() for gradient in gradients)
    for heatmap, a, g in zip(found, activations, gradients, strict=True):
        expected = (a * g).sum((0, 1))
        assert heatmap.raw.shape == a.shape[2:]
        assert bool((heatmap.raw - expected).abs().max() <= 1e-3 * expected.abs().max())
    (one,) = lens.explain(x, target=hm.Detection(number), method="hirescam")
    grown = [nn.functional.interpolate(h.raw[None, None], one.raw.shape, mode="bilinear")[0, 0] for h in found]
    assert torch.allclose(one.raw, torch.stack(grown).sum(0), atol=1e-6)


@pytest.mark.parametrize("target", ["box:0", "box:0:right", "box:0:mask", "box:0:keypoint 4"])
def test_the_gradient_of_a_detection_is_a_finite_difference_in_feature_space(target: str) -> None:
    name = {"box:0:mask": "yolo11n-seg", "box:0:keypoint 4": "yolo11n-pose"}.get(target, "yolo11n")
    lens, x = lens_of(name, dtype=torch.float64), image().double()
    model, level, step = lens.engine.called, "model.16", 1e-6

    def gradient_of(gradient: Tensor) -> Tensor:
        return gradient[:, :8].sum(1)

    (found,) = lens.explain(x, target=target, method=gradient_of, layer=level)
    with hm.capture(model, level) as seen:
        output = model(x[None])
        goals = ResolvedTargets([hm.targets.resolve(target, None)], output, [hm.Geometry.identity((128, 160))])
        activation = seen[level].activation.detach()
        direction = torch.zeros_like(activation)
        direction[:, :8] = noise(*activation.shape[2:]).to(activation)
        held: dict[nn.Module, Tensor] = {}
        boxes = list(model.plain.model[-1].cv2) if target == "box:0:mask" else []  # a mask's gradient doesn't move them
        with hooked(boxes, lambda module, _, given: held.setdefault(module, given)):
            model(x[None])
            ends = [goals.scores(seen.replay(level, activation + sign * step * direction))[0, 0] for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert found.raw.any()
    assert torch.allclose(slope, (found.raw * direction[0, 0]).sum(), rtol=1e-4)


@pytest.mark.parametrize("name", ["yolo11n", QUERIES])
def test_methods_look_at_a_detection(name: str) -> None:
    lens, x = hm.Lens(yolo_of(name)), image()
    (default,) = lens.explain(x, target="box:0")
    assert default.method.name == "odam"
    assert default.raw.shape == (16, 20)
    assert default.map.shape == (128, 160)
    undefined = {"cam", "finercam", "sidu", *OF_ATTENTION, "guidedbackprop", "guidedgradcam"}  # it bends by SiLU
    methods = [*METHODS.keys() - undefined - {"ablationcam", "reciprocam", "featureocclusion"}]
    some = methods if name == "yolo11n" else ["gradcam", "gcame", "drise"]
    found = lens.explain(x, target="box:0", method=some, budget=4)
    assert len(found) == len(some)
    assert all(torch.isfinite(h.raw).all() for h in found)


def test_methods_that_replay_look_at_a_detection() -> None:
    methods = ["ablationcam", "reciprocam", "featureocclusion"]
    found = lens_of("yolo11n").explain(image(), target="box:0", method=methods, layer="model.22")
    assert all(torch.isfinite(h.raw).all() and h.raw.shape == (4, 5) for h in found)


def test_classes_points_and_labels_mean_detections() -> None:
    network = copy.deepcopy(yolo_of("yolo11n").model)
    network.names = {index: f"thing {index}" for index in range(80)}
    lens, x = hm.Lens(network), image()
    first = lens.predict(x)[0][0]
    left, top, right, bottom = first.box
    same = [p for p in lens.predict(x)[0] if p.label == first.label]
    assert len(lens.explain(x, target=first.label)) == len(same)
    assert first.label == f"thing {first.index}"
    (there,) = lens.explain(x, target=hm.Box(left, top, right, bottom, of=first.label))
    assert there.box == pytest.approx(first.box)
    (point,) = lens.explain(x, target=hm.Point((left + right) / 2, (top + bottom) / 2))
    assert point.box[0] <= (left + right) / 2 <= point.box[2]


# ---------------------------------------------------------------- really trained


def scenes(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Two squares each, red or green, on a dark ground of 64x96, as the library's losses take them."""
    images, found = torch.rand(count, 3, 64, 96, generator=generator) * 0.2, []
    for number, picture in enumerate(images):
        for cell in torch.randperm(6, generator=generator)[:2].tolist():
            side, color = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((12, 25), (0, 2)))
            down, beside = torch.randint(0, 33 - side, (2,), generator=generator).tolist()
            top, left = cell // 3 * 32 + down, cell % 3 * 32 + beside
            picture[color, top : top + side, left : left + side] = 0.9
            found.append((number, color, (left + side / 2) / 96, (top + side / 2) / 64, side / 96, side / 64))
    told = torch.tensor(found)
    return {"img": images, "batch_idx": told[:, 0], "cls": told[:, 1:2], "bboxes": told[:, 2:]}


def test_a_trained_detector_looks_at_the_squares_that_it_detects() -> None:
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    rows = [[-1, 1, "Conv", [width, 3, stride]] for width, stride in ((16, 2), (32, 2), (64, 2), (64, 1), (64, 2))]
    network = DetectionModel({"nc": 2, "backbone": rows, "head": [[[3, 4], 1, "Detect", ["nc"]]]}, verbose=False)
    network.args, network.names = get_cfg(), {0: "red", 1: "green"}
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        optimizer.zero_grad()
        network.loss(scenes(8, generator))[0].sum().backward()
        optimizer.step()
    lens, unseen = hm.Lens(network), scenes(8, generator)
    assert lens.engine.called.levels == ["model.3", "model.4"]
    boxes = unseen["bboxes"] * torch.tensor([96, 64, 96, 64])
    concentrated = []
    for number, color, (x, y, *_) in zip(unseen["batch_idx"], unseen["cls"], boxes.tolist(), strict=True):
        try:
            (heatmap,) = lens.explain(unseen["img"][int(number)], target=hm.Point(x, y))
        except hm.TargetError:
            continue  # after 150 steps it misses some
        assert heatmap.target == ("green" if color else "red")
        left, top, right, bottom = map(round, heatmap.box)
        heat = heatmap.map.clamp(min=0)
        share = (right - left) * (bottom - top) / heat.numel()
        concentrated.append(float(heat[top:bottom, left:right].sum() / heat.sum()) / share)
    assert len(concentrated) > 10
    assert min(concentrated) > 3
    assert np.mean(concentrated) > 8


# ---------------------------------------------------------------- the model


def state_of(network: Any) -> list[Any]:
    head = network.model[-1]
    remembered = {
        word: vars(head).get(word) for word in ("shape", "anchors", "strides", "shapes", "valid_mask", "export")
    }
    modules = [(module, module.training, len(module._forward_hooks)) for module in network.modules()]
    tensors = [(id(t), t._version, t.requires_grad, t.grad) for t in [*network.parameters(), *network.buffers()]]
    return [{word: id(value) for word, value in remembered.items()}, modules, tensors, torch.get_rng_state().tolist()]


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n-seg", "yolo11n-cls", QUERIES])
def test_the_model_is_left_as_it_came(name: str) -> None:
    network = copy.deepcopy(yolo_of(name).model).eval()
    with torch.no_grad():
        network(image()[None])
    network.train()
    network.model[1].eval()
    before = state_of(network)
    lens = hm.Lens(network)
    target = "predicted" if name == "yolo11n-cls" else "box:0"
    lens.explain(image(), target=target, method=["gradcam", "eigencam"])
    lens.explain(image(160, 128), target=target, method="random")
    lens.predict([image(), image(128, 128)])
    with pytest.raises(hm.TargetError):
        lens.explain(image(), target=99 if name != "yolo11n-cls" else "no such class")
    assert state_of(network) == before


def test_after_inference_mode_and_for_export_it_is_explained_all_the_same() -> None:
    yolo, x = lively("yolo11n"), image()
    (plain,) = hm.Lens(yolo).explain(x, target="box:0", layer="model.19", method="hirescam")
    with torch.inference_mode():
        yolo.model.eval()(x[None])  # its head now remembers a grid that can't be differentiated
    yolo.predict(x[None], verbose=False)
    yolo.model.model[-1].export = True
    (found,) = hm.Lens(yolo).explain(x, target="box:0", layer="model.19", method="hirescam")
    assert torch.equal(found.raw, plain.raw)
    yolo.model.model[-1].export = False
    yolo.fuse()
    (folded,) = hm.Lens(yolo).explain(x, target="box:0", layer="model.19", method="hirescam")
    assert torch.allclose(folded.raw, plain.raw, atol=1e-4 * float(plain.raw.abs().max()))


def test_two_threads_look_at_one_model_in_two_sizes() -> None:
    lens, sizes = lens_of("yolo11n"), [(128, 160), (160, 192)] * 4
    alone = [lens.explain(image(*size), target="box:0", method="hirescam")[0].raw for size in sizes[:2]]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda size: lens.explain(image(*size), target="box:0", method="hirescam")[0].raw, sizes))
    assert all(torch.equal(raw, alone[number % 2]) for number, raw in enumerate(found))


def test_layers_and_features_are_the_networks() -> None:
    lens = lens_of("yolo11n")
    assert set(lens.features(image(), ["model.16", "model.23.cv3.0.2"])) == {"model.16", "model.23.cv3.0.2"}
    assert "Detect" in str(lens.layers(image()))


# ---------------------------------------------------------------- by name


@pytest.mark.parametrize("name", ["yolo11n", "ultralytics/yolov8s-seg", "yolo26n.pt", "runs/train/weights/best.pt"])
def test_pickled_weights_are_left_to_the_user(name: str) -> None:
    file = Path(name.removeprefix("ultralytics/")).with_suffix(".pt")
    with pytest.raises(hm.ModelError) as error:
        hm.Lens(name)
    assert str(error.value) == (
        f"{file} is a pickled model, and reading it may run any code, so hookmap doesn't; where you trust it, pass "
        f"hm.Lens(YOLO('{file}')) from ultralytics (on the command line a factory that gives it, file.py:factory), or "
        "the architecture's name with a state dict (weights=, --weights), or random weights (pretrained=False, "
        "--no-pretrained)"
    )


def test_weights_as_a_state_dict_with_classes_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = type(built("yolo11n").model)("yolo11n.yaml", nc=3, verbose=False).eval()
    file = tmp_path / "mine.safetensors"
    save_file({f"model.{key}": t for key, t in network.state_dict().items()}, file)
    lens = hm.Lens("yolo11n", weights=file, labels=["a", "b", "c"], device="cpu")
    with torch.no_grad():
        scores, expected = lens.engine.called(image()[None]).scores, network(image()[None])[1]["scores"]
    assert torch.equal(scores, expected.mT)
    with pytest.raises(hm.ModelError, match="mine.safetensors doesn't fit DetectionModel"):
        hm.Lens("yolov8n", weights=file, device="cpu")
    torch.save(network, tmp_path / "whole.pt")
    with pytest.raises(hm.ModelError, match="holds Python objects, which hookmap doesn't load"):
        hm.Lens("yolo11n", weights=tmp_path / "whole.pt", device="cpu")


@pytest.mark.parametrize(
    ("name", "classes"), [("yolo11n", 7), ("yolo26n-seg", 7), ("yolov10n", 7), ("yolo11n-cls", 7), (QUERIES, 7)]
)
def test_classes_are_counted_in_the_state_dict(name: str, classes: int) -> None:
    network = built(name).model
    mine = type(network)(f"{name}.yaml", nc=classes, verbose=False)
    count = models.ultralytics.number_of_classes
    assert (count(network, mine.state_dict()), count(network, network.state_dict())) == (classes, None)


def test_names_that_there_are_not_and_the_missing_library_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(hm.ModelError, match="ultralytics has no architecture 'yolo99n'; expected e.g. yolo11n"):
        hm.Lens("yolo99n", pretrained=False)
    exported = ultralytics.YOLO.__new__(ultralytics.YOLO)
    nn.Module.__init__(exported)
    exported.model = "best.onnx"
    with pytest.raises(hm.ModelError, match="holds the exported model best.onnx, whose layers can't be hooked"):
        hm.Lens(exported)
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(hm.MissingLibraryError) as error:
        hm.Lens("yolo11n", pretrained=False)
    assert str(error.value) == (
        "models of Ultralytics need ultralytics, which isn't installed; pip install 'hookmap[ultralytics]' (its "
        "licence is AGPL-3.0)"
    )


def test_the_size_is_the_one_it_was_trained_in() -> None:
    assert hm.Lens("yolo11n-cls", pretrained=False).preprocessing.size == (224, 224)
    assert hm.Lens("yolo11n", pretrained=False).preprocessing.size == (640, 640)
    yolo = built("yolo11n")
    yolo.model.args = {"imgsz": 300}
    yolo.overrides = {}
    assert hm.Lens(yolo).preprocessing.size == hm.Lens(yolo.model).preprocessing.size == (320, 320)
    yolo.model.yaml["channels"] = 5
    assert hm.Lens(yolo).preprocessing is None


def test_the_command_line_takes_it_by_name(hookmap: Callable[..., Any], cat: Path, tmp_path: Path) -> None:
    assert hookmap("explain", cat, "--model", "yolo11n-cls", "--no-pretrained", "-o", "map.png").code == 0
    assert (tmp_path / "map.png").stat().st_size > 1000
    result = hookmap("explain", cat, "--model", "yolo11n", "--no-pretrained")
    assert result.code != 0
    assert "nothing was detected in the picture" in " ".join(result.err.split())
