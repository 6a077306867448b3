"""What a file that hookmap exported says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

METADATA = "hookmap"
"""Under this name a file that hookmap exported says what it is."""
HEATMAP = "heatmap"
"""The output of such a file that holds the heatmaps."""


@dataclass(frozen=True)
class About:
    """What an exported file says of itself, as JSON.

    Attributes:
        hookmap: the version that wrote it.
        model: how it is called.
        method: of the heatmaps.
        layers: that were looked at.
        fuse: how maps of several layers became one, or None.
        part: of the signed map: positive, negative or signed.
        targets: what is explained, in words, in the heatmaps' order.
        heatmap: their ``grid``, and the size that it ``spans`` on the input, in pixels.
        batch: how many images it takes; None: any number.
        preprocessing: from a picture to the input, the fields of :class:`hookmap.Preprocessing`; None if a file can't
            hold it.
        labels: class names, if they are known.
    """

    hookmap: str
    model: str
    method: str
    layers: Sequence[str]
    fuse: str | None
    part: str
    targets: Sequence[str]
    heatmap: Mapping[str, Sequence[float]]
    batch: int | None
    preprocessing: Mapping[str, Any] | None
    labels: Sequence[str] | None

    def as_json(self) -> str:
        """For the file."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def read(cls, text: str) -> About:
        """From the file.

        Raises:
            ValueError: if it says something else.
        """
        about = json.loads(text)
        names = [field.name for field in fields(cls)]
        if not isinstance(about, dict) or not set(names) <= about.keys():
            raise ValueError("it isn't what hookmap writes")
        return cls(**{name: about[name] for name in names})
