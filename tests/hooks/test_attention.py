"""Attention read from the graph is what the model's own plain operators give, in every library and kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.models.rt_detr_v2 import modeling_rt_detr_v2

import hookmap as hm
import tiny_transformers
from library_models import snapshot, unchanged
from networks import convnet, noise, stirred

SMALL: dict[str, Any] = {"img_size": 64, "num_classes": 5}


def tv_vit() -> nn.Module:
    model = torchvision.models.VisionTransformer(64, 16, 3, 2, 24, 48, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # the library starts it with zeros
    return model


def tv_swin() -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 12, [2, 2], [2, 2], [4, 4], num_classes=5)


def timm_model(name: str, **more: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **{**SMALL, **more})


SIZES = {"timm MaxViT": 128, "timm EVA": 56, "transformers swin": 128}
TRANSFORMERS = ("vit", "beit", "swin", "detr", "segformer", "dinov2 with registers")


def open_clip() -> nn.Module:
    library = pytest.importorskip("open_clip")
    vision = {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 64}
    text = {"context_length": 16, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1}
    visual: nn.Module = library.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text).visual
    return visual


MODELS: dict[str, Callable[[], nn.Module]] = {
    "timm ViT": timm_model("vit_tiny_patch16_224", depth=3),
    "timm DeiT3": timm_model("deit3_small_patch16_224", depth=2),
    "timm EVA": timm_model("eva02_tiny_patch14_224", img_size=56, depth=2),
    "timm SigLIP": timm_model("vit_base_patch16_siglip_224", depth=2, embed_dim=48, num_heads=3),
    "timm Swin": timm_model("swin_tiny_patch4_window7_224", depths=(2, 2), num_heads=(3, 6), window_size=4),
    "timm MaxViT": timm_model("maxvit_rmlp_pico_rw_256", img_size=128),
    "timm CaiT": timm_model("cait_xxs24_224", depth=2),
    "timm PVT": lambda: timm.create_model("pvt_v2_b0", num_classes=5),
    "torchvision ViT": tv_vit,
    "torchvision Swin": tv_swin,
    "open_clip": lambda: open_clip(),
    **{f"transformers {name}": partial(tiny_transformers.model, name) for name in TRANSFORMERS},
}


def kept(
    monkeypatch: pytest.MonkeyPatch, model: nn.Module, x: Tensor, score: Callable[[Any], Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Every softmax over rows as it ran, with its gradient: attention in plain operators."""
    found: list[Tensor] = []
    softmax = torch.Tensor.softmax

    def note(tensor: Tensor, dim: Any = None, **more: Any) -> Tensor:
        result = softmax(tensor, dim, dtype=more.get("dtype"))
        if result.ndim > 2 and result.requires_grad:
            found.append(result)
        return result

    def plain(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Any = None,
        dropout_p: float = 0,
        is_causal: bool = False,
        scale: Any = None,
        **_: Any,
    ) -> Tensor:
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return note(scores, -1) @ v

    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", plain)
        for place in (torch.Tensor, torch, F):
            patch.setattr(place, "softmax", note)
        y = score(model(x.clone().requires_grad_()))
        gradients = torch.autograd.grad(y, found, allow_unused=True)
    return [(a.detach(), g) for a, g in zip(found, gradients, strict=True) if g is not None]


def first_class(output: Any) -> Tensor:
    logits = getattr(output, "logits", output)
    return logits.flatten(1)[:, 3].sum()


@pytest.mark.parametrize("name", MODELS)
def test_attention_and_its_gradient_are_those_of_plain_operators(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = stirred(MODELS[name]()).double().eval()
    size = SIZES.get(name, 64)
    x = noise(2, 3, size, size).double()
    # A decoder's first self-attention looks at its own queries: nothing of the picture is in it.
    truth = [pair for pair in kept(monkeypatch, model, x, first_class) if bool(pair[1].any())]
    before = snapshot(model.requires_grad_(False))
    with hm.capture(model, [], attention=True) as seen:
        seen.differentiate(first_class(model(x)))
    assert unchanged(model, before)
    found = [each for each in seen.attentions if each.reached]
    assert len(found) == len(truth) > 0
    assert all(bool(gradient.any()) for _, gradient in truth)
    for attention, (weights, gradient) in zip(found, truth, strict=True):
        assert torch.allclose(attention.weights().flatten(), weights.flatten(), rtol=0, atol=1e-10)
        assert torch.allclose(
            attention.gradient().flatten(), gradient.flatten(), rtol=0, atol=1e-10 * float(gradient.abs().max()) + 1e-14
        )
        rows = slice(0, 1)
        assert torch.allclose(attention.weights(rows), attention.weights()[:, :, rows], rtol=1e-9, atol=1e-14)
        assert torch.allclose(attention.gradient(rows), attention.gradient()[:, :, rows], rtol=1e-9, atol=1e-14)


# ---------------------------------------------------------------- kernels and kinds of nodes


def attend(q: Tensor, mask: Tensor | None = None, **more: Any) -> Tensor:
    return F.scaled_dot_product_attention(q, 0.5 * q, q + 1, attn_mask=mask, **more)


class Attends(nn.Module):
    """One attention over rows of the input."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).sum((1, 3))


TRAINED = nn.Parameter(noise(6, 6))
KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "fused": attend,
    "fused with a scale": partial(attend, scale=0.3),
    "fused with a mask": partial(attend, mask=noise(6, 6)),
    "fused with a mask of yes and no": partial(attend, mask=noise(6, 6) > -0.5),
    "fused and causal": partial(attend, is_causal=True),
    "a mask that is trained makes it plain operators": partial(attend, mask=TRAINED),
    "heads that share keys": lambda q: F.scaled_dot_product_attention(q, q[:, :1], q[:, :1] + 1, enable_gqa=True),
    "plain": lambda q: ((q @ q.mT) * 0.4).softmax(-1) @ (q + 1),
    "heads and samples as one axis": lambda q: torch.bmm(
        (q.flatten(0, 1) @ q.flatten(0, 1).mT).softmax(-1), q.flatten(0, 1)
    ).unflatten(0, q.shape[:2]),
    "turned by hand": lambda q: ((q + 1).transpose(2, 3) @ (q @ q.mT).softmax(3).transpose(2, 3)).transpose(2, 3),
    "values with their channels first": lambda q: ((q + 1).mT @ (q @ q.mT).softmax(-1).mT).mT,
    "by einsum": lambda q: torch.einsum("bhnm,bhmd->bhnd", (q @ q.mT).softmax(-1), q),
}


@pytest.mark.parametrize("name", KERNELS)
def test_each_kind_of_attention_node(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Attends(KERNELS[name]), noise(2, 4, 6, 8)
    with hm.capture(model, [], attention=True) as seen:
        seen.differentiate(model(x)[:, 1])
    (attention,) = seen.attentions
    assert (attention.groups, attention.heads, attention.queries, attention.keys) == (2, 4, 6, 6)
    if "share" in name:  # which the plain truth doesn't know
        key = x[:, :1].repeat(1, 4, 1, 1)
        weights = (x @ key.mT * 8**-0.5).softmax(-1)
        assert torch.allclose(attention.weights(), weights, atol=1e-6)
        return
    ((weights, gradient),) = kept(monkeypatch, model, x, lambda y: y[:, 1].sum())
    assert torch.allclose(attention.weights().flatten(), weights.flatten(), atol=1e-6)
    assert torch.allclose(attention.gradient().flatten(), gradient.flatten(), atol=1e-5)
    assert torch.allclose(attention.weights().sum(-1), torch.ones(2, 4, 6), atol=1e-5)


def test_the_gradient_at_what_a_query_got_times_values_is_that_of_its_weights() -> None:
    for name in ("fused", "plain", "values with their channels first"):
        model, x = Attends(KERNELS[name]), noise(2, 4, 6, 8)
        with hm.capture(model, [], attention=True) as seen:
            y = model(x)
            seen.differentiate(torch.stack([y[:, 0], y[:, 2]]))
        (attention,) = seen.attentions
        assert attention.gradient().shape == (2, 2, 4, 6, 6)
        assert torch.allclose(attention.output_gradient() @ attention.value.mT, attention.gradient(), atol=1e-5)


def test_softmaxes_that_weigh_no_values_are_no_attention() -> None:
    model = convnet()
    model.append(nn.Softmax(1))
    with (
        pytest.raises(hm.LayerError, match="no attention was found in this model"),
        hm.capture(model, [], attention=True) as seen,
    ):
        seen.differentiate(model(noise(1, 3, 16, 16))[:, 0])


# ---------------------------------------------------------------- windows


@pytest.mark.parametrize("name", ["timm Swin", "torchvision Swin", "transformers swin", "timm MaxViT"])
def test_windows_are_laid_back_onto_the_picture(name: str) -> None:
    """What each key attends with is replaced by a number that tells where in the picture it came from."""
    torch.manual_seed(0)
    model = stirred(MODELS[name]()).eval()
    size = SIZES.get(name, 64)
    with hm.capture(model, [], attention=True) as seen:
        first_class(model(noise(2, 3, size, size)))
    grids = {each.places().shape[1:] for each in seen.attentions if each.windowed}  # type: ignore[union-attr]
    assert grids
    assert all(len(grid) == 2 and grid[0] == grid[1] for grid in grids)
    for attention in seen.attentions:
        places = attention.places()
        if not attention.windowed or places is None:
            continue
        group = places // attention.keys
        assert (group[0] < attention.groups // 2).all()
        assert (group[1] >= attention.groups // 2).all()
        assert (places.unique(return_counts=True)[1] == 1).all()  # no key in two places


def test_shifted_windows_are_where_a_change_of_the_picture_is_felt() -> None:
    """An independent truth: a patch that changes moves attention in its own window alone."""
    torch.manual_seed(0)
    block = torchvision.models.swin_transformer.SwinTransformerBlock(12, 2, [4, 4], [2, 2]).eval()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = stirred(block)

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x.permute(0, 2, 3, 1)).mean((1, 2))

    model, x = Net(), noise(1, 12, 8, 8)

    def weights(given: Tensor) -> Any:
        with hm.capture(model, [], attention=True) as seen:
            model(given)
        return seen.attentions[0]

    plain = weights(x)
    places = plain.places()
    assert places.shape == (1, 8, 8)
    for row, column in [(0, 0), (1, 6), (2, 2), (7, 7), (5, 1)]:
        changed = x.clone()
        changed[0, :, row, column] += noise(12)
        # Of other queries one score changes, so all log weights shift alike but that of the key.
        shift = weights(changed).weights().log() - plain.weights().log()
        felt = (shift - shift.median(-1, keepdim=True).values).abs().amax(1).median(1).values  # (G, M)
        group, key = divmod(int(places[0, row, column]), plain.keys)
        assert shift.abs().amax((1, 2, 3)).nonzero().flatten().tolist() == [group]
        assert int(felt[group].argmax()) == key


# ---------------------------------------------------------------- behaviour


def test_a_layers_attention_by_its_name() -> None:
    model, x = MODELS["timm ViT"]().eval(), noise(2, 3, 64, 64)
    with hm.capture(model, ["blocks.1.attn", "blocks.2"], attention=True) as seen:
        y = model(x)
        seen.differentiate(torch.stack([y[:, 0], y[:, 1]]))
    assert seen["blocks.1.attn"].attention.shape == (2, 3, 17, 17)
    assert seen["blocks.2"].attention_gradient.shape == (2, 2, 3, 17, 17)
    assert [each.module for each in seen.attentions] == ["blocks.1.attn", "blocks.2.attn"]
    with hm.capture(model, ["blocks.0.mlp"], attention=True) as seen:
        model(x)
    with pytest.raises(hm.LayerError, match=r"no attention ran in layer 'blocks.0.mlp'; it ran in blocks.1.attn"):
        _ = seen["blocks.0.mlp"].attention
    with hm.capture(model, ["", "input"], attention=True) as seen:
        model(x)
    with pytest.raises(hm.LayerError, match=r"3 attentions ran in layer ''; pass one of blocks.0.attn, blocks.1.attn"):
        _ = seen[""].attention


def test_weights_that_are_too_large_are_refused_and_rows_arent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookmap.hooks.attention.MOST_BYTES", 10_000)
    model = Attends(attend)
    with hm.capture(model, [], attention=True) as seen:
        model(noise(1, 2, 64, 4))
    assert seen.attentions[0].weights(slice(3, 5)).shape == (1, 2, 2, 64)
    with pytest.raises(hm.ModelError, match=r"\(1, 2, 64, 64\).*ask for few rows at a time"):
        seen.attentions[0].weights()


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.layer, x, use_reentrant=self.reentrant).mean(1)


def test_checkpointed_models_give_the_same_or_are_refused() -> None:
    torch.manual_seed(0)
    model, x = Checkpointed(reentrant=False).eval(), noise(2, 5, 8)
    with hm.capture(model, [], attention=True) as seen:
        seen.differentiate(model(x)[:, 0])
    with hm.capture(model.layer, [], attention=True) as plain:
        plain.differentiate(model.layer(x).mean(1)[:, 0])
    assert torch.allclose(seen.attentions[0].weights(), plain.attentions[0].weights())
    assert torch.allclose(seen.attentions[0].gradient(), plain.attentions[0].gradient(), atol=1e-7)
    model.reentrant = True
    with pytest.raises(hm.ModelError, match="reentrant gradient checkpointing"), hm.capture(model, [], attention=True):
        model(x)


def test_under_autocast_no_grad_and_inference_mode() -> None:
    model, x = MODELS["timm ViT"]().eval(), noise(1, 3, 64, 64)
    maps = []
    for block in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        with block, hm.capture(model, [], attention=True) as seen:
            seen.differentiate(model(x)[:, 1].float())
        assert not any(each.weights().requires_grad for each in seen.attentions)
        maps.append([each.weights().float() for each in seen.attentions])
    for one, two, half in zip(*maps, strict=True):
        assert torch.equal(one, two)
        assert torch.allclose(one, half, atol=2e-2)


def test_nothing_stays_after_an_exception_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = stirred(MODELS["timm ViT"]()).eval(), noise(1, 3, 64, 64)
    before = snapshot(model)
    for name in ("blocks.0.attn.qkv", "blocks.1.mlp.act", "norm", "head"):
        module = model.get_submodule(name)

        def fails(*_: Any) -> Tensor:
            raise RuntimeError("halt")

        with monkeypatch.context() as patch:
            patch.setattr(module, "forward", fails)
            with pytest.raises(RuntimeError, match="halt"), hm.capture(model, ["blocks.1"], attention=True):
                model(x)
        assert unchanged(model, before)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert torch.is_grad_enabled()


def test_threads_that_look_at_one_model_dont_meet() -> None:
    model = MODELS["timm ViT"]().eval()
    xs = [noise(1, 3, 64, 64, seed=seed) for seed in range(2)]

    def looked(x: Tensor) -> list[Tensor]:
        with hm.capture(model, [], attention=True) as seen:
            seen.differentiate(model(x)[:, 1])
        return [each.gradient() for each in seen.attentions]

    alone = [looked(x) for x in xs]
    with torch.no_grad():
        plain = model(xs[0])
    found: dict[int, Any] = {}
    predicted: list[Tensor] = []

    def work(number: int) -> None:
        for _ in range(5):
            found[number] = looked(xs[number])

    def predict() -> None:
        with torch.no_grad():
            predicted.extend(model(xs[0]) for _ in range(10))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)] + [
        threading.Thread(target=predict)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert all(torch.equal(one, two) for one, two in zip(found[number], alone[number], strict=True))
    assert all(torch.equal(each, plain) for each in predicted)


@pytest.mark.parametrize("name", ["deformable detr", "rt-detr", "rt-detr v2", "lw-detr"])
@pytest.mark.parametrize("frozen", [True, False])
def test_points_and_weights_of_deformable_attention_are_those_that_the_library_computes(
    name: str, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = stirred(tiny_transformers.model(name)).double().eval().requires_grad_(not frozen)
    x, truth = noise(2, 3, 64, 64).double(), []

    def noted(read: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*given: Any, **more: Any) -> Tensor:
            tensors = [t for t in given if isinstance(t, Tensor) and t.is_floating_point()]  # values, points, weights
            truth.append(tensors[1:])
            return read(*given, **more)

        return run

    for module in model.modules():
        if type(module).__name__ == "MultiScaleDeformableAttention":
            monkeypatch.setattr(module, "forward", noted(module.forward))
    function = "multi_scale_deformable_attention_v2"
    monkeypatch.setattr(modeling_rt_detr_v2, function, noted(getattr(modeling_rt_detr_v2, function)))
    with hm.capture(model, [], attention=True) as seen:
        model(x)
    assert len(seen.samplings) == len(truth) > 0
    for sampling, (points, weights) in zip(seen.samplings, truth, strict=True):
        assert torch.allclose(sampling.points.flatten(), points.transpose(1, 2).flatten(), rtol=0, atol=1e-12)
        assert torch.allclose(sampling.weights.flatten(), weights.transpose(1, 2).flatten(), rtol=0, atol=1e-12)
        assert torch.allclose(sampling.weights.sum(-1), torch.ones(()).double())
        assert sampling.points.shape[:4] == sampling.weights.shape
        assert sampling.levels.shape == sampling.weights.shape[3:]
        assert "encoder" in sampling.module or "decoder" in sampling.module
