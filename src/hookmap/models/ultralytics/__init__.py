"""Models of Ultralytics: YOLO and RT-DETR, as objects that the user built, or by name without their pickled weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from torch import Tensor, nn

from hookmap.errors import MissingLibraryError, ModelError
from hookmap.models.loaded import Loaded
from hookmap.models.ultralytics.adapters import ADAPTERS, UltralyticsAdapter, network_of

PREFIX = "ultralytics/"


def has(name: str) -> bool:
    """Whether a name is meant for Ultralytics: ``yolo11n``, ``ultralytics/...``, or a file that ends with ``.pt``."""
    known = re.fullmatch(r"(yolov?\d|yoloe|rtdetr-)[\w-]*(\.yaml)?", name)
    return name.startswith(PREFIX) or name.endswith(".pt") or known is not None


def build(name: str, *, pretrained: bool = True, num_classes: int | None = None) -> Loaded:
    """The architecture of that name, with random weights.

    Raises:
        ModelError: if its pretrained weights are asked for, which lie in pickles; if there is none of that name.
    """
    plain = PurePath(name.removeprefix(PREFIX) if name.startswith(PREFIX) else name)
    file = plain if plain.suffix == ".pt" else f"{plain.stem}.pt"
    if pretrained or plain.suffix == ".pt":
        raise ModelError(
            f"{file} is a pickled model, and reading it may run any code, so hookmap doesn't; where you trust it, pass "
            f"hm.Lens(YOLO('{file}')) from ultralytics (on the command line a factory that gives it, file.py:factory), "
            "or the architecture's name with a state dict (weights=, --weights), or random weights (pretrained=False, "
            "--no-pretrained)"
        )
    library = _library()
    try:
        kind = library.RTDETR if "rtdetr" in plain.stem else library.YOLO
        model = kind(f"{plain.stem}.yaml").model
    except FileNotFoundError:
        raise ModelError(
            f"ultralytics has no architecture {plain.stem!r}; expected e.g. yolo11n, yolov8s-seg, yolo26n-pose"
        ) from None
    if num_classes is not None:
        model = type(model)(model.yaml, nc=num_classes, verbose=False)
    if hasattr(model, "args"):
        del model.args  # sizes for training from scratch
    loaded = describe(model)
    loaded.name = plain.stem
    return loaded


def knows(model: nn.Module) -> bool:
    """Whether a module is a ``YOLO`` or its like, or the network in one."""
    ours = ("ultralytics.engine.model", "ultralytics.nn.tasks")
    return any(kind.__module__ in ours for kind in type(model).__mro__)


def number_of_classes(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """How many classes the checkpoint's head has, where that isn't what the model has."""
    known: Any = model
    rows = {
        tensor.shape[0]
        for key, tensor in state.items()
        if re.fullmatch(
            rf"(model\.)*{len(known.model) - 1}\.(cv3\.0\.2|linear|classifier\.1|enc_score_head)\.bias", key
        )
    }
    return rows.pop() if len(rows) == 1 and rows != {known.yaml["nc"]} else None


def describe(model: nn.Module) -> Loaded:
    """How a ``YOLO``, or the network in one, is called and read, its labels, and its preprocessing.

    Raises:
        ModelError: for an exported model, whose layers can't be hooked.
    """
    network: Any = network_of(model)
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"this {type(model).__name__} holds the exported model {network}, whose layers can't be hooked; pass the "
            "one that it was exported from"
        )
    called = PurePath(str(getattr(model, "model_name", None) or getattr(network, "pt_path", None) or "")).stem
    loaded = Loaded(network, called or type(network).__name__)
    layers = getattr(network, "model", None)
    head = type(layers[-1]).__mro__ if isinstance(layers, nn.Sequential) else ()
    kind = next((kind.__name__ for kind in head if kind.__module__.startswith("ultralytics.")), "")
    if kind in ADAPTERS:
        adapter: UltralyticsAdapter = ADAPTERS[kind](model)
        loaded.adapter, loaded.preprocessing, loaded.labels = adapter, adapter.preprocessing, adapter.labels
    return loaded


def _library() -> Any:
    try:
        import ultralytics
    except ImportError:
        raise MissingLibraryError(
            "models of Ultralytics need ultralytics, which isn't installed; pip install 'hookmap[ultralytics]' (its "
            "licence is AGPL-3.0)"
        ) from None
    return ultralytics
