"""Methods that change the activation and look at what becomes of the score: only the part after the layer runs again.

Those that take a ``replay`` see one image at a time: the activation is ``(1, C, *grid)``, scores are ``(T,)`` for T
targets, and maps are ``(T, *grid)``. All targets share the same runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from hookmap.methods.weighting import WeightedSum


class Probe(Protocol):
    """Scores of changed copies of one image (or of its activation at one layer), without gradients."""

    def __call__(self, changed: Tensor) -> Tensor:
        """Scores ``(T, K)`` of the T targets for K copies ``(K, ...)``."""
        ...

    def probability(self, changed: Tensor) -> Tensor:
        """Probabilities ``(T, K)``: softmax over the classes; for targets that aren't classes, their scores."""
        ...

    def parts(self, count: int) -> Iterator[slice]:
        """The indices 0..count in slices that fit into memory; tells the progress bar."""
        ...


class Distribution(Protocol):
    """Probabilities of all classes for changed copies of one image, without gradients."""

    def __call__(self, changed: Tensor) -> Tensor:
        """Probabilities ``(K, classes)`` for K copies ``(K, ...)``."""
        ...

    def parts(self, count: int) -> Iterator[slice]:
        """The indices 0..count in slices that fit into memory; tells the progress bar."""
        ...


@WeightedSum
def ablationcam(activation: Tensor, score: Tensor, ablated: Tensor) -> Tensor:
    r"""Ablation-CAM: feature maps weighted by how much the score falls without them.

    .. math:: w_k = \frac{y - y_{A_k = 0}}{|y|}

    Desai and Ramaswamy, *Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
    Localization*, WACV 2020, eq. 2. Channels are set to zero, for any layer; the fall is divided by the score's
    magnitude, so that a negative score doesn't turn the map inside out (the paper's y is positive).

    Args:
        activation: ``(B, C, *grid)``.
        score: ``(B,)``.
        ablated: the score with each channel set to zero, ``(B, C)``.
    """
    return (score[:, None] - ablated) / _nonzero(score.abs())[:, None]


def reciprocam(activation: Tensor, replay: Probe) -> Tensor:
    r"""Recipro-CAM: the class's probability when the head sees a single place only.

    .. math:: L_i = p_c(A \odot M_i), \qquad M_i = 1 \text{ at place } i \text{, else } 0

    Byun and Lee, *Recipro-CAM: Fast gradient-free visual explanations for convolutional neural networks*, 2022,
    arXiv:2209.14074, eq. 3; masks of one place, without the optional Gaussian rim.
    """
    grid = activation.shape[2:]
    places = activation.flatten(2)
    scores = []
    for part in replay.parts(places.shape[2]):
        columns = torch.arange(part.start, part.stop, device=activation.device)
        changed = activation.new_zeros(len(columns), *places.shape[1:])
        changed[columns - part.start, :, columns] = places[0, :, columns].T
        scores.append(replay.probability(changed.reshape(-1, places.shape[1], *grid)))
    return torch.cat(scores, 1).reshape(-1, *grid)


def featureocclusion(activation: Tensor, score: Tensor, replay: Probe) -> Tensor:
    r"""Occlusion of features: how much the score falls when all channels of a place are set to zero.

    .. math:: L_i = y - y_{A_{:, i} = 0}

    The idea of Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks*, ECCV 2014, in feature space:
    no occluder is pasted into the photo. In the units of the score; places that speak against the target are negative.
    """
    places = activation.flatten(2)
    left = score.new_empty(len(score), places.shape[2])
    for part in replay.parts(places.shape[2]):
        columns = torch.arange(part.start, part.stop, device=activation.device)
        changed = places.repeat(len(columns), 1, 1)
        changed[columns - part.start, :, columns] = 0
        left[:, part] = replay(changed.reshape(-1, *activation.shape[1:]))
    return (score[:, None] - left).reshape(-1, *activation.shape[2:])


def _nonzero(values: Tensor) -> Tensor:
    return torch.where(values == 0, torch.ones_like(values), values)
