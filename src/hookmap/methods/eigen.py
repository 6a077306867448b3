"""Methods that need the activation alone: principal components, thresholds.

Every function takes ``(B, C, *grid)`` and returns ``(B, *grid)``. They know nothing of a target: they show what the
layer reacts to most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from hookmap.methods.weighting import full_precision

_EIGH_UP_TO = 512
_SQUARINGS, _STEPS = 6, 8
_BY_PRODUCTS = ContextVar("_BY_PRODUCTS", default=False)


@contextmanager
def by_products() -> Iterator[None]:
    """Inside the block eigenvectors are found by products alone: runtimes of exported models have no decompositions."""
    before = _BY_PRODUCTS.set(True)
    try:
        yield
    finally:
        _BY_PRODUCTS.reset(before)


def eigencam(activation: Tensor) -> Tensor:
    r"""Eigen-CAM: the activation's places projected on their first singular vector.

    .. math:: A = U \Sigma V^\top, \qquad L = A \, v_1

    with the places as rows. Muhammad and Yeasin, *Eigen-CAM: Class Activation Map using Principal Components*, IJCNN
    2020, arXiv:2008.00299, section III: not centred (pytorch-grad-cam centres the places first, which removes what
    they have in common). A singular vector has no sign: the map is positive where the layer is most active, for any
    layer after a ReLU then positive everywhere. From the smaller of the two Gram matrices, not a full SVD.
    """
    activation = full_precision(activation)
    return oriented(first_component(activation, centred=False), activation.square().sum(1).sqrt(), centred=False)


def kpcacam(activation: Tensor) -> Tensor:
    r"""KPCA-CAM: the first kernel principal component, with a sigmoid kernel.

    .. math:: k(x, y) = \tanh\big(x^\top y / C + 1\big)

    between the centred feature vectors of places. Karmani et al., *KPCA-CAM: Visual Explainability of Deep Computer
    Vision Models using Kernel PCA*, 2024, arXiv:2410.00267. The kernel matrix is centred; the map is its first
    eigenvector times the root of the eigenvalue, with the sign in which it agrees with the strength of the activation.
    """
    activation = full_precision(activation)
    places = _places(activation, centred=True)
    # tanh(x + 1) - tanh(1), without the rounding of x + 1: the centring takes the constant out anyway.
    tanh = torch.tanh(places @ places.mT / places.shape[2])
    kernel = (1 - math.tanh(1) ** 2) * tanh / (1 + math.tanh(1) * tanh)
    kernel = kernel - kernel.mean(1, keepdim=True) - kernel.mean(2, keepdim=True) + kernel.mean((1, 2), keepdim=True)
    value, vector = _largest(kernel)
    component = (vector * value.clamp(min=0).sqrt()[:, None]).reshape(-1, *activation.shape[2:])
    return oriented(component, activation.square().sum(1).sqrt())


def fem(activation: Tensor) -> Tensor:
    r"""FEM: where channels are unusually active, weighted by how active they are in the mean.

    .. math:: L = \sum_k \mu_k \, [A_k > \mu_k + 2 \sigma_k]

    Fuad et al., *Features Understanding in 3D CNNs for Actions Recognition in Video*, IPTA 2020. (pytorch-grad-cam
    weights the feature maps themselves by the share of such places.)
    """
    places = full_precision(activation).flatten(2)
    # From the first place on: a channel that is the same everywhere is then exactly zero, and nowhere unusual.
    first = places[:, :, :1]
    shifted = places - first
    mean, deviation = shifted.mean(2, keepdim=True), shifted.std(2, correction=0, keepdim=True)
    unusual = shifted > mean + 2 * deviation
    return (unusual * (mean + first)).sum(1).reshape(-1, *activation.shape[2:])


def first_component(maps: Tensor, *, centred: bool) -> Tensor:
    """Places projected on their first right singular vector, of either sign: ``(B, C, *grid)`` to ``(B, *grid)``."""
    # Products of faint maps (gradients of an improbable class) leave float32's range: scaled to one, and back.
    places, top = _to_one(_places(maps, centred=centred))
    if places.shape[1] <= places.shape[2]:
        # The projection on v1 is the first left singular vector times its singular value.
        value, vector = _largest(places @ places.mT)
        projected = vector * value.clamp(min=0).sqrt()[:, None]
    else:
        projected = (places @ _largest(places.mT @ places)[1].unsqueeze(2)).squeeze(2)
    return (projected * top[:, 0]).reshape(-1, *maps.shape[2:])


def oriented(component: Tensor, like: Tensor, *, centred: bool = True) -> Tensor:
    """The component with the sign in which it goes along with another map; both ``(B, *grid)``."""
    (flat, _), (wanted, _) = _to_one(component.flatten(1)), _to_one(like.flatten(1))
    if centred:
        wanted = wanted - wanted.mean(1, keepdim=True)
    against = (flat * wanted).sum(1) < 0
    return torch.where(against.reshape(-1, *[1] * (component.ndim - 1)), -component, component)


def most_extreme(component: Tensor) -> Tensor:
    """The component with the sign in which its largest magnitude is positive."""
    flat = component.flatten(1)
    against = -flat.amin(1) > flat.amax(1)
    return torch.where(against.reshape(-1, *[1] * (component.ndim - 1)), -component, component)


def _places(maps: Tensor, *, centred: bool) -> Tensor:
    """``(B, C, *grid)`` as places by channels, ``(B, N, C)``."""
    places = maps.flatten(2).mT
    return places - places.mean(1, keepdim=True) if centred else places


def _to_one(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Each sample divided by its largest magnitude, and that, with axes of 1."""
    top = tensor.abs().amax(tuple(range(1, tensor.ndim)), keepdim=True)
    top = torch.where(top == 0, torch.ones_like(top), top)
    return tensor / top, top


def _largest(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """The largest eigenvalue ``(B,)`` and its eigenvector ``(B, N)`` of symmetric matrices."""
    if _BY_PRODUCTS.get():
        return _largest_by_products(matrices)
    if matrices.shape[1] <= _EIGH_UP_TO:
        values, vectors = torch.linalg.eigh(matrices)
        return values[:, -1], vectors[:, :, -1]
    found = [_largest_of_a_large_one(matrix) for matrix in matrices]
    return torch.stack([value for value, _ in found]), torch.stack([vector for _, vector in found])


def _largest_by_products(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """By power iteration, with 2^6 steps in each: whatever else a start holds is (second / first)^512 of it."""
    power = _to_one(matrices)[0]
    for _ in range(_SQUARINGS):
        power = _to_one(power @ power)[0]
    # The longest column: no fixed start could be at right angles to the vector.
    longest = power.square().sum(1).argmax(1)
    vector = power.gather(2, longest[:, None, None].expand(-1, power.shape[1], 1))
    for matrix in [*[power] * _STEPS, matrices]:
        vector = _to_one(matrix @ vector)[0]
    vector = vector / vector.square().sum(1, keepdim=True).sqrt().clamp(min=torch.finfo(vector.dtype).tiny)
    return (vector * (matrices @ vector)).sum((1, 2)), vector.squeeze(2)


def _largest_of_a_large_one(matrix: Tensor) -> tuple[Tensor, Tensor]:
    # A full decomposition of thousands of places takes seconds; a few products with the matrix find one vector.
    start = torch.cos(torch.arange(matrix.shape[0], device=matrix.device, dtype=matrix.dtype))
    starts = torch.stack([matrix.sum(1), start, matrix.diagonal()], 1)
    starts = starts + 1e-3 * matrix.abs().amax().clamp(min=1e-20) * start[:, None].roll(1, 0)
    if not bool(matrix.any()):
        return matrix.new_zeros(()), matrix.new_zeros(matrix.shape[0])
    tolerance = 1e-6 if matrix.dtype == torch.float32 else 1e-12
    values, vectors = torch.lobpcg(matrix, X=starts, niter=60, tol=tolerance, largest=True)
    return values[0], vectors[:, 0]
