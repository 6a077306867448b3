"""How a class or a value is read in a region of a dense output: by hand, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hookmap as hm
from networks import noise
from tiny import close

pytestmark = pytest.mark.filterwarnings("ignore:the heatmap of:hookmap.HookmapWarning")
LABELS = ["sky", "road", "car"]


class Dense(nn.Module):
    """Three scores per place, which read their neighbours."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh())
        self.head = nn.Conv2d(6, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(self.head(self.body(x)), scale_factor=2.0)


class Measuring(hm.Adapter):
    """The same numbers as values."""

    def forward(self, x: Tensor) -> hm.Values:
        return hm.Values(self.plain(x))


def image() -> Tensor:
    return noise(1, 3, 16, 24).double()


def check(lens: hm.Lens, asked: Any, score: Callable[[Tensor], Tensor], /, **expected: Any) -> None:
    """The heatmap is that of the score, computed by hand from the dense output ``(K, h, w)`` and differentiated."""
    net, x = lens.model, image()
    kept = net.body(x)
    value = score(nn.functional.interpolate(net.head(kept), scale_factor=2.0)[0])
    (gradient,) = torch.autograd.grad(value, kept)
    (found,) = lens.explain(x, asked, "body.1", "hirescam")
    assert found.score == pytest.approx(value.item(), rel=1e-6)
    assert close(found.raw, (gradient * kept).detach().sum((0, 1)), 1e-6)
    for name, value in expected.items():
        assert getattr(found, name) == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)


def lens(labels: list[str] | None = LABELS) -> hm.Lens:
    return hm.Lens(Dense().double(), labels=labels)


@pytest.fixture
def scores() -> Tensor:
    return Dense().double()(image())[0].detach()


AREA = (slice(4, 10), slice(6, 20))  # rows and columns of hm.Box(6, 4, 20, 10)


def test_a_yes_or_no_at_a_place_is_the_sigmoid_of_its_own_logit(scores: Tensor) -> None:
    at = scores[2, 5, 7]
    car = {"index": 2, "probability": at.sigmoid().item(), "where": "point (7, 5)"}
    check(lens(), hm.Point(7, 5, of=hm.Binary("car")), lambda s: s[2, 5, 7], target="car", **car)
    no = {**car, "probability": (-at).sigmoid().item(), "target": "not car"}
    check(lens(), hm.Point(7, 5, of=hm.Binary("car", positive=False)), lambda s: -s[2, 5, 7], **no)
    inside = scores[1][AREA].sigmoid().mean().item()
    check(lens(), hm.Box(6, 4, 20, 10, of=hm.Binary(1)), lambda s: s[1][AREA].mean(), probability=inside)


def test_a_yes_or_no_in_its_own_region_is_where_it_says_yes_whatever_the_others_score(scores: Tensor) -> None:
    own = scores[0] > 0
    assert 0 < own.sum() < (scores.argmax(0) == 0).numel()
    assert not torch.equal(own, scores.argmax(0) == 0)
    check(lens(), hm.Binary("sky"), lambda s: s[0][own].mean(), probability=scores[0].sigmoid()[own].mean().item())
    check(lens(), hm.Binary("sky", positive=False), lambda s: -s[0][~own].mean(), target="not sky")


def test_probability_and_rest_are_read_place_by_place(scores: Tensor) -> None:
    def rest(s: Tensor) -> Tensor:
        return s[1] + s.log_softmax(0)[1]

    own, sure = scores.argmax(0) == 1, scores.softmax(0)[1]
    probability = {"target": "probability of road", "probability": sure[own].mean().item()}
    check(lens(), hm.Probability("road"), lambda s: s.softmax(0)[1][own].mean(), **probability)
    check(lens(), hm.Point(7, 5, of=hm.Probability(1)), lambda s: s.softmax(0)[1, 5, 7], probability=sure[5, 7].item())
    check(lens(), hm.ReST("road"), lambda s: rest(s)[own].mean(), target="ReST of road")
    check(lens(), hm.Box(6, 4, 20, 10, of=hm.ReST(1)), lambda s: rest(s)[AREA].mean())
    contrast = hm.Contrast("road", hm.Probability("car"))
    check(lens(), contrast, lambda s: s[1][own].mean() - s.softmax(0)[2][own].mean())


def test_what_masking_methods_ask_of_a_region_is_its_own_probability(scores: Tensor) -> None:
    """RISE weighs masks by how probable the target still is: of a probe that hides nothing, that is the plain one."""
    seen: list[Tensor] = []

    def asking(image: Tensor, probe: Any) -> Tensor:
        seen.append(probe.probability(image))
        return image.sum(1)

    asked = [hm.Binary("sky"), hm.Probability("road"), hm.Point(7, 5), hm.Point(7, 5, of=hm.Regression(1))]
    found = lens().explain(image(), asked, method=asking)
    assert seen[0][:3, 0].tolist() == pytest.approx([h.probability for h in found[:3]], rel=1e-5)
    assert float(seen[0][3, 0]) == pytest.approx(found[3].score, rel=1e-5)
    assert found[3].score == pytest.approx(float(scores[1, 5, 7]))


# ---------------------------------------------------------------- values


def measuring(labels: list[str] | None = None) -> hm.Lens:
    return hm.Lens(Measuring(Dense().double()), labels=labels)


def test_places_of_an_output_of_values_show_the_value(scores: Tensor) -> None:
    named = measuring(["depth", "slope", "height"])
    at = {"target": "depth", "probability": None, "title": f"depth {float(scores[0, 5, 7]):.3g}, point (7, 5)"}
    check(named, hm.Point(7, 5), lambda s: s[0, 5, 7], **at)
    check(named, hm.Box(6, 4, 20, 10, of="height"), lambda s: s[2][AREA].mean(), target="height", probability=None)
    check(named, "everywhere", lambda s: s[0].mean(), target="depth")
    check(named, "predicted", lambda s: s[0].mean(), target="depth", where="")
    check(named, "slope", lambda s: s[1].mean(), target="slope")
    check(named, hm.PerImage([2]), lambda s: s[2].mean(), target="height")
    check(measuring(), hm.Point(7, 5), lambda s: s[0, 5, 7], target="value 0")
    check(measuring(), hm.Mask(torch.ones(16, 24), of=hm.Regression(1)), lambda s: s[1].mean(), target="value 1")
    nearer = hm.Contrast(hm.Point(7, 5), hm.Box(6, 4, 20, 10))
    contrast = {"target": "depth rather than box (6, 4, 20, 10)", "where": "point (7, 5)"}
    check(named, nearer, lambda s: s[0, 5, 7] - s[0][AREA].mean(), **contrast)


def test_what_values_are_not_is_said() -> None:
    with pytest.raises(hm.TargetError, match="measures values at places and no classes; ask for one with explain"):
        measuring().predict(image())
    with pytest.raises(hm.TargetError, match="value 7 doesn't exist; the model's output has 3 values"):
        measuring().explain(image(), hm.Point(3, 3, of=7))


# ---------------------------------------------------------------- masks and methods


def test_a_mask_may_be_a_picture_and_must_be_of_the_pictures_size(scores: Tensor) -> None:
    from PIL import Image

    area = torch.zeros(16, 24, dtype=torch.bool)
    area[AREA] = True
    for mask in (
        Image.fromarray(area.numpy()),
        Image.fromarray(area.byte().numpy() * 255),
        area.numpy(),
        area.tolist(),
    ):
        check(lens(), hm.Mask(mask, of="car"), lambda s: s[2][AREA].mean())
    for wrong in (area.T, torch.ones(8, 12)):
        with pytest.raises(
            hm.TargetError, match=rf"the mask is {wrong.shape[0]}x{wrong.shape[1]}, and the picture 16x24"
        ):
            lens().explain(image(), hm.Mask(wrong))
    with pytest.raises(hm.TargetError, match=r"a mask of shape \(4, 4, 3\) came; expected \(H, W\)"):
        hm.Mask(Image.new("RGB", (4, 4), (9, 9, 9)))
    with pytest.raises(hm.TargetError, match="a mask was given as str; expected"):
        hm.Mask("mask.png")


def test_sidu_says_what_it_needs() -> None:
    with pytest.raises(hm.TargetError, match="sidu compares the probabilities of all classes of whole images"):
        lens().explain(image(), "car", "body.1", "sidu")
