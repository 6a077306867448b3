"""Relevance against lxt, the authors' own library of AttnLRP, in float64 on the unmodified model's copy.

lxt asks for libraries that have nothing to do with this comparison: ``pip install --no-deps lxt==2.1``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision
import transformers as hf
from torch import Tensor, nn
from transformers.activations import GELUActivation
from transformers.models.vit import modeling_vit

from hookmap.relevance import ZERO, Composite, relevance
from networks import noise, stirred
from tiny_transformers import VIT

pytest.importorskip("lxt", reason="pip install --no-deps lxt==2.1")
tables = ModuleType("lxt.efficient.models")  # its own wants modules that transformers 5 hasn't
tables.get_default_map = None  # type: ignore[attr-defined]
with pytest.MonkeyPatch.context() as imported:
    imported.setitem(sys.modules, tables.__name__, tables)
    from lxt.efficient import patches

CLASS = 3
HALVES = Composite("AttnLRP with the 0-rule", attention="halves")


def peers(model: nn.Module, x: Tensor, scores: Callable[[Any], Tensor], patch: pytest.MonkeyPatch) -> Tensor:
    """lxt's relevance of the input: gradient times input of a model whose classes it has patched."""

    def replaced(kind: type[nn.Module], forward: Any) -> None:
        patch.setattr(kind, "original_forward", kind.forward, raising=False)
        patch.setattr(kind, "forward", forward)

    replaced(nn.LayerNorm, patches.layer_norm_forward)
    replaced(nn.GELU, patches.non_linear_forward)
    replaced(GELUActivation, patches.non_linear_forward)
    replaced(nn.MultiheadAttention, patches.cp_multi_head_attention_forward)
    functions = modeling_vit.ALL_ATTENTION_FUNCTIONS
    patch.setitem(functions, "sdpa", patches.wrap_attention_forward(functions["sdpa"]))
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(scores(model(x)).sum(), x)
    return (x * slope).detach()


def close(found: Tensor, expected: Tensor) -> bool:
    """As close as lxt's epsilon of 1e-10 in its activations lets it be."""
    return bool((found - expected).abs().max() <= 1e-6 * expected.abs().max() > 0)


def test_attnlrp_is_the_authors_own(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = stirred(hf.ViTForImageClassification(hf.ViTConfig(**VIT, num_labels=5))).double().eval()
    x = noise(2, 3, 64, 64).double()

    def scores(output: Any) -> Tensor:
        return output.logits[:, CLASS]

    found = relevance(model, x, scores, HALVES).input[0]
    values = relevance(model, x, scores, ZERO).input[0]
    with monkeypatch.context() as patch:
        expected = peers(model, x, scores, patch)
    assert close(found, expected)
    assert not close(values, expected)


def test_relevance_through_values_is_the_authors_cp_lrp(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(64, 16, 2, 3, 48, 96, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # the library starts it with zeros
    model, x = stirred(model).double().eval(), noise(2, 3, 64, 64).double()

    def scores(output: Tensor) -> Tensor:
        return output[:, CLASS]

    found = relevance(model, x, scores, ZERO).input[0]
    with monkeypatch.context() as patch:
        expected = peers(model, x, scores, patch)
    assert close(found, expected)
