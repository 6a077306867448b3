"""FullGrad: the whole score, spread over the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def fullgrad(image: Tensor, terms: Sequence[Tensor]) -> Tensor:
    r"""FullGrad: the input's and all biases' shares of the score, on the input's pixels; they add up to the score.

    .. math:: y = \nabla_x y^\top x + \sum_l \nabla_{b_l} y^\top b_l

    Srinivas and Fleuret, *Full-Gradient Representation for Neural Network Visualization*, NeurIPS 2019,
    arXiv:1905.00780, prop. 1. The biases are those of every layer type: where a layer bends (SiLU, attention, gates),
    its implicit bias
    :math:`f(z) - f'(z) z` (section 3.1), found by forward-mode differentiation. Each place's share is spread over its
    pixels with weights that sum to one; shares without a place (after the pooling) are spread evenly. Nothing is
    scaled before it is summed: ``map.sum() == score``.

    Args:
        image: the model's input ``(B, C, *size)``.
        terms: shares of the score per layer, ``(B, *grid)`` or, without places, ``(B,)``.
    """
    size = image.shape[2:]
    total = terms[0].new_zeros(len(terms[0]), *size)
    for term in terms:
        if term.ndim == 1:
            total += (term / size.numel()).reshape(-1, *[1] * len(size))
        else:
            total += spread(term, tuple(size))
    return total


def fullgrad_magnitude(image: Tensor, magnitudes: Sequence[Tensor]) -> Tensor:
    r"""FullGrad's saliency: the same shares by magnitude, channel by channel, so that none cancel.

    .. math:: S = \psi(\nabla_x y \odot x) + \sum_l \sum_{c} \psi(\nabla_{b_{l,c}} y \odot b_{l,c}),
              \qquad \psi = U(|\cdot|)

    Srinivas and Fleuret 2019, eq. 5; without the rescaling of each map to 0..1 that implementations put into
    :math:`\psi`, which gives a layer of no importance as much say as the most important one.

    Args:
        image: the model's input ``(B, C, *size)``.
        magnitudes: as ``terms`` of :func:`fullgrad`, with each channel's share by magnitude.
    """
    return fullgrad(image, magnitudes)


def spread(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps ``(B, *grid)`` interpolated to ``(B, *size)`` such that each keeps its sum."""
    for axis, pixels in enumerate(size):
        cells = maps.shape[axis + 1]
        if cells == pixels:
            continue
        centres = (torch.arange(pixels, device=maps.device, dtype=maps.dtype) + 0.5) * (cells / pixels) - 0.5
        near = (1 - (centres.clamp(0, cells - 1)[:, None] - torch.arange(cells, device=maps.device)).abs()).clamp(min=0)
        # A cell that no pixel's centre comes near (a grid finer than the pixels) goes to the closest one.
        empty = near.sum(0) == 0
        closest = ((torch.arange(cells, device=maps.device) + 0.5) * (pixels / cells)).long().clamp(max=pixels - 1)
        near[closest[empty], empty.nonzero()[:, 0]] = 1
        weights = (near / near.sum(0)).to(maps.dtype)
        maps = (maps.movedim(axis + 1, -1) @ weights.T).movedim(-1, axis + 1)
    return maps
