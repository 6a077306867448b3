"""Attention methods against torch-cam, run in the same test."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchcam.methods import LeGrad
from torchvision.models import VisionTransformer

import hookmap as hm
from networks import noise
from tiny import close


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=48, patch_size=8, num_layers=3, num_heads=4, hidden_dim=24, mlp_dim=48, num_classes=7
    )
    nn.init.normal_(model.heads.head.weight)  # torchvision's own begins with zeros
    return model.eval()


def stretched(maps: Tensor) -> Tensor:
    """From 0 to 1, as torch-cam gives them."""
    low, high = maps.flatten(1).aminmax(dim=1)
    return (maps - low[:, None, None]) / (high - low)[:, None, None]


@pytest.mark.parametrize("train", [False, True])
def test_legrad_is_torch_cams(train: bool) -> None:
    model, x, classes = vit(), noise(2, 3, 48, 48), (2, 5)
    blocks = list(model.encoder.layers)
    wanted = []
    for index in classes:
        with LeGrad(model, blocks) as peer:
            wanted.append(peer.fuse_cams(peer([index] * 2, model(x))))
    model.train(train)
    found = hm.Lens(model).explain(x, target=list(classes), method="legrad").raw.reshape(2, 2, 6, 6)
    assert model.training is train
    for number, peer_maps in enumerate(wanted):
        assert close(stretched(found[:, number]), stretched(peer_maps), 1e-5)
