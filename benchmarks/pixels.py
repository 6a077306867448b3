"""What pixel attributions cost: hookmap and Captum against as many plain pairs of a forward and a backward pass.

One process, the same model, image and threads; contenders alternate, and medians of CPU seconds are compared, so that
a busy machine disturbs all alike. Run: ``python benchmarks/pixels.py [--only TEXT] [--rounds 5]``.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import timm
import torch
from captum import attr as captum
from cpu_time import medians
from rich.console import Console
from rich.table import Table
from torch import nn

import hookmap as hm

CLASS, STEPS = 207, 50
MODELS = ("resnet18", "resnet50", "vit_small_patch16_224", "efficientnet_b0")


def pairs(net: nn.Module, x: torch.Tensor, count: int) -> Callable[[], object]:
    """So many forward and backward passes down to the pixels, one image at a time."""

    def run() -> None:
        for _ in range(count):
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(net(leaf)[0, CLASS], leaf)

    return run


def contenders(net: nn.Module, x: torch.Tensor) -> dict[str, dict[str, Callable[[], object]]]:
    """By what is asked: the plain pairs, hookmap, Captum."""
    lens = hm.Lens(net)

    def ours(method: str) -> Callable[[], object]:
        return lambda: lens.explain(x, target=CLASS, method=method, progress=False).raw

    def theirs() -> object:
        return captum.IntegratedGradients(net).attribute(x, target=CLASS, n_steps=STEPS, internal_batch_size=1)

    return {
        "integrated gradients": {
            "pairs": pairs(net, x, STEPS),
            "hookmap": ours("integratedgradients"),
            "Captum": theirs,
        },
        "SmoothGrad": {"pairs": pairs(net, x, 25), "hookmap": ours("smoothgrad")},
        "saliency": {
            "pairs": pairs(net, x, 1),
            "hookmap": ours("saliency"),
            "Captum": lambda: captum.Saliency(net).attribute(x, target=CLASS),
        },
        "guided backpropagation": {"pairs": pairs(net, x, 1), "hookmap": ours("guidedbackprop")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="models and methods whose names hold this text")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    table = Table("model", "what", "pairs, CPU s", "hookmap, times", "Captum, times")
    for name in MODELS:
        net, x = timm.create_model(name, pretrained=False).eval(), torch.randn(1, 3, 224, 224)
        for what, runs in contenders(net, x).items():
            if options.only not in f"{name} {what}" or (what.startswith("guided") and not name.startswith("resnet")):
                continue
            seconds = medians(runs, options.rounds if len(runs) < 3 or what == "saliency" else min(3, options.rounds))
            ratio = {by: f"{seconds[by] / seconds['pairs']:.3f}" for by in seconds}
            table.add_row(name, what, f"{seconds['pairs']:.2f}", ratio["hookmap"], ratio.get("Captum", ""))
            print(name, what, seconds, ratio, flush=True)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
