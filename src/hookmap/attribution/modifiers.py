"""What goes with every method: smoothing over changed inputs or feature maps, rival classes, and fusion of layers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap.adapters.adapter import Fusion
from hookmap.errors import HookmapError
from hookmap.methods import Method, WeightedSum, contributions
from hookmap.methods.eigen import first_component, oriented
from hookmap.methods.weighting import LINEAR, per_place

_TEMPERATURE, _AHEAD = 0.1, 0.01


@dataclass(frozen=True)
class Variation:
    """A changed input, and whether left and right changed places in it."""

    x: Tensor
    mirrored: bool = False

    def undo(self, maps: Tensor, filled: float = 1.0) -> Tensor:
        """Its maps ``(T, B, *grid)`` on the plain input's grid.

        Args:
            maps: of the changed input.
            filled: the share of the grid's columns that the input fills, from the left: less where the model pads it.
        """
        if not self.mirrored:
            return maps
        if filled == 1:
            return maps.flip(-1)
        columns = maps.shape[-1]
        # A column's middle, as far from the right edge of the picture as it was from the left.
        at = (filled * columns - 1 - torch.arange(columns)).clamp(min=0)
        low = at.floor().long()
        share = (at - low).to(maps)
        return maps[..., low] * (1 - share) + maps[..., (low + 1).clamp(max=columns - 1)] * share


def augmented(x: Tensor) -> list[Variation]:
    """Mirrored, darker and brighter copies of an input ``(B, C, *size)``; the plain input isn't among them.

    The six of pytorch-grad-cam's ``aug_smooth``: plain and mirrored, times 0.9, 1 and 1.1.
    """
    pairs = [(x, False), (x.flip(-1), True)]
    return [Variation(f * image, mirrored) for image, mirrored in pairs for f in (1.0, 0.9, 1.1)][1:]


def eigen_smoothed(method: Method) -> Method:
    """The method with its weighted feature maps reduced to their first principal component instead of summed.

    As pytorch-grad-cam's ``eigen_smooth``, with the sign in which the component goes along with the sum. For a method
    that gives no weights, its map weights the feature maps; one whose map isn't on a layer's grid stays as it is.
    """
    function = method.function
    weights = _weights(function)

    @functools.wraps(function)
    def smoothed(**given: Any) -> Tensor:
        activation = given.get("activation")
        if weights is not None:
            parts = contributions(given["activation"], weights(**given))
            plain = parts.sum(1)
        else:
            plain = function(**given)
            if activation is None or plain.shape[1:] != activation.shape[2:]:
                return plain
            parts = activation * plain.unsqueeze(1)
        return oriented(first_component(parts, centred=True), plain)

    return replace(method, function=smoothed, uniform=None)


def _weights(function: Callable[..., Tensor]) -> Callable[..., Tensor] | None:
    """What gives a method's weights, also of one with settings; None for a method that gives none."""
    if isinstance(function, functools.partial):
        inner = _weights(function.func)
        return inner and functools.partial(inner, *function.args, **function.keywords)
    return function.weights if isinstance(function, WeightedSum) else None


def competed(maps: Tensor) -> Tensor:
    r"""What of a class's map its rivals leave it: the first of the maps is its own, the others are theirs.

    .. math:: L = A_c \, M_c \, \big[M_c > \tfrac{1}{K + 1} + \tau\big], \qquad
              M_{c,i} = \frac{\exp(A_{c,i} / t a)}{\sum_k \exp(A_{k,i} / t a)}, \qquad a = \max_{k,i} |A_{k,i}|

    VAR: Walter, Vreeken and Fischer, *Now you see me!*, 2025, arXiv:2503.07346, with t = 0.1 and :math:`\tau` = 0.01 of
    the authors' code; there attributions compete in their own units, of which what becomes of small ones would depend.

    Args:
        maps: ``(1 + K, T, B, *grid)``.
    """
    top = maps.abs().amax((0, *range(3, maps.ndim)), keepdim=True)
    share = (maps / (_TEMPERATURE * torch.where(top > 0, top, 1))).softmax(0)[0]
    return maps[0] * share * (share > 1 / len(maps) + _AHEAD)


def fused(maps: Sequence[Tensor], how: Fusion) -> Tensor:
    r"""One map ``(N, *grid)`` of several layers' maps, on the finest of their grids.

    - ``"sum"``: signed, in the methods' own units: levels of a pyramid share a decision between them.

    - ``"last"``: signed, of the last layer whose map isn't zero: levels that make one another, of which an object is
      read from one.

    For the others each map's positive part is divided by its maximum first, so that no layer drowns the others.

    - ``"mean"``, ``"max"``.
    - ``"product"``: only where all layers agree; RefineCAM: Domeniconi et al., *How to Evaluate and Refine your CAM*,
      2026, arXiv:2605.14641.
    - ``"layercam"``: :math:`\max_l \tanh(2 M_l / \max M_l)`: Jiang et al., *LayerCAM*, IEEE TIP 2021, section III-C.

    Raises:
        HookmapError: if the grids have different numbers of axes.
    """
    grid = max((each.shape[1:] for each in maps), key=lambda shape: shape.numel())
    if how == "sum":
        return torch.stack([_on_grid(each, grid) for each in maps]).sum(0)
    if how == "last":
        result = _on_grid(maps[0], grid)
        for each in maps[1:]:
            speaks = each.flatten(1).any(1).reshape(-1, *[1] * len(grid))
            result = torch.where(speaks, _on_grid(each, grid), result)
        return result
    scaled = torch.stack([_on_grid(_to_one(each), grid) for each in maps])
    if how == "product":
        return scaled.prod(0)
    if how == "mean":
        return scaled.mean(0)
    return torch.tanh(2 * scaled).amax(0) if how == "layercam" else scaled.amax(0)


def _to_one(maps: Tensor) -> Tensor:
    """The positive part of each map, divided by its maximum."""
    positive = maps.clamp(min=0)
    top = positive.flatten(1).amax(1)
    return positive / per_place(torch.where(top > 0, top, 1)[:, None], positive[:, None]).squeeze(1)


def _on_grid(maps: Tensor, grid: torch.Size) -> Tensor:
    if maps.shape[1:] == grid:
        return maps
    if maps.ndim - 1 != len(grid):
        raise HookmapError("maps of these layers can't be fused: their grids have different numbers of axes")
    return F.interpolate(maps[:, None], tuple(grid), mode=LINEAR[len(grid)], align_corners=False)[:, 0]
