"""How much of the input one place of a layer sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hookmap.errors import DisconnectedError, LayerError
from hookmap.hooks.capture import INPUT, capture
from hookmap.hooks.preserve import preserved
from hookmap.layers.layouts import Layout

_DRAWS = 8


def receptive_field(
    model: nn.Module, layer: str, layout: Layout, x: Tensor, *, share: float = 0.9
) -> tuple[float, float]:
    r"""The effective receptive field of a layer's central cell (Luo et al. 2016).

    With the activation :math:`a_c` of channel c in the central cell and an input pixel :math:`x_{ij}`, a pixel's
    energy is :math:`\sum_c (\partial a_c / \partial x_{ij})^2`, here its estimate from 8 random sums of the channels
    with signs +1 and -1, averaged over the inputs. The field is the box around the cell's centre that holds so much of
    the energy: along each axis all but half of what may be left out.

    Args:
        model: or the adapter that calls it; it is left as it came.
        layer: name of a layer that can be read as a grid (h, w).
        layout: how it is read.
        x: inputs, ``(B, C, H, W)``; a few say more than one.
        share: of the energy that the box holds at least, 0..1.

    Returns:
        (height, width) in input pixels, at most the input's own.

    Raises:
        LayerError: if the layer has no rows and columns.
        DisconnectedError: if no gradient goes from it to the input.
    """
    if len(layout.grid) != 2 or x.ndim != 4:
        raise LayerError(
            f"layer {layer!r} of an input of shape {tuple(x.shape)} holds a grid of {layout}; a receptive field needs "
            "rows and columns"
        )
    with preserved(model), capture(model, [INPUT, layer]) as seen:
        model(x)
        activation = seen[layer].calls[0].activation
        grid = layout.of_call(activation).to_grid(activation)
        height, width = grid.shape[-2:]
        centre = grid[..., height // 2, width // 2]  # (B, C)
        draw = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, (_DRAWS, 1, centre.shape[1]), generator=draw).to(centre) * 2 - 1
        scores = (signs * centre).sum(2)
        seen.differentiate(scores)
        gradient = seen[INPUT].gradient
    energy = gradient.double().square().sum((0, 1, 2)).cpu()  # (H, W)
    if not energy.sum() > 0:
        raise DisconnectedError(f"no gradient goes from layer {layer!r} to the input; its field can't be measured")
    rest = (1 - share) / 2
    places = ((height // 2 + 0.5) / height, energy.sum(1)), ((width // 2 + 0.5) / width, energy.sum(0))
    high, wide = (_extent(along, at * len(along), 1 - rest) for at, along in places)
    return high, wide


def _extent(energy: Tensor, centre: float, share: float) -> float:
    """The width of the interval around a centre that holds this share of the energy of pixels."""
    far = (torch.arange(len(energy), dtype=torch.float64) + 0.5 - centre).abs()
    order = far.argsort(stable=True)
    held = energy[order].cumsum(0) / energy.sum()
    last = min(int((held < share - 1e-9).sum()), len(energy) - 1)
    return min(2 * (float(far[order][last]) + 0.5), float(len(energy)))
