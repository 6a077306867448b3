"""Classifiers of torchvision: pictures and video clips."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hookmap.models.loaded import Entry, Loaded, no_weights
from hookmap.preprocessing import IMAGENET, Preprocessing


@functools.cache
def _names() -> tuple[str, ...]:
    from torchvision import models

    return tuple(models.list_models(module=models)) + tuple(models.list_models(module=models.video))


def names() -> list[str]:
    """All image and video classifiers."""
    return list(_names())


def has(name: str) -> bool:
    """Whether torchvision builds a classifier of this name."""
    return name in _names()


def build(name: str, *, pretrained: bool = True, num_classes: int | None = None) -> Loaded:
    """The builder of this name, with its default weights' transforms and categories."""
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3") and not pretrained:
        options |= {"init_weights": False, "aux_logits": False}
    try:
        model = models.get_model(name, weights=weights if pretrained else None, **options)
    except Exception as error:  # a download fails in many ways
        if not pretrained:
            raise
        raise no_weights(name, error) from None
    image = getattr(models.video, name, None) is None
    preprocessing = Preprocessing.from_transform(weights.transforms()) if image else None
    labels = weights.meta["categories"] if num_classes is None else None
    return Loaded(model, name, preprocessing, labels)


def describe(model: nn.Module) -> Loaded:
    """A torchvision module doesn't know its weights: ImageNet's preprocessing and labels are assumed, and said."""
    from torchvision import models

    name = type(model).__name__
    module = type(model).__module__
    if not module.startswith("torchvision.models.") or any(
        part in module for part in ("video", "detection", "segmentation", "optical_flow")
    ):
        return Loaded(model, name)
    last = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    classes = last.out_features if isinstance(last, nn.Linear) else last.out_channels
    labels = models.ResNet18_Weights.DEFAULT.meta["categories"] if classes == 1000 else None
    note = (
        f"a torchvision {name} doesn't say how its images were preprocessed: ImageNet's usual way is assumed "
        "(resize 256, crop 224); pass preprocessing=weights.transforms() to be sure"
    )
    return Loaded(model, name, IMAGENET, labels, note)


def entries() -> list[Entry]:
    """All classifiers, and whether their default weights are on this disk."""
    from torchvision import models

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    found = []
    for name in names():
        file = models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
        found.append(Entry(name, "torchvision", "cached" if (folder / file).exists() else "download"))
    return found
