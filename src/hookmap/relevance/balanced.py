"""LibraGrad: gradients by a walk in which every part of the network hands on exactly what it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from hookmap._nested import tensors_in
from hookmap.errors import ModelError
from hookmap.hooks.graph import Gradients, plain_gradients
from hookmap.relevance.composites import ZERO
from hookmap.relevance.layers import Outputs
from hookmap.relevance.walk import Place, Walk


def balanced_gradients(output: Any) -> Gradients:
    """Gradients of what is made of a model's output: as they are down to the output, balanced from there on.

    Backward paths through attention weights, gates and deviations are pruned, and those through activations scaled, so
    that values times gradients add up to the score, but for what biases give. Mehri et al., *LibraGrad: Balancing
    Gradient Flow for Universally Better Vision Transformer Attributions*, CVPR 2025, arXiv:2411.16760.

    Args:
        output: of the model, or of one of its layers, with its graph.

    Raises:
        ModelError: when they are taken, if the model holds an operation without a rule.
    """
    ends = [tensor for tensor in tensors_in(output).values() if tensor.requires_grad]

    def gradients(total: Tensor, places: Sequence[Any]) -> Sequence[Tensor | None]:
        slopes = plain_gradients(total, ends)
        starts = {_place(end): slope for end, slope in zip(ends, slopes, strict=True) if slope is not None}
        wanted = [_place(place) for place in places]
        with torch.no_grad(), torch.autocast(total.device.type, enabled=False):
            walk = Walk([*starts], _is_given, ZERO, {}, Outputs(), aside=[node for node, _ in wanted])
            found = walk.back(starts, wanted).gradients
        if not found and any(slope is not None for slope in plain_gradients(total, places)):
            raise ModelError(
                "libra holds softmaxes and other gates constant, and all of the score comes through one; take the "
                "model without its last softmax or sigmoid, or leave libra out"
            )
        return [found.get(place) for place in wanted]

    return gradients


def _place(where: Tensor | GradientEdge) -> Place:
    edge = get_gradient_edge(where) if isinstance(where, Tensor) else where
    return edge.node, edge.output_nr


def _is_given(leaf: Tensor) -> bool:
    """Whether a leaf is where the graph starts, and no parameter."""
    return not isinstance(leaf, nn.Parameter)
