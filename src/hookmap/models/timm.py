"""Models of timm: its registry, its data configuration and its labels."""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from torch import nn

from hookmap.adapters.embedding import Embedder
from hookmap.images.preprocessing import Preprocessing
from hookmap.models.loaded import Entry, Loaded, is_untrained, no_names, no_weights


def has(name: str) -> bool:
    """Whether timm builds a model of this name, with or without a weights' tag."""
    import timm

    return bool(timm.is_model(name)) and ("." not in name or name in _tagged())


@functools.cache
def _tagged() -> frozenset[str]:
    import timm

    return frozenset(timm.list_models(pretrained=True))


def names() -> list[str]:
    """All architectures."""
    import timm

    return list(timm.list_models())


def build(name: str, *, pretrained: bool = True, num_classes: int | None = None) -> Loaded:
    """``timm.create_model``, with the data configuration of its weights."""
    import timm

    classes = {} if num_classes is None else {"num_classes": num_classes}
    if not pretrained:
        return _described(timm.create_model(name, pretrained=False, **classes), name)
    try:
        with failing_fast():
            model = timm.create_model(name, pretrained=True, **classes)
        return _described(model, name)
    except Exception as error:  # hub clients raise whatever their transport does
        raise no_weights(name, error) from None


@contextmanager
def failing_fast() -> Iterator[bool]:
    """Without a network the hub's client retries for most of a minute; then look at its cache only.

    Gives whether only the cache is looked at.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    host = urlsplit(constants.ENDPOINT).hostname
    if not getproxies():
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield constants.HF_HUB_OFFLINE
    finally:
        constants.HF_HUB_OFFLINE = before


def describe(model: nn.Module) -> Loaded:
    """Preprocessing and labels of a timm model, from its ``pretrained_cfg``; an untrained or new head has no labels."""
    loaded = _described(model, None)
    head = getattr(model, "get_classifier", lambda: None)()
    if loaded.labels and isinstance(head, (nn.Linear, nn.Conv2d)) and is_untrained(head):
        loaded.labels = None
        loaded.unnamed = no_names(loaded.name)
    return loaded


def _described(model: nn.Module, name: str | None) -> Loaded:
    from timm.data import resolve_model_data_config

    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    data = resolve_model_data_config(model)
    patches: Any = getattr(model, "patch_embed", None)
    if getattr(patches, "strict_img_size", False) and patches.img_size:  # the config keeps the size of the weights
        data = {**data, "input_size": (data["input_size"][0], *patches.img_size)}
    preprocessing = Preprocessing.from_timm(data)
    loaded = Loaded(model, name or config.get("architecture") or type(model).__name__, preprocessing, _labels(model))
    if _embeds(model, config):
        loaded.adapter = Embedder(model, preprocessing)
    return loaded


def _embeds(model: nn.Module, config: dict[str, Any]) -> bool:
    """Whether there's no head, or one that was published to project into a space of pictures and texts.

    Their widths are multiples of 128 (CLIP's, SigLIP's and DFN's towers), which no published set of classes has.
    """
    width = getattr(model, "num_classes", None)
    return width == 0 or (width == config.get("num_classes") and width is not None and width % 128 == 0)


def _labels(model: nn.Module) -> Sequence[str] | None:
    from timm.data import infer_imagenet_subset

    classes = getattr(model, "num_classes", 0)
    subset = infer_imagenet_subset(model)
    # A model that was fine-tuned on 1000 classes of its own can't be told from an ImageNet one.
    if not subset and classes != 1000:
        return None
    return _names(subset or "imagenet-1k")[:classes]


@functools.cache
def _names(subset: str) -> list[str]:
    """Of the classes of a set that timm knows, whose files take longer to read than a small model to run."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo(subset)
    return [info.index_to_description(i, detailed=False) for i in range(info.num_classes())]


def entries() -> list[Entry]:
    """All architectures with pretrained weights, and whether those are on this disk."""
    import timm

    cached = _cached_repositories()
    found = []
    for name in timm.list_models():
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        hub = config.hf_hub_id if config else None
        state = "none" if config is None or not config.has_weights else "download"
        if config and hub and _repository(hub, name, config) in cached:
            state = "cached"
        found.append(Entry(name, "timm", state))
    return found


def _repository(hub: str, name: str, config: Any) -> str:
    # "timm/" stands for the repository of the same name and tag in that organisation.
    return f"{hub}{name}.{config.tag}" if hub.endswith("/") else str(hub)


def _cached_repositories() -> set[str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    return {p.name.removeprefix("models--").replace("--", "/") for p in Path(HF_HUB_CACHE).glob("models--*")}
