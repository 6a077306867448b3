"""A small sure classifier, and plain forwards to hold replays and masks against."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import hookmap as hm
from networks import convnet, noise, stirred

OF_ATTENTION = {name for name, method in hm.methods.METHODS.items() if method.family == "attention"}
"""Methods that a network of convolutions doesn't have."""


def tiny(dtype: torch.dtype = torch.float64, rank: int = 2) -> nn.Sequential:
    """:func:`networks.convnet` with predictions that are sure of something: ``bend1`` gives 6 channels on 12x16."""
    net = convnet(classes=5, rank=rank)
    return sure(net).to(dtype)


class Attentive(nn.Module):
    """A small transformer with a class token over 2x2 pixels; ``bend1`` gives 1+12x16 tokens of 8 channels."""

    def __init__(self, *, batch_first: bool = True, norm_first: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.first = nn.Parameter(torch.randn(1, 1, 8))
        self.bend1 = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, norm_first=norm_first)
        self.bend2 = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, norm_first=norm_first)
        self.head = nn.Linear(8, 5)
        self.axis = 0 if batch_first else 1

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.first.expand(len(x), -1, -1), self.patches(x).flatten(2).mT], 1)
        return self.head(self.bend2(self.bend1(tokens.movedim(0, self.axis))).movedim(self.axis, 0)[:, 0])


def attentive(dtype: torch.dtype = torch.float64, **kind: bool) -> nn.Module:
    torch.manual_seed(0)
    net = stirred(Attentive(**kind))
    with torch.no_grad():
        for layer in (net.bend1, net.bend2):
            layer.self_attn.in_proj_weight.mul_(4)
    return sure(net).to(dtype)


def sure(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        net.head.weight.mul_(20)
    return net


def images(count: int = 1, size: tuple[int, ...] = (24, 32), dtype: torch.dtype = torch.float64) -> Tensor:
    return noise(count, 3, *size).to(dtype)


@contextmanager
def unread() -> Iterator[None]:
    """Where maps of small networks and small budgets are compared with others, and nobody looks what they show."""
    with warnings.catch_warnings():
        for remark in ("the heatmap of", "Grad-CAM averages"):
            warnings.filterwarnings("ignore", remark, hm.HookmapWarning)
        yield


def explained(net: nn.Module, x: Tensor, method: Any, target: Any = 2, layer: Any = "bend1", **how: Any) -> Tensor:
    """Raw maps ``(N, *grid)``."""
    with unread():
        return hm.Lens(net).explain(x, target=target, layer=layer, method=method, **how).raw


def with_changed(net: nn.Module, layer: str, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The full forward, with a layer's output changed on the way."""
    handle = net.get_submodule(layer).register_forward_hook(lambda module, inputs, output: change(output))
    try:
        with torch.no_grad():
            return net(x)
    finally:
        handle.remove()


def output_of(net: nn.Module, layer: str, x: Tensor) -> Tensor:
    kept = []
    with_changed(net, layer, x, lambda output: kept.append(output.clone()) or output)
    return kept[0]


def close(one: Tensor, other: Tensor, tolerance: float = 1e-6) -> bool:
    """Whether they differ by no more than a share of the largest value, which isn't zero."""
    return one.shape == other.shape and bool((one - other).abs().max() <= tolerance * other.abs().max() > 0)
