"""Methods that differentiate the score down to the pixels: no layer need be chosen.

``image`` is the model's input ``(B, C, *size)``, and maps are on its pixels, ``(B, *size)``. A baseline is zero, which
for a normalised input is the data set's mean colour.

All of it is a loop around gradients that the engine takes for any target and any form of output, in batches that fit
into memory; Captum (tests/methods/test_pixels.py compares) asks for a class and keeps all copies at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap.methods.gradient import gradcam
from hookmap.methods.masking import Caution, say_if_noisy
from hookmap.methods.weighting import LINEAR

INCOMPLETE = 0.05
"""Of the score's difference; a sum that misses it by more isn't the integral."""


class Slope(Protocol):
    """Scores of changed copies of one image, and their gradients."""

    def __call__(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``(T, K)`` of the T targets for K copies ``(K, C, *size)``, and gradients ``(T, K, C, *size)``."""
        ...

    def parts(self, count: int) -> Iterator[slice]:
        """The indices 0..count in slices that fit into memory; tells the progress bar."""
        ...


def saliency(pixel_gradient: Tensor) -> Tensor:
    r"""Saliency: how much the score changes with a pixel, whichever of its channels does most.

    .. math:: L_i = \max_c \big|\partial y / \partial x_{c,i}\big|

    Simonyan et al., *Deep Inside Convolutional Networks*, ICLR workshop 2014, arXiv:1312.6034, section 3.1.

    Args:
        pixel_gradient: ``(B, C, *size)``.
    """
    return pixel_gradient.abs().amax(1)


def inputxgradient(image: Tensor, pixel_gradient: Tensor) -> Tensor:
    r"""Input x gradient: what each pixel adds to the score's tangent.

    .. math:: L_i = \sum_c x_{c,i} \, \partial y / \partial x_{c,i}

    Shrikumar et al., *Not Just a Black Box*, 2016, arXiv:1605.01713. It adds up to the score where the network is
    piecewise linear and has no biases.

    Args:
        image: ``(B, C, *size)``.
        pixel_gradient: likewise.
    """
    return (image * pixel_gradient).sum(1)


def smoothgrad(noisy_gradient: Tensor) -> Tensor:
    r"""SmoothGrad: saliency of the gradient's mean over noisy copies of the photo.

    .. math:: L_i = \max_c \Big|\frac{1}{N} \sum_n \partial y(x + \epsilon_n) / \partial x_{c,i}\Big|, \qquad
              \epsilon \sim \mathcal{N}(0, \sigma^2)

    Smilkov et al., *SmoothGrad: removing noise by adding noise*, 2017, arXiv:1706.03825: gradients are averaged with
    their signs, so that what the noise turns around cancels. (``noise_smooth=25`` with ``saliency`` averages magnitudes
    instead, and doesn't cancel.) N = 25, the deviation 15 % of the photo's range.

    Args:
        noisy_gradient: its mean and variance, ``(B, 2, C, *size)``.
    """
    return saliency(noisy_gradient[:, 0])


def vargrad(noisy_gradient: Tensor) -> Tensor:
    r"""VarGrad: how much the gradient at a pixel varies over noisy copies of the photo, all channels together.

    .. math:: L_i = \sum_c \mathrm{Var}_n \big(\partial y(x + \epsilon_n) / \partial x_{c,i}\big)

    Adebayo et al., *Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter Values*, 2018,
    arXiv:1810.03307; noise as in :func:`smoothgrad`.

    Args:
        noisy_gradient: its mean and variance, ``(B, 2, C, *size)``.
    """
    return noisy_gradient[:, 1].sum(1)


def integratedgradients(
    image: Tensor,
    slope: Slope,
    score: Tensor,
    budget: int = 51,
    caution: Caution | None = None,
    baseline: Tensor | None = None,
) -> Tensor:
    r"""Integrated gradients: each pixel's gradient, gathered on the way from a baseline to the photo.

    .. math:: L_i = \sum_c (x - x')_{c,i} \int_0^1 \frac{\partial y\big(x' + \alpha (x - x')\big)}{\partial x_{c,i}}
              \, d\alpha, \qquad \sum_i L_i = y(x) - y(x')

    Sundararajan et al., *Axiomatic Attribution for Deep Networks*, ICML 2017, arXiv:1703.01365; the integral by
    Gauss and Legendre's rule, as in Captum. What the sum misses of the score's difference is said where it is more
    than a twentieth.

    Args:
        image: ``(1, C, *size)``.
        slope: scores and gradients of changed inputs.
        score: of the targets, ``(T,)``.
        budget: gradients, of which one is the baseline's and fifty are on the way.
        caution: told how much of the score's difference is missed.
        baseline: ``(C, *size)``, or what broadcasts to it; zero by default. It speaks neither for nor against, so
            pixels that are like it get nothing.
    """
    base = torch.zeros_like(image) if baseline is None else baseline.to(image).expand_as(image)
    each, before = integrated(image, base, slope, max(1, budget - 1))
    maps = each.sum(1)
    if caution is not None:
        difference, found = score - before, maps.flatten(1).sum(1)
        missed = ((found - difference).abs() / difference.abs().clamp(min=torch.finfo(score.dtype).tiny)).tolist()
        caution([f"incomplete: misses {share:.0%} of the score" if share > INCOMPLETE else "" for share in missed])
    return maps


def expectedgradients(
    image: Tensor,
    slope: Slope,
    generator: torch.Generator,
    budget: int = 100,
    caution: Caution | None = None,
    baselines: Tensor | None = None,
) -> Tensor:
    r"""Expected gradients: integrated gradients, averaged over many baselines.

    .. math:: L_i = \mathbb{E}_{x', \alpha} \sum_c (x - x')_{c,i} \,
              \partial y\big(x' + \alpha (x - x')\big) / \partial x_{c,i}

    Erion et al., *Improving performance of deep learning models with axiomatic attribution priors and expected
    gradients*, Nature Machine Intelligence 2021, arXiv:1906.10670. No colour is blind, as the one baseline of
    integrated gradients is. The paper draws baselines from the training data: pass some of yours as
    ``functools.partial(expectedgradients, baselines=x)``. Without them they are plain pictures in a colour of the
    photo, that of a pixel drawn by the seed, which is within any model's range. Each sample is one baseline and one
    place on the way, places evenly spread.

    Args:
        image: ``(1, C, *size)``.
        slope: scores and gradients of changed inputs.
        generator: of baselines and places.
        budget: how many samples are taken.
        caution: told where other samples would give another map.
        baselines: preprocessed inputs ``(N, C, *size)`` to draw from.
    """
    at = (torch.arange(budget) + torch.rand(budget, generator=generator)) / budget
    at = at[torch.randperm(budget, generator=generator)]
    flat = image.flatten(2)
    drawn = torch.randint(0, flat.shape[2] if baselines is None else len(baselines), (budget,), generator=generator)
    sums: list[Tensor] = []
    for part in slope.parts(budget):
        if baselines is None:
            base = flat[0, :, drawn[part].to(image.device)].T.reshape(-1, image.shape[1], *[1] * (image.ndim - 2))
        else:
            base = baselines[drawn[part]].to(image)
        way = image - base
        share = at[part].to(image).reshape(-1, *[1] * (image.ndim - 1))
        _, gradients = slope(base + share * way)
        each = (gradients * way).sum(2)
        more = each.sum(1), each[:, (-part.start) % 2 :: 2].sum(1)  # of all, and of every other sample
        sums = [have + new for have, new in zip(sums, more, strict=True)] if sums else [*more]
    say_if_noisy(sums[0].flatten(1), sums[1].flatten(1), caution, "baselines")
    return sums[0] / budget


def guidedbackprop(guided_gradient: Tensor) -> Tensor:
    r"""Guided backpropagation: saliency of a gradient that passes a ReLU only where it is positive.

    .. math:: R^{l}_i = (f^l_i > 0) \cdot (R^{l+1}_i > 0) \cdot R^{l+1}_i, \qquad L_i = \max_c \big|R^0_{c,i}\big|

    Springenberg et al., *Striving for Simplicity: The All Convolutional Net*, ICLR workshop 2015, arXiv:1412.6806. It
    is sharp, and close to the photo's edges whatever is asked (Adebayo et al. 2018, arXiv:1810.03292): a picture of
    what the network can see rather than of why it decided.

    Args:
        guided_gradient: ``(B, C, *size)``.
    """
    return saliency(guided_gradient)


def guidedgradcam(image: Tensor, activation: Tensor, gradient: Tensor, guided_gradient: Tensor) -> Tensor:
    r"""Guided Grad-CAM: guided backpropagation where Grad-CAM is positive.

    .. math:: L = U\big(\mathrm{ReLU}(\text{Grad-CAM})\big) \odot \text{guided backpropagation}

    with U linear up-sampling. Selvaraju et al. 2017, arXiv:1610.02391, section 3.

    Args:
        image: ``(B, C, *size)``.
        activation: of a layer, ``(B, K, *grid)``.
        gradient: likewise.
        guided_gradient: ``(B, C, *size)``.
    """
    coarse, size = gradcam(activation, gradient).clamp(min=0), image.shape[2:]
    wide = F.interpolate(coarse[:, None], tuple(size), mode=LINEAR[len(size)], align_corners=False)[:, 0]
    return wide * guidedbackprop(guided_gradient)


def integrated(image: Tensor, base: Tensor, slope: Slope, steps: int) -> tuple[Tensor, Tensor]:
    """The path integral ``(T, C, *size)`` from a baseline to the photo, and the baseline's scores ``(T,)``."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    # The baseline itself comes first: its gradient counts for nothing, its score is what the sum starts from.
    at, weight = (torch.from_numpy(np.append(0, values)).to(image) for values in ((places + 1) / 2, weights / 2))
    way = image - base
    total: Tensor | None = None
    before: Tensor | None = None
    for part in slope.parts(steps + 1):
        scores, gradients = slope(base + at[part].reshape(-1, *[1] * (image.ndim - 1)) * way)
        before = scores[:, 0] if before is None else before
        part_sum = torch.einsum("k,tk...->t...", weight[part].to(gradients.dtype), gradients)
        total = part_sum if total is None else total + part_sum
    assert total is not None
    assert before is not None
    return way * total, before
