"""Networks with seeded weights that many tests share."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict

import torch
import torchvision
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn


def noise(*size: int, seed: int = 3) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def stirred(model: nn.Module) -> nn.Module:
    """The model in evaluation mode with batch norms that do something, as after training."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return model.eval()


@functools.cache
def _resnet18() -> nn.Module:
    torch.manual_seed(0)
    return stirred(torchvision.models.resnet18(weights=None))


def resnet18() -> nn.Module:
    return copy.deepcopy(_resnet18())


def narrow_resnet() -> nn.Module:
    """A residual network of ten layers with few channels, at strides as usual: ``layer3`` has 24, ``layer4`` 32."""
    torch.manual_seed(0)
    return stirred(ResNet(BasicBlock, (1, 1, 1, 1), num_classes=10, channels=(8, 16, 24, 32)))


def convnet(bend: type[nn.Module] = nn.ReLU, classes: int = 7, rank: int = 2, stride: int = 2) -> nn.Sequential:
    """A small classifier of inputs with 3 channels; ``net[:cut]`` and ``net[cut:]`` are its parts around a layer."""
    torch.manual_seed(0)
    conv, norm, pool = (getattr(nn, f"{kind}{rank}d") for kind in ("Conv", "BatchNorm", "AdaptiveAvgPool"))
    layers: dict[str, nn.Module] = {
        "conv1": conv(3, 6, 3, stride, 1),
        "norm1": norm(6),
        "bend1": bend(),
        "conv2": conv(6, 8, 3, 1, 1),
        "norm2": norm(8),
        "bend2": bend(),
        "pool": pool(1),
        "flat": nn.Flatten(),
        "head": nn.Linear(8, classes),
    }
    return stirred(nn.Sequential(OrderedDict(layers)))


def parts(net: nn.Sequential, layer: str) -> tuple[nn.Sequential, nn.Sequential]:
    """What runs up to a layer of a :func:`convnet`, and what follows it."""
    cut = list(dict(net.named_children())).index(layer) + 1
    return net[:cut], net[cut:]


def seen(net: nn.Sequential, x: Tensor, layer: str, index: int) -> tuple[Tensor, Tensor]:
    """A layer's activation and the gradient of a class's score, by autograd on the part that follows."""
    before, after = parts(net, layer)
    activation = before(x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(after(activation)[:, index].sum(), activation)
    return activation.detach(), gradient


def unit(maps: Tensor) -> Tensor:
    """The positive part of each map of ``(B, *grid)``, divided by its maximum."""
    maps = maps.clamp(min=0)
    return maps / maps.flatten(1).amax(1).reshape(-1, *[1] * (maps.ndim - 1))
