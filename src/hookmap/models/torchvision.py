"""Torchvision: classifiers of pictures and video clips, detectors, segmenters."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hookmap.adapters.detection import PIXELS, OneStageDetector, TwoStageDetector
from hookmap.adapters.segmentation import Segmenter
from hookmap.images.preprocessing import IMAGENET, Preprocessing
from hookmap.models.loaded import Entry, Loaded, is_untrained, no_names, no_weights


@functools.cache
def _names() -> tuple[str, ...]:
    from torchvision import models

    modules = (models, models.video, models.detection, models.segmentation)
    return tuple(name for module in modules for name in models.list_models(module=module))


def names() -> list[str]:
    """All classifiers of images and videos, detectors and segmenters."""
    return list(_names())


def has(name: str) -> bool:
    """Whether torchvision builds a model of this name."""
    return name in _names()


def build(name: str, *, pretrained: bool = True, num_classes: int | None = None) -> Loaded:
    """The builder of this name, with its default weights' transforms and categories."""
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    task = _task(name)
    if task in ("detection", "segmentation"):
        options["weights_backbone"] = None  # all weights come together or not at all
    if name in ("googlenet", "inception_v3") and not pretrained:
        options |= {"init_weights": False, "aux_logits": False}
    try:
        model = models.get_model(name, weights=weights if pretrained else None, **options)
    except Exception as error:  # a download fails in many ways
        if not pretrained:
            raise
        raise no_weights(name, error) from None
    labels = weights.meta["categories"] if num_classes is None else None
    preprocessing = None if task == "detection" else Preprocessing.from_transform(weights.transforms())
    loaded = Loaded(model, name, preprocessing, labels)
    return _adapted(loaded, task)


def _adapted(loaded: Loaded, task: str) -> Loaded:
    if task == "detection":
        two_stage = hasattr(loaded.model, "roi_heads")
        loaded.adapter = TwoStageDetector(loaded.model) if two_stage else OneStageDetector(loaded.model)
        loaded.preprocessing = PIXELS
    elif task == "segmentation":
        loaded.adapter = Segmenter(loaded.model)
    return loaded


def _task(name: str) -> str:
    from torchvision import models

    tasks = {"detection": models.detection, "segmentation": models.segmentation, "video": models.video}
    return next((task for task, module in tasks.items() if name in models.list_models(module=module)), "image")


def describe(model: nn.Module) -> Loaded:
    """A torchvision module doesn't know its weights: ImageNet's preprocessing and labels are assumed, and said."""
    from torchvision import models

    name, module = type(model).__name__, type(model).__module__
    parts = module.split(".")
    if parts[:2] != ["torchvision", "models"] or not {"video", "optical_flow"}.isdisjoint(parts):
        return Loaded(model, name)
    if "detection" in parts:
        return _adapted(Loaded(model, name, labels=_coco(model)), "detection")
    if "segmentation" in parts:
        note = (
            f"a torchvision {name} doesn't say how its images were preprocessed: the usual way is assumed (shorter "
            "side 520, ImageNet's mean and standard deviation); pass preprocessing=weights.transforms() to be sure"
        )
        usual = Preprocessing(size=(520, 520), resize=520, any_size=True)
        return _adapted(Loaded(model, name, usual, note=note), "segmentation")
    # Quantised layers are of other classes, with the same attributes.
    sized = [m for m in model.modules() if hasattr(m, "out_features") or hasattr(m, "out_channels")]
    last = sized[-1] if sized else model
    classes = getattr(last, "out_features", None) or getattr(last, "out_channels", None)
    untrained = isinstance(last, (nn.Linear, nn.Conv2d)) and is_untrained(last)
    known = classes == 1000 and not untrained
    labels = models.ResNet18_Weights.DEFAULT.meta["categories"] if known else None
    note = (
        f"a torchvision {name} doesn't say how its images were preprocessed: ImageNet's usual way is assumed (resize "
        "256, crop 224); pass preprocessing=weights.transforms() to be sure"
    )
    unnamed = None
    if known:
        unnamed = (
            f"a torchvision {name} doesn't say what its classes are: ImageNet's are assumed; pass labels= to be sure"
        )
    elif classes == 1000:
        unnamed = no_names(name)
    return Loaded(model, name, IMAGENET, labels, note, unnamed)


def _coco(model: nn.Module) -> Sequence[str] | None:
    """COCO's names, if the head has as many classes."""
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights as weights

    names: Sequence[str] = weights.DEFAULT.meta["categories"]
    heads = [m for n, m in model.named_modules() if n.endswith(("cls_score", "classification_head"))]
    counts = [getattr(head, name, None) for head in heads for name in ("out_features", "num_classes", "num_columns")]
    return names if len(names) in counts else None


def entries() -> list[Entry]:
    """All models, and whether their default weights are on this disk."""
    from torchvision import models

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    found = []
    for name in names():
        file = models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
        gives = {"detection": "detections", "segmentation": "regions"}.get(_task(name), "classes")
        found.append(Entry(name, "torchvision", "cached" if (folder / file).exists() else "download", gives))
    return found
