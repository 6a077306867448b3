"""Targets resolve themselves: a new kind is one class, and answers wherever a target does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hookmap as hm
from hookmap.targets import PlainOutput, Resolved
from networks import noise
from tiny import close, explained, images, tiny


@dataclass(frozen=True)
class RunnerUp:
    """A new kind of target: each image's second most probable class."""

    def __call__(self, output: Any) -> Tensor:
        raise AssertionError("it is resolved on the plain output, not called")

    def resolved(self, plain: PlainOutput, image: int) -> Sequence[Resolved]:
        second = int(plain.reading.scores(plain.output).values[image].argsort(descending=True)[1])
        return [SecondScore(asked=self, name=f"second: {plain.label(second)}", second=second)]


@dataclass(frozen=True, eq=False, kw_only=True)
class SecondScore(Resolved):
    second: int

    def score(self, output: Tensor) -> Tensor:
        return output[:, self.second]


@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")
@pytest.mark.filterwarnings("ignore:the heatmap of .* is noisy:hookmap.HookmapWarning")
def test_a_new_kind_of_target_is_one_class_and_asked_end_to_end() -> None:
    net, x = tiny(), images(3) * torch.tensor([1.0, -5.0, 9.0])[:, None, None, None]
    with torch.no_grad():
        second = net(x).argsort(1, descending=True)[:, 1].tolist()
    assert len(set(second)) > 1
    lens = hm.Lens(net)
    for how in ({"method": "gradcam", "noise_smooth": 3}, {"method": "rise", "budget": 64}, {"method": "ablationcam"}):
        found = lens.explain(x, RunnerUp(), layer="bend1", progress=False, **how)
        wanted = lens.explain(x, hm.PerImage(second), layer="bend1", progress=False, **how)
        assert [heatmap.target for heatmap in found] == [f"second: class {index}" for index in second]
        for own, other in zip(found, wanted, strict=True):
            assert own.score == other.score
            # RISE weighs masks by probabilities, and of this kind of target there are only scores.
            assert close(own.raw, other.raw, 1e-9) or how["method"] == "rise"
        assert torch.equal(lens.again(found[1]).raw, found[1].raw)


def test_a_new_kind_that_is_no_class_is_refused_where_a_class_is_needed() -> None:
    with pytest.raises(hm.TargetError, match="the target 'second: class .' isn't one"):
        explained(tiny(), images(1), "cam", RunnerUp())


def test_a_function_is_called_once_for_a_batch() -> None:
    calls: list[int] = []

    def first(output: Tensor) -> Tensor:
        calls.append(len(output))
        return output[:, 0]

    explained(tiny(), images(4), "gradcam", first)
    assert calls == [4]


# ---------------------------------------------------------------- what a data loader gives


@pytest.mark.parametrize("labels", [torch.tensor([3, 0, 4]), np.array([3, 0, 4])])
def test_a_tensor_of_labels_means_one_per_image(labels: Any) -> None:
    """Three images and their three labels gave nine maps."""
    found = hm.Lens(tiny()).explain(images(3), labels, layer="bend1", method="hirescam")
    assert [heatmap.index for heatmap in found] == [3, 0, 4]
    asked = hm.Lens(tiny()).explain(images(3), hm.PerImage([3, 0, 4]), layer="bend1", method="hirescam")
    assert torch.equal(found.raw, asked.raw)


def test_a_list_of_labels_is_asked_of_every_image_and_a_tensor_of_another_length_is_refused() -> None:
    lens = hm.Lens(tiny())
    assert [heatmap.index for heatmap in lens.explain(images(2), [3, 0], method="gradcam")] == [3, 0, 3, 0]
    with pytest.raises(hm.TargetError, match="3 targets came for 2 images; pass one target per image, or a list"):
        lens.explain(images(2), torch.tensor([3, 0, 4]))


@pytest.mark.parametrize("target", [2.0, b"\x03", True, torch.tensor([1.0, 2.0]), {"class": 3}, [b"\x03"]])
def test_what_is_no_target_is_refused_in_a_sentence(target: Any) -> None:
    with pytest.raises(hm.TargetError, match="a target was given as .* expected an index"):
        hm.Lens(tiny()).explain(images(2), target)


def test_a_tensor_in_the_range_of_pixels_is_remarked() -> None:
    lens = hm.Lens(tiny(), preprocessing=hm.Preprocessing(size=(24, 32)))
    with pytest.warns(hm.HookmapWarning, match=r"0\.\.255 came.*as uint8"):
        lens.explain(images(1).abs() * 60, 2, method="gradcam")


# ---------------------------------------------------------------- volumes


class Volume(nn.Module):
    """Segments what is bright in a volume: class 1 where the first channel is positive."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv3d(1, 6, 3, (1, 2, 2), 1), nn.Conv3d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu())


@pytest.mark.filterwarnings("ignore:the heatmap of .* is zero everywhere:hookmap.HookmapWarning")
def test_points_and_classes_are_read_in_dense_scores_of_volumes() -> None:
    net, x = Volume(), noise(1, 1, 5, 16, 24)
    with torch.no_grad():
        scores = net(x)[0]  # (3, 5, 8, 12)
    lens = hm.Lens(net)
    asked = [hm.Point(9, 5, of=2, z=3), hm.Point(9, 5, of=2), hm.Box(0, 0, 4, 4, of=1), 1, "point:9,5,3"]
    found = lens.explain(x, asked, layer="conv", method="layercam")
    own = scores.argmax(0) == 1
    wanted = [scores[2, 3, 2, 4], scores[2, :, 2, 4].mean(), scores[1, :, :2, :2].mean(), scores[1][own].mean()]
    wanted += [scores[:, 3, 2, 4].max()]
    assert [heatmap.score for heatmap in found] == pytest.approx([float(score) for score in wanted], rel=1e-5)
    assert found[0].where == "point (9, 5, 3)"
    with pytest.raises(hm.TargetError, match="outside of the 5 slices"):
        lens.explain(x, hm.Point(9, 5, z=5), layer="conv")


def test_a_slice_is_refused_where_the_output_has_none() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(hm.TargetError, match="names a slice"):
        hm.Lens(net).explain(noise(1, 3, 16, 16), hm.Point(3, 3, z=1))
