"""Models of nobody's library: what they take, what they give, and what can be asked of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.video.mvit import MSBlockConfig, MViT

import hookmap as hm
from networks import convnet, noise

LAYER = "bend2"


class Giving(nn.Module):
    """A small network whose scores ``(B, K)`` are given in another form."""

    def __init__(self, form: Callable[[Tensor], Any], classes: int = 5) -> None:
        super().__init__()
        self.net = convnet(classes=classes)
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.net(x))


@dataclass
class Answer:
    loss: Tensor
    scores: Tensor


def photos(count: int = 2) -> Tensor:
    return noise(count, 3, 24, 32)


@pytest.mark.parametrize(
    "form",
    [
        lambda s: s,
        lambda s: (s, {"aux": s[:, :1]}),
        lambda s: {"features": 3, "scores": s},
        lambda s: {"loss": s.sum(), "logits": s},
        lambda s: Answer(s.sum(), s),
        lambda s: [[s]],
    ],
    ids=["tensor", "tuple", "dict", "logits", "dataclass", "nested"],
)
def test_scores_are_found_in_what_models_give(form: Callable[[Tensor], Any]) -> None:
    x, model = photos(), Giving(form)
    found = hm.Lens(model).explain(x, target=["predicted", 3])
    plain = hm.Lens(convnet(classes=5)).explain(x, target=["predicted", 3])
    assert [h.index for h in found] == [h.index for h in plain]
    assert torch.equal(found.raw, plain.raw)
    assert found[0].layer == f"net.{plain[0].layer}"


def test_a_function_of_a_dict_is_a_target() -> None:
    model = Giving(lambda s: {"boxes": s[:, None, None], "sure": s.sigmoid()})

    def surest(output: dict[str, Tensor]) -> Tensor:
        return output["sure"].amax(1)

    with pytest.warns(hm.HookmapWarning, match="gives probabilities itself"):
        found = hm.Lens(model).explain(photos(), target=surest)
    assert [h.target for h in found] == ["surest", "surest"]
    assert found.raw.any()


@pytest.mark.filterwarnings("ignore:the heatmap of .* is zero everywhere:hookmap.HookmapWarning")
def test_one_target_per_image() -> None:
    lens, x = hm.Lens(convnet(classes=5), labels=list("abcde")), photos(3)
    every = lens.explain(x, target=[0, 1, 2], layer=LAYER)
    assert len(every) == 9  # a list is asked about every image
    for batch_size in (1, 2, 16):
        own = lens.explain(x, target=hm.PerImage(["a", 1, hm.Binary(2)]), layer=LAYER, batch_size=batch_size)
        assert [h.target for h in own] == ["a", "b", "c"]
        assert torch.allclose(own.raw, every.raw[[0, 4, 8]], atol=1e-6)
    masked = lens.explain(x, target=hm.PerImage([0, 1, 2]), layer=LAYER, method="ablationcam")
    assert torch.equal(masked.raw, lens.explain(x, target=[0, 1, 2], layer=LAYER, method="ablationcam").raw[[0, 4, 8]])
    for count in (2, 4):
        with pytest.raises(hm.TargetError, match=f"PerImage of {count} targets came.*one target per image"):
            lens.explain(x, target=hm.PerImage([0] * count))
    with pytest.raises(hm.TargetError, match="came for 3 images"):
        lens.features(x, target=hm.PerImage([0, 1]))


@pytest.mark.filterwarnings("ignore:the heatmap of .* is noisy:hookmap.HookmapWarning")
def test_labels_that_exclude_nothing() -> None:
    """Multi-label: each class is a question of its own."""
    model, x = convnet(classes=5), photos(1)
    logits = model(x)[0].detach()
    yes, no, plain = hm.Lens(model).explain(x, target=[hm.Binary(3), hm.Binary(3, positive=False), 3], layer=LAYER)
    assert yes.probability == pytest.approx(float(logits[3].sigmoid()), abs=1e-6)
    assert no.probability == pytest.approx(1 - yes.probability, abs=1e-6)
    assert plain.probability == pytest.approx(float(logits.softmax(0)[3]), abs=1e-6)
    assert torch.equal(yes.raw, plain.raw)
    assert torch.allclose(no.raw, -yes.raw)
    assert (yes.target, no.target) == ("class 3", "not class 3")
    masked = hm.Lens(model).explain(x, target=hm.Binary(3), layer=LAYER, method=["scorecam", "rise"], budget=20)
    assert all(h.raw.isfinite().all() for h in masked)


@pytest.mark.parametrize("form", [lambda s: s, lambda s: s[:, 0]], ids=["(B, 1)", "(B,)"])
def test_a_single_logit_is_yes_or_no(form: Callable[[Tensor], Any]) -> None:
    model, x = Giving(form, classes=1), photos(2)
    with torch.no_grad():
        model.net.head.bias -= model.net(x).mean()  # one image is yes, the other no
        logits = model.net(x)[:, 0]
    lens = hm.Lens(model, labels=["dog"])
    with pytest.warns(hm.HookmapWarning, match=r"pass target=hm.Regression\(\) if it is a value"):
        found = lens.explain(x, layer=f"net.{LAYER}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", hm.HookmapWarning)
        always = lens.explain(x, target=hm.Binary(), layer=f"net.{LAYER}", part="signed")
    for heatmap, yes, logit in zip(found, always, logits, strict=True):
        sign = 1 if logit > 0 else -1
        assert heatmap.target == ("dog" if logit > 0 else "not dog")
        assert heatmap.probability == pytest.approx(float((sign * logit).sigmoid()), abs=1e-6)
        assert torch.allclose(heatmap.raw, sign * yes.raw)
        assert yes.title == f"dog {float(logit.sigmoid()):.0%}"
    assert {h.target for h in found} == {"dog", "not dog"}
    (first, *_), _ = lens.predict(x)
    assert (first.label, first.probability) == ("dog", pytest.approx(float(logits[0].sigmoid()), abs=1e-6))
    one = lens.explain(x, target=hm.Probability(0), layer=f"net.{LAYER}")
    assert one.raw.any()  # a softmax over one class would have no gradient


def test_values_are_shown_as_they_are() -> None:
    model, x = convnet(classes=3), photos(1)
    value = model(x)[0, 2].item()
    lens = hm.Lens(model, labels=["x", "y", "age"])
    by_number, by_name = lens.explain(x, target=[hm.Regression(2), hm.Regression("age")], layer=LAYER)
    assert by_number.title == by_name.title == f"age {value:.3g}"
    assert by_number.probability is by_number.index is None
    assert torch.equal(by_number.raw, lens.explain(x, target=2, layer=LAYER).raw[0])
    single = hm.Lens(Giving(lambda s: s[:, 0], classes=1)).explain(x, target=hm.Regression())[0]
    assert single.target == "value 0"
    with pytest.raises(hm.TargetError, match="value 7 doesn't exist"):
        lens.explain(x, target=hm.Regression(7))


class Dense(nn.Module):
    """One value per pixel, as depth is."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(6, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(self.head(self.body(x)), scale_factor=4.0)


def test_dense_values_at_a_place() -> None:
    model, x = Dense(), photos(1)
    depth = model(x)[0, 0].detach()
    value = hm.Regression(label="depth")
    asked = [hm.Point(20, 9, of=value), hm.Box(8, 8, 16, 16, of=value), hm.Everywhere(of=value), value]
    found = hm.Lens(model).explain(x, target=asked, layer="body.1")
    means = [depth[9, 20], depth[8:16, 8:16].mean(), depth.mean(), depth.mean()]
    for heatmap, mean in zip(found, means, strict=True):
        assert heatmap.score == pytest.approx(float(mean), abs=1e-5)
        assert heatmap.target == "depth"
        assert heatmap.probability is None
    assert found[0].title == f"depth {float(means[0]):.3g}, point (20, 9)"
    with torch.no_grad():
        masked = hm.Lens(model).explain(x, target=asked[0], layer="body.1", method="ablationcam")[0]
    assert masked.raw.any()


def test_key_points_by_a_function() -> None:
    """A pose network's maps ``(B, joints, h, w)``: where joint 2 is found, and why there."""

    def joint(output: Tensor) -> Tensor:
        return output[:, 2].flatten(1).amax(1)

    heatmap = hm.Lens(Dense(channels=4)).explain(photos(1), target=joint)[0]
    assert heatmap.target == "joint"
    assert heatmap.raw.any()


def test_letters_by_a_function() -> None:
    """A reader's scores ``(B, steps, letters)``."""

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
            self.head = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).mean(2).mT)

    lens, x = hm.Lens(Reader()), photos(1)
    heatmap = lens.explain(x, target=lambda output: output[:, 3, 7])[0]
    assert heatmap.raw[:, 3].any()
    with pytest.raises(hm.TargetError, match=r"shape \(1, 16, 10\), expected class scores"):
        lens.explain(x)


class WithAge(nn.Module):
    """A picture and a patient's age."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(7, 4)

    def forward(self, pixel_values: Tensor, age: Tensor, scale: float = 1.0) -> Tensor:
        a = self.body(pixel_values).mean((2, 3))
        return self.head(torch.cat([a, age], 1)) * scale * (1 + a.sum(1, keepdim=True) * age)


class OneDict(WithAge):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch["image"], batch["age"])


@pytest.mark.filterwarnings("ignore:the heatmap of")
@pytest.mark.parametrize("method", ["gradcam", "ablationcam", "scorecam"])
def test_several_inputs_by_name(method: str) -> None:
    """Each sample is explained beside its own other inputs, in changed copies too."""
    model, x, age = WithAge(), photos(3), torch.tensor([[0.5], [-2.0], [3.0]])
    found = hm.Lens(model).explain({"age": age, "pixel_values": x, "scale": 2.0}, target=[1, 2], method=method)
    alone = []
    for b in range(3):

        class Fixed(hm.Adapter):
            def forward(self, x: Tensor, b: int = b) -> Tensor:
                return self.plain(x, age[b : b + 1].expand(len(x), 1), 2.0)

        alone += hm.Lens(Fixed(model)).explain(x[b : b + 1], target=[1, 2], method=method)
    assert len(found) == len(alone) == 6
    for one, other in zip(found, alone, strict=True):
        assert torch.allclose(one.raw, other.raw, atol=1e-6)
        assert one.score == pytest.approx(other.score, abs=1e-5)
    predicted = hm.Lens(model).predict({"pixel_values": x, "age": age}, top=1)
    assert [p[0].index for p in predicted] == model(x, age).argmax(1).tolist()


@pytest.mark.filterwarnings("ignore:the heatmap of")
def test_a_target_per_sample_of_several_inputs() -> None:
    lens, inputs = hm.Lens(WithAge()), {"pixel_values": photos(3), "age": torch.tensor([[0.5], [-2.0], [3.0]])}
    each = lens.explain(inputs, target=hm.PerImage([2, "predicted", 0]))
    every = lens.explain(inputs, target=[2, "predicted", 0])
    assert [h.score for h in each] == [every[0].score, every[4].score, every[8].score]
    assert all(torch.equal(a.raw, b.raw) for a, b in zip(each, [every[0], every[4], every[8]], strict=True))
    with pytest.raises(hm.TargetError, match="PerImage of 2 targets came"):
        lens.explain(inputs, target=hm.PerImage([2, 1]))
    with pytest.raises(hm.TargetError, match="PerImage of 4 targets came for 3 images"):
        lens.explain(inputs, target=hm.PerImage([2, 1, 0, 1]))


@pytest.mark.filterwarnings("ignore:the heatmap of .* is zero everywhere:hookmap.HookmapWarning")
def test_several_inputs_in_one_dict() -> None:
    x, age = photos(2), torch.tensor([[0.5], [-2.0]])
    by_name = hm.Lens(WithAge()).explain({"pixel_values": x, "age": age}, target=1)
    in_one = hm.Lens(OneDict()).explain({"image": x, "age": age}, target=1)
    assert torch.equal(in_one.raw, by_name.raw)


def test_inputs_that_do_not_fit_are_named() -> None:
    lens, x = hm.Lens(WithAge()), photos(1)
    with pytest.raises(hm.ImageError, match="takes age, pixel_values, scale, and image, age came"):
        lens.explain({"image": x, "age": torch.zeros(1, 1)})
    with pytest.raises(hm.ImageError, match="of the inputs age none is a floating-point tensor"):
        lens.explain({"age": torch.zeros(1, 1)})
    with pytest.raises(hm.ImageError, match="several inputs of one model come by name"):
        lens.explain((x, torch.zeros(1, 1)))
    with pytest.raises(hm.ImageError, match="pass the preprocessed image alone"):
        lens.concepts({"pixel_values": x})


def test_series() -> None:
    """A classifier of signals ``(B, C, L)``: Grad-CAM by autograd, on the signal's own axis."""
    model, x = convnet(rank=1), noise(2, 3, 200)
    heatmaps = hm.Lens(model).explain(x, target=4)
    assert heatmaps[0].layer == "bend2"
    for b, heatmap in enumerate(heatmaps):
        a = model[:6](x[b : b + 1]).detach().requires_grad_()
        (g,) = torch.autograd.grad(model[6:](a)[0, 4], a)
        assert torch.allclose(heatmap.raw, (g.mean(2, keepdim=True) * a)[0].sum(0).detach(), atol=1e-6)
        assert heatmap.map.shape == (200,)
        assert heatmap.overlay().size == (400, 3 * 64)  # twice as wide, to be seen, and a line per channel
    found = hm.Lens(model).explain(x[:1], target=4, method=["edges", "groupcam"])
    signal = nn.functional.pad(x[0].mean(0), (1, 1))
    assert torch.allclose(found["edges"].raw[0, 1:-1], 4 * (signal[:-2] - signal[2:]).abs()[1:-1], atol=1e-5)
    assert found["groupcam"].raw.shape == (1, 200)
    single = hm.Lens(model).explain(x[0], target=4)
    assert torch.allclose(single.raw[0], heatmaps[0].raw, atol=1e-6)
    with pytest.raises(hm.ImageError, match=r"or \(B, C, L\) for series"):
        hm.Lens(model).explain(noise(200))


def test_volumes() -> None:
    """A scan ``(B, 1, D, H, W)``."""

    class Scan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv3d(1, 4, 3, 2, 1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 6, 3, 2, 1))
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).relu().mean((2, 3, 4)))

    scan, lens = noise(1, 1, 12, 32, 24), hm.Lens(Scan())
    heatmap = lens.explain(scan, target=1)[0]
    assert heatmap.raw.shape == (3, 8, 6)
    assert heatmap.map.shape == (3, 32, 24)
    planes = heatmap.planes()  # through the strongest place
    assert [plane.picture.pixels.shape[:2] for plane in planes] == [(32, 24), (12, 24), (12, 32)]
    assert [plane.values.max() for plane in planes] == [float(heatmap.raw.max())] * 3
    drawn = heatmap.overlay()
    assert drawn.width > 2 * 320  # side by side, and large enough to be seen
    assert (np.ptp(np.asarray(drawn), axis=2) > 100).any()  # the scan is grey, the map is not
    assert torch.equal(lens.explain(scan[0], target=1)[0].raw, heatmap.raw)  # one scan without a batch axis
    assert lens.explain(scan, target=1, method="ablationcam")[0].raw.any()


def small_mvit() -> nn.Module:
    blocks = [
        MSBlockConfig(1, 16, 16, kernel_q=[3, 3, 3], kernel_kv=[3, 3, 3], stride_q=[1, 2, 2], stride_kv=[1, 2, 2]),
        MSBlockConfig(2, 16, 32, kernel_q=[3, 3, 3], kernel_kv=[3, 3, 3], stride_q=[1, 1, 1], stride_kv=[1, 1, 1]),
    ]
    options = {"residual_pool": False, "residual_with_cls_embed": False, "rel_pos_embed": False}
    return MViT((64, 64), 4, blocks, num_classes=5, proj_after_attn=False, **options)


@pytest.mark.parametrize(
    ("build", "grid"), [(torchvision.models.video.r3d_18, (1, 4, 4)), (small_mvit, (2, 8, 8))], ids=["r3d_18", "mvit"]
)
def test_video(build: Callable[[], nn.Module], grid: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    heatmap = hm.Lens(build()).explain(noise(1, 3, 4, 64, 64))[0]
    assert heatmap.raw.shape == grid
    assert heatmap.raw.any()
    assert heatmap.map.shape == (grid[0], 64, 64)
    assert len(heatmap.frames) == 4
