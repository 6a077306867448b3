"""The stages of a network are those that a person would name."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

import hookmap as hm
from hookmap.layers.stages import stages_of

CASES = {
    "resnet": (lambda: torchvision.models.resnet18(), ["relu", "layer1", "layer2", "layer3", "layer4"]),
    "vit": (
        lambda: timm.create_model("vit_tiny_patch16_224", depth=3),
        ["patch_embed", "blocks.0", "blocks.1", "blocks.2", "norm"],
    ),
    "convnext": (
        lambda: timm.create_model("convnext_atto"),
        ["stem", "stages.0", "stages.1", "stages.2", "stages.3"],
    ),
    "small": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        ["1"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_stages(name: str) -> None:
    make, wanted = CASES[name]
    engine = hm.Lens(make()).engine
    assert stages_of(engine.trace(torch.randn(1, 3, 224, 224))) == wanted
