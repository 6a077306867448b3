"""Factorise a layer's activation: what few feature vectors its places are made of.

Every function takes places as rows and channels as columns, ``(N, C)``: the places of one image or of many, so that
what is found is shared by all of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hookmap.errors import HookmapError
from hookmap.methods.weighting import full_precision

TOLERANCE = 1e-5
MOST_ROUNDS = 1000
_SWEEPS = 4


class Factors(NamedTuple):
    """Places as sums of concepts: ``places ~ memberships @ concepts``.

    Attributes:
        memberships: how much of each concept is in each place, ``(N, k)``.
        concepts: feature vectors, ``(k, C)``, by falling share.
        shares: of the places' energy (PCA: variance) that each concept explains, ``(k,)``, 0..1 together.
    """

    memberships: Tensor
    concepts: Tensor
    shares: Tensor


def nmf(
    places: Tensor,
    concepts: int,
    *,
    generator: torch.Generator | None = None,
    tolerance: float = TOLERANCE,
    most_rounds: int = MOST_ROUNDS,
) -> Factors:
    r"""Non-negative matrix factorisation: every place a sum of a few parts, none of which is ever subtracted.

    .. math:: \min_{W \ge 0,\, H \ge 0} \lVert X - W H \rVert_F^2

    Lee and Seung, *Learning the parts of objects by non-negative matrix factorization*, Nature 1999; of deep features,
    Collins, Achanta and Süsstrunk, *Deep Feature Factorization for Concept Discovery*, ECCV 2018, arXiv:1806.10206.
    Solved by accelerated HALS: exact minimisation over one column after the other, with several sweeps per product with
    X (Gillis and Glineur, Neural Computation 2012, arXiv:1107.5194), from the nonnegative double SVD (Boutsidis and
    Gallopoulos, Pattern Recognition 2008). Nothing is random, and the order of the places doesn't matter.

    Each concept is scaled such that its largest membership is 1: a concept is the part of the activation that it makes
    up where it is strongest. Its share is :math:`\langle X, w_j h_j \rangle / \lVert X \rVert^2`, never negative; at
    the solution the shares add up to :math:`1 - \lVert X - W H \rVert^2 / \lVert X \rVert^2`.

    Args:
        places: ``(N, C)``, nowhere negative; see :func:`split_signs` for places that are.
        concepts: how many, at most N and at most C.
        generator: start from random numbers instead, to see which concepts come again.
        tolerance: stop when a round lowers the squared error by less than this part of itself.
        most_rounds: stop at the latest.

    Returns:
        Memberships ``(N, k)``, concepts ``(k, C)`` and shares ``(k,)``, in float32 at least.

    Raises:
        HookmapError: if places are negative, not finite or all zero, or there are too many concepts.

    >>> parts = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    >>> memberships, concepts, shares = nmf(torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.5, 1.0]]) @ parts, 2)
    >>> memberships.round(decimals=1).tolist(), concepts.round().abs().tolist()
    ([[0.0, 1.0], [0.5, 0.0], [1.0, 0.5]], [[0.0, 3.0, 0.0], [1.0, 0.0, 2.0]])
    """
    x = _checked(places, concepts)
    if bool((x < 0).any()):
        raise HookmapError(
            f"places hold values down to {float(x.min()):.3g}, and NMF is defined for non-negative ones; split their "
            "signs with split_signs(places), or use pca"
        )
    # One scale for all: squares of very small or large activations stay within range.
    unit = x.amax()
    x = x / unit
    w, h = _svd_start(x, concepts) if generator is None else _random_start(x, concepts, generator)
    energy = float(x.square().sum())
    before = float("inf")
    for _ in range(most_rounds):
        product, gram = x @ h.mT, h @ h.mT
        # The error of the last round comes with the products that this one needs.
        error = energy - 2 * float((product * w).sum()) + float((gram * (w.mT @ w)).sum())
        if before - error <= max(tolerance * error, 1e-12 * energy):
            break
        before = error
        w = _swept(w, product, gram)
        h = _swept(h.mT, x.mT @ w, w.mT @ w).mT
    peaks = w.amax(0)
    w, h = w / torch.where(peaks > 0, peaks, 1), h * peaks[:, None] * unit
    shares = (x.mT @ w * (h.mT / unit)).sum(0) / energy
    return _sorted(Factors(w, h, shares), like=places)


def pca(places: Tensor, concepts: int) -> Factors:
    r"""Principal components: the directions in which places differ most; exact.

    .. math:: X - \bar X = U \Sigma V^\top, \qquad \text{memberships} = U \Sigma, \quad
              \text{shares} = \sigma_j^2 / \textstyle\sum_i \sigma_i^2

    Places go along a direction or against it: memberships are signed. A direction has unit length, and the sign in
    which its largest loading is positive. Where places don't differ in so many ways, the last directions are zero.

    Args:
        places: ``(N, C)``, of any sign.
        concepts: how many, at most N and at most C.

    Raises:
        HookmapError: if places aren't finite or are all the same, or there are too many concepts.

    >>> memberships, concepts, shares = pca(torch.tensor([[3.0, 4.0], [0.0, 0.0], [-3.0, -4.0]]), 1)
    >>> concepts, memberships.flatten().round(decimals=2).tolist()
    (tensor([[0.6000, 0.8000]]), [5.0, 0.0, -5.0])
    """
    x = _checked(places, concepts)
    x = x - x.mean(0)
    variance = x.square().sum()
    if not bool(variance > 1e-20 * places.to(x).square().sum()):
        raise HookmapError("all places are the same, so that no direction tells them apart; pass another layer")
    _, values, v = _largest_singular(x, concepts)
    at = v.abs().argmax(0, keepdim=True)
    v = v * torch.where(v.gather(0, at) < 0, -1, 1)
    return Factors(*(t.to(full_precision(places).dtype) for t in (x @ v, v.mT, values.square() / variance)))


def split_signs(places: Tensor) -> Tensor:
    r"""What is positive and what is negative as channels of their own: ``(N, C)`` to ``(N, 2 C)``, nowhere negative.

    .. math:: x \mapsto [\max(x, 0), \max(-x, 0)]

    NMF of this finds parts of signed activations, as of the ON and OFF channels of the retina (Hoyer, *Non-negative
    Matrix Factorization with Sparseness Constraints*, JMLR 2004); memberships stay non-negative. (Taking
    the positive part alone would drop half of what a linear layer says; pytorch-grad-cam shifts each channel by its
    minimum, so that a channel's most negative place looks like nothing at all.) :func:`joined_signs` undoes it.
    """
    return torch.cat([places.clamp(min=0), (-places).clamp(min=0)], 1)


def joined_signs(concepts: Tensor) -> Tensor:
    """Concepts of :func:`split_signs` as signed vectors: ``(k, 2 C)`` to ``(k, C)``."""
    positive, negative = concepts.chunk(2, 1)
    return positive - negative


def _checked(places: Tensor, concepts: int) -> Tensor:
    """The places in double precision, where the device has it."""
    if places.ndim != 2:
        raise HookmapError(f"places have shape {tuple(places.shape)}; expected (places, channels)")
    count, channels = places.shape
    if concepts < 1:
        raise HookmapError(f"{concepts} concepts were asked for; expected 1 or more")
    if concepts > min(count, channels):
        raise HookmapError(
            f"{concepts} concepts were asked for of {count} places with {channels} channels; expected at most "
            f"{min(count, channels)}; ask for fewer, pass more images or an earlier layer"
        )
    if not bool(torch.isfinite(places).all()):
        raise HookmapError("the activation holds NaN or infinite values; check the model's weights and its precision")
    if not bool(places.any()):
        raise HookmapError("the activation is zero everywhere, so that it has no concepts; pass another layer")
    return places.float() if places.device.type == "mps" else places.double()


def _svd_start(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Non-negative double SVD: of each singular pair the half, positive or negative, that weighs more."""
    u, values, v = _largest_singular(x, k)
    w, h = u.clamp(min=0), v.clamp(min=0)
    other_w, other_h = (-u).clamp(min=0), (-v).clamp(min=0)
    weight, other = w.norm(dim=0) * h.norm(dim=0), other_w.norm(dim=0) * other_h.norm(dim=0)
    w, h = torch.where(other > weight, other_w, w), torch.where(other > weight, other_h, h)
    norms = w.norm(dim=0), h.norm(dim=0)
    strength = (values * torch.maximum(weight, other)).sqrt()
    w, h = ((t * torch.where(n > 0, strength / n, 0)).contiguous() for t, n in zip((w, h), norms, strict=True))
    for j in range(k):
        # A rank below k leaves concepts without a start: they begin at the place that is explained worst.
        if not bool(w[:, j].any() and h[:, j].any()):
            rest = (x - w @ h.mT).clamp(min=0)
            worst = rest.square().sum(1).argmax()
            w[:, j], h[:, j] = 0, rest[worst]
            w[worst, j] = 1
    return w, h.mT


def _random_start(x: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    sizes = (x.shape[0], k), (k, x.shape[1])
    scale = (x.mean() / k).sqrt()
    # On the generator's device, so that every device draws the same.
    draws = (torch.randn(size, generator=generator, device=generator.device) for size in sizes)
    w, h = (draw.abs().to(x) * scale for draw in draws)
    return w, h


def _swept(factor: Tensor, product: Tensor, gram: Tensor) -> Tensor:
    """Columns of a factor ``(n, k)``, each set to its best non-negative value given the others, a few times over."""
    factor = factor.clone()
    tiny = torch.finfo(factor.dtype).tiny
    for _ in range(_SWEEPS):
        for j in range(factor.shape[1]):
            step = (product[:, j] - factor @ gram[:, j]) / gram[j, j].clamp(min=tiny)
            factor[:, j] = (factor[:, j] + step).clamp(min=0)
    return factor


def _largest_singular(x: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest singular values, and their vectors ``(N, k)`` and ``(C, k)``, from the smaller Gram matrix."""
    wide = x.shape[0] <= x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.mT if wide else x.mT @ x)
    values, vectors = values[-k:].flip(0).clamp(min=0).sqrt(), vectors[:, -k:].flip(1)
    other = x.mT @ vectors if wide else x @ vectors
    # Squared values lose half of the digits: what is below is rounding, not structure.
    real = values > values[0] * torch.finfo(x.dtype).eps ** 0.5 * 4
    other = torch.where(real, other / torch.where(real, values, 1), 0)
    values, vectors = torch.where(real, values, 0), torch.where(real, vectors, 0)
    return (vectors, values, other) if wide else (other, values, vectors)


def _sorted(factors: Factors, like: Tensor) -> Factors:
    order = factors.shares.argsort(descending=True, stable=True)
    dtype = full_precision(like).dtype
    w, h, shares = factors
    return Factors(w[:, order].to(dtype), h[order].to(dtype), shares[order].clamp(min=0).to(dtype))
