"""Balanced gradients, against plain gradients of the same network written with what is held constant detached."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hookmap as hm
from library_models import snapshot, unchanged
from networks import noise, stirred
from tiny import close, images, tiny

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")


class HeldNorm(nn.LayerNorm):
    """With its deviation detached."""

    def forward(self, x: Tensor) -> Tensor:
        deviation = (x.var(-1, correction=0, keepdim=True) + self.eps).sqrt().detach()
        return (x - x.mean(-1, keepdim=True)) / deviation * self.weight + self.bias


class Block(nn.Module):
    """Attention, then a gated unit."""

    norm = nn.LayerNorm

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = self.norm(8), self.norm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """q, k and v, ``(B, 2, N, 4)``."""
        return self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor) -> Tensor:
        read = F.scaled_dot_product_attention(*self.heads(self.norm1(x)))
        x = x + self.proj(read.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.gelu(self.gate(y)) * self.up(y))


class Held(Block):
    """The same values; attention weights, deviations and gates are detached, of two factors each has half."""

    norm = HeldNorm

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(self.norm1(x))
        self.weights, self.value = (q @ k.mT / 2).softmax(-1).detach(), v
        self.read = self.weights @ v
        x = x + self.proj(self.read.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        gate, up = self.gate(y), self.up(y)
        gate = gate * (0.5 * (1 + torch.erf(gate / math.sqrt(2)))).detach()
        return x + self.down((gate * up.detach() + gate.detach() * up) / 2)


class Net(nn.Module):
    """A class token over 4x4 patches."""

    def __init__(self, block: type[Block]) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.first = nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = nn.Sequential(block(), block())
        self.head = nn.Linear(8, 5)

    def tokens(self, x: Tensor) -> Tensor:
        return torch.cat([self.first.expand(len(x), -1, -1), self.patches(x).flatten(2).mT], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.tokens(x))[:, 0])


def pair() -> tuple[nn.Module, nn.Module, Tensor]:
    """The network, the same with what is held constant detached, and two inputs."""
    torch.manual_seed(0)
    net, held = stirred(Net(Block)).double().eval(), Net(Held).double().eval()
    held.load_state_dict(net.state_dict())
    x = noise(2, 3, 8, 8).double()
    assert close(net(x), held(x), 1e-12)
    return net, held, x


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("target", [2, hm.Probability(2), hm.Contrast(1, 3)])
def test_gradients_at_layers_and_pixels_are_those_with_gates_detached(target: Any, frozen: bool) -> None:
    net, held, x = pair()
    net.requires_grad_(not frozen)
    before = snapshot(net)
    methods = ["gradcam", "hirescam", "layercam", "xgradcam", "saliency", "inputxgradient", "smoothgrad"]
    asked: dict[str, Any] = {"layer": ["patches", "blocks.0", "blocks.1.norm1"], "method": methods, "progress": False}
    found = hm.Lens(net).explain(x, [target, 4], libra=True, **asked)
    assert unchanged(net, before)
    for one, other in zip(found, hm.Lens(held).explain(x, [target, 4], **asked), strict=True):
        assert one.method.name == other.method.name
        assert close(one.raw, other.raw, 1e-9)
    plain = hm.Lens(net).explain(x, [target, 4], **asked)
    assert not any(close(one.raw, other.raw, 1e-3) for one, other in zip(found, plain, strict=True))


@pytest.mark.parametrize("fused", [True, False])
def test_attention_feels_what_is_handed_to_what_it_read(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net, held, x = pair()
    slopes = torch.autograd.grad(held(x)[:, 3].sum(), [block.read for block in held.blocks])
    felt = [
        block.weights * (slope @ block.value.mT) for slope, block in zip(slopes, held.blocks, strict=True)
    ]  # (B, H, N, N)
    relevance = torch.eye(17).double()
    for each in felt:
        relevance = relevance + each.clamp(min=0).mean(1) @ relevance
    wanted = {"valuepath": felt[1][:, :, 0].sum(1), "chefer": relevance[:, 0]}
    wanted["gradientattention"] = felt[1][:, :, 0].clamp(min=0).mean(1)
    if not fused:
        monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: (q @ k.mT / 2).softmax(-1) @ v)
    for heatmap in hm.Lens(net).explain(x, 3, "blocks.1", [*wanted], libra=True, progress=False):
        own = wanted[heatmap.method.name][heatmap.position.image, 1:]
        assert close(heatmap.raw.flatten(), own.detach(), 1e-9)


def test_legrad_feels_each_block_so() -> None:
    net, held, x = pair()
    tokens, maps = held.tokens(x), []
    for block in held.blocks:
        tokens = block(tokens)
        (slope,) = torch.autograd.grad(held.head(tokens.mean(1))[:, 2].sum(), block.read, retain_graph=True)
        maps.append((slope @ block.value.mT).clamp(min=0).mean((1, 2))[:, 1:].reshape(2, 4, 4))
    found = hm.Lens(net).explain(x, 2, method="legrad", libra=True, progress=False)
    assert close(found.raw, torch.stack(maps).mean(0).detach(), 1e-9)


@pytest.mark.parametrize("name", ["convnextv2_atto", "efficientnet_lite0", "mobilenetv3_small_050", "mixer_s32_224"])
def test_activation_times_gradient_is_the_score_where_nothing_is_added_after_the_layer(name: str) -> None:
    torch.manual_seed(0)
    net = stirred(timm.create_model(name, num_classes=5)).double().eval()
    for key, parameter in net.named_parameters():
        if key.endswith("bias"):
            parameter.data.zero_()
    for key, buffer in net.named_buffers():
        if key.endswith("running_mean"):
            buffer.zero_()
    x = noise(1, 3, 224, 224).double()
    maps = hm.Lens(net).explain(x, 2, method=["hirescam", "inputxgradient"], libra=True, progress=False)
    for heatmap in maps:
        assert float(heatmap.raw.sum()) == pytest.approx(heatmap.score, rel=1e-9)


def test_what_is_piecewise_linear_and_what_has_no_gradient_stays() -> None:
    asked: dict[str, Any] = {"layer": "bend1", "method": ["layercam", "scorecam", "edges"], "progress": False}
    lens = hm.Lens(tiny())
    pairs = zip(lens.explain(images(2), 2, libra=True, **asked), lens.explain(images(2), 2, **asked), strict=True)
    assert all(torch.equal(one.raw, other.raw) for one, other in pairs)


def test_results_remember_it(tmp_path: Path) -> None:
    net, _, x = pair()
    lens = hm.Lens(net)
    found = lens.explain(x, 2, "blocks.0", "gradcam", libra=True, progress=False)
    found.save(tmp_path / "found.npz")
    again = lens.again(hm.load(tmp_path / "found.npz")[1])
    assert again.question.settings.libra
    assert torch.equal(again.raw, found[1].raw)


def test_scores_that_come_through_a_gate_alone_are_refused() -> None:
    net = nn.Sequential(tiny(), nn.Softmax(1))
    with pytest.raises(hm.ModelError, match="libra holds softmaxes .* take the model without its last softmax"):
        hm.Lens(net).explain(images(), 2, "0.bend1", "gradcam", libra=True, progress=False)
    with pytest.raises(hm.HookmapError, match="libra is 'yes'; expected True or False"):
        hm.Lens(tiny()).explain(images(), 2, libra="yes")
