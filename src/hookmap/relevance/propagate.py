"""The relevance of a model's input and layers for scores, and where all of it went."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from hookmap.errors import DisconnectedError, ModelError, first_line
from hookmap.hooks.capture import INPUT, capture
from hookmap.relevance.account import Account
from hookmap.relevance.composites import ZERO, Composite
from hookmap.relevance.layers import outputs
from hookmap.relevance.walk import Found, Place, Walk

DISCONNECTED = (
    "the scores don't depend on the input: the model switches gradients off on the way, or holds what it saw; take a "
    "method of a layer that leads to them"
)


@dataclass(frozen=True)
class Relevance:
    """What belongs to what of T scores of B images.

    Attributes:
        input: of the input's values, ``(T, B, C, *size)``.
        layers: of what layers gave at their last call, ``(T, *shape)``, by name; of those that a score depends on.
        accounts: one per score: of all images together.
    """

    input: Tensor
    layers: dict[str, Tensor]
    accounts: list[Account]


def relevance(
    model: nn.Module,
    x: Tensor,
    scores: Callable[[Any], Tensor],
    composite: Composite = ZERO,
    layers: Sequence[str] = (),
) -> Relevance:
    """Share scores out to the input, to layers' outputs and to parameters, by the rules of a composite.

    Args:
        model: in evaluation mode; it is left as it was.
        x: its input, ``(B, C, *size)``.
        scores: from the model's output to ``(B,)`` or ``(T, B)``.
        composite: the rules.
        layers: names of layers whose relevance is wanted too.

    Raises:
        ModelError: if the model holds an operation without a rule.
        DisconnectedError: if the scores don't depend on the input.
    """
    model = _differentiable(model)
    half = x.dtype.itemsize < 4 or torch.is_autocast_enabled(x.device.type)
    tolerance = 0.05 if half else 1e-3 if x.dtype == torch.float32 else 1e-6
    rules = (composite.linear, composite.convolution, composite.first)
    with capture(model, [INPUT, *layers]) as seen, outputs(model, rules) as given:
        output = model(x)
        with torch.enable_grad():
            rows = scores(output)
            rows = rows if rows.ndim == 2 else rows[None]
        if rows.grad_fn is None:
            raise DisconnectedError(DISCONNECTED)
        source = seen[INPUT].calls[0].activation
        # A layer's tensor, and where it was made.
        kept = {name: seen[name].calls[-1].activation for name in layers}
        places: dict[str, Place] = {name: get_gradient_edge(tensor)[:2] for name, tensor in kept.items()}
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            names = {id(parameter): name for name, parameter in model.named_parameters()}
            top: Place = rows.grad_fn, rows.output_nr
            walk = Walk([top], lambda leaf: leaf is source, composite, names, given)
            if not layers and not walk.reaches_input:
                raise DisconnectedError(DISCONNECTED)
            shares, layer_shares, accounts = [], [], []
            reached: set[str] = set()
            for number in range(len(rows)):
                start = torch.zeros_like(rows)
                start[number] = 1
                found = walk.back({top: start}, set(places.values()))
                shares.append(_at_input(found, source))
                layer_shares.append({name: _at_layer(found, places[name], kept[name]) for name in layers})
                reached |= {name for name in layers if places[name] in found.gradients}
                accounts.append(_account(found, float(rows[number].sum()), shares[-1], names, tolerance))
    at_layers = {name: torch.stack([each[name] for each in layer_shares]) for name in layers if name in reached}
    return Relevance(torch.stack(shares), at_layers, accounts)


def _at_input(found: Found, source: Tensor) -> Tensor:
    gradient = found.leaves.pop(source, None)
    at_input = torch.zeros_like(source) if gradient is None else source.detach() * gradient
    return at_input if found.flat is None else at_input + found.flat


def _at_layer(found: Found, place: Place, activation: Tensor) -> Tensor:
    if place not in found.gradients:
        return torch.zeros_like(activation)
    norm = found.batch_norms.get(place[0])
    return (activation.detach() if norm is None else norm.y) * found.gradients[place]


def _account(found: Found, score: float, at_input: Tensor, names: dict[int, str], tolerance: float) -> Account:
    parameters = {
        names.get(id(parameter), "a tensor of the model"): float((parameter * gradient).sum(dtype=torch.float64))
        for parameter, gradient in found.leaves.items()
    }
    if found.merged:
        parameters["biases merged with batch norms"] = found.merged
    at_pixels = float(at_input.sum(dtype=torch.float64))
    return Account(score, at_pixels, parameters, found.shifts, found.kept, [*dict.fromkeys(found.suspects)], tolerance)


def _differentiable(model: nn.Module) -> nn.Module:
    """The model, or, if a parameter is frozen, a second structure on the same values in which none is.

    Flags of the user's own parameters aren't touched: another thread may be running the model.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    if not frozen:
        return model
    shared: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    shared |= {id(p): nn.Parameter(p.detach(), p.is_floating_point()) for p in model.parameters()}
    try:
        return copy.deepcopy(model, shared)
    except Exception as error:  # whatever a model's own parts raise when they are copied
        raise ModelError(
            f"relevance needs a model whose parameters aren't frozen, or one that can be copied ({first_line(error)}); "
            "call model.requires_grad_(True)"
        ) from error
