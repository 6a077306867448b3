"""Methods that read attention, against the authors' equations written out on matrices, in float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import hookmap as hm
import tiny_transformers
from hookmap.methods.attention import Attended, attention, chefer, gradient_attention, rollout, value_path
from networks import convnet, noise, stirred

LAYERS, TOKENS, HEADS = 3, 10, 4


def stack(count: int = LAYERS, tokens: int = TOKENS, class_token: int | None = 0) -> list[Attended]:
    """Layers of attention over a class token and 3x3 patches, with gradients."""

    def layer(number: int) -> Attended:
        weights = noise(2, HEADS, tokens, tokens, seed=number).double().softmax(-1)
        gradient = noise(2, HEADS, tokens, tokens, seed=100 + number).double()
        if number == count - 1 and class_token is not None:  # after the last attention only the class token is read
            gradient[:, :, 1:] = 0
        return Attended(
            weights=lambda queries: weights[:, :, queries],
            gradient=lambda queries: gradient[:, :, queries],
            on_grid=lambda values: values[:, values.shape[1] - 9 :].reshape(-1, 3, 3),
            queries=tokens,
            keys=tokens,
            class_token=class_token,
            layer=f"blocks.{number}",
        )

    return [layer(number) for number in range(count)]


def whole(layer: Attended) -> tuple[Tensor, Tensor]:
    return layer.weights(slice(None)), layer.gradient(slice(None))


def test_chefers_relevance_is_the_authors_equations() -> None:
    layers = stack()
    relevance = torch.eye(TOKENS, dtype=torch.float64).expand(2, -1, -1)
    for layer in layers:
        weights, gradient = whole(layer)
        cam = (weights * gradient).clamp(min=0).mean(1)
        relevance = relevance + cam @ relevance
    assert torch.allclose(chefer(layers), relevance[:, 0, 1:].reshape(2, 3, 3), rtol=0, atol=1e-12)


def test_chefers_relevance_of_a_detectors_queries_is_the_authors_equations() -> None:
    """As their ExplanationGenerator for DETR: encoder, then self- and cross-attention of the decoder in turn."""
    model = tiny_transformers.model("detr").double().eval()
    x, row, label = noise(1, 3, 64, 64).double(), 5, 2
    with hm.capture(model, [], attention=True) as seen:
        seen.differentiate(model(x).logits[:, row, label])
    encoder, decoder = seen.attentions[:2], seen.attentions[2:]

    def cam(layer: Any) -> Tensor:
        return (layer.weights() * layer.gradient()).clamp(min=0).mean(1)[0] if layer.reached else torch.zeros(12, 12)

    def residual(matrix: Tensor) -> Tensor:
        gained = matrix - torch.eye(len(matrix))
        return gained / gained.sum(-1, keepdim=True).where(gained.any(-1, keepdim=True), 1) + torch.eye(len(matrix))

    image, query, both = torch.eye(4).double(), torch.eye(12).double(), torch.zeros(12, 4).double()
    for layer in encoder:
        image = image + cam(layer) @ image
    for own, cross in zip(decoder[::2], decoder[1::2], strict=True):
        query, both = query + cam(own) @ query, both + cam(own) @ both
        both = both + residual(query).T @ cam(cross) @ residual(image)
    layers = [
        Attended(
            weights=lambda rows, layer=layer: layer.weights(rows),
            gradient=lambda rows, layer=layer: layer.gradient(rows),
            on_grid=lambda values: values,
            queries=layer.queries,
            keys=layer.keys,
            layer=layer.module,
        )
        for layer in seen.attentions
        if layer.reached
    ]
    assert torch.allclose(chefer(layers)[0], both[row], rtol=1e-10, atol=1e-12)


def test_rollout_is_the_product_of_whole_matrices() -> None:
    layers = stack()
    for heads in ("mean", "max", "min"):
        product = torch.eye(TOKENS, dtype=torch.float64).expand(2, -1, -1)
        for layer in layers:
            weights = getattr(whole(layer)[0], {"mean": "mean", "max": "amax", "min": "amin"}[heads])(1)
            mixed = weights + torch.eye(TOKENS, dtype=torch.float64)
            product = (mixed / mixed.sum(-1, keepdim=True)) @ product
        found = rollout(layers, heads=heads)  # type: ignore[arg-type]
        assert torch.allclose(found, product[:, 0, 1:].reshape(2, 3, 3), rtol=0, atol=1e-12)


def test_rollout_discards_the_smallest_weights() -> None:
    weights = torch.full((1, 1, 4, 4), 0.1, dtype=torch.float64)
    weights[0, 0, 0] = torch.tensor([0.05, 0.05, 0.3, 0.6])
    layer = Attended(
        weights=lambda queries: weights[:, :, queries],
        on_grid=lambda values: values[:, 1:],
        queries=4,
        keys=4,
        class_token=0,
    )
    plain, without = rollout([layer]), rollout([layer], discard=0.85)
    assert (plain > 0).all()
    assert without[0, 0] == 0
    assert without[0, 2] > 0


def test_one_layer_by_its_formulas() -> None:
    layer = stack()[1]
    weights, gradient = whole(layer)
    products = weights[:, :, 0, 1:] * gradient[:, :, 0, 1:]
    assert torch.allclose(attention(layer), weights[:, :, 0, 1:].mean(1).reshape(2, 3, 3))
    assert torch.allclose(attention(layer, at_head=2, at_token=5), weights[:, 2, 5, 1:].reshape(2, 3, 3))
    assert torch.allclose(gradient_attention(layer), products.clamp(min=0).mean(1).reshape(2, 3, 3))
    assert torch.allclose(value_path(layer), products.sum(1).reshape(2, 3, 3))
    everything = stack(class_token=None)[1]
    assert torch.allclose(attention(everything), weights.mean((1, 2))[:, 1:].reshape(2, 3, 3))
    for settings, message in [({"at_head": 4}, "head 4.*0 to 3"), ({"at_token": 10}, "token 10.*0 to 9")]:
        with pytest.raises(hm.LayerError, match=message):
            attention(layer, **settings)


# ---------------------------------------------------------------- on models


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", depth=3, img_size=64, num_classes=5)
    return stirred(model).eval()


def test_the_value_path_adds_up_to_what_the_attention_gave_to_the_class_token() -> None:
    model, x = vit(), noise(2, 3, 64, 64)
    heatmaps = hm.Lens(model).explain(x, 3, layer="blocks.2", method="valuepath", progress=False)
    with hm.capture(model, "blocks.2.attn.proj", gradients=True) as seen:
        inner: list[Tensor] = []
        handle = model.blocks[2].attn.proj.register_forward_pre_hook(lambda _, given: inner.append(given[0]))
        y = model(x)
        handle.remove()
        seen.differentiate(y[:, 3])
    gave = (inner[0] @ model.blocks[2].attn.proj.weight.T * seen["blocks.2.attn.proj"].gradient).sum((1, 2))
    with hm.capture(model, "blocks.2.attn", attention=True) as attended:
        attended.differentiate(model(x)[:, 3])
    (layer,) = attended.attentions
    own = (layer.weights() * layer.gradient())[:, :, :, 0].sum((1, 2))  # what it read of itself has no place
    for heatmap, total, of_itself in zip(heatmaps, gave, own, strict=True):
        assert heatmap.raw.shape == (4, 4)
        assert torch.allclose(heatmap.raw.sum() + of_itself, total, atol=1e-5)


def test_many_targets_images_layers_and_methods_are_those_one_by_one() -> None:
    model, x = vit(), noise(3, 3, 64, 64)
    lens = hm.Lens(model)
    methods = ["attention", "rollout", "gradientattention", "valuepath", "chefer", "gradcam"]
    layers = ["blocks.1", "blocks.2.norm1"]
    together = lens.explain(x, [0, 4], layer=layers, method=methods, progress=False)
    for heatmap in together:
        at = heatmap.position
        layer = None if heatmap.layer == "input" else heatmap.layer
        alone = lens.explain(
            x[at.image : at.image + 1], [0, 4][at.target], layer=layer, method=heatmap.method.name, progress=False
        )
        assert torch.allclose(heatmap.raw, alone[0].raw, atol=1e-6), heatmap
    same = {m: [h.raw for h in together if h.method.name == m and h.position.image == 0] for m in methods}
    assert torch.equal(same["rollout"][0], same["rollout"][1])
    assert not torch.allclose(same["chefer"][0], same["chefer"][1])


def test_a_layers_attention_is_that_inside_else_the_next() -> None:
    model, x = vit(), noise(1, 3, 64, 64)
    lens = hm.Lens(model)
    named = {
        name: lens.explain(x, 1, layer=name, method="attention", progress=False)[0].raw
        for name in ("blocks.1", "blocks.1.attn", "blocks.1.norm1", "blocks.0", "blocks.0.norm2", "norm", "blocks.2")
    }
    assert torch.allclose(named["blocks.1"], named["blocks.1.attn"], atol=1e-7)
    assert torch.allclose(named["blocks.1"], named["blocks.1.norm1"], atol=1e-7)
    assert torch.allclose(named["blocks.1"], named["blocks.0.norm2"], atol=1e-7)
    assert torch.allclose(named["norm"], named["blocks.2"], atol=1e-7)
    assert not torch.allclose(named["blocks.0"], named["blocks.1"], atol=1e-4)


def test_where_class_tokens_read_the_places_the_value_path_is_the_default() -> None:
    model, x = vit(), noise(1, 3, 64, 64)
    lens = hm.Lens(model)
    heatmap = lens.explain(x, progress=False)[0]
    assert heatmap.method.name == "valuepath"
    names = ["blocks.0.norm1", "blocks.1.norm1", "blocks.2.norm1"]
    parts = [lens.explain(x, layer=name, method="valuepath", progress=False)[0].raw for name in names]
    assert torch.allclose(heatmap.raw, torch.stack(parts).sum(0), atol=1e-6)
    pooled = timm.create_model(
        "vit_tiny_patch16_224", depth=2, img_size=64, num_classes=5, global_pool="avg", class_token=False
    )
    assert hm.Lens(stirred(pooled).eval()).explain(x, progress=False)[0].method.name != "valuepath"


def test_windows_and_pyramids() -> None:
    """Methods of one layer read them; those that follow tokens through all layers say why they can't."""
    torch.manual_seed(0)
    x = noise(2, 3, 64, 64)
    swin = torchvision.models.SwinTransformer([4, 4], 12, [2, 2], [2, 2], [4, 4], num_classes=5)
    lens = hm.Lens(stirred(swin).eval())
    found = lens.explain(x, 2, layer="features.1", method=["attention", "valuepath"], progress=False)
    assert [heatmap.raw.shape for heatmap in found] == [(16, 16)] * 4
    with hm.capture(swin, [], attention=True) as seen:
        seen.differentiate(swin(x)[:, 2])
    whole = lens.explain(x[:, :, :32, :32], 2, layer="features.3", method="attention", progress=False)
    assert [heatmap.raw.shape for heatmap in whole] == [(4, 4)] * 2  # one window covers the picture
    windows = seen.attentions[1].weights().mean((1, 2))  # (G, M)
    shown = torch.stack([heatmap.raw for heatmap in found if heatmap.method.name == "attention"])
    assert torch.allclose(shown.flatten(1).sort(1).values, windows.reshape(2, -1).sort(1).values, atol=1e-7)
    with pytest.raises(hm.LayerError, match=r"rollout follows tokens.*'features.3.1.attn' looks in windows; take"):
        lens.explain(x, method="rollout", progress=False)
    with pytest.raises(hm.LayerError, match="chefer reads attention, and this model has none"):
        hm.Lens(convnet()).explain(noise(1, 3, 16, 16), 1, method="chefer", progress=False)
    with pytest.raises(hm.LayerError, match="attention reads attention, and this model has none"):
        hm.Lens(convnet()).explain(noise(1, 3, 16, 16), 1, method=["attention", "gradcam"], progress=False)


def test_a_pooling_attention_is_where_tokens_are_followed_from() -> None:
    torch.manual_seed(0)
    name = "vit_base_patch16_siglip_224"
    model = timm.create_model(name, depth=2, embed_dim=48, num_heads=3, img_size=64, num_classes=5)
    x = noise(1, 3, 64, 64)
    found = hm.Lens(stirred(model).eval()).explain(x, 2, method=["chefer", "rollout"], progress=False)
    with hm.capture(model, [], attention=True) as seen:
        seen.differentiate(model(x)[:, 2])
    relevance = torch.eye(16)
    for layer in seen.attentions:
        cam = (layer.weights() * layer.gradient()).clamp(min=0).mean(1)[0]
        relevance = relevance + cam @ relevance if len(cam) == 16 else cam @ relevance
    assert torch.allclose(found[0].raw.flatten(), relevance[0], atol=1e-6)
    for before in (9, 11):
        with pytest.raises(hm.LayerError, match=f"'blocks.2' gives {before} tokens where 10 are read"):
            rollout([*stack(tokens=before), *stack(1)])


def test_a_class_token_that_joins_late_and_looks_alone_is_followed() -> None:
    """CaiT, on whole matrices over the class token and 4x4 patches; what no attention adds to has a row of zeros."""
    torch.manual_seed(0)
    model = timm.create_model("cait_xxs24_224", depth=3, img_size=64, num_classes=5)
    model = stirred(model).double().eval()
    x = noise(2, 3, 64, 64).double()
    with hm.capture(model, [], attention=True) as seen:
        seen.differentiate(model(x)[:, 2])
    assert [layer.queries for layer in seen.attentions] == [16, 16, 16, 1, 1]
    itself = torch.eye(17, dtype=torch.float64).expand(2, -1, -1)
    relevance = flow = itself
    for layer in seen.attentions:
        rows = slice(0, 1) if layer.queries == 1 else slice(1, 17)
        felt, looked = torch.zeros(2, 17, 17).double(), torch.zeros(2, 17, 17).double()
        felt[:, rows, 17 - layer.keys :] = (layer.weights() * layer.gradient()).clamp(min=0).mean(1)
        looked[:, rows, 17 - layer.keys :] = layer.weights().mean(1)
        relevance = relevance + felt @ relevance
        flow = (looked + itself) / (looked + itself).sum(-1, keepdim=True) @ flow
    found = hm.Lens(model).explain(x, 2, method=["chefer", "rollout"], progress=False)
    for heatmap in found:
        dense = relevance if heatmap.method.name == "chefer" else flow
        assert torch.allclose(heatmap.raw.flatten(), dense[heatmap.position.image, 0, 1:], rtol=1e-10, atol=1e-14)
        assert heatmap.raw.max() > 0


def test_settings_and_questions_asked_again() -> None:
    model, x = vit(), noise(1, 3, 64, 64)
    lens = hm.Lens(model)
    head: Any = partial(hm.methods.attention.attention, at_head=1)
    heatmap = lens.explain(x, layer="blocks.1", method=head, progress=False)[0]
    assert heatmap.method.name == "attention(at_head=1)"
    assert torch.equal(lens.again(heatmap).raw, heatmap.raw)
