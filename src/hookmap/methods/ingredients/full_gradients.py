"""The full gradient: shares of a score that belong to the input and to every layer's bias, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

from hookmap._devices import out_of_memory
from hookmap._nested import map_tensors
from hookmap.errors import LayerError, ModelError, first_line
from hookmap.hooks.capture import INPUT, capture
from hookmap.hooks.registration import hooked, plain_attention
from hookmap.layers.layouts import Layout
from hookmap.layers.trace import Trace
from hookmap.methods.ingredients.ingredient import ImageIngredient, Pass, Request, ingredient
from hookmap.methods.weighting import full_precision


@ingredient
class Terms(ImageIngredient):
    """Shares of the score."""

    name = "terms"
    description = "shares of the score per layer, (B, *grid) or (B,); they add up to it"
    price = "gradient and tangent of every layer"
    of_target = True

    def of_image(self, run: Pass, request: Request, sample: int) -> list[Tensor]:
        """Per layer ``(T, *grid)`` or ``(T,)``."""
        return _of_image(run, sample)[0]


@ingredient
class Magnitudes(ImageIngredient):
    """Shares of the score by magnitude."""

    name = "magnitudes"
    description = "the same with each channel's share by magnitude"
    price = Terms.price
    of_target = True

    def of_image(self, run: Pass, request: Request, sample: int) -> list[Tensor]:
        """Per layer ``(T, *grid)`` or ``(T,)``."""
        return _of_image(run, sample)[1]


def _of_image(run: Pass, sample: int) -> tuple[list[Tensor], list[Tensor]]:
    image = run.x[sample : sample + 1]
    shares: tuple[list[Tensor], list[Tensor]] = run.kept(
        ("full gradients", sample),
        lambda: full_gradients(run.model, image, lambda output: run.targets.scores(output, sample), run.traced),
    )
    return shares


def full_gradients(
    model: nn.Module, x: Tensor, scores: Callable[[Any], Tensor], traced: Trace
) -> tuple[list[Tensor], list[Tensor]]:
    r"""Shares of one image's scores, per layer: signed, and by magnitude of each channel.

    A layer that takes z and gives y has the (implicit) bias :math:`b = y - \partial_z y \, z`: what is left of y when
    the layer is
    replaced by its tangent. One forward-mode pass gives them all: every layer's output enters the rest of the network
    with itself as its tangent, so at the next layer's output, value minus tangent is that layer's bias, together with
    whatever plain functions between the two (gates, additions of constants) add. With the gradients g of the score
    with respect to the outputs y,

    .. math:: y_{score} = g_x^\top x + \sum_l g_l^\top b_l

    telescopes to the score for any network that is differentiable.

    Args:
        model: in evaluation mode.
        x: one input, ``(1, C, *size)``.
        scores: from the model's output to ``(T, 1)``.
        traced: how to read the layers.

    Returns:
        Per layer ``(T, *grid)``, or ``(T,)`` where there are no places or they can't be read.

    Raises:
        ModelError: if an operator of the model has no forward-mode derivative.
    """
    parents = {name.rpartition(".")[0] for name, _ in model.named_modules() if name}
    names = [name for name, info in traced.layers.items() if name and name not in parents and info.calls]
    biases, rest = _biases(model, x, names, scores)
    targets: list[list[_Share]] = []
    with capture(model, [*names, INPUT]) as seen, plain_attention():
        for row, left in zip(scores(model(x)), rest, strict=True):
            seen.differentiate(row)
            at_input = next(iter(seen[INPUT].calls[0].gradients.values()), torch.zeros_like(x))
            shares = [_Share(left, left.abs()), _shares(x, at_input, None)[0]]
            for name in names:
                for call, own in zip(seen[name].calls, biases[name], strict=True):
                    for key, bias in own.items():
                        gradient = call.gradients.get(key, torch.zeros_like(bias))
                        layout = traced.layers[name].layout
                        if layout is None or len(layout.grid) != len(traced.field):
                            share = full_precision(bias) * full_precision(gradient)
                            shares.append(_Share(share.sum(), share.abs().sum()))
                        else:
                            shares += _shares(bias, gradient, layout)
            targets.append(shares)
    columns = list(zip(*targets, strict=True))
    return (
        [torch.stack([share.signed for share in column]) for column in columns],
        [torch.stack([share.magnitude for share in column]) for column in columns],
    )


def _biases(
    model: nn.Module, x: Tensor, names: list[str], scores: Callable[[Any], Tensor]
) -> tuple[dict[str, list[dict[str, Tensor]]], Tensor]:
    """The implicit bias of each call of each layer, and what functions after the last layer add to the scores."""
    modules = dict(model.named_modules())
    by_module = {modules[name]: name for name in names}
    biases: dict[str, list[dict[str, Tensor]]] = {name: [] for name in names}

    def note(module: nn.Module, _: Any, output: Any) -> Any:
        own: dict[str, Tensor] = {}

        def restart(key: str, tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor
            value, tangent = unpack_dual(tensor)  # type: ignore[no-untyped-call]
            own[key] = value - tangent if tangent is not None else value.clone()
            value = value.clone()
            dual: Tensor = make_dual(value, value.clone())  # type: ignore[no-untyped-call]
            return dual

        changed = map_tensors(restart, output)
        biases[by_module[module]].append(own)
        return changed

    try:
        with torch.no_grad(), plain_attention(), dual_level():
            with hooked(by_module, note):
                output = model(make_dual(x.clone(), x.clone()))  # type: ignore[no-untyped-call]
            value, tangent = unpack_dual(scores(output))  # type: ignore[no-untyped-call]
            rest = value - tangent if tangent is not None else value
    except RuntimeError as error:  # NotImplementedError is one
        if out_of_memory(error):
            raise
        reason = first_line(error)
        raise ModelError(
            f"fullgrad needs forward-mode derivatives, which something in this model lacks ({reason}); "
            "take another method"
        ) from None
    return biases, full_precision(rest[:, 0].clone())


class _Share(NamedTuple):
    signed: Tensor
    magnitude: Tensor


def _shares(bias: Tensor, gradient: Tensor, layout: Layout | None) -> list[_Share]:
    """A layer's share by place, and that of what has no place in its grid; the input (no layout) is all places."""
    share = full_precision(bias) * full_precision(gradient)
    if layout is None:
        return [_Share(share.sum((0, 1)), share.abs().sum((0, 1)))]
    try:
        grid = layout.to_grid(share)
    except LayerError:  # a later call of the layer, on another grid
        return [_Share(share.sum(), share.abs().sum())]
    placed = _Share(grid.sum((0, 1)), grid.abs().sum((0, 1)))
    return [placed, _Share(share.sum() - placed.signed.sum(), share.abs().sum() - placed.magnitude.sum())]
