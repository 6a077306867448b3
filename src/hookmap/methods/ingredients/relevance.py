"""Relevance of layers and of the input, and what its account says."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from hookmap.errors import DisconnectedError
from hookmap.methods.ingredients.ingredient import Ingredient, Pass, Request, ingredient
from hookmap.methods.weighting import full_precision
from hookmap.relevance import ATTNLRP, LRP, Composite, Relevance, relevance


class _Relevances(Ingredient):
    """Relevance by one composite."""

    price = "relevance"
    of_target = True
    composite: ClassVar[Composite]

    def taken(self, run: Pass, request: Request) -> Relevance:
        """Of the input and of all layers together."""

        def take() -> Relevance:
            with run.casting(run.x):
                return relevance(run.model, run.x, run.targets.scores, self.composite, [*run.layouts])

        found: Relevance = run.kept(("relevance", self.composite.name), take)
        if any(cautions := [account.caution for account in found.accounts]):
            run.cautions |= {(request.method, sample): cautions for sample in range(len(run.x))}
        return found


class _OfLayer(_Relevances):
    of_layer = True

    def of_batch(self, run: Pass, request: Request) -> Tensor:
        """``(T, B, C, *grid)``, of the layer's last call."""
        layers = self.taken(run, request).layers
        if request.layer not in layers:
            raise DisconnectedError(
                f"the target doesn't depend on layer {request.layer!r}; pass a layer that leads to it"
            )
        return run.grid(request.layer, layers[request.layer])


@ingredient
class LayerRelevance(_OfLayer):
    """Relevance of the layer."""

    name = "relevance"
    description = "of the layer's output, by LRP, (B, C, *grid)"
    composite = LRP


@ingredient
class AttentionRelevance(_OfLayer):
    """Relevance of the layer, by AttnLRP."""

    name = "attention_relevance"
    description = "of the layer's output, by AttnLRP, (B, C, *grid)"
    composite = ATTNLRP


@ingredient
class InputRelevance(_Relevances):
    """Relevance of the input."""

    name = "input_relevance"
    description = "of the model's input, by LRP, (B, C, *size)"
    composite = LRP

    def of_batch(self, run: Pass, request: Request) -> Tensor:
        """``(T, B, C, *size)``."""
        return full_precision(self.taken(run, request).input)
