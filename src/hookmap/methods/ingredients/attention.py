"""Who looked where, as the graph kept it, and what the score felt of it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hookmap.errors import LayerError
from hookmap.hooks.attention import Attention
from hookmap.hooks.capture import capture
from hookmap.layers.blocks import blocks_of
from hookmap.layers.layouts import Layout
from hookmap.layers.trace import Trace
from hookmap.methods.attention import Attended, check_some
from hookmap.methods.ingredients.ingredient import ImageIngredient, Ingredient, Pass, Records, Request, ingredient


@ingredient
class LayerAttention(Ingredient):
    """Attention of the layer."""

    name = "attention"
    description = "who looks where in the layer, or else in the next one that has attention: an Attended"
    price = "attention"
    of_layer = True
    records = Records.ACTIVATIONS
    attention = True

    def of_batch(self, run: Pass, request: Request) -> Attended:
        """For B images."""
        return attended(run.traced, _nearest(run, request))


@ingredient
class LayerAttentionWithGradient(LayerAttention):
    """Attention of the layer, and its gradient."""

    name = "attention_with_gradient"
    description = "the same with the gradient of the score"
    price = "attention and gradient"
    of_target = True
    records = Records.GRADIENTS

    def of_batch(self, run: Pass, request: Request) -> Attended:
        """For T targets of B images."""
        return _with_gradient(run, request, _nearest(run, request))


@ingredient
class Attentions(Ingredient):
    """Attention of all layers."""

    name = "attentions"
    description = "who looks where in each layer, first to last: a list of Attended"
    price = "attention of all layers"
    records = Records.ACTIVATIONS
    attention = True

    def of_batch(self, run: Pass, request: Request) -> list[Attended]:
        """For B images."""
        return [attended(run.traced, each) for each in run.seen.attentions]


@ingredient
class AttentionsWithGradients(Attentions):
    """Attention of all layers, and its gradients."""

    name = "attentions_with_gradients"
    description = "the same with the gradients of the score; those that it depends on"
    price = "attention and gradient of all layers"
    of_target = True
    records = Records.GRADIENTS

    def of_batch(self, run: Pass, request: Request) -> list[Attended]:
        """For T targets of B images."""
        return [_with_gradient(run, request, each) for each in run.seen.attentions if each.reached]


@ingredient
class BlockGradients(ImageIngredient):
    """Attention of all blocks, and how what the head makes of each block's tokens feels it."""

    name = "block_gradients"
    description = "attention of each block, with the gradient of the score of its own mean token: a list of Attended"
    price = "attention and gradient of all layers"
    of_target = True
    records = Records.ACTIVATIONS
    attention = True

    def of_image(self, run: Pass, request: Request, sample: int) -> list[Attended]:
        """For all targets."""
        names = blocks_of(run.traced, [each.module for each in run.seen.attentions], request.method)
        x = run.x[sample : sample + 1]
        with capture(run.model, names, attention=True) as seen:
            with run.casting(x):
                run.model(x)
            tokens = [seen[name].activation for name in names]
            means = torch.stack([each.detach().mean((0, 1)) for each in tokens]).requires_grad_()
            count, axis = tokens[-1].shape[:2].numel(), run.traced.layout(names[-1]).batch_axis
            with run.casting(x), torch.enable_grad():
                everywhere = means[:, None].expand(-1, count, -1)
                output = seen.replay(names[-1], everywhere, sample=0, axis=axis)
                scores = run.targets.scores(output, sample)
            found = [run.gradients(output)(row.sum(), [means])[0] for row in scores]
            slopes = [torch.zeros_like(means) if slope is None else slope for slope in found]
            for number, (attention, block) in enumerate(zip(seen.attentions, tokens, strict=True)):
                each = [(block * (slope[number] / count)).sum() for slope in slopes]
                rows = [run.gradients(block)(one, attention.edges) for one in each]
                attention.receive([torch.stack(column) for column in zip(*rows, strict=True)])
            return [_with_gradient(run, request, attention) for attention in seen.attentions]


def _nearest(run: Pass, request: Request) -> Attention:
    """The attention in a layer; else the next one, which reads the layer; else the last one before it."""
    layer, attentions = request.layer, run.seen.attentions
    check_some(attentions, request.method)
    inside = [each for each in attentions if each.module == layer or each.module.startswith(f"{layer}.")]
    if inside:
        return inside[-1]
    order = {name: place for place, name in enumerate(run.traced.layers)}
    after = [each for each in attentions if order.get(each.module, -1) > order.get(layer, -1)]
    return after[0] if after else attentions[-1]


def attended(traced: Trace, attention: Attention) -> Attended:
    """An attention that ran, with the places of its keys."""
    layout = _layout(traced, attention)
    if layout is None:
        attention.places()  # found while the graph is there, and then kept
    one = layout is not None and layout.prefix > 0 and attention.queries == attention.keys
    return Attended(
        weights=attention.weights,
        on_grid=lambda values: _on_grid(values, attention, layout),
        queries=attention.queries,
        keys=attention.keys,
        class_token=0 if one else None,
        windowed=attention.windowed,
        layer=attention.module,
    )


def _with_gradient(run: Pass, request: Request, attention: Attention) -> Attended:
    plain, rows = attended(run.traced, attention), run.rows(request.method)
    count = rows.stop - rows.start

    def weights(queries: slice) -> Tensor:
        value = attention.weights(queries)
        return value.expand(count, *value.shape).flatten(0, 1)

    def on_grid(values: Tensor) -> Tensor:
        return torch.cat([plain.on_grid(target) for target in values.reshape(count, -1, values.shape[-1])])

    def gradient(queries: slice) -> Tensor:
        return attention.gradient(queries)[rows].flatten(0, 1)

    return replace(plain, weights=weights, on_grid=on_grid, gradient=gradient)


def _on_grid(values: Tensor, attention: Attention, layout: Layout | None) -> Tensor:
    """One value for each key, ``(G, M)``, on the grid, ``(B, *grid)``."""
    places = attention.places() if layout is None or attention.windowed else None
    if places is not None:
        flat = values.reshape(-1)
        values = torch.where(places >= 0, flat[places.clamp(min=0).to(flat.device)], 0)
        if places.ndim > 2:
            return values
    if layout is None:
        raise LayerError(
            f"the {attention.keys} keys of the attention of {attention.module!r} can't be laid onto the picture; pass "
            "another layer"
        )
    return layout.to_grid(values[..., None]).squeeze(-1 - len(layout.grid))


def _layout(traced: Trace, attention: Attention) -> Layout | None:
    """How keys lie on a grid, where they are the tokens of a layer: of the layer itself, or of one that ran before."""
    count = attention.keys
    if attention.windowed:
        places = attention.places()
        count = places.shape[1] if places is not None and places.ndim == 2 else 0
    names = list(traced.layers)
    before = names[: names.index(attention.module) + 1] if attention.module in names else names
    for name in [*reversed(before), *names]:
        layout = traced.layers[name].layout
        if layout is None or layout.order != "tokens" or layout.frames != "first":
            continue
        if layout.length == count:
            return replace(layout, sequence_first=False)
    return None
