"""Noise on inputs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def noisy(x: Tensor, count: int, generator: torch.Generator, share: float = 0.15) -> Iterator[Tensor]:
    """Copies with Gaussian noise of a share of each input's range, seeded; every image of a batch gets the same noise.

    Smilkov et al., *SmoothGrad: removing noise by adding noise*, 2017, arXiv:1706.03825.

    Args:
        x: inputs, ``(B, C, *size)``.
        count: how many copies.
        generator: of the noise, on the CPU so that every device draws the same.
        share: the noise's standard deviation over each input's range.
    """
    span = x.flatten(1).amax(1) - x.flatten(1).amin(1)
    deviation = share * span.reshape(-1, *[1] * (x.ndim - 1))
    for _ in range(count):
        yield x + deviation * torch.randn(x.shape[1:], generator=generator).to(x)
