"""Grad-CAM against pytorch-grad-cam, torch-cam and Captum, run in the same test."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM as GradCamPeer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchcam.methods import GradCAM as TorchCam

import hookmap as hm
from tiny import explained

CLASS = 207


def strongest_class(model: nn.Module, x: torch.Tensor) -> int:
    """A class that both images speak for, so that no peer's ReLU leaves an empty map."""
    with torch.no_grad():
        return int(model(x).amin(0).argmax())


def unit(maps: torch.Tensor) -> torch.Tensor:
    """Each map of (B, h, w), ReLU applied, from its minimum to its maximum."""
    maps = maps.clamp(min=0)
    low, high = maps.flatten(1).amin(1), maps.flatten(1).amax(1)
    return (maps - low[:, None, None]) / (high - low)[:, None, None]


def ours(model: nn.Module, x: torch.Tensor, layer: str, index: int = CLASS) -> torch.Tensor:
    return explained(model, x, "gradcam", index, layer)


def captum(model: nn.Module, x: torch.Tensor, layer: str, index: int = CLASS) -> torch.Tensor:
    return LayerGradCam(model, model.get_submodule(layer)).attribute(x, index, relu_attributions=True)[:, 0].detach()


def torch_cam(model: nn.Module, x: torch.Tensor, layer: str, index: int = CLASS) -> torch.Tensor:
    with TorchCam(model, target_layer=layer) as extractor:
        return extractor([index] * len(x), model(x))[0].detach()


def grad_cam(model: nn.Module, x: torch.Tensor, layer: str, index: int = CLASS) -> torch.Tensor:
    """The peer's weighting on the peer's own activations and gradients, before it is resized."""
    with GradCamPeer(model, [model.get_submodule(layer)]) as peer:
        peer(x, [ClassifierOutputTarget(index)] * len(x))
        hooks = peer.activations_and_grads
        maps = peer.get_cam_image(
            x, None, None, hooks.activations[0].numpy(), hooks.gradients[0].numpy(), eigen_smooth=False
        )
    return torch.from_numpy(np.asarray(maps))


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None).eval()


@pytest.mark.parametrize("peer", [captum, torch_cam, grad_cam], ids=["captum", "torchcam", "grad-cam"])
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4"),
        ("resnet50", "layer4"),
        ("densenet121", "features.denseblock4"),
        ("mobilenet_v2", "features"),
        ("efficientnet_b0", "features"),
        ("trained efficientnet_lite0", "bn2"),
    ],
)
def test_equals_the_peers_at_the_last_stage(name: str, layer: str, peer: object, lens: hm.Lens) -> None:
    # A copy: peers leave gradients of all parameters behind.
    model = copy.deepcopy(lens.model) if name.startswith("trained") else built(name)
    x = torch.randn(2, 3, 128, 160, generator=torch.Generator().manual_seed(3))
    index = strongest_class(model, x)
    mine = unit(ours(model, x, layer, index))
    theirs = unit(peer(model, x, layer, index))
    assert mine.max() == 1
    assert (mine - theirs).abs().max() <= 1e-5


def test_conv_before_inplace_relu_where_peers_are_wrong() -> None:
    """VGG11's features.18 is followed by an in-place ReLU: an out-of-place copy of the network is the truth."""
    model = built("vgg11")
    out_of_place = copy.deepcopy(model)
    for module in out_of_place.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    truth = unit(captum(out_of_place, x, "features.18"))
    assert (unit(ours(model, x, "features.18")) - truth).abs().max() <= 1e-5
    assert (unit(ours(out_of_place, x, "features.18")) - truth).abs().max() <= 1e-5
    assert (unit(grad_cam(model, x, "features.18")) - truth).abs().max() > 0.1


def test_equals_a_second_derivation_in_float64() -> None:
    """Equations 1 and 2 written out, on a gradient by finite differences of the tail."""
    model = built("resnet18").double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    a = nn.Sequential(*list(model.children())[:-2])(x).detach()

    def tail(activation: torch.Tensor) -> torch.Tensor:
        return model.fc(activation.mean((2, 3)))[0, CLASS]

    step, alpha = 1e-5, torch.zeros(512, dtype=torch.float64)
    with torch.no_grad():
        for k in range(512):
            for i in range(2):
                for j in range(2):
                    up, down = a.clone(), a.clone()
                    up[0, k, i, j] += step
                    down[0, k, i, j] -= step
                    alpha[k] += (tail(up) - tail(down)) / (2 * step) / 4
    expected = (alpha[:, None, None] * a[0]).sum(0)
    assert torch.allclose(ours(model, x, "layer4")[0], expected, atol=1e-9)
