"""LeGrad against its formula in plain operators."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import hookmap as hm
from networks import convnet, noise
from tiny import attentive, close, images

SIDE, CELLS = 48, 6


def vit(**more: Any) -> nn.Module:
    torch.manual_seed(0)
    known = {"img_size": SIDE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 4, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **{**known, **more}).double().eval()


def by_hand(model: nn.Module, x: Tensor, index: int) -> Tensor:
    """The formula, block by block; attention in plain operators."""
    weights: list[Tensor] = []
    tokens: list[Tensor] = []
    handles = []
    for block in model.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_hook(lambda m, i, output: weights.append(output)))
        handles.append(block.register_forward_hook(lambda m, i, output: tokens.append(output)))
    model(x)
    maps = []
    for attention, block in zip(weights, tokens, strict=True):
        score = model.head(model.fc_norm(model.norm(block.mean(1))))[:, index].sum()
        (slope,) = torch.autograd.grad(score, attention, retain_graph=True)
        maps.append(slope.clamp(min=0).mean((1, 2))[:, model.num_prefix_tokens :])
    for handle in handles:
        handle.remove()
    return torch.stack(maps).mean(0).reshape(len(x), CELLS, CELLS)


@pytest.mark.parametrize(
    "more", [{}, {"reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}, {"global_pool": "avg"}]
)
@pytest.mark.parametrize("fused", [True, False])
def test_each_block_is_asked_by_its_own_mean_token(more: dict[str, Any], fused: bool) -> None:
    model, x = vit(**more), noise(2, 3, SIDE, SIDE).double()
    wanted = {index: by_hand(model, x, index) for index in (1, 4)}
    for block in model.blocks:
        block.attn.fused_attn = fused
    found = hm.Lens(model).explain(x, target=[1, 4], method="legrad")
    for heatmap in found:
        assert heatmap.index is not None
        image = heatmap.position.image
        assert close(heatmap.raw, wanted[heatmap.index][image], 1e-9)
    assert all(p.grad is None for p in model.parameters())


def encoded(layer: nn.TransformerEncoderLayer, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's attention ``(B, H, N, N)`` and what it gives ``(B, N, C)``, in plain operators."""
    attention = layer.self_attn

    def attend(x: Tensor) -> tuple[Tensor, Tensor]:
        parts = (x @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return weights, attention.out_proj((weights @ v).transpose(1, 2).flatten(2))

    def forward(x: Tensor) -> Tensor:
        return layer.linear2(layer.linear1(x).relu())

    if layer.norm_first:
        weights, gave = attend(layer.norm1(tokens))
        return weights, tokens + gave + forward(layer.norm2(tokens + gave))
    weights, gave = attend(tokens)
    tokens = layer.norm1(tokens + gave)
    return weights, layer.norm2(tokens + forward(tokens))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_encoders_of_pytorch_whichever_axis_comes_first(norm_first: bool, batch_first: bool) -> None:
    net, x = attentive(norm_first=norm_first, batch_first=batch_first), images(2)
    tokens, maps = torch.cat([net.first.expand(2, -1, -1), net.patches(x).flatten(2).mT], 1), []
    for layer in (net.bend1, net.bend2):
        weights, tokens = encoded(layer, tokens)
        (slope,) = torch.autograd.grad(net.head(tokens.mean(1))[:, 2].sum(), weights, retain_graph=True)
        maps.append(slope.clamp(min=0).mean((1, 2))[:, 1:].reshape(2, 12, 16))
    assert close(net(x), net.head(tokens[:, 0]))
    found = hm.Lens(net).explain(x, 2, method="legrad", progress=False)
    assert close(found.raw, torch.stack(maps).mean(0).detach(), 1e-9)


def test_together_with_others_it_changes_nothing() -> None:
    lens, x = hm.Lens(vit()), noise(1, 3, SIDE, SIDE).double()
    both = lens.explain(x, target=1, method=["chefer", "legrad", "gradcam"], layer="blocks.1")
    for heatmap in both:
        alone = lens.explain(x, target=1, method=heatmap.method.name, layer="blocks.1")[0]
        assert torch.equal(heatmap.raw, alone.raw)


def test_models_without_such_blocks_are_refused() -> None:
    with pytest.raises(hm.LayerError, match="legrad needs a transformer of several blocks .* has no attention"):
        hm.Lens(convnet()).explain(noise(1, 3, 48, 48), method="legrad")
