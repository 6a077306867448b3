"""Segmenters: classes over their own region, places, contrasts; and where in such a network it is looked."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import hookmap as hm
from hookmap.attribution.modifiers import augmented
from hookmap.layers.choice import choose
from hookmap.layers.trace import trace
from hookmap.targets.resolved import ResolvedTargets
from networks import noise, stirred
from tiny import OF_ATTENTION, close
from trained import u2net

smp = pytest.importorskip("segmentation_models_pytorch")
pytestmark = pytest.mark.filterwarnings("ignore:the heatmap of:hookmap.HookmapWarning")
CLASSES = 4


def dense(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name.startswith("smp"):
        return stirred(smp.Unet("resnet18", encoder_weights=None, classes=CLASSES))
    options = {"weights": None, "weights_backbone": None, "num_classes": CLASSES}
    return stirred(torchvision.models.get_model(name, **options))


MODELS = {
    "fcn_resnet50": "backbone.layer4",
    "deeplabv3_mobilenet_v3_large": "backbone.16",
    "lraspp_mobilenet_v3_large": "backbone.16",
    "smp unet": "encoder.layer4",
}


def scores_of(model: nn.Module, x: Tensor) -> Tensor:
    output = model(x)
    return output["out"] if isinstance(output, dict) else output


@pytest.mark.parametrize("name", MODELS)
def test_every_target_is_the_gradient_of_its_own_mean_score(name: str) -> None:
    """By hand, in plain PyTorch: the class's dense scores, averaged over the region, differentiated at the layer."""
    model, x, layer = dense(name).double(), noise(1, 3, 64, 96).double(), MODELS[name]
    gave: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: gave.append(output))
    scores = scores_of(model, x)[0]
    handle.remove()
    predicted = scores.argmax(0)
    counts = predicted.flatten().bincount(minlength=CLASSES)
    most = int(counts[1:].argmax()) + 1 if counts[1:].any() else 0
    fewest = min((k for k in range(CLASSES) if counts[k] > 0), key=lambda k: int(counts[k]))
    box = scores[:, 10:30, 20:50].mean((1, 2))
    area = torch.zeros(64, 96, dtype=torch.bool)
    area[5:20, 70:75] = True
    place = scores[:, area].mean(1)
    expected = {
        "predicted": scores[most][predicted == most].mean(),
        fewest: scores[fewest][predicted == fewest].mean(),
        hm.Everywhere(2): scores[2].mean(),
        "point:20,40": scores[:, 40, 20].max(),
        hm.Point(20.9, 40.2, of=1): scores[1, 40, 20],
        "box:20,10,50,30": box.max(),
        hm.Box(20, 10, 50, 30, of=3): box[3],
        hm.Mask(area): place.max(),
        hm.Contrast(hm.Box(20, 10, 50, 30, of=3), 1): box[3] - box[1],
    }
    found = hm.Lens(model).explain(x, target=[*expected], method="hirescam")
    assert {h.layer for h in found} == {layer}
    for heatmap, score in zip(found, expected.values(), strict=True):
        (gradient,) = torch.autograd.grad(score, gave[0], retain_graph=True)
        assert heatmap.score == pytest.approx(score.item(), rel=1e-5)
        assert close(heatmap.raw, (gradient * gave[0]).detach().sum((0, 1)), 1e-5)
    assert (found[0].index, found[1].index, found[3].index) == (most, fewest, int(scores[:, 40, 20].argmax()))
    assert found[0].probability == pytest.approx(scores.softmax(0)[most][predicted == most].mean().item(), rel=1e-5)
    assert [h.where for h in found][2:6] == [
        "the whole picture",
        *["point (20, 40)", "point (20.9, 40.2)"],
        found[5].where,
    ]
    assert found[8].target == "class 3 rather than class 1"


def test_regions_are_what_a_segmenter_predicts() -> None:
    lens, x = hm.Lens(dense("smp unet")), noise(2, 3, 64, 96)
    with torch.no_grad():
        scores = lens.model(x)
    for image, found in zip(scores, lens.predict(x), strict=True):
        assert sum(one.share for one in found) == pytest.approx(1)
        assert [one.share for one in found] == sorted((one.share for one in found), reverse=True)
        for one in found:
            own = image.argmax(0) == one.index
            assert one.share == pytest.approx(own.float().mean().item())
            assert one.score == pytest.approx(image[one.index][own].mean().item(), rel=1e-5)
            assert one.probability == pytest.approx(image.softmax(0)[one.index][own].mean().item(), rel=1e-5)


def test_a_batch_of_images_is_each_alone() -> None:
    lens, x = hm.Lens(dense("smp unet").double()), noise(3, 3, 64, 64).double()
    together = lens.explain(x, target=["predicted", "everywhere"], batch_size=3)
    alone = [h for one in x for h in lens.explain(one, target=["predicted", "everywhere"])]
    assert all(close(a.raw, b.raw) for a, b in zip(together, alone, strict=True))
    assert [h.index for h in together] == [h.index for h in alone]


def test_mirrored_copies_ask_about_the_mirrored_region() -> None:
    """Of a network that commutes with mirroring, the mirrored copy's map, mirrored back, is the plain one."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 1)
    net = nn.Sequential(conv, nn.ReLU(), nn.Conv2d(4, 3, 1)).double()
    x = noise(1, 3, 16, 24).double()
    goals = ResolvedTargets([hm.Box(2, 3, 9, 8, of=hm.Class(1))], net(x), [hm.Geometry.identity((16, 24))])
    for variation in augmented(x):
        there = goals.mirrored(24) if variation.mirrored else goals
        box = net(variation.x)[0, 1]
        own = box[3:8, 15:22] if variation.mirrored else box[3:8, 2:9]
        assert torch.allclose(there.scores(net(variation.x))[0, 0], own.mean().double(), rtol=1e-5)
    assert torch.allclose(goals.mirrored(24).scores(net(x.flip(-1))), goals.scores(net(x)), rtol=1e-5)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (9, "class 9 doesn't exist; the model's output has 4 classes"),
        (hm.Point(5, 5, of=9), "class 9 doesn't exist"),
        (hm.Contrast("predicted", hm.Point(3, 3)), "contrast two classes"),
        (hm.Contrast("predicted", 9), "class 9 doesn't exist"),
        (
            hm.Point(5, 5, of=hm.Contrast(0, 1)),
            "'class 0 rather than class 1' has no score at a place; pass of= a class",
        ),
        (-5, "class -5 doesn't exist; classes are numbered from 0"),
        (hm.Contrast(1, -5), "class -5 doesn't exist"),
        (hm.Regression(4), "value 4 doesn't exist; the model's output has 4 values"),
        ("point:500,500", r"point \(500, 500\) lies outside of what the model sees of the picture"),
        ("box:2", "box 2 is a detected object, and this model gives scores of places"),
    ],
)
def test_what_a_segmenter_can_not_be_asked_is_said(target: Any, sentence: str) -> None:
    with pytest.raises(hm.TargetError, match=sentence):
        hm.Lens(dense("smp unet")).explain(noise(1, 3, 64, 64), target=target)


def test_a_place_that_the_crop_cuts_off_is_said() -> None:
    plain = hm.Preprocessing(size=(64, 64), resize=64)
    lens = hm.Lens(dense("smp unet"), preprocessing=plain)
    picture = (noise(64, 128, 3) * 50 + 128).clamp(0, 255).byte().numpy()
    assert lens.explain(picture, target="point:64,10")
    with pytest.raises(hm.TargetError, match=r"point \(5, 10\) lies outside of what the model sees"):
        lens.explain(picture, target="point:5,10")
    with pytest.raises(hm.TargetError, match=r"point \(64, -3\) lies outside"):
        lens.explain(picture, target="point:64,-3")


@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
def test_all_methods_that_do_not_need_classes_work_on_regions() -> None:
    found = hm.Lens(small()).explain(noise(1, 3, 32, 48), target="point:20,10", method="all", budget=16)
    missing = set(hm.methods.METHODS) - {h.method.name for h in found}
    assert missing == {"cam", "finercam", "sidu", "gcame", *OF_ATTENTION}
    assert all(torch.isfinite(h.raw).all() for h in found)


# ---------------------------------------------------------------- where it is looked


class Net(nn.Module):
    """A U-Net in small, with deep supervision."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(8, 32, 3, 2, 1), nn.ReLU())
        self.bottom = nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU())
        self.side = nn.Conv2d(64, classes, 1)
        self.up2 = nn.Conv2d(96, 16, 3, 1, 1)
        self.up1 = nn.Conv2d(24, 8, 3, 1, 1)
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(one)
        low = self.bottom(two)
        side = self.side(low)

        def grown(maps: Tensor, like: Tensor) -> Tensor:
            return nn.functional.interpolate(maps, like.shape[2:])

        high = self.up1(torch.cat([one, grown(self.up2(torch.cat([two, grown(low, two)], 1)), one)], 1))
        return grown(self.head(high), x) + grown(side, x)


def small(classes: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return Net(classes).eval()


def test_dense_scores_are_explained_at_the_bottleneck() -> None:
    model, x = small(), noise(1, 3, 32, 48)
    assert choose(model, x, trace(model, x)).layers == ("bottom",)
    assert hm.Lens(model).explain(x)[0].raw.shape == (4, 6)


@pytest.mark.parametrize(
    ("kind", "encoder", "layer"),
    [
        ("Unet", "resnet18", "encoder.layer4"),
        ("UnetPlusPlus", "resnet18", "encoder.layer4"),
        ("PSPNet", "resnet18", "encoder.layer2"),
        ("DeepLabV3", "resnet18", "encoder.layer4"),
        ("FPN", "mobilenet_v2", "encoder.features.18"),
        ("Unet", "mit_b0", "encoder.block4"),
    ],
)
def test_default_layers_of_segmenters(kind: str, encoder: str, layer: str) -> None:
    torch.manual_seed(0)
    model, x = getattr(smp, kind)(encoder, encoder_weights=None, classes=3).eval(), noise(1, 3, 64, 96)
    traced = trace(model, x)
    assert traced.form == "regions"
    assert choose(model, x, traced).layers == (layer,)


# ---------------------------------------------------------------- really trained


@functools.cache
def salient_lens() -> hm.Lens:
    return u2net()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut"])
def test_a_trained_segmenter_looks_at_what_stands_out(name: str) -> None:
    data = pytest.importorskip("skimage.data")
    lens, photo = salient_lens(), getattr(data, name)()
    (heatmap,) = lens.explain(photo)
    region = lens.predict(photo)[0][0]
    assert heatmap.probability == pytest.approx(region.probability, abs=1e-4)
    assert region.probability > 0.8
    x, geometry = lens.preprocessing(heatmap.picture)
    with torch.no_grad():
        salient = geometry.lay_back(lens.engine.called(x[None])[0, 0].sigmoid()) > 0.5
    heat = heatmap.map
    inside, share = float(heat[salient].sum() / heat.sum()), float(salient.float().mean())
    assert inside > 1.3 * share
