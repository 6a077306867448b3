"""What was chosen where nobody named a layer or a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hookmap.adapters.adapter import Fusion
from hookmap.methods import METHODS


@dataclass(frozen=True)
class Choice:
    """The default layers and method for one input size, and what was measured to choose them.

    ``dataclasses.asdict`` makes it JSON, :meth:`read` takes it back.

    Attributes:
        layers: by name, in the order in which they run.
        method: by name.
        fuse: how the maps of several layers become one.
        alike: how much of the gradient is the same at all places, 0..1; None if it wasn't looked at.
        coverage: the share of what passes the layer that passes the places that its map shows, 0..1; None likewise.
    """

    layers: tuple[str, ...]
    method: str
    fuse: Fusion = "sum"
    alike: float | None = None
    coverage: float | None = None

    @classmethod
    def read(cls, about: Mapping[str, Any]) -> Choice:
        """The choice that was stored as JSON."""
        return cls(**{**about, "layers": tuple(about["layers"])})

    @property
    def why(self) -> str:
        """The method and what was measured, in words."""
        words = f"heatmaps are taken here, by {METHODS[self.method].title}"
        if self.alike is not None:
            words += f": {self.alike:.0%} of the gradient is the same at all places"
        if self.coverage is not None and self.coverage < 0.995:
            words += f"; {self.coverage:.0%} of what passes here passes the places that are shown"
        return words
