"""Scores that others report: shown for comparison, and without a vote.

Each can be won by a map that says nothing about the decision; its docstring says how. What may vote is in
:mod:`hookmap.metrics.removal`, which also says what ``scorer``, ``image`` and ``maps`` are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from hookmap.errors import HookmapError
from hookmap.metrics.cells import CELLS, grid_of, in_cells
from hookmap.metrics.correlation import on_cpu, pearson
from hookmap.metrics.fills import FillSpec
from hookmap.metrics.removal import BATCH, Scorer, one_or_more, scored, scores_without

Explain: TypeAlias = Callable[[Tensor], Tensor]
"""From inputs ``(K, C, *size)`` to their maps ``(K, h, w)``."""
RADIUS = 0.02
"""As in the reference implementation of max-sensitivity, in the units of the model's input."""


# ---------------------------------------------------------------- the image times the map


def average_drop(scorer: Scorer, image: Tensor, maps: Tensor, *, batch_size: int = BATCH) -> Tensor:
    r"""Average drop: the share of the confidence that is lost when the image is multiplied by the map.

    .. math:: \mathrm{AD} = \frac{\max(0, f(x) - f(m \odot x))}{f(x)}

    where *m* is what the map says for the target, over its maximum. Chattopadhay et al., *Grad-CAM++*, WACV 2018,
    arXiv:1710.11063.

    Pitfall: a map that shows everything loses nothing: **an all-ones map wins**. It never votes.

    Args:
        scorer: of changed inputs, giving confidences, 0..1.
        image: ``(C, *size)``.
        maps: ``(M, h, w)``.
        batch_size: changed images per forward pass.

    Returns:
        ``(M,)``, 0..1; smaller is better.

    Raises:
        HookmapError: for scores that aren't confidences.
    """
    whole, kept = _confidences(scorer, image, _masks(image, maps), batch_size)
    return _drop(whole, kept)


def increase(scorer: Scorer, image: Tensor, maps: Tensor, *, batch_size: int = BATCH) -> Tensor:
    r"""Increase of confidence: whether the model is surer of the image multiplied by the map.

    .. math:: \mathrm{IC} = \mathbb{1}[f(m \odot x) > f(x)]

    Chattopadhay et al., *Grad-CAM++*, WACV 2018, arXiv:1710.11063. Arguments as of :func:`average_drop`.

    Pitfall: it says nothing about how much, and a map that merely darkens the border, where objects seldom are, wins
    often. It never votes.

    Returns:
        ``(M,)``, 0 or 1; larger is better.
    """
    whole, kept = _confidences(scorer, image, _masks(image, maps), batch_size)
    return (kept > whole).double()


def gain(scorer: Scorer, image: Tensor, maps: Tensor, *, batch_size: int = BATCH) -> Tensor:
    r"""Average gain: the share of the missing confidence that is won when the image is multiplied by the map.

    .. math:: \mathrm{AG} = \frac{\max(0, f(m \odot x) - f(x))}{1 - f(x)}

    Zhang et al., *Opti-CAM*, CVIU 2024, arXiv:2301.07002. Arguments as of :func:`average_drop`.

    Pitfall: photographers put objects in the middle, so on many photos **a wide spot in the middle, which never saw the
    image, wins** over a map that follows the model. It never votes.

    Returns:
        ``(M,)``, 0..1; larger is better.
    """
    whole, kept = _confidences(scorer, image, _masks(image, maps), batch_size)
    return (kept - whole).clamp(min=0) / (1 - whole).clamp(min=1e-12)


def adcc(scorer: Scorer, image: Tensor, maps: Tensor, explain: Explain, *, batch_size: int = BATCH) -> Tensor:
    r"""Average drop, coherency and complexity in one: the harmonic mean of the three.

    .. math:: \mathrm{ADCC} = 3 \Big/ \Big(\frac{1}{\mathrm{coherency}} + \frac{1}{1 - \mathrm{complexity}}
              + \frac{1}{1 - \mathrm{AD}}\Big)

    Coherency is (1 + r) / 2, with Pearson's r between the map and the map of the image multiplied by it; complexity is
    the map's mean. Poppi et al., *Revisiting The Evaluation of Class Activation Mapping for Explainability*,
    CVPR Workshops 2021, arXiv:2104.10252.

    Pitfall: **a fixed spot in the middle has a coherency of 1** whatever the model, and a complexity as small as you
    like. It never votes.

    Args:
        scorer: of changed inputs, giving confidences, 0..1.
        image: ``(C, *size)``.
        maps: ``(M, h, w)``.
        explain: gives the maps of M inputs ``(M, C, *size)``, the m-th in the way in which ``maps[m]`` was made.
        batch_size: changed images per forward pass.

    Returns:
        ``(M,)``, 0..1; larger is better.

    Raises:
        HookmapError: for scores that aren't confidences, or if ``explain`` gives anything but M maps.
    """
    masks = _masks(image, maps)
    drop = _drop(*_confidences(scorer, image, masks, batch_size))
    again = _masks(image, explained(explain, _masked(image, masks))).flatten(1)
    flat = on_cpu(masks.flatten(1))
    coherency = (1 + pearson(flat, again)) / 2
    return 3 / (1 / coherency + 1 / (1 - flat.mean(1)).clamp(min=0) + 1 / (1 - drop))


def _masks(image: Tensor, maps: Tensor) -> Tensor:
    """What maps say for the target, over their maximum, laid over the image: ``(M, *size)``, 0..1."""
    laid = in_cells(maps.clamp(min=0), image.shape[1:])
    most = maps.flatten(1).amax(1).to(laid).clamp(min=torch.finfo(laid.dtype).tiny)
    return laid / most.reshape(-1, *[1] * (laid.ndim - 1))


def _masked(image: Tensor, masks: Tensor) -> Tensor:
    return image * masks.to(image)[:, None]


def _confidences(scorer: Scorer, image: Tensor, masks: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Of the whole image ``(1,)`` and of the masked ones ``(M,)``."""
    one_or_more(batch_size=batch_size)
    masks = torch.cat([torch.ones_like(masks[:1]), masks])
    scores = torch.cat([scored(scorer, _masked(image, part)) for part in torch.split(masks, batch_size)])
    if float(scores.min()) < 0 or float(scores.max()) > 1 + 1e-6:
        raise HookmapError(
            f"the scorer gave scores from {float(scores.min()):.3g} to {float(scores.max()):.3g}; "
            "what is kept of a confidence is asked here, so let it give probabilities, 0..1"
        )
    return scores[:1], scores[1:]


def _drop(whole: Tensor, kept: Tensor) -> Tensor:
    return (whole - kept).clamp(min=0) / whole.clamp(min=1e-12)


# ---------------------------------------------------------------- what the map foretells


def infidelity(
    scorer: Scorer,
    image: Tensor,
    maps: Tensor,
    *,
    samples: int = 64,
    cells: int | Sequence[int] = CELLS,
    fill: FillSpec = "mean",
    seed: int = 0,
    batch_size: int = BATCH,
) -> Tensor:
    r"""Infidelity: how far the fall of the score is from the sum of the map over what is removed.

    .. math:: \mathrm{INFD} = \mathbb{E}_R\Big[\Big(\beta \sum_{c \in R} m_c
              - \big(f(x) - f(x \setminus R)\big)\Big)^2\Big], \qquad
              \beta = \frac{\mathbb{E}[\sum m_c \cdot \Delta f]}{\mathbb{E}[(\sum m_c)^2]}

    over random sets *R* to which each cell belongs with probability 1/2. Heatmaps have no unit, so the best scale
    :math:`\beta` is taken, as in the authors' code. Yeh et al., *On the (In)fidelity and Sensitivity of Explanations*,
    NeurIPS 2019, arXiv:1901.09392.

    Pitfall: most of what falls when half of an image is missing is that half of it is missing; a map that is the same
    everywhere foretells that, and is hard to beat. It never votes.

    Args:
        scorer: of changed inputs.
        image: ``(C, *size)``.
        maps: ``(M, h, w)``.
        samples: so many random sets.
        cells: along each axis.
        fill: what stands in place of what is removed; see ``hookmap.metrics.fills``.
        seed: of the sets.
        batch_size: changed images per forward pass.

    Returns:
        ``(M,)``, in the scorer's units squared; smaller is better, 0 for a linear model's own attribution.

    Costs ``samples + 1`` forward passes, whatever M.
    """
    one_or_more(samples=samples)
    grid = grid_of(image, cells)
    values = on_cpu(in_cells(maps, grid).flatten(1))
    generator = torch.Generator().manual_seed(seed)
    removed = torch.randint(2, (samples, values.shape[1]), generator=generator).double()
    nothing = torch.zeros(1, values.shape[1]).double()
    scores, _ = scores_without(scorer, image, iter((nothing, removed)), grid, fill, batch_size)
    falls, foretold = scores[0] - scores[1:], values @ removed.T
    scale = (foretold * falls).mean(1) / foretold.square().mean(1).clamp(min=1e-300)
    return (scale[:, None] * foretold - falls).square().mean(1)


def max_sensitivity(
    explain: Explain, image: Tensor, *, radius: float = RADIUS, samples: int = 10, seed: int = 0
) -> Tensor:
    r"""Max-sensitivity: how much a map changes, at most, when the input changes a little.

    .. math:: \max_{\lVert \delta \rVert_\infty \le r} \frac{\lVert m(x + \delta) - m(x) \rVert_2}
              {\lVert m(x) \rVert_2}

    over random :math:`\delta`, uniform in each value. Yeh et al., *On the (In)fidelity and Sensitivity of
    Explanations*, NeurIPS 2019, arXiv:1901.09392.

    Pitfall: **a map that never looks at the image has 0**. It never votes. The maximum over random draws is below the
    true one, and grows with their number.

    Args:
        explain: gives the maps ``(K, h, w)`` of inputs ``(K, C, *size)``.
        image: ``(C, *size)``.
        radius: in the units of the model's input.
        samples: so many random changes.
        seed: of the changes.

    Returns:
        ``()``, 0 or more; smaller is better, NaN or infinite where the map itself is 0 everywhere.
    """
    one_or_more(samples=samples)
    generator = torch.Generator().manual_seed(seed)
    change = (2 * torch.rand(samples, *image.shape, generator=generator) - 1) * radius
    maps = on_cpu(explained(explain, torch.cat([image[None], image + change.to(image)])).flatten(1))
    return ((maps[1:] - maps[0]).square().sum(1).max() / maps[0].square().sum()).sqrt()


def explained(explain: Explain, images: Tensor) -> Tensor:
    """A map of each input.

    Raises:
        HookmapError: if there are others.
    """
    maps = explain(images).detach()
    if len(maps) != len(images) or maps.ndim != images.ndim - 1:
        axes = ", ".join("dhw"[-(images.ndim - 2) :])
        raise HookmapError(
            f"explain gave shape {tuple(maps.shape)} for {len(images)} inputs; expected a map each, "
            f"({len(images)}, {axes})"
        )
    return maps


# ---------------------------------------------------------------- how compact a map is


def complexity(maps: Tensor) -> Tensor:
    r"""Complexity: the entropy of the map's magnitudes.

    .. math:: -\sum_i p_i \ln p_i, \qquad p_i = |m_i| \Big/ \sum_j |m_j|

    Bhatt et al., *Evaluating and Aggregating Feature-based Model Explanations*, IJCAI 2020, arXiv:2005.00631.

    Pitfall: it knows no model: **one bright pixel anywhere has 0**. Maps on finer grids have more, up to the logarithm
    of their places: compare maps of one grid. It never votes.

    Args:
        maps: ``(M, h, w)``.

    Returns:
        ``(M,)``, in nats; smaller is simpler, NaN for a map that is 0 everywhere.
    """
    share = _magnitudes(maps)
    entropy: Tensor = torch.special.entr(share / share.sum(1, keepdim=True)).sum(1)
    return entropy


def sparseness(maps: Tensor) -> Tensor:
    r"""Sparseness: the Gini index of the map's magnitudes, sorted from the smallest to the largest.

    .. math:: \frac{\sum_i (2 i - n - 1) |m|_{(i)}}{n \sum_i |m|_{(i)}}

    Chalasani et al., *Concise Explanations of Neural Networks using Adversarial Training*, ICML 2020,
    arXiv:1810.06583.

    Pitfall: as of :func:`complexity`, **one bright pixel anywhere wins**. It never votes.

    Args:
        maps: ``(M, h, w)``.

    Returns:
        ``(M,)``, 0 (the same everywhere) to nearly 1 (one place); NaN for a map that is 0 everywhere.
    """
    ordered = _magnitudes(maps).sort(dim=1).values
    count = ordered.shape[1]
    weights = 2 * torch.arange(1, count + 1, dtype=torch.float64) - count - 1
    return ordered @ weights / (count * ordered.sum(1))


def _magnitudes(maps: Tensor) -> Tensor:
    return on_cpu(maps.flatten(1)).abs()
