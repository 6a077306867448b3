"""LeGrad against its formula in plain operators."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import hookmap as hm
from networks import convnet, noise
from tiny import close

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


def test_together_with_others_it_changes_nothing() -> None:
    lens, x = hm.Lens(vit()), noise(1, 3, SIDE, SIDE).double()
    both = lens.explain(x, target=1, method=["chefer", "legrad", "gradcam"], layer="blocks.1")
    for heatmap in both:
        alone = lens.explain(x, target=1, method=heatmap.method.name, layer="blocks.1")[0]
        assert torch.equal(heatmap.raw, alone.raw)


def test_models_without_such_blocks_are_refused() -> None:
    with pytest.raises(hm.LayerError, match="legrad needs a transformer of several blocks .* has no attention"):
        hm.Lens(convnet()).explain(noise(1, 3, 48, 48), method="legrad")
