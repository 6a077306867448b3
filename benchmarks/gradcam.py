"""Grad-CAM's price: hookmap, pytorch-grad-cam, torch-cam and Captum against a plain forward pass.

One process, the same model, layer, batch and threads; methods alternate and medians are compared, so that a
noisy machine disturbs all alike. Run: ``python benchmarks/gradcam.py [--rounds 15] [-o FOLDER]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from rich.console import Console
from rich.table import Table
from torch import nn
from torchcam.methods import GradCAM as TorchCam

import hookmap as hm

CLASS = 207


def contenders(model: nn.Module, x: torch.Tensor, layer: str) -> dict[str, Callable[[], object]]:
    module = model.get_submodule(layer)
    lens = hm.Lens(model)
    grad_cam = GradCAM(model, [module])
    captum = LayerGradCam(model, module)

    def plain() -> object:
        with torch.no_grad():
            return model(x)

    def torch_cam() -> object:
        with TorchCam(model, target_layer=module) as extractor:
            return extractor([CLASS] * len(x), model(x))

    return {
        "plain forward": plain,
        "hookmap": lambda: lens.explain(x, target=CLASS, layer=layer).raw,
        "pytorch-grad-cam": lambda: grad_cam(x, [ClassifierOutputTarget(CLASS)] * len(x)),
        "torch-cam": torch_cam,
        "captum": lambda: captum.attribute(x, CLASS, relu_attributions=True),
    }


def kept_for_backward(run: Callable[[], object], model: nn.Module) -> float:
    """MiB of tensors that autograd keeps for the backward pass, the model's own parameters and buffers aside."""
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept.values()) / 2**20


def measure(runs: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 2):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if i >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--layer", default="layer4")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = torchvision.models.get_model(options.model, weights=None).eval().to(device)
    x = torch.randn(options.batch, 3, 224, 224, device=device)
    runs = contenders(model, x, options.layer)
    seconds = measure(runs, options.rounds, device)
    rows = []
    for name, run in runs.items():
        rows.append(
            {
                "method": name,
                "ratio to a plain forward": round(seconds[name] / seconds["plain forward"], 2),
                "ratio to hookmap": round(seconds[name] / seconds["hookmap"], 2),
                "MiB kept for backward": round(kept_for_backward(run, model), 2),
            }
        )
    headings = list(rows[0])
    table = Table(*headings)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        name = f"gradcam_{options.model}_{device.type}"
        (options.output / f"{name}.json").write_text(json.dumps(rows, indent=2))
        lines = [headings, ["---"] * len(headings), *[[str(v) for v in row.values()] for row in rows]]
        (options.output / f"{name}.md").write_text("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")


if __name__ == "__main__":
    main()
