"""Matching, reading and choosing layers, on the architectures that people use."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from hookmap.errors import LayerError
from hookmap.hooks.matching import match_layers
from hookmap.layers.choice import choose
from hookmap.layers.layouts import Layout, read_layout
from hookmap.layers.trace import trace
from hookmap.layers.tree import LayerTree


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).eval()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("layer4.1.conv2", ["layer4.1.conv2"]),
        ("layer3.*", ["layer3.0", "layer3.1"]),
        ("layer[34]", ["layer3", "layer4"]),
        ("layer4.**.conv1", ["layer4.0.conv1", "layer4.1.conv1"]),
        ("layer4.?.bn2", ["layer4.0.bn2", "layer4.1.bn2"]),
        (["fc", "conv1"], ["fc", "conv1"]),
        (nn.Linear, ["fc"]),
        ("linear", ["fc"]),
        ("pool", ["maxpool", "avgpool"]),
    ],
)
def test_matching(resnet: nn.Module, spec: object, expected: list[str]) -> None:
    assert list(match_layers(resnet, spec)) == expected


def test_matching_by_module_class_name_and_kind(resnet: nn.Module) -> None:
    assert list(match_layers(resnet, resnet.layer4[1])) == ["layer4.1"]
    assert len(match_layers(resnet, "BasicBlock")) == 8
    assert len(match_layers(resnet, "conv")) == sum(isinstance(m, nn.Conv2d) for m in resnet.modules()) == 20
    assert len(match_layers(resnet, "layer?.**")) > len(match_layers(resnet, "layer?.*")) == 8


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("layer5", "did you mean layer"),
        ("zzz", "top-level layers are conv1, bn1"),
        (nn.LSTM, "no layer of type LSTM"),
        (nn.Linear(2, 2), "isn't part of this model"),
        ("attention", "no layer of the kind"),
        ([], "no layers were asked for"),
        (3.5, "."),
    ],
)
def test_what_does_not_match_is_said(resnet: nn.Module, spec: object, sentence: str) -> None:
    with pytest.raises((LayerError, TypeError), match=sentence):
        match_layers(resnet, spec)


# name, input size, expected layer, layout; published choices for these families.
CASES = [
    ("torchvision/vgg16_bn", (224, 224), "features.42", "NCHW 14x14"),
    ("torchvision/resnet18", (224, 320), "layer4", "NCHW 7x10"),
    ("torchvision/densenet121", (225, 333), "features", "NCHW 7x10"),
    ("torchvision/mobilenet_v2", (224, 224), "features", "NCHW 7x7"),
    ("torchvision/mobilenet_v3_small", (160, 224), "features", "NCHW 5x7"),
    ("torchvision/efficientnet_b0", (224, 224), "features", "NCHW 7x7"),
    ("torchvision/convnext_tiny", (224, 224), "features", "NCHW 7x7"),
    ("torchvision/regnet_y_400mf", (224, 224), "trunk_output", "NCHW 7x7"),
    ("torchvision/squeezenet1_1", (224, 224), "features", "NCHW 13x13"),  # not the scores per place that follow
    ("torchvision/swin_t", (224, 288), "norm", "NHWC 7x9"),
    ("torchvision/swin_v2_t", (256, 256), "norm", "NHWC 8x8"),
    ("torchvision/maxvit_t", (224, 224), "blocks.3", "NCHW 7x7"),
    ("torchvision/vit_b_16", (224, 224), "encoder.layers.encoder_layer_11.ln_1", "tokens 1+14x14"),
    ("timm/convnext_atto", (224, 224), "stages", "NCHW 7x7"),
    ("timm/mobilenetv3_small_050", (224, 224), "blocks", "NCHW 7x7"),
    ("timm/tf_efficientnet_lite0", (224, 224), "bn2", "NCHW 7x7"),
    ("timm/vit_tiny_patch16_224", (224, 224), "blocks.11.norm1", "tokens 1+14x14"),
    ("timm/deit_tiny_distilled_patch16_224", (224, 224), "blocks.11.norm1", "tokens 2+14x14"),
    ("timm/vit_small_patch14_reg4_dinov2", (518, 518), "blocks.11.norm1", "tokens 5+37x37"),
    ("timm/vit_small_patch16_dinov3", (256, 192), "norm", "tokens 5+16x12"),
    ("timm/beit_base_patch16_224", (224, 224), "blocks.11", "tokens 1+14x14"),
    ("timm/convit_tiny", (224, 224), "blocks.11.norm1", "tokens 1+14x14"),
    ("timm/mixer_s32_224", (224, 224), "norm", "tokens 7x7"),
    ("timm/cait_xxs24_224", (224, 224), "blocks", "tokens 14x14"),
    ("timm/swin_tiny_patch4_window7_224", (224, 224), "norm", "NHWC 7x7"),
    ("timm/swinv2_tiny_window8_256", (256, 256), "norm", "NHWC 8x8"),
    ("timm/maxvit_rmlp_pico_rw_256", (256, 256), "norm", "NCHW 8x8"),
    ("timm/coatnet_0_rw_224", (224, 224), "norm", "NCHW 7x7"),
]
VIDEO = [
    ("r3d_18", (8, 112, 112), "layer4", "NCTHW 1x7x7"),
    ("swin3d_t", (8, 112, 112), "norm", "NTHWC 4x4x4"),
    ("mvit_v2_s", (16, 224, 224), "blocks.15.norm1", "tokens 1+8x7x7"),
]


READ_BY_TOKENS = ("timm/vit_tiny_patch16_224", "timm/deit_tiny_distilled_patch16_224")


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    library, _, plain = name.partition("/")
    if library == "timm":
        return timm.create_model(plain).eval()
    return torchvision.models.get_model(plain, weights=None).eval()


@pytest.mark.parametrize(("name", "size", "layer", "layout"), CASES, ids=[c[0] for c in CASES])
def test_default_layer_and_layout(name: str, size: tuple[int, int], layer: str, layout: str) -> None:
    model, x = build(name), torch.randn(1, 3, *size)
    traced = trace(model, x)
    *before, last = choose(model, x, traced).layers
    assert last == layer
    # What class tokens read block by block is added up, where they carry more than a thousandth beside the places.
    assert before == (["blocks.9.norm1", "blocks.10.norm1"] if name in READ_BY_TOKENS else [])
    assert str(traced.layout(layer)) == layout
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(("name", "size", "layer", "layout"), VIDEO, ids=[c[0] for c in VIDEO])
def test_video_models(name: str, size: tuple[int, int, int], layer: str, layout: str) -> None:
    torch.manual_seed(0)
    model, x = torchvision.models.get_model(name, weights=None).eval(), torch.randn(1, 3, *size)
    traced = trace(model, x)
    assert choose(model, x, traced).layers == (layer,)
    assert str(traced.layout(layer)) == layout


def test_after_the_last_attention_patches_have_no_gradient() -> None:
    """Why blocks.11 is wrong for a class-token ViT and blocks.11.norm1 is right."""
    import hookmap as hm

    model, x = build("timm/vit_tiny_patch16_224"), torch.randn(1, 3, 224, 224)
    with hm.capture(model, ["blocks.11", "blocks.11.norm1"]) as seen:
        seen.differentiate(model(x)[:, 3])
    assert not seen["blocks.11"].gradient[:, 1:].any()
    assert seen["blocks.11.norm1"].gradient[:, 1:].abs().amin(-1).max() > 0


def test_to_grid_is_the_plain_rearrangement() -> None:
    t = torch.randn(2, 1 + 6, 5)
    expected = t[:, 1:].reshape(2, 2, 3, 5).permute(0, 3, 1, 2)
    assert torch.equal(Layout("tokens", (2, 3), prefix=1).to_grid(t), expected)
    assert torch.equal(Layout("tokens", (2, 3), prefix=1, sequence_first=True).to_grid(t.transpose(0, 1)), expected)
    last = torch.randn(4, 2, 3, 7, 5)  # a leading axis of four targets
    assert torch.equal(Layout("channels last", (3, 7)).to_grid(last), last.permute(0, 1, 4, 2, 3))
    assert torch.equal(Layout("channels first", (7, 5)).to_grid(last), last)
    with pytest.raises(LayerError, match="doesn't fit the layout"):
        Layout("tokens", (3, 3)).to_grid(t)


@pytest.mark.parametrize(
    ("shape", "field", "expected"),
    [
        ((1, 197, 768), (224, 224), "tokens 1+14x14"),
        ((1, 201, 768), (224, 224), "tokens 5+14x14"),
        ((1, 50, 768), (224, 224), "tokens 1+7x7"),
        ((197, 1, 768), (224, 224), "N B C 1+14x14"),
        ((1, 7, 10, 768), (224, 320), "NHWC 7x10"),
        ((1, 768, 7, 10), (224, 320), "NCHW 7x10"),
        ((1, 12, 197, 197), (224, 224), "None"),  # attention between tokens
        ((1, 12, 197, 64), (224, 224), "None"),  # its heads
        ((4, 49, 96), (224, 224), "None"),  # windows in place of the batch
        ((1, 1000), (224, 224), "None"),
    ],
)
def test_reading_shapes(shape: tuple[int, ...], field: tuple[int, int], expected: str) -> None:
    assert str(read_layout(shape, field)) == expected


def test_what_ran_before_decides() -> None:
    """Where grids are known: a series is told from tokens, and a sequence isn't taken for tokens with a prefix."""
    assert str(read_layout((1, 8, 100), (200,), grids=[(100,)])) == "NCL 100"
    assert str(read_layout((1, 101, 8), (200,), grids=[(100,)])) == "tokens 1+100"
    assert read_layout((1, 16, 10), (24, 32), grids=[(12, 16)]) is None
    assert str(read_layout((1, 49, 64), (224, 224), grids=[(14, 14)])) == "tokens 7x7"


def test_an_unreadable_layer_says_what_to_pass(resnet: nn.Module) -> None:
    traced = trace(resnet, torch.randn(1, 3, 64, 64))
    with pytest.raises(LayerError, match="'fc' \\(Linear\\) gives \\(1, 1000\\) for one 64x64 input.*layouts="):
        traced.layout("fc")


def test_a_network_without_places_is_refused() -> None:
    model, x = (
        nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 2)),
        torch.randn(1, 3, 8, 8),
    )
    with pytest.raises(LayerError, match="no layer of this model"):
        choose(model, x, trace(model, x))


def test_the_tree_reads_well(resnet: nn.Module) -> None:
    x = torch.randn(1, 3, 64, 64)
    tree = LayerTree(trace(resnet, x), model="ResNet", default=["layer4"], why="heatmaps are taken here")
    text = str(tree)
    assert text.startswith("ResNet ResNet")
    assert "layer4 Sequential  512x2x2  NCHW 2x2  <- heatmaps are taken here" in text
    assert "relu ReLU  64x16x16  NCHW 16x16  runs 2 times" in text
    assert tree["fc"].shape == (1, 1000)
