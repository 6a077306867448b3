"""Targets resolve themselves: a new kind is one class, and answers wherever a target does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import hookmap as hm
from hookmap.targets import PlainOutput, Resolved
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
