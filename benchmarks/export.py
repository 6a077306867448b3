"""What a heatmap costs in an exported file: time in ONNX Runtime and size, beside the plain export of the model.

    python benchmarks/export.py [--only TEXT] [--rounds 15]

Both files run alternating in one process on one thread, batch 1; medians of CPU time, which other work on the machine
changes least.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import timm
import torch
from torch import nn
from torchvision import models

import hookmap as hm

CASES: dict[str, tuple[Callable[[], nn.Module], str | None, str | None]] = {
    "EfficientNet-Lite0, default": (lambda: hm.Lens().model, None, None),
    "ResNet-18, default": (models.resnet18, None, None),
    "ResNet-18, layer3": (models.resnet18, "layer3", "layercam"),
    "ResNet-50, default": (models.resnet50, None, None),
    "ResNet-50, layer3": (models.resnet50, "layer3", "layercam"),
    "ViT-Ti, last block": (lambda: timm.create_model("vit_tiny_patch16_224"), "blocks.11.norm1", "hirescam"),
    "ViT-Ti, default": (lambda: timm.create_model("vit_tiny_patch16_224"), None, None),
    "MobileNetV3, default": (models.mobilenet_v3_small, None, None),
    "VGG-11, default": (models.vgg11_bn, None, None),
    "ConvNeXt-T, default": (models.convnext_tiny, None, None),
    "Swin-T, default": (models.swin_t, None, None),
}


def session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| model, layer | method | CPU ms, plain | CPU ms, with heatmap | ratio | MiB, plain | MiB, with heatmap |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, (build, layer, method) in CASES.items():
            if asked.only in name:
                print(row(name, build, layer, method, Path(folder), asked.rounds), flush=True)


def row(name: str, build: Callable[[], nn.Module], layer: str | None, method: str | None, folder: Path, n: int) -> str:
    torch.manual_seed(0)
    net = build().eval()
    lens, plain, both = hm.Lens(net), folder / "plain.onnx", folder / "both.onnx"
    x = lens.engine.example()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(net, (x,), dynamo=True, verbose=False, external_data=False)
        made.save(plain)
    lens.export(both, method, layer, overwrite=True, progress=False)
    files = [session(plain), session(both)]
    given = [{file.get_inputs()[0].name: x.numpy()} for file in files]
    times: list[list[float]] = [[], []]
    for _ in range(n):
        for number, file in enumerate(files):
            start = time.thread_time()
            file.run(None, given[number])
            times[number].append(1000 * (time.thread_time() - start))
    a, b = (statistics.median(each) for each in times)
    ratio = statistics.median(np.divide(times[1], times[0]))
    sizes = [place.stat().st_size / 2**20 for place in (plain, both)]
    used = method or lens.engine.choice(x).method
    return f"| {name} | {used} | {a:.1f} | {b:.1f} | {ratio:.2f} | {sizes[0]:.1f} | {sizes[1]:.1f} |"


if __name__ == "__main__":
    main()
