"""Methods that ask for the photo's parts instead of its pixels: superpixels, switched off or ranked.

They see one image at a time, ``(1, C, H, W)``, and give ``(T, H, W)`` for T targets: every pixel has its part's value.
Switched off means zero, which for a normalised input is the data set's mean colour. scikit-image cuts the photo.

Captum has LIME and KernelSHAP too, for one class at a time and with the process's random numbers, which other threads
draw from; here all targets share the same masked copies, and a seed is a seed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hookmap import _optional
from hookmap.errors import ImageError
from hookmap.methods.masking import Caution, say_if_noisy
from hookmap.methods.pixels import Slope, integrated
from hookmap.methods.replaying import Probe

SEGMENTS = 50
"""Superpixels that a photo is cut into, about."""
_SCALES = (50, 100, 150, 250, 500, 1200)
_XRAI_SIDE = 224


def featureablation(image: Tensor, probe: Probe, budget: int | None = None) -> Tensor:
    r"""Feature ablation: how much the score falls without a superpixel.

    .. math:: L_i = y(x) - y(x_{S(i) = 0})

    In the units of the score. As Captum's ``FeatureAblation``; superpixels are SLIC's.

    Args:
        image: ``(1, C, H, W)``.
        probe: scores of masked inputs.
        budget: of masked copies.
    """
    segments = superpixels(image, SEGMENTS if budget is None else max(1, min(SEGMENTS, budget - 1)))
    count = int(segments.max()) + 1
    # The whole photo among them: what a score is rounded to beside others isn't a fall.
    scores = _scores(image, segments, torch.cat([torch.ones(1, count), 1 - torch.eye(count)]), probe)
    return (scores[:, :1] - scores[:, 1:])[:, segments]


def kernelshap(
    image: Tensor,
    probe: Probe,
    generator: torch.Generator,
    budget: int = 2000,
    caution: Caution | None = None,
) -> Tensor:
    r"""KernelSHAP: superpixels' Shapley values, by a linear fit of the scores of masked photos.

    .. math:: \phi = \arg\min_\phi \sum_z \pi(z) \big(y(x_z) - y(x_0) - \phi^\top z\big)^2, \quad
              \sum_j \phi_j = y(x) - y(x_0), \qquad
              \pi(z) = \frac{M - 1}{\binom{M}{|z|} \, |z| \, (M - |z|)}

    Lundberg and Lee, *A Unified Approach to Interpreting Model Predictions*, NeurIPS 2017, arXiv:1705.07874, theorem 2.
    Masks z are drawn from :math:`\pi`, each with its opposite (Covert and Lee 2021, arXiv:2012.01536), so that two
    thousand do. Exact where superpixels don't act together. In the units of the score.

    Args:
        image: ``(1, C, H, W)``.
        probe: scores of masked inputs.
        generator: of the masks.
        budget: how many masked copies are looked at.
        caution: told where other masks would give another map.
    """
    segments = superpixels(image)
    count = int(segments.max()) + 1
    masks = _coalitions(count, max(1, budget - 2), generator)
    found = _scores(image, segments, torch.cat([torch.zeros(1, count), torch.ones(1, count), masks]), probe)
    gains = found.cpu().double() - found[:, :1].cpu().double()
    whole, gains, shown = gains[:, 1], gains[:, 2:], masks.double()
    values = _shapley(shown, gains, whole)
    half = torch.arange(len(masks)) % 4 < 2  # pairs stay together
    say_if_noisy(2 * values, _shapley(shown[half], gains[:, half], whole), caution)
    return values.to(found)[:, segments]


def lime(
    image: Tensor,
    probe: Probe,
    generator: torch.Generator,
    budget: int = 1000,
    caution: Caution | None = None,
    width: float = 0.25,
) -> Tensor:
    r"""LIME: a linear model of how the probability goes with which superpixels are shown, near the whole photo.

    .. math:: \phi = \arg\min_\phi \sum_z \pi(z) \big(p(x_z) - \phi_0 - \phi^\top z\big)^2 + \lVert \phi \rVert^2,
              \qquad \pi(z) = \exp\big(-d(z, 1)^2 / \sigma^2\big)^{1/2}

    Ribeiro et al., *"Why Should I Trust You?"*, KDD 2016, arXiv:1602.04938, as the authors' code has it: every
    superpixel is shown in half of a thousand photos, d is the cosine distance, :math:`\sigma` = 0.25, ridge regression.

    Args:
        image: ``(1, C, H, W)``.
        probe: scores of masked inputs.
        generator: of the masks.
        budget: how many masked copies are looked at.
        caution: told where other masks would give another map.
        width: of the kernel.
    """
    segments = superpixels(image)
    masks = (torch.rand(budget, int(segments.max()) + 1, generator=generator) < 0.5).float()
    masks[0] = 1
    found = _scores(image, segments, masks, probe, probable=True)
    scores, shown = found.cpu().double(), masks.double()
    weights = torch.exp(-((1 - shown.mean(1).sqrt()) ** 2) / width**2).sqrt()
    values, half = _ridge(shown, scores, weights), torch.arange(budget) % 2 == 0
    say_if_noisy(2 * values, _ridge(shown[half], scores[:, half], weights[half]), caution)
    return values.to(found)[:, segments]


def xrai(image: Tensor, slope: Slope, budget: int | None = None, steps: int = 50) -> Tensor:
    r"""XRAI: regions in the order in which they add most integrated gradient per pixel.

    Kapishnikov et al., *XRAI: Better Attributions Through Regions*, ICCV 2019, arXiv:1906.02825, algorithm 1: the photo
    is cut six times, from fine to coarse (Felzenszwalb), and segments are widened by five pixels; then again and again
    the segment is taken whose part that isn't covered yet has the largest mean attribution, and that is what its pixels
    are given; parts of less than fifty pixels are left to the end. (Lengths are of a photo of 224 pixels.) Attributions
    are integrated gradients from black and from white, averaged; of a pixel's channels the largest, as in the authors'
    code. What counts is the order: zero means nothing.

    Args:
        image: ``(1, C, H, W)``.
        slope: scores and gradients of changed inputs.
        budget: of gradients.
        steps: from each of the two baselines.
    """
    enlarged = math.sqrt(image[0, 0].numel()) / _XRAI_SIDE
    segments = _segments_of_all_scales(image, enlarged)
    steps = steps if budget is None else max(1, min(steps, budget // 2 - 1))
    ends = (image.amin(), image.amax())
    maps = torch.stack([integrated(image, end.expand_as(image), slope, steps)[0] for end in ends]).mean(0).amax(1)
    # Pixels that are in the same segments go together.
    atoms, atom = np.unique(np.packbits(segments, axis=0), axis=1, return_inverse=True)
    member = torch.from_numpy(np.unpackbits(atoms, axis=0, count=len(segments))).double()  # (segments, atoms)
    where = torch.from_numpy(atom.reshape(-1))
    area = torch.bincount(where, minlength=member.shape[1]).double()
    least = max(1.0, 50 * enlarged**2)
    ranked = [_ranked(one.flatten().cpu().double(), member, where, area, least) for one in maps]
    return torch.stack(ranked).to(maps).reshape(maps.shape)


def superpixels(image: Tensor, count: int = SEGMENTS) -> Tensor:
    """Which superpixel each pixel of an input ``(1, C, H, W)`` is in, ``(H, W)``; about so many, by SLIC.

    Achanta et al., *SLIC Superpixels Compared to State-of-the-Art Superpixel Methods*, TPAMI 2012.
    """
    pixels = _as_picture(image)
    from skimage.segmentation import slic

    found = slic(pixels, n_segments=count, compactness=10, sigma=1, start_label=0, convert2lab=pixels.shape[2] == 3)
    return torch.from_numpy(np.unique(found, return_inverse=True)[1].reshape(found.shape)).to(image.device)


def _as_picture(image: Tensor) -> np.ndarray[Any, Any]:
    """An input ``(1, C, H, W)`` as ``(H, W, C)``, 0..1, for scikit-image."""
    _optional.require("skimage", extra="superpixels")
    if image.ndim != 4:
        raise ImageError(f"superpixels are defined for images (B, C, H, W), and the input is {tuple(image.shape)}")
    pixels = image[0].detach().float().cpu().movedim(0, -1).double().numpy()
    low, high = pixels.min(), pixels.max()
    scaled: np.ndarray[Any, Any] = (pixels - low) / (high - low if high > low else 1)
    return scaled


def _scores(image: Tensor, segments: Tensor, masks: Tensor, probe: Probe, *, probable: bool = False) -> Tensor:
    """Scores ``(T, K)``, or probabilities, of the photo with only those superpixels that each of K masks shows."""
    ask, masks = probe.probability if probable else probe, masks.to(image)
    return torch.cat([ask(image * masks[part][:, None, segments]) for part in probe.parts(len(masks))], 1)


def _coalitions(count: int, samples: int, generator: torch.Generator) -> Tensor:
    """Masks ``(samples, count)`` from Shapley's kernel, each followed by its opposite."""
    if count < 2:
        return torch.ones(samples, count)
    sizes = torch.arange(1, count)
    likely = 1 / (sizes * (count - sizes)).double()  # so many masks of a size cancel the binomial coefficient
    drawn = sizes[torch.multinomial(likely, math.ceil(samples / 2), replacement=True, generator=generator)]
    order = torch.rand(len(drawn), count, generator=generator).argsort(1).argsort(1)
    masks = (order < drawn[:, None]).float()
    return torch.stack([masks, 1 - masks], 1).flatten(0, 1)[:samples]


def _shapley(masks: Tensor, gains: Tensor, whole: Tensor) -> Tensor:
    """Values ``(T, M)`` that fit gains ``(T, K)`` of masks ``(K, M)`` best, and sum to those of the whole ``(T,)``."""
    last = masks[:, -1:]
    rest = torch.linalg.lstsq(masks[:, :-1] - last, (gains - whole[:, None] * last.T).T, driver="gelsd").solution.T
    return torch.cat([rest, whole[:, None] - rest.sum(1, keepdim=True)], 1)


def _ridge(masks: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
    """Coefficients ``(T, M)`` of scores ``(T, K)`` on masks ``(K, M)``; the constant isn't held small."""
    share = weights / weights.sum()
    masks, scores = masks - share @ masks, scores - (scores @ share)[:, None]
    weighted = masks * weights[:, None]
    held = torch.eye(masks.shape[1], dtype=masks.dtype)
    fitted: Tensor = torch.linalg.solve(masks.T @ weighted + held, (scores @ weighted).T)
    return fitted.T


def _segments_of_all_scales(image: Tensor, enlarged: float) -> np.ndarray[Any, Any]:
    """Widened segments, ``(segments, H W)``, bool."""
    pixels = 2 * _as_picture(image) - 1
    from skimage.morphology import isotropic_dilation
    from skimage.segmentation import felzenszwalb

    least, rim = max(1, round(150 * enlarged**2)), round(5 * enlarged)
    found = []
    for scale in _SCALES:
        numbers = felzenszwalb(pixels, scale=scale, sigma=0.8, min_size=least, channel_axis=-1)
        found += [isotropic_dilation(numbers == number, rim).reshape(-1) for number in np.unique(numbers)]
    return np.stack(found)


def _ranked(attribution: Tensor, member: Tensor, where: Tensor, area: Tensor, least: float) -> Tensor:
    """What each pixel ``(P,)`` is given, of its attribution ``(P,)``: see :func:`xrai`.

    Args:
        attribution: of the pixels.
        member: which segment has which atom, ``(S, A)``.
        where: the atom of each pixel.
        area: of the atoms, in pixels.
        least: pixels that a segment must add.
    """
    sums = torch.zeros_like(area).index_add_(0, where, attribution)
    given, left = torch.zeros_like(area), torch.ones_like(area)
    while (pixels := member @ (area * left)).max() >= least:
        density = torch.where(pixels >= least, (member @ (sums * left)) / pixels.clamp(min=1), -torch.inf)
        best = density.argmax()
        new = member[best] * left
        given += new * density[best]
        left -= new
    if left.any():
        given += left * ((sums @ left) / (area @ left))
    return given[where]
