"""Models by name: built, loaded with weights, and with what their library knows of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import isfunction
from pathlib import Path
from typing import Any

from torch import nn

from hookmap._text import did_you_mean
from hookmap.adapters.adapter import Adapter
from hookmap.errors import ModelError
from hookmap.models import (
    checkpoint,
    custom,
    embedded,
    image_text,
    onnx,
    rfdetr,
    smp,
    timm,
    torchvision,
    transformers,
    ultralytics,
)
from hookmap.models.loaded import Entry, Loaded

__all__ = ["DEFAULT", "Entry", "Loaded", "available", "describe", "holds_one", "load", "why_no_model"]

DEFAULT = embedded.NAME


def load(name: str, *, pretrained: bool = True, weights: str | Path | None = None) -> Loaded:
    """Build a model by name, in evaluation mode.

    Args:
        name: ``"efficientnet_lite0"`` (weights packaged), ``"resnet50"`` (torchvision if it has it, else timm),
            ``"torchvision/resnet50"``, ``"timm/resnet50.a1_in1k"``, ``"hf/facebook/detr-resnet-50"`` or a folder that
            transformers wrote, ``"yolo11n"`` (Ultralytics, without its own weights), ``"net.onnx"``,
            ``"package.module:factory"`` or ``"file.py:factory"``.
        pretrained: load the library's own weights, downloading them if need be.
        weights: a checkpoint to load instead; where only the number of classes differs, the head is built
            to fit.

    Raises:
        ModelError: for a name that isn't known (with suggestions) and weights that can't be had or don't fit.
        MissingLibraryError: without the library that has the model.
    """
    build = _builder(name)
    if weights is None:
        loaded = build(pretrained=pretrained)
        if not pretrained:
            loaded.note = f"{name} has random weights: its maps say nothing about a trained network"
    else:
        state = checkpoint.read_state_dict(weights)
        loaded = build(pretrained=False)
        if transformers.knows(loaded.model):
            state = transformers.renamed(loaded.model, state)
        counted = ultralytics.number_of_classes if ultralytics.knows(loaded.model) else None
        classes = (counted or checkpoint.other_number_of_classes)(loaded.model, state)
        if classes is not None:
            loaded = build(pretrained=False, num_classes=classes)
            loaded.labels = None
        checkpoint.load_into(loaded.model, state, source=str(weights))
    loaded.model.eval()
    return loaded


def _builder(name: str) -> Callable[..., Loaded]:
    if onnx.has(name):
        return partial(onnx.build, name)
    if ":" in name:
        return partial(custom.build, name)
    if name == DEFAULT:
        return embedded.build
    library, _, plain = name.rpartition("/")
    if library in ("", "torchvision") and torchvision.has(plain):
        return partial(torchvision.build, plain)
    if library in ("", "timm") and timm.has(plain):
        return partial(timm.build, plain)
    if ultralytics.has(name):
        return partial(ultralytics.build, name)
    if library not in ("torchvision", "timm") and transformers.has(name):
        return partial(transformers.build, name)
    every = {DEFAULT, *torchvision.names(), *timm.names()}
    if name.endswith(".py"):
        raise ModelError(f"{name} is a file; name the function in it that builds the model, as in {name}:build")
    hint = did_you_mean(plain, every, "`hookmap models` lists all")
    raise ModelError(f"no model is called {name!r}; {hint} (your own: file.py:factory or package.module:factory)")


def holds_one(model: object) -> bool:
    """Whether this is a module, or an object of a library that holds its module, such as ``rfdetr.RFDETRNano()``."""
    return isinstance(model, nn.Module) or rfdetr.knows(model)


_RUNTIMES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "tensorrt_bindings": "TensorRT",
}
"""By the packages of their objects."""


def why_no_model(model: object) -> str:
    """Why something for which :func:`holds_one` is false can't be looked into."""
    kind = type(model)
    runtime = _RUNTIMES.get(kind.__module__.partition(".")[0])
    if runtime is not None:
        return (
            f"the model is a {kind.__name__} of {runtime}, which gives neither layers nor gradients; pass the module "
            f"that it was made from, or its .onnx file; for heatmaps in {runtime} itself, write one with Lens.export "
            "(hookmap export)"
        )
    if isinstance(model, type) and issubclass(model, nn.Module):
        return f"{model.__name__} is the class of a model; pass a model of this class: Lens({model.__name__}(...))"
    if isfunction(model):
        return f"{model.__name__} is a function; pass the torch.nn.Module that it builds, if it does, or a model's name"
    return f"the model was given as {kind.__name__}; expected a torch.nn.Module or a model's name"


def describe(model: Any) -> Loaded:
    """What is known of a model that the user built: preprocessing and labels, from its library's metadata.

    Args:
        model: for which :func:`holds_one` is true.

    Raises:
        ModelError: for one that takes prompts in a way that isn't read.
    """
    loaded = _described(model)
    parts = {name for name, _ in loaded.model.named_children()}
    if loaded.adapter is None and not isinstance(model, Adapter) and parts & {"prompt_encoder", "sam_prompt_encoder"}:
        raise ModelError(
            f"how {type(loaded.model).__name__} takes prompts isn't known; pass the same weights as SamModel, "
            "SamHQModel, Sam2Model or EdgeTamModel of transformers, or an hm.Adapter that gives hm.Promptable"
        )
    return loaded


def _described(model: Any) -> Loaded:
    if rfdetr.knows(model):
        return rfdetr.describe(model)
    if (found := image_text.describe(model)) is not None:
        return found
    if transformers.knows(model):
        return transformers.describe(model)
    if ultralytics.knows(model):
        return ultralytics.describe(model)
    if isinstance(model, Adapter):
        return Loaded(model, type(model).__name__, model.preprocessing, model.labels)
    library = type(model).__module__.partition(".")[0]
    if isinstance(getattr(model, "pretrained_cfg", None), dict):
        return timm.describe(model)
    if library == "torchvision":
        return torchvision.describe(model)
    if smp.knows(model):
        return smp.describe(model)
    return Loaded(model, type(model).__name__)


def available(pattern: str | None = None) -> list[Entry]:
    """Models that can be loaded by name, the embedded default first; those whose name holds ``pattern``."""
    entries = [Entry(DEFAULT, "hookmap", "packaged"), *torchvision.entries(), *timm.entries()]
    return [entry for entry in entries if pattern is None or pattern.casefold() in entry.name.casefold()]
