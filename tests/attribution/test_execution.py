"""Precision and compilation change the price, not the answer."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import hookmap as hm
from hookmap.attribution.execution import Execution
from networks import convnet, noise

pytestmark = [
    pytest.mark.filterwarnings("ignore:the heatmap of .* is noisy:hookmap.HookmapWarning"),
    pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning"),
]
METHODS = ["gradcam", "layercam", "shapleycam", "ablationcam", "reciprocam", "scorecam", "eigencam", "rise"]


@pytest.mark.parametrize(("precision", "closeness"), [("bf16", 0.98), ("fp16", 0.995)])
def test_half_precision_gives_the_same_maps(precision: str, closeness: float, lens: hm.Lens, cat) -> None:
    fewer = replace(lens.preprocessing, size=(160, 160), resize=183)  # the same of the photo in half the pixels
    half, full = (
        hm.Lens(lens.model, preprocessing=fewer, labels=lens.labels, precision=p) for p in (precision, "fp32")
    )
    how = {"target": "tiger cat", "method": METHODS, "layer": "blocks.6", "budget": 6}
    for one, other in zip(half.explain(cat, **how), full.explain(cat, **how), strict=True):
        assert one.raw.dtype == torch.float32
        alike = float(torch.corrcoef(torch.stack([one.raw.flatten(), other.raw.flatten()]))[0, 1])
        assert alike >= (0.99 if one.method.name == "gradcam" else closeness), one.method.name
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    assert half.predict(cat)[0][0].label == full.predict(cat)[0][0].label


def test_an_unknown_precision_is_said() -> None:
    with pytest.raises(hm.ModelError, match="precision is 'int8'; expected one of fp32, bf16, fp16"):
        hm.Lens(nn.Conv2d(3, 3, 1), precision="int8")


def test_a_compiled_model_gives_the_same_maps() -> None:
    net = convnet()
    x = noise(2, 3, 16, 16)
    how = {"target": 1, "layer": ["bend1", "bend2"], "method": METHODS, "budget": 16, "progress": False}
    compiled, plain = (hm.Lens(net, compile=flag).explain(x, **how) for flag in (True, False))
    for one, other in zip(compiled, plain, strict=True):
        assert torch.allclose(one.raw, other.raw, atol=1e-5 * float(other.raw.abs().max())), one.method.name


def test_compiled_parts_are_the_largest_that_hold_no_captured_layer() -> None:
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()))
    before = copy.deepcopy(net.state_dict())
    twin = Execution(net, compile=True).module(["0.0"])
    assert [name for name, module in twin.named_modules() if "forward" in vars(module)] == ["0.0", "0.1", "1"]
    assert not any("forward" in vars(module) for module in net.modules())
    assert all(one is other for one, other in zip(twin.parameters(), net.parameters(), strict=True))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
