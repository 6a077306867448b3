"""Models of transformers that say something about a picture: what they are given, and where its tokens go."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from hookmap.models.loaded import Loaded
from hookmap.models.vision_language.model import VisionLanguage

__all__ = ["VisionLanguage", "describe", "knows"]


def knows(model: nn.Module) -> bool:
    """Whether a model of transformers generates text from pixels."""
    if isinstance(model, VisionLanguage):
        return True
    known: Any = model
    library = any(kind.__module__ == "transformers.modeling_utils" for kind in type(model).__mro__)
    return library and known.can_generate() and "pixel_values" in inspect.signature(known.forward).parameters


def describe(model: nn.Module, source: str | None = None, *, download: bool = False) -> Loaded | None:
    """What is known of a model that answers in words; None for others.

    Args:
        model: that the user built, or an adapter of it.
        source: the folder or repository that its weights came from; by default what the model remembers.
        download: look for its processor on the hub as well.
    """
    if not knows(model):
        return None
    adapter = model if isinstance(model, VisionLanguage) else VisionLanguage(model, source=source, download=download)
    plain: Any = adapter.plain
    return Loaded(plain, source or plain.name_or_path or type(plain).__name__, adapter=adapter)
