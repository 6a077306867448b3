"""Whether a file gives what the model gives: on other pictures than it was traced with, and another number of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from hookmap.errors import ModelError
from hookmap.models.onnx.about import HEATMAP

TOLERANCE, HALF = 1e-4, 2e-2
"""Of the scale of each output; of half precision's."""
_STEADY = 0.01
_TRIES = 4
_AT = 0.99
"""Rounding turns single places over, where a ReLU or a maximum stands at its edge: of a hundred one isn't looked at."""

Run = Callable[[Tensor], Mapping[str, Tensor]]


def check(model: Run, file: Run, example: Tensor, batch: int | None) -> None:
    """Compare what a file gives with what the model gives.

    Args:
        model: from a batch to outputs by name.
        file: likewise.
        example: that the file was traced with, ``(1, C, *size)``.
        batch: how many images the file takes; None: any number.

    Raises:
        ModelError: if they differ by more than rounding does.
    """
    close = HALF if example.dtype in (torch.float16, torch.bfloat16) else TOLERANCE
    for number in range(_TRIES):
        x = _pictures(example, batch or 3, seed=number)
        wanted, nearly = model(x), model(x + _last_digits(x, seed=number))
        rounding = {name: _difference(nearly[name], wanted[name]) for name in wanted}
        if max(rounding.values()) > max(_STEADY, close):
            continue  # a tie between two classes says nothing of the file
        found = file(x)
        for name, value in wanted.items():
            if found[name].shape != value.shape:
                got, expected = tuple(found[name].shape), tuple(value.shape)
                raise ModelError(f"the file's {name!r} is {got} where the model's is {expected}; nothing was written")
            away, allowed = _difference(found[name], value), max(close, 10 * rounding[name])
            if not away <= allowed:
                hint = "; take a later layer" if name == HEATMAP else ""
                raise ModelError(
                    f"the file's {name!r} is off the model's by {away:.1e} of its scale, {allowed:.0e} is let pass; "
                    f"nothing was written{hint}"
                )
        return
    raise ModelError(
        "the last digit of the input already changes this model's answers by more than 1 %, so no file of it can be "
        "checked; take a later layer, or a target by its index"
    )


def _pictures(example: Tensor, count: int, seed: int) -> Tensor:
    """Blots and grain, ``(count, C, *size)``, in the range of the example."""
    generator = torch.Generator().manual_seed(1 + seed)
    size, plain = example.shape[2:], example.float().cpu()
    grain = torch.randn(count, example.shape[1], *size, generator=generator)
    blots = torch.randn(count, example.shape[1], *[min(side, 9) for side in size], generator=generator)
    if len(size) == 2:
        grain = 0.3 * grain + functional.interpolate(blots, tuple(size), mode="bilinear")
    spread = float(plain.std()) if plain.numel() > 1 else 1.0
    return (plain.mean() + spread * grain / grain.std()).to(example)


def _last_digits(x: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 + seed)
    noise = torch.randn(x.shape, generator=generator).to(x)
    return noise * x.abs() * torch.finfo(x.dtype).eps


def _difference(one: Tensor, other: Tensor) -> float:
    """As a share of the largest value, at all places but one in a hundred."""
    one, other = one.detach().double().cpu(), other.detach().double().cpu()
    away = (one - other).abs().flatten()
    if not away.numel():
        return 0.0
    # torch.quantile takes few numbers only.
    worst = float(away.sort().values[int(_AT * (away.numel() - 1))])
    scale = float(other.abs().max())
    return worst / scale if scale > 0 else worst
