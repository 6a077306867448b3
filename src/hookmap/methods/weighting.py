"""What CAM methods share: the weighted sum of feature maps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""How PyTorch calls linear interpolation, by the number of axes."""


class WeightedSum:
    r"""A method that gives weights; calling it gives the map.

    .. math:: L = \sum_k w_k A_k

    with one weight per channel (``weights`` gives ``(B, C)``) or per channel and place (``(B, C, *grid)``). Half
    precision is computed in float32.
    """

    def __init__(self, weights: Callable[..., Tensor]) -> None:
        functools.update_wrapper(self, weights)
        self._weights = weights

    def __reduce__(self) -> str:
        """Pickled by its name: the function inside has the same one."""
        return str(self.__dict__["__qualname__"])

    def weights(self, *ingredients: Any, **named: Any) -> Tensor:
        """The paper's weights: what the undecorated function gives, in float32 at least."""
        given = {word: _precise(value) for word, value in named.items()}
        first = next(value for value in (*ingredients, *named.values()) if isinstance(value, Tensor))
        # The user's own autocast would round what is summed.
        with torch.autocast(first.device.type, enabled=False):
            return self._weights(*map(_precise, ingredients), **given)

    def __call__(self, activation: Tensor, *ingredients: Any, **named: Any) -> Tensor:
        """The signed map ``(B, *grid)``."""
        weights = self.weights(activation, *ingredients, **named)
        with torch.autocast(activation.device.type, enabled=False):
            return weighted_sum(activation, weights)


def weighted_sum(activation: Tensor, weights: Tensor) -> Tensor:
    """Feature maps ``(B, C, *grid)`` or ``(1, C, *grid)`` times weights ``(B, C)`` or ``(B, C, *grid)``, summed."""
    grid = activation.shape[2:]
    activation, weights = activation.to(weights.dtype).flatten(2), weights.flatten(2) if weights.ndim > 2 else weights
    if weights.ndim == 2:
        return (weights.unsqueeze(1) @ activation).reshape(-1, *grid)
    return torch.einsum("bcn,bcn->bn", activation.expand_as(weights), weights).reshape(-1, *grid)


def contributions(activation: Tensor, weights: Tensor) -> Tensor:
    """The summands of :func:`weighted_sum`, ``(B, C, *grid)``."""
    return activation * (weights if weights.ndim > 2 else per_place(weights, activation))


def per_place(values: Tensor, activation: Tensor) -> Tensor:
    """Values per channel ``(B, C)`` with axes of 1 for the grid."""
    return values.reshape(*values.shape, *[1] * (activation.ndim - 2))


def full_precision(tensor: Tensor) -> Tensor:
    """Half precision to float32: sums over thousands of places and products of gradients need it."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _precise(ingredient: Any) -> Any:
    return full_precision(ingredient) if isinstance(ingredient, Tensor) else ingredient
