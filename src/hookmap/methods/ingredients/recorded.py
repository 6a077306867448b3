"""What the pass itself records of a layer: its activation, and the score's derivatives with respect to it."""

from __future__ import annotations

from torch import Tensor

from hookmap.errors import DisconnectedError, LayerError
from hookmap.methods.ingredients.ingredient import Ingredient, Pass, Records, Request, ingredient


@ingredient
class Activation(Ingredient):
    """The layer's output."""

    name = "activation"
    description = "the layer's output, (B, C, *grid)"
    price = "activation"
    of_layer = True
    records = Records.ACTIVATIONS

    def of_batch(self, run: Pass, request: Request) -> Tensor:
        """``(B, C, *grid)``, of the layer's last call."""
        return activation(run, request.layer)


@ingredient
class Gradient(Ingredient):
    """The gradient."""

    name = "gradient"
    description = "of the score with respect to the activation, (B, C, *grid)"
    price = "gradient"
    of_layer = True
    of_target = True
    records = Records.GRADIENTS

    def of_batch(self, run: Pass, request: Request) -> Tensor:
        """``(T, B, C, *grid)``, of the score that the method differentiates."""
        return gradients(run, request.layer)[run.rows(request.method)]


@ingredient
class Curvature(Ingredient):
    """The second derivative along the activation."""

    name = "curvature"
    description = "the score's Hessian with respect to the activation, times the activation, (B, C, *grid)"
    price = "second derivative"
    of_layer = True
    of_target = True
    records = Records.CURVATURES

    def of_batch(self, run: Pass, request: Request) -> Tensor:
        """``(T, B, C, *grid)``."""
        if run.no_curvature is not None:
            raise LayerError(
                f"{request.method} needs second derivatives, and this model has none ({run.no_curvature}); take gradcam"
            ) from run.no_curvature
        curvature = next(iter(run.seen[request.layer].calls[-1].curvatures.values()))
        return run.grid(request.layer, curvature)


def activation(run: Pass, layer: str) -> Tensor:
    """What a layer gave at its last call, ``(B, C, *grid)``."""
    value: Tensor = run.kept(("activation", layer), lambda: run.grid(layer, run.seen[layer].calls[-1].activation))
    return value


def gradients(run: Pass, layer: str) -> Tensor:
    """Gradients of all scores that were differentiated, ``(R, B, C, *grid)``: of T targets, then methods' own.

    Raises:
        DisconnectedError: if no score depends on the layer.
    """

    def take() -> Tensor:
        call = run.seen[layer].calls[-1]
        if next(iter(call.activations)) not in call.gradients:
            raise DisconnectedError(f"the target doesn't depend on layer {layer!r}; pass a layer that leads to it")
        return run.grid(layer, call.gradient)

    value: Tensor = run.kept(("gradient", layer), take)
    return value
