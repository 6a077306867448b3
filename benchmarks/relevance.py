"""What relevance costs: hookmap and zennit against a plain forward pass.

One process, the same model, input and thread; contenders alternate, CPU seconds are counted and medians compared. Also
how far hookmap's EpsilonPlusFlat is from zennit's. Run: ``python benchmarks/relevance.py [--only TEXT] [--rounds 7]``.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Callable

import timm
import torch
import torchvision
from cpu_time import medians
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlusFlat
from zennit.torchvision import ResNetCanonizer

from hookmap.hooks.preserve import preserved
from hookmap.relevance import ATTNLRP, EPSILON_PLUS_FLAT, LRP, ZERO, Composite, relevance

Run = Callable[[], Tensor]
CLASS = 207
FORWARD = "plain forward"
GOALS = {
    ("resnet50", ZERO.name): 2.4,
    ("vgg16", ZERO.name): 2.4,
    ("vit_base_patch16_224", ZERO.name): 2.4,
    ("vit_base_patch16_224", LRP.name): 5.0,
    ("resnet50", EPSILON_PLUS_FLAT.name): 4.8,
    ("vgg16", EPSILON_PLUS_FLAT.name): 4.5,
}


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name) if name.startswith("vit") else torchvision.models.get_model(name, weights=None)
    for module in model.modules():  # statistics as of a trained network: not all means zero
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def score(output: Tensor) -> Tensor:
    return output[:, CLASS]


def contenders(name: str, model: nn.Module, x: Tensor) -> dict[str, Run]:
    def forward() -> Tensor:
        with torch.no_grad():
            return model(x)

    def gradient() -> Tensor:
        pixels = x.clone().requires_grad_()
        return torch.autograd.grad(score(model(pixels)).sum(), pixels)[0] * x

    def ours(composite: Composite) -> Run:
        def run() -> Tensor:
            with preserved(model):
                return relevance(model, x, score, composite).input[0]

        return run

    def theirs() -> Tensor:
        canonizer = ResNetCanonizer() if name.startswith("resnet") else SequentialMergeBatchNorm()
        with EpsilonPlusFlat(canonizers=[canonizer]).context(model) as changed:
            pixels = x.clone().requires_grad_()
            output = changed(pixels)
            seed = torch.zeros_like(output)
            seed[:, CLASS] = output[:, CLASS].detach()
            return torch.autograd.grad(output, pixels, seed)[0]

    runs: dict[str, Run] = {FORWARD: forward, "gradient x input": gradient}
    vit = name.startswith("vit")
    for composite in (ZERO, LRP, ATTNLRP) if vit else (ZERO, LRP, EPSILON_PLUS_FLAT):
        runs[composite.name] = ours(composite)
    return runs if vit else runs | {"zennit, epsilon plus flat": theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="models whose name holds this text")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    title = f"224x224, batch 1, {platform.machine()} CPU, one thread, torch {torch.__version__}"
    table = Table("model", "by", "goal", "forwards", "from zennit", title=title)
    for name in ("resnet50", "vgg16", "vit_base_patch16_224"):
        if options.only not in name:
            continue
        model, x = built(name), torch.randn(1, 3, 224, 224)
        runs = contenders(name, model, x)
        seconds = medians(runs, options.rounds)
        peer = runs["zennit, epsilon plus flat"]() if "zennit, epsilon plus flat" in runs else None
        for by, value in seconds.items():
            apart = ""
            if peer is not None and by == EPSILON_PLUS_FLAT.name:
                apart = f"{float((runs[by]() - peer).abs().max() / peer.abs().max()):.1e}"
            goal = GOALS.get((name, by), "")
            table.add_row(name, by, str(goal), f"{value / seconds[FORWARD]:.2f}", apart)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
