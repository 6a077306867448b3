"""RF-DETR of its own package, with random weights: detections, masks, labels and inputs as the package has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import hookmap as hm
from hookmap import models
from hookmap.images.loading import load
from hookmap.models.rfdetr import RFDETRDetector
from library_models import by_hand, slope, snapshot, unchanged

pytestmark = pytest.mark.filterwarnings(
    "ignore:RFDETR.* was instantiated with pretrain_weights=None", "ignore:The platform model downloads:ImportWarning"
)

LEVELS = ["backbone.0.projector.stages.0"]


def held(kind: str, **more: Any) -> Any:
    """The object that users of the package hold, small, sure of something, and without a download."""
    import rfdetr

    torch.manual_seed(0)
    options = {"resolution": 96, "positional_encoding_size": 6, "num_queries": 20, "num_select": 15, "group_detr": 1}
    made = getattr(rfdetr, kind)(pretrain_weights=None, device="cpu", **options, **more)
    generator = torch.Generator().manual_seed(1)
    net = made.model.model
    with torch.no_grad():
        net.class_embed.bias.fill_(-1)
        for name, parameter in net.named_parameters():
            if parameter.ndim > 1 and not name.startswith("backbone"):
                parameter.normal_(0, (1.5 / parameter[0].numel()) ** 0.5, generator=generator)
    return made


@pytest.fixture(scope="module")
def nano() -> Any:
    return held("RFDETRNano")


@pytest.fixture(scope="module")
def segmenter() -> Any:
    return held("RFDETRSegNano")


@pytest.mark.parametrize("kind", ["nano", "segmenter"])
def test_detections_equal_the_package_s(kind: str, cat: Path, request: pytest.FixtureRequest) -> None:
    made, photo = request.getfixturevalue(kind), Image.open(cat)
    theirs = made.predict(photo, threshold=0.3)
    lens = hm.Lens(RFDETRDetector(made, least=0.3))
    mine = lens.predict(cat, top=100)[0]
    assert len(mine) == len(theirs) == 15
    assert [p.index for p in mine] == theirs.class_id.tolist()
    assert np.allclose([p.probability for p in mine], theirs.confidence, atol=1e-6)
    assert np.allclose([p.box for p in mine], theirs.xyxy, atol=1e-3)
    named = [(p.label, name) for p, name in zip(mine, theirs.data["class_name"], strict=True) if name]
    assert len(named) > 5
    assert all(label == name for label, name in named)
    if kind == "segmenter":
        with torch.no_grad():
            (masks,) = lens.engine.called(lens.preprocessing(load(cat))[0][None]).masks
        large = nn.functional.interpolate(masks[:, None], (photo.height, photo.width), mode="bilinear")[:, 0] > 0
        assert torch.equal(large, torch.from_numpy(theirs.mask))


def test_a_detection_s_gradient_is_that_of_its_raw_logit(nano: Any, cat: Path) -> None:
    nano.predict(Image.open(cat), threshold=0.3)  # in inference mode, which may leave something behind
    net = nano.model.model
    before = snapshot(net)
    adapter = RFDETRDetector(nano, least=0.1)
    lens = hm.Lens(adapter)
    x = lens.preprocessing(load(cat))[0][None]
    assert lens.engine.default_layers(x) == LEVELS
    with torch.no_grad():
        found = lens.engine.called(x)
    assert not found.fixed
    row, label = found.kept[0][1]

    class Renamed(nn.Module):
        """The package's module under the name of an argument that the helper passes."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, pixel_values: Tensor) -> Any:
            return self.net(pixel_values)

    (heatmap,) = lens.explain(x, hm.Detection(1), method=slope)
    gradient = by_hand(
        Renamed(), f"net.{LEVELS[0]}", {"pixel_values": x}, lambda output: output["pred_logits"][0, row, label]
    )
    wanted = slope(gradient)[0]
    assert torch.allclose(heatmap.raw, wanted, atol=1e-4 * float(wanted.abs().max()))
    assert wanted.abs().max() > 0
    for target in ("box:0", "box:0:left"):
        (heatmap,) = lens.explain(cat, target)
        assert heatmap.raw.isfinite().all()
        assert heatmap.raw.std() > 0
        assert heatmap.map.shape == (load(cat).height, load(cat).width)
    assert unchanged(net, before)


def test_a_finite_difference_in_feature_space_confirms(segmenter: Any, cat: Path) -> None:
    net = segmenter.model.model.eval()
    lens = hm.Lens(RFDETRDetector(segmenter, least=0.1))
    x = lens.preprocessing(load(cat))[0][None]
    with torch.no_grad():
        found = lens.engine.called(x)
    number = next(n for n, mask in enumerate(found.masks[0]) if (mask > 0).any())
    row, area = found.kept[0][number].row, found.masks[0][number] > 0
    (heatmap,) = lens.explain(x, f"box:{number}:mask", method=lambda gradient: gradient.sum(1))
    y, x_ = divmod(int(heatmap.raw.abs().argmax()), heatmap.raw.shape[1])

    def moved(by: float) -> float:
        def move(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output[:, :, y, x_] += by
            return output

        with net.get_submodule(LEVELS[0]).register_forward_hook(move), torch.no_grad():
            return float(net(x)["pred_masks"][0, row][area].mean())

    there = (moved(1e-2) - moved(-1e-2)) / 2e-2
    assert float(heatmap.raw[y, x_]) == pytest.approx(there, rel=0.02)


def test_the_module_alone_is_known_too(nano: Any, cat: Path) -> None:
    net = nano.model.model
    lens, whole = hm.Lens(net), hm.Lens(RFDETRDetector(nano))
    assert lens.model is net
    assert isinstance(lens.engine.called, RFDETRDetector)
    assert list(lens.labels) == list(whole.labels)
    assert lens.labels[17] == "cat"
    assert torch.equal(lens.preprocessing(load(cat))[0], whole.preprocessing(load(cat))[0])
    known = models.describe(nano)
    assert known.model is net
    assert known.name == "RFDETRNano"
    assert list(known.labels) == list(whole.labels)


def test_inputs_equal_what_the_package_feeds_its_model(nano: Any, cat: Path) -> None:
    seen: list[Tensor] = []
    with nano.model.model.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone())):
        nano.predict(Image.open(cat))
    x, geometry = RFDETRDetector(nano).preprocessing(load(cat))
    assert torch.allclose(x, seen[0][0], atol=1e-6)
    assert geometry.original == (load(cat).height, load(cat).width)


def test_class_names_of_a_data_set(cat: Path) -> None:
    made = held("RFDETRNano", num_classes=3)
    made.model.class_names = ["cat", "dog", "cup"]
    lens = hm.Lens(RFDETRDetector(made, least=0.3))
    theirs = made.predict(Image.open(cat), threshold=0.3)
    mine = lens.predict(cat, top=100)[0]
    assert [p.label for p in mine] == [name.replace("__background__", "class 3") for name in theirs.data["class_name"]]
    assert hm.Lens(made.model.model).labels is None


def test_what_cannot_be_read_is_refused() -> None:
    made = held("RFDETRNano", dec_layers=1)
    net, made.model.model = made.model.model, None
    with pytest.raises(hm.ModelError, match="this RFDETRNano gave its module up when it was optimised in place"):
        RFDETRDetector(made)
    net.use_grouppose_keypoints = True
    with pytest.raises(hm.ModelError, match="rank detections by their keypoints too"):
        hm.Lens(net)
