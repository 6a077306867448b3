"""A model that is called with one batch of inputs and gives what targets can read, whatever its library does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Adapter(nn.Module):
    """The user's model under another way of calling it; its layers are the same and keep their names.

    A subclass says how the model is called and what its output means::

        class MyDetector(hm.Adapter):
            def forward(self, x):                        # (B, C, H, W)
                scores, boxes = self.plain(x)
                probabilities = scores.sigmoid()
                return hm.Detections(scores, boxes, probabilities, hm.keep_best(boxes, probabilities))

        lens = hm.Lens(MyDetector(model), preprocessing=..., labels=[...])

    Give class scores ``(B, K)``, dense scores ``(B, K, h, w)`` or :class:`hookmap.Detections`; anything else is for
    targets that are functions.

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

    @property
    def levels(self) -> Sequence[str]:
        """Layers that are explained together by default; empty where the best one is to be found by looking."""
        return ()

    def field(self, size: Sequence[int]) -> tuple[float, ...]:
        """The size that the layers' grids span for an input of this size: larger where the model pads."""
        return tuple(size)

    def forward(self, x: Tensor) -> Any:
        """The readable output for a batch of inputs ``(B, C, *size)``."""
        return self.plain(x)
