"""Segmenters: a class score for every place of the picture."""

from __future__ import annotations

from collections.abc import Sequence

from hookmap.adapters.adapter import Adapter


class Segmenter(Adapter):
    """Torchvision's: explained where the backbone ends, because later layers hold little but the scores themselves."""

    @property
    def levels(self) -> Sequence[str]:
        """The last part of the backbone."""
        return [f"backbone.{list(self.plain.backbone.named_children())[-1][0]}"]
