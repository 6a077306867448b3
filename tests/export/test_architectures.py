"""Exported files against Lens.explain, architecture by architecture, on other pictures and in other batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import hookmap as hm
from trained import WEIGHTS, fastestdet

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = [
    # Weights are random, and both sides see pictures the usual way.
    pytest.mark.filterwarnings("ignore:.* untrained classes have no names:hookmap.HookmapWarning"),
    # The detector's own file does, too.
    pytest.mark.filterwarnings("ignore:net.onnx takes one image at a time:hookmap.HookmapWarning"),
]
models = torchvision.models


@dataclass(frozen=True)
class Case:
    """A model, and what is asked of it.

    Attributes:
        lens: makes it.
        layers: that are exported, None for the default.
        method: by name, None for the default.
        target: in the file.
        asked: the same of explain, where that is said in another way.
    """

    lens: Callable[[], hm.Lens]
    layer: str | None = None
    method: str | None = None
    target: str | int | hm.Everywhere = "predicted"
    asked: str | int | None = None


SQUARE = hm.Preprocessing(size=(160, 160), resize=(160, 160), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Small, and one size for every picture, where a segmenter's own is as wide as the picture."""


def seeded(build: Callable[[], nn.Module], way: hm.Preprocessing | None = None) -> Callable[[], hm.Lens]:
    def lens() -> hm.Lens:
        torch.manual_seed(0)
        return hm.Lens(build(), preprocessing=way)

    return lens


def deeplab() -> nn.Module:
    """As if trained: scores of random weights are the same everywhere, and their region a matter of rounding."""
    model = models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    nn.init.normal_(model.classifier[-1].weight, std=0.5)
    return model


def vit() -> nn.Module:
    """As if trained: torchvision's head starts with zeros, through which no gradient passes."""
    model = models.vit_b_16(weights=None)
    nn.init.normal_(model.heads.head.weight, std=0.02)
    return model


def dinov2() -> hm.Lens:
    if not (WEIGHTS / "dinov2-small").exists():
        pytest.skip("the trained weights dinov2-small aren't on this machine")
    return hm.Lens(str(WEIGHTS / "dinov2-small"))


CASES = {
    "ResNet": Case(seeded(models.resnet18)),
    "ResNet in the middle": Case(seeded(models.resnet18), "layer3", "hirescam", 7),
    "VGG": Case(seeded(models.vgg11_bn)),
    "DenseNet": Case(seeded(models.densenet121)),
    "MobileNetV3": Case(seeded(models.mobilenet_v3_small), "features.12", "gradcampp"),
    "EfficientNet": Case(seeded(models.efficientnet_b0), "features.7", "layercam"),
    "ConvNeXt": Case(seeded(models.convnext_tiny)),
    "ViT": Case(seeded(lambda: timm.create_model("vit_tiny_patch16_224"))),
    "ViT by another method": Case(seeded(vit), "encoder.layers.encoder_layer_11.ln_1", "hirescam"),
    "DINOv2": Case(dinov2),
    # Not XGrad-CAM: it divides by sums that signed activations bring close to zero, and hangs on the last digits.
    "Swin": Case(seeded(models.swin_t)),
    "DeepLab": Case(seeded(deeplab, SQUARE)),
    "DeepLab, everywhere": Case(seeded(deeplab, SQUARE), target=hm.Everywhere(of=5)),
    "detector": Case(fastestdet, asked="box:0"),
    "embedded default": Case(hm.Lens, target="tabby"),
}
FAST = ("detector",)


def other_pictures(lens: hm.Lens, count: int) -> Tensor:
    """Real ones, preprocessed: a cat, coffee and what noise makes of them."""
    assert lens.preprocessing is not None
    photos = Path(__file__).parents[2] / "examples" / "photos"
    if count == 1:
        return next(lens.engine.batches(WEIGHTS.parent / "photos" / "both.png", 1)).x
    x = next(lens.engine.batches([photos / "cat.jpg", photos / "coffee.jpg"], 2)).x
    noise = torch.randn(x[:1].shape, generator=torch.Generator().manual_seed(3)).to(x)
    return torch.cat([x, 0.7 * x[1:].flip(-1) + 0.3 * noise])


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in CASES])
def test_the_file_gives_what_explain_gives(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    lens = case.lens()
    file = lens.export(tmp_path / "net.onnx", case.method, case.layer, case.target, progress=False)
    session = onnxruntime.InferenceSession(str(file))
    x = other_pictures(lens, 1 if name == "detector" else 3)
    outputs = dict(
        zip([output.name for output in session.get_outputs()], session.run(None, {"input": x.numpy()}), strict=True)
    )
    asked = case.target if case.asked is None else case.asked
    expected = torch.stack([h.values for h in lens.explain(x, asked, case.layer, case.method)]).numpy()
    scale = np.abs(expected).max()
    assert scale > 0
    assert outputs["heatmap"].shape == (len(x), 1, *expected.shape[1:])
    assert np.abs(outputs["heatmap"][:, 0] - expected).max() <= 1e-4 * scale
    with torch.no_grad():
        plain = lens.engine.called.eval()(x)
    said = (
        next(iter(plain.values()))
        if isinstance(plain, dict)
        else getattr(plain, "scores", getattr(plain, "logits", plain))
    )
    given = outputs[session.get_outputs()[0].name]
    assert np.abs(given - said.detach().numpy()).max() <= 1e-4 * float(said.detach().abs().max())
    # Weights lie in the file once.
    size = sum(t.numel() * t.element_size() for t in (*lens.model.parameters(), *lens.model.buffers()))
    assert file.stat().st_size < 1.1 * size + 2**20
