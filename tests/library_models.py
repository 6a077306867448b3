"""What tests of other libraries' models share: plain autograd by hand, and whether a model was left as it came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import hookmap as hm

SMALL = hm.Preprocessing(size=(96, 128), resize=(96, 128))


def photos(cat: Path) -> list[np.ndarray]:
    whole = np.array(Image.open(cat).convert("RGB"))
    return [whole, np.ascontiguousarray(np.rot90(whole)), np.ascontiguousarray(whole[:101, :333])]


def slope(gradient: Tensor) -> Tensor:
    """Gradients ``(N, C, *grid)`` as maps, each channel with a weight of its own."""
    return torch.einsum("nchw,c->nhw", gradient, torch.linspace(0.5, 1.5, gradient.shape[1]))


def snapshot(net: nn.Module) -> dict[str, Any]:
    state = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    gradients = [(p.requires_grad, p.grad) for p in net.parameters()]
    return {"state": state, "modes": modes, "gradients": gradients}


def unchanged(net: nn.Module, before: dict[str, Any]) -> bool:
    now = snapshot(net)
    same = all(torch.equal(now["state"][key], value) for key, value in before["state"].items())
    # The library's own recorders, which it installs by itself, may be there; nothing of hookmap's.
    hooks = [hook.__module__ for m in net.modules() for hook in m._forward_hooks.values()]
    rest = now["modes"] == before["modes"] and now["gradients"] == before["gradients"]
    return same and rest and all(name.startswith("transformers.") for name in hooks)


def by_hand(net: nn.Module, layer: str, given: dict[str, Tensor], score: Any) -> Tensor:
    """The gradient of a score of the model's plain output with respect to a layer's output, in the layer's shape."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        kept.append(output if isinstance(output, Tensor) else output[0])

    handle = net.get_submodule(layer).register_forward_hook(keep)
    (gradient,) = torch.autograd.grad(score(net(**given)), kept[0])
    handle.remove()
    return gradient


def to_grid(lens: hm.Lens, x: Tensor, layer: str, tensor: Tensor) -> Tensor:
    return lens.engine.trace(x).layout(layer).to_grid(tensor)
