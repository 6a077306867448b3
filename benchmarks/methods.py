"""What heatmaps cost: hookmap, pytorch-grad-cam, torch-cam and Captum against a plain forward pass.

One process, the same model, layer, batch and threads; contenders alternate and medians are compared, so that a noisy
machine disturbs all alike. Run: ``python benchmarks/methods.py [--only TEXT] [--rounds 9] [-o FOLDER]``.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytorch_grad_cam as peer
import torch
import torchvision
from captum.attr import LayerFeatureAblation, LayerGradCam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from rich.console import Console
from rich.table import Table
from torch import nn
from torchcam.methods import GradCAM as TorchCam

import hookmap as hm

Run = Callable[[], object]
CLASS = 207
FORWARD, OURS = "plain forward", "hookmap"
GRADIENT_METHODS = ["gradcam", "gradcampp", "gradcamppauthors", "xgradcam", "hirescam", "elementwise", "layercam"]
GRADIENT_METHODS += ["eigengradcam", "segeigencam"]
PEER_METHODS = ["GradCAM", "GradCAMPlusPlus", "XGradCAM", "HiResCAM", "GradCAMElementWise", "LayerCAM", "EigenGradCAM"]
PEER_METHODS += ["ShapleyCAM", "FinerCAM"]


@dataclass
class Case:
    """Contenders for one job; the first is the plain forward pass, a number the goal for hookmap's ratio to it."""

    name: str
    goal: float | None
    runs: dict[str, Run]


class Bench:
    """Models and inputs that cases share."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.models = {name: self._model(name) for name in ("resnet18", "resnet50")}
        self.inputs = {n: torch.randn(n, 3, 224, 224, device=device) for n in (1, 4, 8, 64)}

    def _model(self, name: str) -> nn.Module:
        model = torchvision.models.get_model(name, weights=None).eval().to(self.device)
        for module in model.modules():  # statistics as of a trained network: not all means zero
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        return model

    def forward(self, model: str, batch: int) -> Run:
        net, x = self.models[model], self.inputs[batch]

        def run() -> object:
            with torch.no_grad():
                return net(x)

        return run

    def ours(self, model: str, batch: int, *, precision: str = "fp32", **asked: object) -> Run:
        lens, x = hm.Lens(self.models[model], precision=precision), self.inputs[batch]
        return lambda: [h.raw for h in lens.explain(x, **{"target": CLASS, "progress": False, **asked})]

    def grad_cam(self, model: str, batch: int, layers: list[str], name: str = "GradCAM", target: int = CLASS) -> Run:
        net, x = self.models[model], self.inputs[batch]
        modules = [net.get_submodule(layer) for layer in layers]

        def run() -> object:
            # Its hooks stay on the model until it is left, and would be paid for by everybody.
            with getattr(peer, name)(net, modules) as method:
                return method(x, [ClassifierOutputTarget(target)] * batch)

        return run

    def torch_cam(self, model: str, batch: int, layer: str) -> Run:
        net, x = self.models[model], self.inputs[batch]

        def run() -> object:
            with TorchCam(net, target_layer=net.get_submodule(layer)) as extractor:
                return extractor([CLASS] * batch, net(x))

        return run

    def captum(self, model: str, batch: int, layer: str) -> Run:
        net, x = self.models[model], self.inputs[batch]
        method = LayerGradCam(net, net.get_submodule(layer))
        return lambda: method.attribute(x, CLASS, relu_attributions=True)

    def captum_ablation(self, model: str, layer: str, channels: int) -> Run:
        net, x = self.models[model], self.inputs[1]
        method = LayerFeatureAblation(net, net.get_submodule(layer))
        mask = torch.arange(channels, device=self.device)[None, :, None, None]
        return lambda: method.attribute(x, target=CLASS, layer_mask=mask, perturbations_per_eval=1)

    def cases(self) -> list[Case]:
        blocks = [f"layer{i}.{j}" for i, n in zip((1, 2, 3, 4), (3, 4, 6, 3), strict=True) for j in range(n)]
        five = list(range(CLASS, CLASS + 5))
        nine = [self.grad_cam("resnet50", 1, ["layer4"], name, t) for name in PEER_METHODS for t in five]
        each = [self.grad_cam("resnet50", 1, [block]) for block in blocks]
        cases = [
            Case(
                f"Grad-CAM, batch {n}",
                1.05,
                {
                    FORWARD: self.forward("resnet50", n),
                    OURS: self.ours("resnet50", n, layer="layer4"),
                    "hookmap bf16": self.ours("resnet50", n, layer="layer4", precision="bf16"),
                    "pytorch-grad-cam": self.grad_cam("resnet50", n, ["layer4"]),
                    "torch-cam": self.torch_cam("resnet50", n, "layer4"),
                    "Captum": self.captum("resnet50", n, "layer4"),
                },
            )
            for n in (1, 8)
        ]
        cases += [
            self._case("9 gradient methods x 5 classes", 1.3, layer="layer4", method=GRADIENT_METHODS, target=five),
            self._case("all 16 blocks x Grad-CAM", 3.2, layer=blocks),
            self._case("Ablation-CAM, ResNet-18", 3, "resnet18", layer="layer4", method="ablationcam"),
            self._case("Ablation-CAM, ResNet-50", 6, layer="layer4", method="ablationcam"),
            self._case("Ablation-CAM, ResNet-18, layer3", None, "resnet18", layer="layer3", method="ablationcam"),
            self._case("Recipro-CAM", 1.5, layer="layer4", method="reciprocam"),
            self._case("Eigen-CAM, layer4", 1.3, layer="layer4", method="eigencam"),
            self._case("Eigen-CAM, layer1", 2.5, layer="layer1", method="eigencam"),
            self._case("Score-CAM, ResNet-18", None, "resnet18", layer="layer4", method="scorecamsoftmax"),
            self._case("Score-CAM, ResNet-50", None, layer="layer4", method="scorecamsoftmax"),
        ]
        peers = {
            "9 gradient methods x 5 classes": lambda: [run() for run in nine],
            "all 16 blocks x Grad-CAM": lambda: [run() for run in each],
            "Ablation-CAM, ResNet-18": self.grad_cam("resnet18", 1, ["layer4"], "AblationCAM"),
            "Ablation-CAM, ResNet-50": self.grad_cam("resnet50", 1, ["layer4"], "AblationCAM"),
            "Eigen-CAM, layer4": self.grad_cam("resnet50", 1, ["layer4"], "EigenCAM"),
            "Eigen-CAM, layer1": self.grad_cam("resnet50", 1, ["layer1"], "EigenCAM"),
            "Score-CAM, ResNet-18": self.grad_cam("resnet18", 1, ["layer4"], "ScoreCAM"),
            "Score-CAM, ResNet-50": self.grad_cam("resnet50", 1, ["layer4"], "ScoreCAM"),
        }
        for case in cases:
            if case.name in peers:
                case.runs["pytorch-grad-cam"] = peers[case.name]
            if case.name == "Ablation-CAM, ResNet-18":
                case.runs["Captum"] = self.captum_ablation("resnet18", "layer4", 512)
            if case.name.startswith("Score-CAM"):
                model = "resnet18" if "18" in case.name else "resnet50"
                how = {"layer": "layer4", "method": "scorecamsoftmax"}
                case.runs["hookmap bf16"] = self.ours(model, 1, precision="bf16", **how)
        return cases

    def _case(self, name: str, goal: float | None, model: str = "resnet50", **asked: object) -> Case:
        return Case(name, goal, {FORWARD: self.forward(model, 1), OURS: self.ours(model, 1, **asked)})


def measure(case: Case, rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each contender; one that takes long has fewer rounds."""
    times: dict[str, list[float]] = {name: [] for name in case.runs}
    spent = dict.fromkeys(case.runs, 0.0)
    for i in range(rounds + 1):
        for name, run in case.runs.items():
            if spent[name] > 20:
                continue
            if i and spent[name] / i < 1:
                run()  # what the contender before left in caches and allocators isn't its fault
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
            spent[name] += seconds
            if i or seconds > 5:  # the first round warms up
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def kept_for_backward(run: Run, model: nn.Module) -> float:
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


def peak_memory(case: str, contender: str) -> float:
    """MiB that a contender needs beyond what a plain forward pass had needed, in a process of its own."""
    command = [sys.executable, __file__, "--peak", case, contender]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(case_name: str, contender: str) -> None:
    case = next(case for case in Bench(torch.device("cpu")).cases() if case.name == case_name)
    case.runs[FORWARD]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    case.runs[contender]()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)


def throughput(bench: Bench, rounds: int) -> list[dict[str, object]]:
    """Images a second at batch 64: only a GPU's are worth quoting."""
    model, x = bench.models["resnet50"], bench.inputs[64]
    rows: list[dict[str, object]] = []
    for precision in ("fp32", "bf16"):
        for compiled in (False, True):
            lens = hm.Lens(model, precision=precision, compile=compiled)
            bare = torch.compile(model) if compiled else model

            def forward(bare: nn.Module = bare, bf16: bool = precision == "bf16") -> object:
                with torch.no_grad(), torch.autocast(bench.device.type, torch.bfloat16, enabled=bf16):
                    return bare(x)

            def explain(lens: hm.Lens = lens) -> object:
                return [h.raw for h in lens.explain(x, CLASS, "layer4", batch_size=64)]

            forward(), explain()  # compiles
            seconds = measure(Case("", None, {FORWARD: forward, OURS: explain}), rounds, bench.device)
            rows.append(
                {
                    "precision": precision,
                    "compiled": compiled,
                    "forward, images/s": round(64 / seconds[FORWARD]),
                    "Grad-CAM, images/s": round(64 / seconds[OURS]),
                }
            )
    return rows


def rows_of(bench: Bench, options: argparse.Namespace) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for case in bench.cases():
        if options.only and options.only.casefold() not in case.name.casefold():
            continue
        seconds = measure(case, options.rounds, bench.device)
        kept = {}
        if case.name == "Grad-CAM, batch 8":
            kept = {name: kept_for_backward(run, bench.models["resnet50"]) for name, run in case.runs.items()}
        for name in case.runs:
            row: dict[str, object] = {
                "what": case.name,
                "by": name,
                "goal": case.goal if name == OURS and case.goal else "",
                "forwards": round(seconds[name] / seconds[FORWARD], 2),
                "times hookmap": round(seconds[name] / seconds[OURS], 2),
                "MiB kept for backward": round(kept[name], 2) if name in kept else "",
                "peak MiB": "",
            }
            if (
                options.memory
                and bench.device.type == "cpu"
                and case.name in ("Score-CAM, ResNet-50", "Grad-CAM, batch 8")
            ):
                row["peak MiB"] = round(peak_memory(case.name, name))
            rows.append(row)
            print(row, file=sys.stderr)
    return rows


def written(rows: list[dict[str, object]], folder: Path | None, name: str, title: str) -> None:
    headings = list(rows[0])
    table = Table(*headings, title=title)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=130).print(table)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"title": title, "rows": rows}, indent=2) + "\n")
    lines = [headings, ["---"] * len(headings), *[[str(v) for v in row.values()] for row in rows]]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    (folder / f"{name}.md").write_text(f"# {name.capitalize()}\n\n{title}\n\n{text}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="cases whose name holds this text")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="peak memory too, each in a process of its own")
    parser.add_argument("--throughput", action="store_true", help="images a second at batch 64 instead")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    if options.peak:
        print_peak(*options.peak)
        return
    device = torch.device(options.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    title = f"ResNet-50 unless said, 224x224, {where}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    bench = Bench(device)
    rows = throughput(bench, options.rounds) if options.throughput else rows_of(bench, options)
    written(rows, options.output, "throughput" if options.throughput else "methods", title)


if __name__ == "__main__":
    main()
