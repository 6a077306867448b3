"""Methods that mask the input and look at what becomes of the score: nothing need be known of the model.

They see one image at a time: ``image (1, C, *size)`` is the model's input, ``probe`` gives the scores of masked copies
for all T targets, and maps are ``(T, ...)``, on the layer's grid or on the input's pixels. Masked means zero, which
for a normalised input is the data set's mean colour.

``budget`` is the number of masked copies; by default the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap.errors import ImageError
from hookmap.methods.replaying import Distribution, Probe
from hookmap.methods.weighting import LINEAR, WeightedSum, full_precision, per_place

Caution = Callable[[Sequence[str]], None]
"""Told in a few words, target by target, why a map shouldn't be trusted; no words where it may be."""
STEADY = 0.7
"""Of the correlation that maps by other masks would have with RISE's; below, it shows the masks more than the model."""


@WeightedSum
def scorecam(activation: Tensor, image: Tensor, probe: Probe, budget: int | None = None) -> Tensor:
    r"""Score-CAM: feature maps weighted by the class's probability where only they let the image through.

    .. math:: w_k = p_c\big(X \odot s(U(A_k))\big)

    with U bilinear up-sampling and s scaling to 0..1. Wang et al., *Score-CAM: Score-Weighted Visual Explanations for
    Convolutional Neural Networks*, CVPR Workshops 2020, as its authors' code has it: softmax over classes, none over
    channels. Constant channels mask nothing and get no weight. With a budget smaller than the number of channels,
    those that vary most are taken.
    """
    return _channel_scores(activation, image, probe, budget, probe.probability)


@WeightedSum
def scorecam_softmax(activation: Tensor, image: Tensor, probe: Probe, budget: int | None = None) -> Tensor:
    r"""Score-CAM as pytorch-grad-cam and torch-cam have it: logits, normalised by a softmax over the channels.

    .. math:: w_k = \mathrm{softmax}_k \, y_c\big(X \odot s(U(A_k))\big)

    See :func:`scorecam`. Few channels get nearly all the weight.
    """
    chosen = _varied(activation, budget)
    scores = _channel_scores(activation, image, probe, budget, probe)
    weights = torch.zeros_like(scores)
    weights[:, chosen] = scores[:, chosen].softmax(1)
    return weights


@WeightedSum
def sscam(
    activation: Tensor,
    image: Tensor,
    probe: Probe,
    generator: torch.Generator,
    budget: int | None = None,
    samples: int = 35,
    deviation: float = 2.0,
) -> Tensor:
    r"""SS-CAM: Score-CAM with weights averaged over noisy masks.

    .. math:: w_k = \frac{1}{N} \sum_{i=1}^{N} p_c\big(X \odot s(U(A_k) + \delta_i)\big), \qquad
              \delta_i \sim \mathcal{N}(0, \sigma^2)

    Wang et al., *SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization*, 2020, arXiv:2006.14255, its
    first form (noise on the feature map) with the published N = 35 and :math:`\sigma` = 2.
    """
    if budget is not None:
        samples = min(samples, budget, max(4, budget // 64))
        budget = budget // samples
    total = torch.zeros((), dtype=activation.dtype, device=activation.device)
    size = image.shape[2:]
    for _ in range(samples):
        noise = deviation * _randn((1, 1, *size), generator, activation)
        total = total + _channel_scores(activation, image, probe, budget, probe.probability, noise=noise)
    return total / samples


@WeightedSum
def iscam(activation: Tensor, image: Tensor, probe: Probe, budget: int | None = None, samples: int = 10) -> Tensor:
    r"""IS-CAM: Score-CAM with weights integrated from the black image to the masked one.

    .. math:: w_k = \frac{1}{N} \sum_{i=1}^{N} p_c\Big(\frac{i}{N} \, X \odot s(U(A_k))\Big)

    Naidu et al., *IS-CAM: Integrated Score-CAM for axiomatic-based explanations*, 2020, arXiv:2010.03023, N = 10.
    (torch-cam
    adds the fractions up, so that its masked images become more than five times as bright as the photo.)
    """
    if budget is not None:
        samples = min(samples, budget)
        budget = budget // samples
    total = torch.zeros((), dtype=activation.dtype, device=activation.device)
    for i in range(1, samples + 1):
        total = total + _channel_scores(activation, image * (i / samples), probe, budget, probe.probability)
    return total / samples


def groupcam(
    activation: Tensor,
    gradient: Tensor,
    image: Tensor,
    probe: Probe,
    budget: int | None = None,
    groups: int = 32,
    quantile: float = 0.7,
) -> Tensor:
    r"""Group-CAM: Score-CAM with groups of gradient-weighted channels, and a blurred photo behind the mask.

    .. math:: L = \mathrm{ReLU}\Big(\sum_g \big(p_c(X \odot M_g + \tilde X \odot (1 - M_g)) - p_c(\tilde X)\big)
    M_g\Big), \qquad
              M_g = s\Big(U\Big(\mathrm{top}_{30\%}\,\mathrm{ReLU} \sum_{k \in g} \alpha_k A_k\Big)\Big)

    with Grad-CAM's :math:`\alpha` and :math:`\tilde X` the blurred input. Zhang et al., *Group-CAM: Group
    Score-Weighted Visual Explanations for Deep Convolutional Networks*, 2021, arXiv:2103.13859. On the input's pixels.

    Args:
        activation: ``(1, C, *grid)``.
        gradient: ``(T, C, *grid)``.
        image: ``(1, C, H, W)``.
        probe: scores of masked inputs.
        budget: of each target; smaller than the number of groups, it makes them larger.
        groups: of neighbouring channels.
        quantile: places below it are cleared in each group's mask.
    """
    size = image.shape[2:]
    if budget is not None:
        groups = min(groups, max(1, budget - 1))  # the blurred photo is a copy too
    weighted = activation * per_place(gradient.flatten(2).mean(2), activation)
    parts = weighted.chunk(min(groups, weighted.shape[1]), 1)
    small = torch.stack([part.sum(1).clamp(min=0) for part in parts], 1)  # (T, groups, *grid)
    limit = small.flatten(2).quantile(quantile, 2)
    small = torch.where(small > per_place(limit, small), small, torch.zeros_like(small))
    blurred = _blurred(image)
    baseline = probe.probability(blurred)  # (T, 1)
    maps = image.new_zeros(len(gradient), *size, dtype=activation.dtype)
    for target, masks in enumerate(small):
        for part in probe.parts(len(masks)):
            shown = _unit(_upsampled(masks[None, part], size))[0][:, None].to(image.dtype)
            gain = probe.probability(image * shown + blurred * (1 - shown))[target] - baseline[target]
            useful = shown.flatten(1).amax(1) > 0
            maps[target] += torch.einsum("k,k...->...", (gain * useful).to(maps.dtype), shown[:, 0].to(maps.dtype))
    return maps


def sidu(activation: Tensor, image: Tensor, distribution: Distribution, budget: int | None = None) -> Tensor:
    r"""SIDU: masks weighted by how little they change the whole prediction, and how unlike other masks' theirs is.

    .. math:: w_k = \exp\Big(-\frac{\lVert P - P_k \rVert^2}{2 \sigma^2}\Big) \cdot \sum_j \lVert P_k - P_j \rVert,
    \qquad
              L = \sum_k w_k M_k, \qquad P_k = \mathrm{softmax} f(X \odot M_k)

    Muddamsetty et al., *SIDU: Similarity Difference And Uniqueness Method for Explainable AI*, ICIP 2020,
    :math:`\sigma` = 0.25;
    masks are the channels above half of their maximum, up-sampled. It explains the prediction as a whole and knows no
    target. On the input's pixels.
    """
    size = image.shape[2:]
    chosen = _varied(activation, budget)
    maps = activation[:, chosen]
    binary = (maps > per_place(maps.flatten(2).amax(2), maps) / 2).to(activation.dtype)
    predicted = []
    for part in distribution.parts(len(chosen)):
        masks = _upsampled(binary[:, part], size)[0][:, None].to(image.dtype)
        predicted.append(distribution(image * masks))
    if not predicted:  # every channel is constant: nothing to mask with
        return image.new_zeros(1, *size, dtype=activation.dtype)
    each, whole = torch.cat(predicted).to(activation.dtype), distribution(image).to(activation.dtype)
    similar = torch.exp(-(each - whole).square().sum(1) / (2 * 0.25**2))
    unique = torch.cdist(each, each).sum(1)
    weighted = torch.einsum("k,k...->...", similar * unique, binary[0])
    return _upsampled(weighted[None, None], size)[0]


def rise(
    image: Tensor,
    probe: Probe,
    generator: torch.Generator,
    budget: int = 4000,
    cells: int = 7,
    kept: float = 0.5,
    caution: Caution | None = None,
) -> Tensor:
    r"""RISE: random masks, averaged with the probability that each leaves the class.

    .. math:: L = \frac{1}{N \, \mathbb{E}[M]} \sum_{i=1}^{N} p_c(X \odot M_i) \, M_i

    Petsiuk et al., *RISE: Randomized Input Sampling for Explanation of Black-box Models*, BMVC 2018, arXiv:1806.07421,
    eq. 6: grids of ``cells`` with each cell kept with probability ``kept``, up-sampled bilinearly and shifted at
    random. On the input's pixels; needs no layer. The same seed gives the same masks to every image. How far other
    masks would give the same map is told from the correlation r of the maps of one half and the other: 2r / (1 + r),
    by Spearman and Brown.
    """
    sums = _random_masks(image, probe, generator, budget, cells, kept)
    say_if_noisy(sums.weighted, sums.weighted_half, caution)
    return (sums.weighted / (budget * kept)).reshape(-1, *image.shape[2:])


def drise(
    image: Tensor, probe: Probe, generator: torch.Generator, budget: int = 5000, caution: Caution | None = None
) -> Tensor:
    r"""D-RISE: RISE with small cells, weighted by how far each mask leaves the detected object.

    .. math:: L \propto \sum_{i=1}^{N} \big(s(d, f(X \odot M_i)) - \bar s\big) \, M_i, \qquad
              s = \max_j \, \mathrm{IoU}(d, d_j) \, p_c(d_j)

    Petsiuk et al., *Black-box Explanation of Object Detectors via Saliency Maps*, CVPR 2021, arXiv:2006.03204: 16x16
    cells, half of them kept. The paper's similarity has the cosine of the class probabilities, times objectness where a
    detector has one, in place of the class's own probability, which holds both. Without the mean :math:`\bar s`, which
    the paper leaves in and scales away in drawing, every place would get it alike, and those that happen to be kept
    more often the more: what is left is how the score goes with what is kept, negative where keeping a place lowers it.
    """
    kept = 0.5
    sums = _random_masks(image, probe, generator, budget, 16, kept, relative=True)
    mean = sums.scores[:, None] / budget
    maps, half = sums.weighted - mean * sums.masks, sums.weighted_half - mean * sums.masks_half
    say_if_noisy(maps, half, caution)
    return (maps / (budget * kept)).reshape(-1, *image.shape[2:])


class _MaskSums(NamedTuple):
    """Sums over random masks, of all and of every other one.

    Attributes:
        scores: ``(T,)``.
        masks: ``(P,)`` for P pixels.
        masks_half: likewise.
        weighted: of the masks, each times its score, ``(T, P)``.
        weighted_half: likewise.
    """

    scores: Tensor
    masks: Tensor
    masks_half: Tensor
    weighted: Tensor
    weighted_half: Tensor


def _random_masks(
    image: Tensor,
    probe: Probe,
    generator: torch.Generator,
    budget: int,
    cells: int,
    kept: float,
    *,
    relative: bool = False,
) -> _MaskSums:
    """RISE's masks and the scores behind them, added up; ``relative``: to the first mask's, so that little cancels."""
    size = image.shape[2:]
    total: list[Tensor] = []
    first: Tensor | None = None
    # All are drawn before any is used: how many fit into memory at once doesn't change them.
    grids = (torch.rand((budget, 1, *[cells + 1] * len(size)), generator=generator) < kept).float()
    step = [math.ceil(side / cells) for side in size]
    shifts = torch.stack([torch.randint(0, s, (budget,), generator=generator) for s in step], 1)
    for part in probe.parts(budget):
        masks = _shifted(grids[part], shifts[part], step, size).to(image.device)
        scores, masks = probe.probability(image * masks[:, None].to(image.dtype)).to(masks.dtype), masks.flatten(1)
        if relative:
            first = scores[:, :1] if first is None else first
            scores = scores - first
        other = slice(part.start % 2, None, 2)
        sums = scores.sum(1), masks.sum(0), masks[other].sum(0), scores @ masks, scores[:, other] @ masks[other]
        total = [have + more for have, more in zip(total, sums, strict=True)] if total else list(sums)
    return _MaskSums(*total)


def say_if_noisy(maps: Tensor, half: Tensor, caution: Caution | None, drawn: str = "masks") -> None:
    """Caution where other draws would give other maps than these ``(T, P)``, told from those of half of the draws."""
    if caution is None:
        return
    halves = torch.stack([half, maps - half])
    halves = halves - halves.mean(2, keepdim=True)
    scale = halves.square().sum(2).prod(0).sqrt()
    alike = ((halves[0] * halves[1]).sum(1) / torch.where(scale > 0, scale, 1)).clamp(min=0)
    steady = (2 * alike / (1 + alike)).tolist()
    caution(
        [
            f"noisy: other {drawn} would agree {r:.0%}" if s > 0 and r < STEADY else ""
            for r, s in zip(steady, scale.tolist(), strict=True)
        ]
    )


def occlusion(
    image: Tensor,
    score: Tensor,
    probe: Probe,
    budget: int | None = None,
    windows: int = 7,
    caution: Caution | None = None,
) -> Tensor:
    r"""Occlusion: how much the score falls when a window of the photo is covered.

    .. math:: L_i = \frac{1}{|W_i|} \sum_{w \in W_i} (y - y_{X_w = 0})

    averaged over the windows :math:`W_i` that cover a pixel; windows of a seventh of each side, half overlapping.
    Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks*, ECCV 2014. In the units of the score, on
    the input's pixels. A budget makes windows and steps larger.
    """
    size, wanted = image.shape[2:], windows
    window, starts = _windows(size, windows)
    while budget is not None and windows > 1 and math.prod(map(len, starts)) > budget:
        windows -= 1
        window, starts = _windows(size, windows)
    if caution is not None and windows < wanted / 2:
        caution([f"coarse: windows of {1 / windows:.0%} of each side"] * len(score))
    corners = torch.cartesian_prod(*[torch.tensor(s) for s in starts]).reshape(-1, len(size)).tolist()
    fall = score.new_zeros(len(score), *size)
    cover = score.new_zeros(size)
    for part in probe.parts(len(corners)):
        places = [tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True)) for corner in corners[part]]
        covered = image.repeat(len(places), *[1] * (image.ndim - 1))
        for copy, place in zip(covered, places, strict=True):
            copy[(slice(None), *place)] = 0
        falls = score[:, None] - probe(covered)
        for i, place in enumerate(places):
            fall[(slice(None), *place)] += falls[:, i].reshape(-1, *[1] * len(size))
            cover[place] += 1
    return fall / cover.clamp(min=1)


def sess(
    image: Tensor,
    cam_of: Callable[[Tensor], tuple[Tensor, Tensor]],
    budget: int | None = None,
    scales: int = 6,
    step: float = 2 / 7,
) -> Tensor:
    r"""SESS: Grad-CAM of windows slid over enlarged copies of the photo, weighted by what each window shows.

    .. math:: L_i = \frac{1}{|W_i|} \sum_{w \in W_i} \frac{p_c(X_w)}{\max_v p_c(X_v)} \cdot
              \frac{\mathrm{ReLU}(\text{Grad-CAM}_w)_i}{\max \text{Grad-CAM}_w}

    over the windows whose map is positive at pixel i, then smoothed (Gaussian, :math:`\sigma` = 5 pixels). Tursun et
    al., *SESS:
    Saliency Enhancing with Scaling and Sliding*, ECCV 2022, arXiv:2207.01769; six scales, enlarged by two sevenths
    more each. For images of two axes, on the input's pixels.

    Args:
        image: ``(1, C, H, W)``.
        cam_of: from images ``(K, C, H, W)`` to their Grad-CAM ``(T, K, h, w)`` and probabilities ``(T, K)``.
        budget: of windows; fewer than there are leave out the largest scales.
        scales: how many, the first is the photo itself.
        step: how much larger each scale is, as a share of the first.
    """
    if image.ndim != 4:
        raise ImageError(f"sess is defined for images (B, C, H, W), and the input is {tuple(image.shape)}")
    height, width = image.shape[2:]
    windows: list[tuple[Tensor, int, int, int, int]] = []
    for i in range(scales):
        high, wide = (round(side * (1 + step * i)) for side in (height, width))
        corners = [(top, left) for top in _tiles(high, height) for left in _tiles(wide, width)]
        if budget is not None and windows and len(windows) + len(corners) > budget:
            break
        scaled = F.interpolate(image, (high, wide), mode="bilinear", antialias=False)
        for top, left in corners:
            windows.append((scaled[:, :, top : top + height, left : left + width], top, left, high, wide))
    maps, sure = cam_of(torch.cat([window for window, *_ in windows]))
    weight = sure / sure.amax(1, keepdim=True).clamp(min=torch.finfo(sure.dtype).tiny)
    positive = maps.clamp(min=0)
    peak = positive.flatten(2).amax(2)[..., None, None]
    positive = positive / torch.where(peak > 0, peak, 1) * weight[..., None, None]
    total = positive.new_zeros(len(positive), 1, height, width)
    count = torch.zeros_like(total)
    for i, (_, top, left, high, wide) in enumerate(windows):
        page = total.new_zeros(len(positive), 1, high, wide)
        shown = _upsampled(positive[:, i : i + 1], (height, width))
        page[:, :, top : top + height, left : left + width] = shown
        page = F.interpolate(page, (height, width), mode="bilinear", align_corners=False)
        total += page
        count += page > 0
    return _gaussian(total / count.clamp(min=1), 11, 5.0)[:, 0]


def _channel_scores(
    activation: Tensor,
    image: Tensor,
    probe: Probe,
    budget: int | None,
    score: Callable[[Tensor], Tensor],
    noise: Tensor | None = None,
) -> Tensor:
    """Scores ``(T, C)`` of the image behind each channel's mask; 0 for channels that aren't looked at."""
    chosen = _varied(activation, budget)
    all_scores: Tensor | None = None
    for part in probe.parts(len(chosen)):
        masks = _upsampled(activation[:, chosen[part]], image.shape[2:])
        masks = _unit(masks if noise is None else masks + noise)
        scores = score(image * masks[0][:, None].to(image.dtype)).to(activation.dtype)
        if all_scores is None:
            all_scores = activation.new_zeros(len(scores), activation.shape[1])
        all_scores[:, chosen[part]] = scores
    if all_scores is None:  # every channel is constant: nothing to mask with
        return torch.zeros_like(score(image)).to(activation.dtype).expand(-1, activation.shape[1])
    return all_scores


def _varied(activation: Tensor, budget: int | None) -> Tensor:
    """Indices of the channels that aren't constant; with a budget, of those that vary most."""
    flat = activation[0].flatten(1)
    spread = flat.amax(1) > flat.amin(1)
    if budget is not None and budget < int(spread.sum()):
        return flat.var(1, correction=0).topk(budget).indices.sort().values
    return spread.nonzero()[:, 0]


def _upsampled(maps: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    return F.interpolate(maps, tuple(size), mode=LINEAR[len(size)], align_corners=False)


def _unit(maps: Tensor) -> Tensor:
    """Each map of ``(B, K, *size)`` from its minimum to its maximum; constant ones become 0."""
    low, high = (per_place(f(maps.flatten(2), 2), maps) for f in (torch.amin, torch.amax))
    return (maps - low) / torch.where(high > low, high - low, torch.ones_like(high))


def _shifted(grids: Tensor, shifts: Tensor, step: Sequence[int], size: torch.Size) -> Tensor:
    """Grids of cells ``(K, 1, *cells)`` of so many pixels, moved by less than a cell: masks ``(K, *size)``."""
    large = _upsampled(grids, tuple(cells * pixels for cells, pixels in zip(grids.shape[2:], step, strict=True)))[:, 0]
    windows = [
        tuple(slice(shift, shift + side) for shift, side in zip(corner, size, strict=True))
        for corner in shifts.tolist()
    ]
    return torch.stack([mask[window] for mask, window in zip(large, windows, strict=True)])


def _windows(size: torch.Size, count: int) -> tuple[list[int], list[list[int]]]:
    """The sides of a window, so many along each axis, and where such windows start."""
    window = [max(1, side // count) for side in size]
    return window, [_starts(side, length) for side, length in zip(size, window, strict=True)]


def _starts(side: int, window: int) -> list[int]:
    """Where windows start that overlap by half, the last one flush with the edge."""
    stride = max(1, window // 2)
    last = side - window
    return sorted({*range(0, last + 1, stride), last})


def _tiles(side: int, window: int) -> list[int]:
    return sorted({*range(0, side - window + 1, window), side - window})


def _randn(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    # Drawn on the CPU, so that the same seed is the same noise on every device.
    return torch.randn(shape, generator=generator).to(like)


def _blurred(image: Tensor) -> Tensor:
    return _gaussian(image, 51, 50.0)


def _gaussian(image: Tensor, width: int, deviation: float) -> Tensor:
    """Smoothed in the last two axes, in float32 at least; a kernel that reflection can't pad is cut to the image."""
    from torchvision.transforms.functional import gaussian_blur

    if image.ndim == 3:  # a series is a picture of one row
        kernel = [min(width, 2 * image.shape[-1] - 1), 1]
        row: Tensor = gaussian_blur(full_precision(image)[:, :, None], kernel, [deviation, deviation])
        return row[:, :, 0].to(image.dtype)
    width = min(width, 2 * min(image.shape[-2:]) - 1)
    framed = full_precision(image).movedim(1, -3)  # wide kernels in float16 take minutes on a CPU
    blurred: Tensor = gaussian_blur(framed.flatten(0, -4), [width, width], [deviation, deviation])
    return blurred.reshape(framed.shape).movedim(-3, 1).to(image.dtype)
