"""Models of segmentation_models_pytorch: dense scores, with what their encoder says of its pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from hookmap.images.preprocessing import Preprocessing
from hookmap.models.loaded import Loaded

_LONGEST = 1024
_IMAGENET: Mapping[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def knows(model: nn.Module) -> bool:
    """Whether the library made this model."""
    return any(base.__module__ == "segmentation_models_pytorch.base.model" for base in type(model).__mro__)


def describe(model: nn.Module) -> Loaded:
    """How pictures are preprocessed: the encoder's mean and deviation, and a size that the network takes, as assumed.

    The layer that is explained is found as for any segmenter: mostly the encoder's last stage.
    """
    config: Mapping[str, Any] = getattr(model, "_hub_mixin_config", None) or {}
    encoder = str(config.get("encoder_name", ""))
    channels, stride = config.get("in_channels", 3), getattr(model.encoder, "output_stride", 32)
    called = f"{type(model).__name__}({encoder})" if encoder else type(model).__name__
    if channels not in (1, 3):
        return Loaded(model, called)
    known = _settings(encoder, config.get("encoder_weights"))
    top = (known.get("input_range") or (0, 1))[1]
    mean, std = (tuple(float(v) / top for v in known[word]) for word in ("mean", "std"))
    if channels == 1:  # the library sums the weights over the colours
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    note = (
        f"a segmentation_models_pytorch {called} doesn't say how its pictures were resized: their own size is assumed, "
        f"up to {_LONGEST} on the longer side, in multiples of {stride}; pass preprocessing= to be sure"
    )
    resize = partial(fitting, stride=stride)
    return Loaded(
        model, called, Preprocessing(size=(512, 512), resize=resize, mean=mean, std=std, any_size=True), note=note
    )


def fitting(height: int, width: int, *, stride: int) -> tuple[int, int]:
    """The nearest size (h, w) in multiples of ``stride``, shrunk where the longer side is too long.

    >>> fitting(300, 451, stride=32), fitting(2000, 3000, stride=32)
    ((288, 448), (672, 1024))
    """
    shrunk = min(1.0, _LONGEST / max(height, width))
    high, wide = (max(stride, round(side * shrunk / stride) * stride) for side in (height, width))
    return high, wide


def _settings(encoder: str, weights: Any) -> Mapping[str, Any]:
    """Mean, deviation and range of the encoder's weights, from what is on this disk; ImageNet's otherwise."""
    from huggingface_hub import try_to_load_from_cache
    from segmentation_models_pytorch.encoders import encoders

    if encoder.startswith("tu-"):
        import timm

        config = timm.get_pretrained_cfg(encoder.removeprefix("tu-"), allow_unregistered=True)
        return {"mean": config.mean, "std": config.std} if config is not None else _IMAGENET
    source = encoders.get(encoder, {}).get("pretrained_settings", {}).get(weights)
    if source is None:
        return _IMAGENET
    # Whoever loaded the weights has their config too; nothing is downloaded here.
    path = try_to_load_from_cache(source["repo_id"], "config.json", revision=source["revision"])
    return json.loads(Path(path).read_text()) if isinstance(path, str) else _IMAGENET
