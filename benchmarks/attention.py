"""What attention and its gradient of all layers cost, in plain forwards of the same model, alternating in one run.

    python benchmarks/attention.py [DINOV2_FOLDER]

CPU seconds, so that other work on the machine doesn't count. The peer is the model itself
told to attend in plain operators (transformers' ``attn_implementation="eager"`` with ``output_attentions=True``).
Memory is the growth of the process's peak.
"""

from __future__ import annotations

import resource
import sys
import warnings
from collections.abc import Callable
from typing import Any

import timm
import torch
import transformers
from cpu_time import medians
from torch import Tensor

import hookmap as hm


def looks(model: torch.nn.Module, x: Tensor, queries: slice) -> None:
    """Weights and gradients of all layers and heads."""
    with hm.capture(model, [], attention=True) as seen:
        seen.differentiate(scores(model(x)))
        for attention in seen.attentions:
            attention.weights(queries)
            attention.gradient(queries)


def gradient(model: torch.nn.Module, x: Tensor) -> None:
    """The plain gradient at the input."""
    x = x.clone().requires_grad_()
    torch.autograd.grad(scores(model(x)).sum(), x)


def eager(model: Any, x: Tensor) -> None:
    """Attention as the library gives it."""
    output = model(x.clone().requires_grad_(), output_attentions=True)
    torch.autograd.grad(scores(output).sum(), output.attentions)


def scores(output: Any) -> Tensor:
    """Of one class."""
    logits: Tensor = getattr(output, "logits", output)
    return logits[:, 3]


def plain(model: torch.nn.Module, x: Tensor) -> None:
    """A forward."""
    with torch.inference_mode():
        model(x)


def report(name: str, model: torch.nn.Module, x: Tensor, peer: Any = None) -> None:
    """One line."""
    runs: dict[str, Callable[[], Any]] = {
        "forward": lambda: plain(model, x),
        "gradient at the input": lambda: gradient(model, x),
        "class token's rows": lambda: looks(model, x, slice(0, 1)),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    runs["class token's rows"]()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    runs["all rows"] = lambda: looks(model, x, slice(None))
    if peer is not None:
        runs["eager, all rows"] = lambda: eager(peer, x)
    seconds = medians(runs, 3)
    parts = [f"{what} {spent / seconds['forward']:.2f}" for what, spent in seconds.items() if what != "forward"]
    print(f"{name}: {', '.join(parts)}; the rows' peak +{grown:.0f} MiB", flush=True)


def main() -> None:
    """Print the ratios."""
    warnings.simplefilter("ignore")
    if len(sys.argv) > 1:
        folder = sys.argv[1]
        network = transformers.Dinov2ForImageClassification
        small = network.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
        told = network.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        told.requires_grad_(False)
        for batch, size in ((1, 518), (1, 224), (8, 224)):
            x = torch.randn(batch, 3, size, size)
            report(f"DINOv2-S/14, batch {batch}, {size} pixels", small, x, told)
    model = timm.create_model("vit_base_patch16_224").eval().requires_grad_(False)
    for batch in (1, 8):
        report(f"ViT-B/16, batch {batch}", model, torch.randn(batch, 3, 224, 224))


if __name__ == "__main__":
    main()
