"""From a picture to the input of an Ultralytics model: the same pixels, with the geometry kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.images.preprocessing import Preprocessing

GREY = 114


@dataclass(frozen=True)
class Letterbox(Preprocessing):
    """Resize by OpenCV into ``size``, grey margins on both sides up to the next multiple of ``stride``, scale to 0..1.

    So a single picture is prepared by the library's own ``predict``. The input is as large as the picture needs, and
    not always ``size``; with ``resize`` a size, the whole is stretched to it.

    Attributes:
        stride: what the input's sides are multiples of.
    """

    stride: int = 32

    def __call__(self, picture: Picture) -> tuple[Tensor, Geometry]:
        """The input ``(3, h, w)``, float32, and where it lies on the picture."""
        import cv2

        pixels = picture.pixels
        geometry = Geometry.identity((pixels.shape[0], pixels.shape[1]))
        high, wide = self._inner_size(*pixels.shape[:2])
        if (high, wide) != pixels.shape[:2]:
            # Pillow averages over what it shrinks, and OpenCV doesn't: the pixels differ by up to half their range.
            pixels = cv2.resize(pixels, (wide, high), interpolation=cv2.INTER_LINEAR)
            geometry = geometry.resized((high, wide))
        below, beside = ((side - inner) % self.stride for side, inner in zip(self.size, (high, wide), strict=True))
        top, left = below // 2, beside // 2
        margins = ((top, below - top), (left, beside - left), (0, 0))
        padded = np.pad(pixels, margins, constant_values=GREY)
        tensor = torch.from_numpy(padded).permute(2, 0, 1).float().div(255)
        return tensor, geometry.shifted((padded.shape[0], padded.shape[1]), -top, -left)
