"""What models make of a picture that segment whatever a prompt points at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Decode: TypeAlias = Callable[[tuple[Tensor, ...], Tensor, Tensor, "Tensor | None"], tuple[Tensor, Tensor]]


@dataclass
class Promptable:
    """What a promptable segmenter (SAM) makes of a batch: features, of which any prompt's masks are decoded.

    The picture is encoded once; each prompt costs the small decoder.

    Attributes:
        features: all that the decoder reads of the pictures, ``(B, ...)`` each.
        decode: from features of K pictures and one prompt to the masks' logits ``(K, M, h, w)`` across the input, and
            how good the model thinks each mask is, its predicted IoU ``(K, M)``. The prompt is in pixels of the input:
            points ``(P, 2)`` as (x, y), whether each lies on what is meant, ``(P,)`` of 1 and 0, and a box ``(4,)`` or
            None.
    """

    features: tuple[Tensor, ...]
    decode: Decode

    def of(self, image: int) -> Promptable:
        """That of one image of the batch."""
        return Promptable(tuple(values[image : image + 1] for values in self.features), self.decode)

    def masks(self, points: Tensor, labels: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        """The masks of a prompt and their quality, as ``decode`` gives them; with gradients where features have."""
        # What was computed in inference mode can't take part in a graph.
        differentiable = any(values.requires_grad for values in self.features)
        with torch.set_grad_enabled(torch.is_grad_enabled() and differentiable):
            return self.decode(self.features, points, labels, box)
