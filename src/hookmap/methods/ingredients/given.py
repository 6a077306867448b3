"""What is there without looking into the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hookmap.methods.ingredients.ingredient import Ingredient, Pass, Request, ingredient
from hookmap.methods.weighting import full_precision


@ingredient
class Image(Ingredient):
    """The model's input."""

    name = "image"
    description = "the model's input, (B, C, *size)"

    def of_batch(self, run: Pass, request: Request) -> Tensor:
        """``(B, C, *size)``."""
        return run.x


@ingredient
class Score(Ingredient):
    """The targets' scores."""

    name = "score"
    description = "of the target, (B,)"
    of_target = True

    def of_batch(self, run: Pass, request: Request) -> Tensor:
        """``(T, B)``."""
        return full_precision(run.scores)


@ingredient
class Generator(Ingredient):
    """Random numbers."""

    name = "generator"
    description = "seeded random numbers"

    def of_batch(self, run: Pass, request: Request) -> torch.Generator:
        """From the start of the seed: every method and image gets the same."""
        return run.generator()


@ingredient
class Budget(Ingredient):
    """How much may be spent."""

    name = "budget"
    description = "most copies of one image that may be looked at, or None"

    def of_batch(self, run: Pass, request: Request) -> Any:
        """None leaves the method's own default."""
        return run.budget
