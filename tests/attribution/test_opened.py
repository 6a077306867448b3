"""An opened image answers as the lens does, from one pass; parts of a model are muted, and nothing of that stays."""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import hookmap as hm
from hookmap.attribution.muting import Muting
from hookmap.attribution.opened import Opened
from networks import stirred
from pictures import PHOTOS
from tiny import attentive, tiny

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
CAT = PHOTOS / "cat.jpg"


class Counted(nn.Module):
    """Counts its calls."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x)


def opened(model: nn.Module, x: Tensor, mutings: tuple[Muting, ...] = ()) -> tuple[hm.Lens, Opened]:
    lens = hm.Lens(model)
    return lens, Opened(lens.engine, x, mutings)


@pytest.mark.parametrize("net", [tiny, attentive], ids=["convolutions", "attention"])
def test_what_an_opened_image_is_told_is_what_the_lens_says(net: object) -> None:
    x = torch.randn(1, 3, 24, 32, dtype=torch.float64)
    lens, one = opened(net(), x)  # type: ignore[operator]
    for mine, theirs in zip(one.predict(), lens.predict(x)[0], strict=True):
        assert (mine.index, mine.label) == (theirs.index, theirs.label)
        assert mine.score == pytest.approx(theirs.score, rel=1e-12)
    for target in (0, 1, hm.Contrast(2, 3)):
        for layer in (None, "bend1"):
            for method in (None, "layercam", "hirescam"):
                map_, truth = one.explain(target, layer, method)[0], lens.explain(x, target, layer, method)[0]
                torch.testing.assert_close(map_.raw, truth.raw, rtol=1e-10, atol=1e-13)
                assert (map_.title, map_.layer, map_.method) == (truth.title, truth.layer, truth.method)


def test_methods_that_mask_and_that_smooth_are_what_they_are() -> None:
    x = torch.randn(1, 3, 24, 32, dtype=torch.float64)
    lens, one = opened(tiny(), x)
    one.explain(1)
    for options in ({"method": "ablationcam"}, {"method": "saliency"}, {"aug_smooth": True}, {"method": "shapleycam"}):
        mine, theirs = one.explain(1, **options)[0].raw, lens.explain(x, 1, **options)[0].raw  # type: ignore[arg-type]
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_further_targets_and_layers_cost_no_forward_pass() -> None:
    model = Counted(torchvision.models.resnet18(num_classes=7)).eval()
    lens = hm.Lens(model, preprocessing=hm.Preprocessing(size=(64, 64)))
    one = lens.open(CAT)
    one.predict()
    calls = model.calls
    for target in range(7):
        one.explain(target)
    for layer in one.stages:
        one.explain(3, layer)
        one.features(layer, target=2)
    one.predict(top=7)
    assert model.calls == calls


def test_an_opened_image_doesnt_hold_the_model_changed_nor_its_graph_forever() -> None:
    model = torchvision.models.resnet18(num_classes=7).train()
    before = copy.deepcopy(model.state_dict())
    one = hm.Lens(model, preprocessing=hm.Preprocessing(size=(64, 64))).open(CAT)
    one.explain(2)
    alive = weakref.ref(one)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    del one
    gc.collect()
    assert alive() is None


# ---------------------------------------------------------------- muting


def test_muted_channels_are_the_model_without_them() -> None:
    model = tiny()
    x = torch.randn(1, 3, 24, 32, dtype=torch.float64)
    without = copy.deepcopy(model)

    def weaker(_: nn.Module, __: object, output: Tensor) -> Tensor:
        factors = torch.ones(output.shape[1], dtype=output.dtype)
        factors[[1, 4]] = 0.25
        return output * factors[:, None, None]

    without.bend1.register_forward_hook(weaker)
    truth, lens = hm.Lens(without), hm.Lens(model)
    with lens.muted("bend1", [1, 4], factor=0.25, image=x):
        assert lens.predict(x) == truth.predict(x)
        muted = lens.explain(x, 2, "bend2", "hirescam")[0].raw
        ablated = lens.explain(x, 2, "bend2", "ablationcam")[0].raw
    torch.testing.assert_close(muted, truth.explain(x, 2, "bend2", "hirescam")[0].raw)
    torch.testing.assert_close(ablated, truth.explain(x, 2, "bend2", "ablationcam")[0].raw)
    assert lens.predict(x) == hm.Lens(copy.deepcopy(model)).predict(x)
    one = Opened(lens.engine, x, (Muting("bend1", (1, 4), 0.25),))
    torch.testing.assert_close(one.explain(2, "bend2", "hirescam")[0].raw, muted)


def test_a_muted_head_gives_nothing_to_the_layer_after_it() -> None:
    import timm

    torch.manual_seed(0)
    model = stirred(timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=5)).eval()
    x = torch.randn(1, 3, 224, 224)
    lens, proj = hm.Lens(model), model.blocks[1].attn.proj
    with lens.muted("blocks.1.attn", [0, 2], of="heads", image=x):
        muted = lens.predict(x, top=5)[0]
    with torch.no_grad():
        weight, width = proj.weight.clone(), proj.in_features // 3
        proj.weight[:, :width] = 0
        proj.weight[:, 2 * width :] = 0
        truth = model(x)[0]
        proj.weight.copy_(weight)
        untouched = model(x)[0]
    for one in muted:
        assert one.score == pytest.approx(float(truth[one.index]), abs=1e-5)
    assert not torch.allclose(truth, untouched, atol=1e-4)


def test_muting_holds_in_its_own_thread_only() -> None:
    model = tiny()
    x = torch.randn(1, 3, 24, 32, dtype=torch.float64)
    lens, seen = hm.Lens(model), []
    truth = float(model(x)[0, 0].detach())
    with lens.muted("bend1", range(6), image=x):
        thread = threading.Thread(target=lambda: seen.append(float(model(x)[0, 0].detach())))
        thread.start()
        thread.join()
        assert float(model(x)[0, 0].detach()) != truth
    assert seen == [truth]


@pytest.mark.parametrize(
    ("layer", "numbers", "of", "words"),
    [
        ("bend1", [6], "channels", "has channels 0 to 5; 6 doesn't exist"),
        ("bend1", [0], "heads", "attention"),
        ("nowhere", [0], "channels", "nowhere"),
    ],
)
def test_what_cant_be_muted_is_said(layer: str, numbers: list[int], of: str, words: str) -> None:
    x = torch.randn(1, 3, 24, 32, dtype=torch.float64)
    lens = hm.Lens(tiny())
    with pytest.raises(hm.LayerError, match=words), lens.muted(layer, numbers, of=of, image=x):  # type: ignore[arg-type]
        pass


def test_heads_inside_of_one_function_cant_be_muted() -> None:
    x = torch.randn(1, 3, 24, 32, dtype=torch.float64)
    lens = hm.Lens(attentive())
    with pytest.raises(hm.LayerError, match="mute channels"), lens.muted("bend1", [0], of="heads", image=x):
        pass


# ---------------------------------------------------------------- what wasn't detected


def test_a_missed_object_is_followed_to_where_it_was_lost() -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30], [12, 10, 32, 30], [40, 40, 60, 60], [0, 50, 12, 62]])
    sure = torch.tensor([[0.9, 0.05], [0.6, 0.1], [0.2, 0.1], [0.01, 0.9]])

    class Detector(hm.Adapter):
        preprocessing = hm.Preprocessing(size=(64, 64), resize=(64, 64))
        labels = ("cat", "dog")

        def forward(self, x: Tensor) -> hm.Detections:
            shift = self.plain(x).mean((1, 2, 3), keepdim=True)[..., 0]
            probabilities = sure.expand(len(x), -1, -1) + 0 * shift
            kept = [[hm.Kept(0, 0), hm.Kept(3, 1)]] * len(x)
            return hm.Detections(probabilities.logit(), boxes.expand(len(x), -1, -1), probabilities, kept, least=0.5)

    picture = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8).numpy()
    lens = hm.Lens(Detector(nn.Conv2d(3, 2, 3, padding=1)))
    cases = {
        (10.0, 10.0, 29.0, 30.0): ("detected", 0),
        (14.0, 10.0, 34.0, 30.0): ("detected", 0),
        (40.0, 40.0, 60.0, 60.0): ("confidence", 2),
        (0.0, 0.0, 5.0, 5.0): ("nowhere", None),
    }
    for box, (died, row) in cases.items():
        found = lens.missed(picture, box)
        assert found.died == died, (box, str(found))
        assert row is None or found.row == row
    found = lens.missed(picture, (40, 40, 60, 60))
    assert found.candidate is not None
    assert found.candidate.label == "cat"
    assert "keeps none below 50.0%" in str(found)
    boxes[0] = torch.tensor([4.0, 10, 24, 30])
    found = lens.missed(picture, (20, 10, 40, 30))
    assert found.died == "suppression"
    assert found.winner is not None
    assert found.winner.probability == pytest.approx(0.9)


def test_only_detectors_miss_objects() -> None:
    with pytest.raises(hm.TargetError, match="detects no objects"):
        hm.Lens().missed(CAT, (0, 0, 10, 10))


def test_a_proposal_is_explained_as_a_detection_of_it_is() -> None:
    torch.manual_seed(1)
    model = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    model.score_thresh = 0.0
    lens = hm.Lens(model, preprocessing=hm.Preprocessing(size=(128, 128), resize=(128, 128)))
    detection = lens.explain(CAT, "box:0")[0]
    assert detection.box is not None
    left, top, right, bottom = detection.box
    found = lens.missed(CAT, (left, top, right + 1, bottom + 1))
    proposal = lens.explain(CAT, found.target)[0]
    assert proposal.index == found.candidate.index  # type: ignore[union-attr]
    assert proposal.raw.shape == detection.raw.shape
    row, label = lens.engine.output(next(lens.engine.batches(CAT, 1))).kept[0][0]
    same = lens.explain(CAT, f"proposal:{row}:{label}")[0]
    torch.testing.assert_close(same.raw, detection.raw)


# ---------------------------------------------------------------- a polygon


def test_a_polygon_means_what_its_mask_means() -> None:
    from PIL import Image, ImageDraw

    from hookmap.targets import Polygon

    corners = ((5.0, 4.0), (40.0, 8.0), (22.0, 40.0), (20.0, 20.0))
    image = Image.new("1", (48, 44))
    ImageDraw.Draw(image).polygon(corners, fill=1)
    mask = torch.from_numpy(np.array(image))
    y, x = torch.meshgrid(torch.arange(44) + 0.5, torch.arange(48) + 0.5, indexing="ij")
    inside = Polygon(corners).covers(torch.stack([x, y], -1))
    assert float((inside != mask).float().mean()) < 0.04  # PIL draws the outline too
    assert Polygon(corners).bounds == hm.Box(5, 4, 40, 40)
    assert hm.Polygon(((0, 0), (4, 0), (4, 4), (0, 4))).covers(torch.tensor([[2.0, 2.0], [5.0, 2.0]])).tolist() == [
        True,
        False,
    ]
    with pytest.raises(hm.TargetError, match="three or more"):
        Polygon(((0, 0), (1, 1)))
