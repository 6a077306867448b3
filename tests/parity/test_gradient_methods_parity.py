"""Gradient and activation methods against pytorch-grad-cam, torch-cam and Captum, run in the same test."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam as gradcam_peers
import torch
import torchcam.methods as torchcam_peers
from captum.attr import LayerGradCam, LayerGradientXActivation
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from hookmap.methods import gradient
from networks import convnet, noise, resnet18, seen, unit
from tiny import close, explained

Peer = Callable[[nn.Module, Tensor, str, int], Tensor]
X = noise(2, 3, 96, 128)


def grad_cam(name: str) -> Peer:
    """The peer's map before it is resized."""

    def maps(model: nn.Module, x: Tensor, layer: str, index: int) -> Tensor:
        found: list[np.ndarray] = []
        with getattr(gradcam_peers, name)(model, [model.get_submodule(layer)]) as peer:
            take = peer.get_cam_image
            peer.get_cam_image = lambda *given: found.append(take(*given)) or found[0]
            peer(x, [ClassifierOutputTarget(index)] * len(x))
        return torch.from_numpy(found[0])

    maps.__name__ = f"grad-cam {name}"
    return maps


def torch_cam(name: str, **settings: Any) -> Peer:
    def maps(model: nn.Module, x: Tensor, layer: str, index: int) -> Tensor:
        with getattr(torchcam_peers, name)(model, target_layer=layer, **settings) as peer:
            return peer([index] * len(x), model(x), normalized=False)[0].detach()

    maps.__name__ = f"torchcam {name}"
    return maps


def finer_torch_cam(model: nn.Module, x: Tensor, layer: str, index: int) -> Tensor:
    with torchcam_peers.FinerCAM(model, target_layer=layer) as peer:
        return peer([index] * len(x), model(x), normalized=False)[0].detach()


def captum_gradcam(model: nn.Module, x: Tensor, layer: str, index: int) -> Tensor:
    return LayerGradCam(model, model.get_submodule(layer)).attribute(x, index)[:, 0].detach()


def captum_product(model: nn.Module, x: Tensor, layer: str, index: int) -> Tensor:
    return LayerGradientXActivation(model, model.get_submodule(layer)).attribute(x, index).sum(1).detach()


def strongest_class(model: nn.Module, x: Tensor) -> int:
    """A class that both images speak for, so that no peer's ReLU leaves an empty map."""
    with torch.no_grad():
        return int(model(x).amin(0).argmax())


@pytest.mark.filterwarnings("ignore:at 'layer4' the methods")
@pytest.mark.parametrize("layer", ["layer2", "layer3", "layer4"])
@pytest.mark.parametrize(
    ("method", "peer"),
    [
        ("gradcam", grad_cam("GradCAM")),
        ("gradcam", torch_cam("GradCAM")),
        ("gradcam", captum_gradcam),
        ("xgradcam", grad_cam("XGradCAM")),
        ("xgradcam", torch_cam("XGradCAM")),
        ("layercam", grad_cam("LayerCAM")),
        ("layercam", torch_cam("LayerCAM")),
        ("hirescam", grad_cam("HiResCAM")),
        ("hirescam", captum_product),
        ("elementwise", grad_cam("GradCAMElementWise")),
        ("segeigencam", grad_cam("SegEigenCAM")),
        ("shapleycam", grad_cam("ShapleyCAM")),
        ("finercam", finer_torch_cam),
    ],
)
def test_equals_the_peers_on_resnet18(method: str, peer: Peer, layer: str) -> None:
    model = resnet18()
    index = strongest_class(model, X)
    mine = unit(explained(model, X, method, index, layer))
    theirs = unit(peer(copy.deepcopy(model), X, layer, index))
    assert mine.amax((1, 2)).tolist() == [1, 1]
    assert (mine - theirs).abs().max() <= 1e-5


def test_cam_equals_torchcam() -> None:
    model = resnet18()
    with torchcam_peers.CAM(copy.deepcopy(model), "layer4", "fc") as peer, torch.no_grad():
        peer.model(X)
        theirs = peer([207, 207], normalized=False)[0]
    assert close(explained(model, X, "cam", 207, "layer4"), theirs)


@pytest.mark.parametrize("layer", ["conv1", "bend1", "norm2"])
def test_shapleycam_equals_grad_cam_where_the_score_bends(layer: str) -> None:
    net, x = convnet(nn.SiLU), noise(2, 3, 24, 32)
    theirs = grad_cam("ShapleyCAM")(copy.deepcopy(net), x, layer, 2)
    assert close(explained(net, x, "shapleycam", 2, layer), theirs, 1e-5)


@pytest.mark.parametrize("layer", ["conv1", "norm1", "conv2"])
@pytest.mark.parametrize(
    ("method", "peer"),
    [
        ("xgradcam", grad_cam("XGradCAM")),
        ("layercam", grad_cam("LayerCAM")),
        ("hirescam", captum_product),
        ("gradcam", captum_gradcam),
    ],
)
def test_equals_the_peers_where_activations_are_negative(method: str, peer: Peer, layer: str) -> None:
    net, x = convnet(nn.SiLU).double(), noise(2, 3, 24, 32).double()
    assert close(explained(net, x, method, 2, layer), peer(copy.deepcopy(net), x, layer, 2), 1e-5)


# ------------------------------------------------------------------ where peers are wrong


def by_hand(model: nn.Module, x: Tensor, layer: str, index: int) -> tuple[Tensor, Tensor]:
    """Activation and gradient in float64, by autograd and a hook."""
    kept: list[Tensor] = []
    model = copy.deepcopy(model).double()
    model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: kept.append(output))
    score = model(x.double())[:, index].sum()
    return kept[0].detach(), torch.autograd.grad(score, kept[0])[0]


def gradcampp(activation: Tensor, slope: Tensor, epsilon: float = 0) -> Tensor:
    """Equation 19 as it is printed, one activation at a time."""
    total = torch.zeros_like(activation[:, 0])
    for b, k in np.ndindex(*activation.shape[:2]):
        everything, weight = activation[b, k].sum().item(), 0.0
        for g in slope[b, k].flatten().tolist():
            if g > 0:
                weight += g * g**2 / (2 * g**2 + everything * g**3 + epsilon)
        total[b] += weight * activation[b, k]
    return total


@pytest.mark.parametrize("layer", ["layer2", "layer3"])
def test_gradcampp_where_peers_are_wrong(layer: str) -> None:
    """grad-cam's epsilon of 1e-6 is as large as squared gradients; torch-cam's division is written to a copy and lost,
    so that its weights are sums of g^3."""
    model = resnet18()
    index = strongest_class(model, X)
    activation, slope = by_hand(model, X, layer, index)
    truth, mine = gradcampp(activation, slope), explained(model, X, "gradcampp", index, layer)
    assert close(mine, truth.float(), 1e-5)

    theirs = grad_cam("GradCAMPlusPlus")(copy.deepcopy(model), X, layer, index)
    assert (unit(theirs) - unit(mine)).abs().max() > 1e-3
    assert not close(theirs, mine, 0.1)
    assert close(theirs, gradcampp(activation, slope, epsilon=1e-6).float(), 1e-4)

    theirs = torch_cam("GradCAMpp")(copy.deepcopy(model), X, layer, index)
    assert (unit(theirs) - unit(mine)).abs().max() > 0.1
    cubes = slope.clamp(min=0).pow(3).sum((2, 3))
    assert close(theirs, torch.einsum("bc,bchw->bhw", cubes, activation).float(), 1e-4)


def rescaled(net: nn.Sequential) -> nn.Sequential:
    """The same network, with its channels in other units: past a ReLU, a factor may move to the next weights."""
    net, factors = copy.deepcopy(net), 2.0 ** torch.tensor([-30, -20, 0, 3, 8, 16])
    with torch.no_grad():
        net.norm1.weight.mul_(factors)
        net.norm1.bias.mul_(factors)
        net.conv2.weight.div_(factors[:, None, None])
    return net


@pytest.mark.parametrize(
    ("method", "peer"),
    [
        ("xgradcam", grad_cam("XGradCAM")),
        ("xgradcam", torch_cam("XGradCAM")),
        ("gradcampp", grad_cam("GradCAMPlusPlus")),
        ("gradcampp", torch_cam("GradCAMpp")),
    ],
)
def test_the_unit_of_a_channel_changes_peers_maps_and_not_ours(method: str, peer: Peer) -> None:
    net, x = convnet(), noise(2, 3, 24, 32)
    same = rescaled(net)
    assert torch.allclose(same(x), net(x))
    mine, again = (explained(model, x, method, 2, "bend1") for model in (net, same))
    assert close(again, mine, 1e-6)
    theirs, changed = (unit(peer(copy.deepcopy(model), x, "bend1", 2)) for model in (net, same))
    assert (changed - theirs).abs().max() > 0.05


def test_xgradcam_where_grad_cams_epsilon_turns_a_channel_around() -> None:
    """Before a ReLU: a channel that sums to -4e-8 sums to 6e-8 with the peer's 1e-7."""
    activation = torch.tensor([[[[-8e-8, 4e-8]], [[1.0, 2.0]]]])
    slope = torch.tensor([[[[1e6, 3e6]], [[0.0, 0.0]]]])
    weight = (-8e-8 * 1e6 + 4e-8 * 3e6) / (-8e-8 + 4e-8)
    theirs = gradcam_peers.XGradCAM.get_cam_weights(None, None, None, None, activation.numpy(), slope.numpy())
    assert gradient.xgradcam.weights(activation, slope)[0].tolist() == pytest.approx([weight, 0])
    assert theirs[0].tolist() == pytest.approx([-weight * 4 / 6, 0], rel=1e-3)


@pytest.mark.parametrize(("layer", "agrees"), [("bend2", True), ("bend1", False)])
def test_smoothgradcampp_where_torchcam_weighs_the_sum_of_the_activation(layer: str, agrees: bool) -> None:
    """Without noise it is Grad-CAM++. torch-cam multiplies A and g^3 before the sum over places, not after, which is
    the same only where the gradient is the same everywhere."""
    net, x = convnet().double(), noise(2, 3, 24, 32).double()
    with torch.no_grad():
        net.head.weight.mul_(100)  # the peer's epsilon is not what this is about
    activation, g = seen(net, x, layer, 2)
    mine = gradient.smoothgradcampp(activation, torch.stack([g, g**2, g**3], 1))
    assert close(mine, gradcampp(activation, g), 1e-10)
    theirs = torch_cam("SmoothGradCAMpp", num_samples=2, std=1e-9)(copy.deepcopy(net), x, layer, 2)
    assert close(theirs, mine.clamp(min=0), 1e-3) == agrees


def test_eigencam_where_grad_cam_centres_and_leaves_the_sign_to_chance() -> None:
    """Its maps are the centred component, of either sign; ours goes along with how active the layer is."""
    model, x = resnet18(), noise(6, 3, 96, 128)
    activation, _ = by_hand(model, x, "layer2", 2)
    mine = explained(model, x, "eigencam", 2, "layer2").flatten(1)
    theirs = grad_cam("EigenCAM")(copy.deepcopy(model), x, "layer2", 2).flatten(1)
    strength = activation.norm(dim=1).flatten(1).float()
    assert mine.min() >= 0
    directions = []
    for b in range(6):
        rows = activation[b].flatten(1).T
        component = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
        assert close(theirs[b].abs(), (component.U[:, 0] * component.S[0]).float().abs(), 1e-4)
        directions.append(float(torch.corrcoef(torch.stack([theirs[b], strength[b]]))[0, 1]))
        assert torch.corrcoef(torch.stack([mine[b], strength[b]]))[0, 1] > 0.5
    assert min(directions) < 0 < max(directions)


@pytest.mark.parametrize(("method", "peer"), [("eigengradcam", "EigenGradCAM"), ("kpcacam", "KPCA_CAM")])
def test_components_equal_grad_cams_up_to_its_sign(method: str, peer: str) -> None:
    model = resnet18()
    mine = explained(model, X, method, 207, "layer3")
    theirs = grad_cam(peer)(copy.deepcopy(model), X, "layer3", 207)
    signs = (mine * theirs).sum((1, 2), keepdim=True).sign()
    assert close(mine, theirs * signs, 1e-4)


def test_fem_where_grad_cam_weighs_the_maps_themselves() -> None:
    """The paper sums, at each unusual place, the mean of the channel that is unusual there."""
    net, x = convnet().double(), noise(2, 3, 24, 32).double()
    activation, _ = seen(net, x, "bend1", 2)
    mean, deviation = activation.mean((2, 3), keepdim=True), activation.std((2, 3), correction=0, keepdim=True)
    unusual = activation > mean + 2 * deviation
    mine = explained(net, x, "fem", 2, "bend1")
    theirs = grad_cam("FEM")(copy.deepcopy(net), x, "bend1", 2)
    assert close(mine, (unusual * mean).sum(1), 1e-12)
    assert close(theirs, (unusual.double().mean((2, 3), keepdim=True) * activation).sum(1), 1e-6)
    # At an unusual place of the paper's map something is unusual; the peer's map is positive nearly everywhere.
    assert torch.equal(mine > 0, unusual.any(1))
    assert (theirs > 0).double().mean() > 0.9
