"""Maps that know nothing of the model: what a method must be better than."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def random(activation: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform noise on the layer's grid, 0 to 1; the same for every image of one seed."""
    grid = activation.shape[2:]
    noise = torch.rand((1, *grid), generator=generator).to(activation)
    return noise.expand(len(activation), *grid)


def gaussian(activation: Tensor) -> Tensor:
    """A Gaussian in the middle of the layer's grid, a quarter of each side wide: photos have their subject there."""
    hill = torch.ones((), device=activation.device)
    for side in activation.shape[2:]:
        place = (torch.arange(side, device=activation.device) + 0.5) / side - 0.5
        hill = hill[..., None] * torch.exp(-0.5 * (place / 0.25) ** 2)
    return hill.to(activation).expand(len(activation), *hill.shape)


def mean_activation(activation: Tensor) -> Tensor:
    """How active the layer is at each place, whatever is asked: the mean size over its channels."""
    return activation.abs().mean(1)


def edges(image: Tensor) -> Tensor:
    """How strong the edges of the input are (Sobel), ``(B, C, H, W)`` to ``(B, H, W)``.

    Of video they are frame by frame; a series is a picture of one row.

    Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018: some heatmaps are little more than this.
    """
    grey = image.float().mean(1)
    flat = grey.reshape(-1, 1, *(grey.shape[-2:] if grey.ndim > 2 else (1, grey.shape[-1])))
    kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]], device=image.device)
    slopes = F.conv2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), torch.stack([kernel, kernel.T])[:, None])
    return slopes.square().sum(1).sqrt().reshape(grey.shape)
