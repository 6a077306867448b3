"""What questions of the interface cost beside the prediction, in plain forwards of the same model, alternating.

    python benchmarks/interface.py

CPU seconds, so that other work on the machine doesn't count; answers as bytes, as they are sent. One photo is opened,
and then asked about more classes and layers, from its kept pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from cpu_time import medians

import hookmap as hm
from hookmap.explorer.answering import Explorer
from hookmap.explorer.questions import Explain, Features, Predict, Stages
from hookmap.explorer.wire import packed

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "photos" / "cat.jpg"


def main() -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval()
    lens = hm.Lens(model, preprocessing=hm.Preprocessing(size=(224, 224)))
    explorer = Explorer({"resnet50": lens.engine}, [PHOTO])
    picture, x = explorer.samples()[0].id, torch.randn(1, 3, 224, 224)
    classes = iter(range(10**9))
    explorer.answer(Predict(model="resnet50", picture=picture))

    def asked(target: str, layer: str | None = None) -> None:
        packed(explorer.answer(Explain(model="resnet50", picture=picture, target=target, layer=layer)))

    def forward() -> None:
        with torch.no_grad():
            model(x)

    def opened() -> None:
        explorer._opened.clear()
        explorer.answer(Predict(model="resnet50", picture=picture))

    ways: dict[str, Callable[[], object]] = {
        "forward": forward,
        "a photo is opened and predicted": opened,
        "another class": lambda: asked(str(next(classes) % 1000)),
        "all stages": lambda: explorer.answer(Stages(model="resnet50", picture=picture)),
        "channels of layer3, by influence": lambda: explorer.answer(
            Features(model="resnet50", picture=picture, layer="layer3", target="3")
        ),
    }
    for layer in ("layer4", "layer3", "layer2", "layer1", "relu"):
        ways[f"another class at {layer}"] = lambda layer=layer: asked(str(next(classes) % 1000), layer)  # type: ignore[misc]
    found = medians(ways, 9)
    for name, seconds in found.items():
        print(f"{name:40} {seconds / found['forward']:.2f}")


if __name__ == "__main__":
    main()
