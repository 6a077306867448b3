"""A model that is called with one batch of inputs and gives what targets can read, whatever its library does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from hookmap.images.preprocessing import Preprocessing

Fusion: TypeAlias = Literal["sum", "last", "mean", "max", "product", "layercam"]
"""How the maps of several layers become one: see ``hookmap.attribution.modifiers.fused``."""


class Adapter(nn.Module):
    """The user's model under another way of calling it; its layers are the same and keep their names.

    A subclass says how the model is called and what its output means::

        class MyDetector(hm.Adapter):
            preprocessing = hm.Preprocessing(size=(640, 640), resize="letterbox")
            labels = ["cat", "dog"]

            def forward(self, x):                        # (B, C, H, W)
                scores, boxes = self.plain(x)
                probabilities = scores.sigmoid()
                return hm.Detections(scores, boxes, probabilities, hm.keep_best(boxes, probabilities))

        lens = hm.Lens(MyDetector(model))

    Give class scores ``(B, K)``, dense scores ``(B, K, h, w)``, :class:`hookmap.Detections` or
    :class:`hookmap.Embeddings`; anything else is for targets that are functions.

    Args:
        model: whose layers, parameters and buffers these are; nothing is copied.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # The very same tables: hooks find the model's layers under their own names.
        for table in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[table] = model.__dict__[table]
        self.__dict__["plain"] = model
        self.training = model.training

    plain: Any
    """The user's model."""

    preprocessing: Preprocessing | None = None
    """From picture to input."""

    labels: Sequence[str] | None = None
    """Class names."""

    unasked: str = ""
    """What to do instead, where pictures alone are no input of it."""

    @property
    def levels(self) -> Sequence[str]:
        """Layers that are explained together by default; empty where the best one is to be found by looking."""
        return ()

    def around(self, layer: str) -> Sequence[str]:
        """Where no :attr:`levels` are given: what is explained together with the layer that was found by looking."""
        return [layer]

    def with_labels(self, labels: Sequence[str]) -> Adapter:
        """This adapter for classes of these names; only models that read names take part."""
        return self

    @property
    def fuse(self) -> Fusion:
        """How the maps of :attr:`levels` become one: see ``hookmap.attribution.modifiers.fused``."""
        return "sum"

    def field(self, size: Sequence[int]) -> tuple[float, ...]:
        """The size that the layers' grids span for an input of this size: larger where the model pads."""
        return tuple(size)

    def forward(self, x: Tensor) -> Any:
        """The readable output for a batch of inputs ``(B, C, *size)``."""
        return self.plain(x)
