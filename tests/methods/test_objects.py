"""Methods for detected objects, derived again place by place, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import hookmap as hm
from detectors import scene, squares
from hookmap.methods import gradient, masking
from networks import noise
from tiny import close, explained, images, tiny


def seen(size: tuple[int, ...] = (2, 3, 5, 7)) -> tuple[Tensor, Tensor]:
    return noise(*size, seed=4).double(), noise(*size, seed=5).double()


def test_odam_is_a_weighted_mean_of_the_gradient_around_each_place_times_the_activation() -> None:
    a, g = seen()
    places = [(y, x) for y in range(5) for x in range(7)]
    expected = torch.zeros(2, 5, 7, dtype=torch.float64)
    for y, x in places:
        near = {(v, u): math.exp(-((v - y) ** 2 + (u - x) ** 2) / 2) for v, u in places}
        total = sum(near.values())
        smooth = sum(weight / total * g[:, :, v, u] for (v, u), weight in near.items())
        expected[:, y, x] = (smooth * a[:, :, y, x]).sum(1)
    assert close(gradient.odam(a, g), expected, 1e-12)


def test_odam_where_the_gradient_is_the_same_everywhere_is_hirescam() -> None:
    a, _ = seen()
    g = noise(2, 3, 1, 1).double().expand_as(a)
    assert close(gradient.odam(a, g), gradient.hirescam(a, g), 1e-12)
    assert gradient.odam(*seen((1, 2, 6))).shape == (1, 6)
    assert gradient.odam(*seen((1, 2, 3, 4, 5))).shape == (1, 3, 4, 5)


def gcame_of_one(a: np.ndarray, g: np.ndarray, stride: float) -> np.ndarray:
    """As its authors write it, channel by channel, with the sign of the paper."""
    channels, height, width = a.shape
    total = np.zeros((height, width))
    reach = math.floor((math.sqrt(height * width) - 1) / 2) / 3
    rows, columns = np.mgrid[:height, :width]
    for k in range(channels):
        for sign in (1, -1):
            part = np.maximum(sign * g[k], 0)
            mean = part.mean()
            if mean == 0:
                continue
            y, x = np.unravel_index(part.argmax(), part.shape)
            sigma = max(abs(np.log(mean) / reach * np.log(stride)), 1.0)
            bell = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
            bell = (bell - bell.min()) / (bell.max() - bell.min())
            total += sign * mean * bell * a[k]
    return total


@pytest.mark.parametrize("size", [(2, 3, 5, 7), (1, 4, 12, 9)])
def test_gcame_is_grad_cam_behind_a_gaussian_around_the_largest_gradient(size: tuple[int, ...]) -> None:
    a, g = seen(size)
    g[:, 0] = 0
    g[:, 1] = 0
    g[:, 1, 2, 3] = 0.01  # a gradient at one place only, as of detectors without a head behind
    image = torch.zeros(size[0], 3, size[2] * 16, size[3] * 16)
    expected = np.stack([gcame_of_one(one.numpy(), other.numpy(), 16) for one, other in zip(a, g, strict=True)])
    assert close(gradient.gcame(a, g, image), torch.from_numpy(expected), 1e-12)


def test_gcame_of_what_has_no_gradient_is_nothing() -> None:
    a, g = seen((1, 2, 1, 1))
    image = torch.zeros(1, 3, 32, 32)
    assert torch.isfinite(gradient.gcame(a, g, image)).all()
    assert not gradient.gcame(a, g * 0, image).any()
    assert not gradient.gcame(*(t * 0 for t in seen()), torch.zeros(2, 3, 80, 112)).any()


@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")  # and so it is wide
def test_gcame_is_narrower_than_grad_cam() -> None:
    lens, x = squares(), scene((0, 8, 8), (0, 40, 64))
    (narrow,), (wide,) = (lens.explain(x, target="box:0", method=name) for name in ("gcame", "gradcam"))
    left, top, right, bottom = map(int, narrow.box)

    def inside(heatmap: hm.Heatmap) -> float:
        heat = heatmap.map
        return float(heat[top:bottom, left:right].sum() / heat.sum())

    assert inside(narrow) > 1.2 * inside(wide)


def test_drise_is_rise_with_small_cells_and_the_papers_number_of_masks() -> None:
    net, x = tiny(torch.float32), images(dtype=torch.float32)

    def mean(image: Tensor, probe: Any, generator: torch.Generator) -> Tensor:
        """RISE's map where every mask has the mean score: what every place gets alike."""
        scores = []

        class Noting:
            parts = probe.parts

            def probability(self, changed: Tensor) -> Tensor:
                scores.append(probe.probability(changed))
                return scores[-1]

        class Mean:
            parts = probe.parts

            def probability(self, changed: Tensor) -> Tensor:
                return torch.cat(scores, 1).mean(1, keepdim=True).expand(-1, len(changed))

        state = generator.get_state()
        whole = masking.rise(image, Noting(), generator, budget=64, cells=16)
        return whole - masking.rise(image, Mean(), generator.set_state(state), budget=64, cells=16)

    assert close(explained(net, x, "drise", budget=64), explained(net, x, mean), 1e-4)
    asked = []

    class Probe:
        def parts(self, count: int) -> list[slice]:
            asked.append(count)
            return [slice(0, 2)]

        def probability(self, changed: Tensor) -> Tensor:
            return torch.ones(1, len(changed))

    masking.drise(x, Probe(), torch.Generator().manual_seed(0))
    assert asked == [5000]
