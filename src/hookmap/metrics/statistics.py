"""Which differences between methods are more than chance, over images.

The unit is the image: values are ``(n, ..)`` with one row per image, and methods are compared on the same images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np

from hookmap.errors import HookmapError

Array: TypeAlias = "np.ndarray[Any, Any]"
FLIPS = 10_000
LEVEL = 0.05
_CHUNK = 2_000


@dataclass(frozen=True, eq=False)
class SignFlips:
    """Tests of many mean differences at once.

    Attributes:
        mean: ``(D,)``, of each difference.
        error: ``(D,)``, its standard error.
        p: ``(D,)``, two-sided, adjusted for all D tests: how often the largest of all statistics under random signs is
            at least this one.
        critical: the size that a mean over its standard error must have to be significant.
    """

    mean: Array
    error: Array
    p: Array
    critical: float

    def significant(self, level: float = LEVEL) -> Array:
        """``(D,)``: the sign of each difference that is more than chance, 0 for the others."""
        return np.where(self.p <= level, np.sign(self.mean), 0.0)


def sign_flips(differences: Array, *, flips: int = FLIPS, seed: int = 0, level: float = LEVEL) -> SignFlips:
    r"""Which of D paired differences have a mean other than 0, all tested together.

    Under the null hypothesis a difference is as often positive as negative, so its sign can be flipped, for all D
    differences of an image at once (which keeps their dependence). The statistic is the mean over its standard error;
    the p-value of each compares it with the largest of all D (max-T: Westfall and Young 1993), so that the chance of
    *any* false finding stays below the level:

    .. math:: p_d = \frac{1 + \#\{b : \max_{d'} |T^{(b)}_{d'}| \ge |T_d|\}}{1 + B}

    Args:
        differences: ``(n, D)``, one row per image.
        flips: B, random sets of signs; with few images all :math:`2^n` of them are no more than that.
        seed: of the signs.
        level: for :attr:`SignFlips.critical`.

    Raises:
        HookmapError: for fewer than 2 images, or values that aren't finite.
    """
    differences = np.asarray(differences, np.float64)
    if differences.ndim != 2 or len(differences) < 2:
        raise HookmapError(f"the differences have the shape {differences.shape}; expected 2 or more images, (n, D)")
    if not np.isfinite(differences).all():
        raise HookmapError("a difference is NaN or infinite; leave that image out")
    n = len(differences)
    squares = (differences**2).sum(0)

    def statistic(sums: Array) -> Array:
        # The sum of squares stays whatever the signs are. Differences that are all alike have no spread to be small.
        spread = np.sqrt(np.maximum(squares - sums**2 / n, 1e-24 * squares + 1e-300) / (n - 1))
        return sums / (math.sqrt(n) * spread)  # type: ignore[no-any-return]

    sums = differences.sum(0)
    observed = np.abs(statistic(sums))
    random = np.random.default_rng(seed)
    largest = np.empty(flips)
    for start in range(0, flips, _CHUNK):
        count = min(_CHUNK, flips - start)
        signs = random.integers(0, 2, (count, n)).astype(np.float64) * 2 - 1
        largest[start : start + count] = np.abs(statistic(signs @ differences)).max(1)
    largest.sort()
    at_least = flips - np.searchsorted(largest, observed * (1 - 1e-12))
    error = np.sqrt(np.maximum(squares - sums**2 / n, 0) / (n - 1) / n)
    return SignFlips(sums / n, error, (1 + at_least) / (1 + flips), float(np.quantile(largest, 1 - level)))


def smallest_difference(deviation: float, images: int, critical: float, power: float = 0.8) -> float:
    r"""The true mean difference that would be found with this power: :math:`(c + z_{power}) \, s / \sqrt n`.

    Args:
        deviation: s, the standard deviation of a paired difference over images.
        images: n.
        critical: c, what a mean over its standard error must reach; see :attr:`SignFlips.critical`.
        power: how often it would be found, 0..1.
    """
    return (critical + NormalDist().inv_cdf(power)) * deviation / math.sqrt(images)


def bca_interval(values: Array, *, level: float = LEVEL, samples: int = 4000, seed: int = 0) -> tuple[float, float]:
    r"""An interval for the mean over images, by the bootstrap, corrected for bias and skew.

    Efron, *Better Bootstrap Confidence Intervals*, JASA 1987 (BCa): the quantiles of the means of resampled images are
    taken at

    .. math:: \Phi\Big(z_0 + \frac{z_0 + z_\alpha}{1 - a (z_0 + z_\alpha)}\Big)

    with :math:`z_0` from the share of resampled means below the mean, and a from leaving out one image after the other.

    Args:
        values: ``(n,)``.
        level: how often the mean lies outside.
        samples: how often the images are resampled.
        seed: of that.

    Raises:
        HookmapError: for fewer than 2 values.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise HookmapError(f"the values have the shape {values.shape}; expected 2 or more, (n,)")
    n, mean = len(values), float(values.mean())
    if values.min() == values.max():
        return mean, mean
    chosen = np.random.default_rng(seed).integers(0, n, (samples, n))
    means = values[chosen].mean(1)
    normal = NormalDist()
    below = ((means < mean).sum() + 0.5 * (means == mean).sum()) / samples
    bias = normal.inv_cdf(min(max(float(below), 1 / samples), 1 - 1 / samples))
    without = (values.sum() - values) / (n - 1)
    away = without.mean() - without
    skew = float((away**3).sum() / (6 * (away**2).sum() ** 1.5))

    def end(share: float) -> float:
        z = bias + normal.inv_cdf(share)
        return float(np.quantile(means, normal.cdf(bias + z / (1 - skew * z))))

    return end(level / 2), end(1 - level / 2)
