"""Defaults that can be believed: the layer and the method are chosen by what a gradient shows."""

from __future__ import annotations

import functools
import json
import warnings
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import hookmap as hm
import trained
from hookmap.layers.choice import alikeness
from hookmap.results.choice import Choice
from networks import noise
from pictures import PHOTOS
from strides import SIDE, detector, scenes

# ---------------------------------------------------------------- what is measured


def test_a_gradient_is_alike_where_each_channel_has_one_weight_also_behind_a_relus_mask() -> None:
    weights = noise(8)[:, None, None].expand(8, 7, 7)
    mask = (torch.rand(8, 7, 7, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    assert alikeness(weights) == pytest.approx(1)
    assert alikeness(weights * mask) == pytest.approx(1)
    assert alikeness(noise(8, 7, 7)) < 0.1
    assert 0.4 < alikeness(weights + weights.std() * noise(8, 7, 7)) < 0.6  # half of the variance is between channels


def test_a_gradient_at_single_places_says_nothing_of_others() -> None:
    gradient = torch.zeros(8, 7, 7)
    gradient[:, 3, 2] = noise(8)
    assert alikeness(gradient) == 0
    assert alikeness(torch.zeros(8, 7, 7)) == 0


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("resnet18", "gradcam"),
        ("densenet121", "gradcam"),  # a ReLU after the last norm
        ("mobilenet_v3_small", "gradcam"),
        ("squeezenet1_1", "gradcam"),
        ("alexnet", "hirescam"),
        ("vgg11", "hirescam"),
        ("vit_b_32", "valuepath"),
    ],
)
def test_grad_cam_is_the_default_where_what_follows_treats_all_places_alike(name: str, method: str) -> None:
    torch.manual_seed(0)
    lens = hm.Lens(torchvision.models.get_model(name, weights=None))
    if name == "vit_b_32":
        nn.init.normal_(lens.model.heads.head.weight)  # the library starts it with zeros
    choice = lens.engine.choice(noise(1, 3, 224, 224))
    assert choice.method == method
    assert choice.alike is not None
    assert (choice.alike > 0.99) == (method == "gradcam")


# ---------------------------------------------------------------- heads that flatten


class MnistExample(nn.Module):
    """The network of PyTorch's own MNIST example."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, 1), nn.Conv2d(32, 64, 3, 1)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        x = torch.flatten(self.dropout1(functional.max_pool2d(x, 2)), 1)
        x = self.fc2(self.dropout2(functional.relu(self.fc1(x))))
        return functional.log_softmax(x, 1)


@functools.cache
def digits(size: int = 8) -> tuple[Tensor, Tensor]:
    """Scikit-learn's digits in a random order, ``(1797, 1, size, size)`` in 0..1, and what they are."""
    data = load_digits()
    order = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.images / 16, dtype=torch.float32)[:, None][order], torch.tensor(data.target)[order]
    return (x if size == 8 else functional.interpolate(x, (size, size), mode="bilinear")), y


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(1400).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model.train()(x[batch]), y[batch]).backward()
            optimizer.step()
    assert (model.eval()(x[1400:]).argmax(1) == y[1400:]).float().mean() > 0.9
    return model


@functools.cache
def plain_network() -> nn.Module:
    """Conv, conv, pool, conv, flatten, linear, trained on the digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()]
        blocks += [nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10)]
        return train(nn.Sequential(*blocks), *digits(), epochs=10)


def test_no_map_of_a_network_that_flattens_is_zero() -> None:
    heatmaps = hm.Lens(plain_network()).explain(digits()[0][1400:])
    assert len(heatmaps) == 397
    assert {heatmap.evidence for heatmap in heatmaps} == {"some"}


def test_maps_of_pytorchs_mnist_example_lie_on_the_digit() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x, y = digits(28)
        model = train(MnistExample(), x, y, epochs=2)
    energies = []
    for heatmap, image in zip(hm.Lens(model).explain(x[1400:]), x[1400:, 0], strict=True):
        ink, heat = image > 0.3, heatmap.map
        energies.append(float(heat[ink].sum() / heat.sum() / ink.float().mean()))
    assert np.mean(energies) >= 1.4


def test_grad_cam_where_it_does_not_hold_is_answered_with_a_remark_that_names_the_better_method() -> None:
    lens, x = hm.Lens(plain_network()), digits()[0][1400:1402]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            lens.explain(x, method="gradcam")
    remarks = [str(warning.message) for warning in said if "hirescam" in str(warning.message)]
    assert len(remarks) == 1
    assert "Grad-CAM averages the gradient over all places, and at '6'" in remarks[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lens.explain(x)
        resnet = hm.Lens(torchvision.models.resnet18(weights=None))
        resnet.explain(noise(1, 3, 64, 64), method="gradcam")


# ---------------------------------------------------------------- the choice


def test_a_choice_is_kept_for_its_input_size_stands_in_the_result_and_can_be_stored() -> None:
    lens, x = hm.Lens(plain_network()), digits()[0]
    choice = lens.engine.choice(x[:1])
    assert lens.engine.choice(x[1:2]) is choice
    (heatmap,) = lens.explain(x[:1])
    assert heatmap.question is not None
    assert heatmap.question.choice is choice
    assert (heatmap.method.name, heatmap.coverage) == (choice.method, 1.0)
    stored = Choice.read(json.loads(json.dumps(asdict(choice))))
    assert stored == choice
    other = hm.Lens(plain_network())
    other.engine.settle(x.shape[1:], Choice(("2",), "layercam"))
    assert (other.explain(x[:1])[0].layer, other.explain(x[:1])[0].method.name) == ("2", "layercam")


def test_the_tree_says_what_was_chosen_and_why() -> None:
    text = str(hm.Lens(plain_network()).layers(digits()[0][:1]))
    assert "<- heatmaps are taken here, by HiResCAM: " in text
    assert "% of the gradient is the same at all places" in text


class Hungry(nn.Module):
    """Wants a petabyte as soon as gradients are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if torch.is_grad_enabled():
            torch.empty(2**50)
        return x.mean((2, 3))


def test_running_out_of_memory_while_looking_is_raised_and_no_reason_for_another_layer() -> None:
    with pytest.raises(RuntimeError, match="allocate memory"):
        hm.Lens(Hungry()).engine.choice(noise(1, 3, 16, 16))


# ---------------------------------------------------------------- outputs with places


def test_a_voxel_of_a_segmentation_is_explained_where_it_is() -> None:
    torch.manual_seed(0)
    down = nn.Sequential(nn.Conv3d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv3d(8, 16, 3, 2, 1), nn.ReLU())
    up = nn.Sequential(nn.Upsample(scale_factor=4), nn.Conv3d(16, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 2, 1))
    lens = hm.Lens(nn.Sequential(down, up))
    (heatmap,) = lens.explain(noise(1, 1, 16, 32, 32), target=lambda output: output[:, 1, 4, 8, 24])
    assert heatmap.method.name == "hirescam"
    place = np.unravel_index(int(heatmap.raw.abs().argmax()), heatmap.raw.shape)
    stride = np.array([16, 32, 32]) / heatmap.raw.shape
    assert np.all(np.abs((np.array(place) + 0.5) * stride - [4.5, 8.5, 24.5]) <= 1.5 * stride)


# ---------------------------------------------------------------- levels of a detector


def test_each_row_of_a_detector_is_read_at_its_own_stride() -> None:
    lens = detector()
    pictures, _ = scenes(40, torch.Generator().manual_seed(1))
    assert lens.engine.choice(pictures[:1]).layers == ("heads.0.1", "heads.1.1", "heads.2.1")
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    peaks, small = [], []
    for heatmap in lens.explain(pictures, on_error="skip"):
        assert heatmap.box is not None
        left, top, right, bottom = heatmap.box
        inside, heat = (x >= left) & (x <= right) & (y >= top) & (y <= bottom), heatmap.map
        peaks.append(bool(inside.flatten()[heat.argmax()]))
        if inside.float().mean() < 0.02:
            small.append(float(heat[inside].sum() / heat.sum()))
    assert len(peaks) > 60
    assert len(small) > 15
    assert np.mean(peaks) >= 0.95
    assert np.median(small) >= 0.5


class Softmaxed(hm.Adapter):
    """Class probabilities by softmax, as many older detectors have them: a row's score reads the scores of all."""

    def forward(self, x: Tensor) -> hm.Detections:
        scores = self.plain(x).flatten(2).mT.softmax(2)[..., 1:].logit()
        boxes = torch.tensor([2.0, 2.0, 9.0, 9.0]).expand(1, scores.shape[1], 4)
        return hm.Detections(scores, boxes, scores.sigmoid(), hm.keep_best(boxes, scores.sigmoid(), least=0.0))


def test_scores_behind_a_softmax_are_no_features() -> None:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU())
    lens = hm.Lens(Softmaxed(nn.Sequential(features, nn.Conv2d(32, 1 + 10, 1), nn.Identity())))
    assert lens.engine.choice(noise(1, 3, 32, 32)).layers == ("0",)


def test_the_level_of_a_trained_detector_is_found_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained.FastestDet, "levels", [])
    with pytest.warns(hm.HookmapWarning, match="the model takes one image at a time"):
        heatmaps = trained.fastestdet().explain([trained.PHOTOS / "both.png", PHOTOS / "cat.jpg"])
    assert len(heatmaps) > 2
    for heatmap in heatmaps:
        assert heatmap.box is not None
        left, top, right, bottom = map(round, heatmap.box)
        inside = torch.zeros_like(heatmap.map, dtype=torch.bool)
        inside[max(top, 0) : bottom, max(left, 0) : right] = True
        assert inside.flatten()[heatmap.map.argmax()]
        assert heatmap.map[inside].sum() > 0.8 * heatmap.map.sum()


# ---------------------------------------------------------------- precision


@pytest.mark.filterwarnings("ignore:at 'layer4' the methods gradcam, hirescam give the same:hookmap.HookmapWarning")
def test_maps_under_the_users_own_autocast_are_summed_in_float32() -> None:
    lens, x = hm.Lens(torchvision.models.resnet18(weights=None)), noise(1, 3, 64, 64)
    plain = lens.explain(x, 3, method=["gradcam", "hirescam", "layercam"])
    with torch.autocast("cpu", torch.bfloat16):
        cast = lens.explain(x, 3, method=["gradcam", "hirescam", "layercam"])
    for one, other in zip(cast, plain, strict=True):
        assert one.raw.dtype == torch.float32
        assert len(one.raw.unique()) == one.raw.numel()
        assert functional.cosine_similarity(one.raw.flatten(), other.raw.flatten(), 0) > 0.95
