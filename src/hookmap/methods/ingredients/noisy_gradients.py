"""Gradients averaged over noisy copies of the input."""

from __future__ import annotations

import torch
from torch import Tensor

from hookmap.methods.ingredients.ingredient import Ingredient, Pass, Request, ingredient
from hookmap.methods.noise import noisy

SAMPLES = 25


@ingredient
class Moments(Ingredient):
    """Means of powers of the gradient."""

    name = "moments"
    description = "means of the gradient, its square and its cube over noisy copies of the input, (B, 3, C, *grid)"
    price = f"gradient on {SAMPLES} noisy copies"
    of_layer = True
    of_target = True

    def of_batch(self, run: Pass, request: Request) -> Tensor:
        """``(T, B, 3, C, *grid)``; all layers are taken together."""
        moments: dict[str, Tensor] = run.kept(("moments", None), lambda: self._take(run))
        return moments[request.layer]

    def _take(self, run: Pass) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        done = run.track("noisy inputs", SAMPLES)
        for copies in noisy(run.x, SAMPLES, run.generator()):
            seen, _ = run.differentiated(copies, [*run.layouts])
            for layer in run.layouts:
                g = run.grid(layer, seen[layer].calls[-1].gradient)
                powers = torch.stack([g, g**2, g**3], 2) / SAMPLES
                total[layer] = total[layer] + powers if layer in total else powers
            done(1)
        return total
