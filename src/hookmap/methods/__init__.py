"""Heatmap methods: pure functions of tensors, and their table.

A method is a function whose parameters say what it needs, each by a word of :data:`INGREDIENTS`; hookmap gathers that
once for all methods that are asked for together. Your own takes three lines::

    @hookmap.method
    def mycam(activation, gradient):
        return (activation * gradient.abs()).sum(1)

and is then ``lens.explain(image, method="mycam")``. What a method asks for that isn't among the ingredients is one
class more: see :mod:`hookmap.methods.ingredients.ingredient`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hookmap.adapters.outputs import Form
from hookmap.methods import (
    attention,
    baselines,
    eigen,
    fullgrad,
    gradient,
    masking,
    pixels,
    relevance,
    replaying,
    superpixels,
)
from hookmap.methods.ingredients import INGREDIENTS, ImageIngredient, Ingredient, Pass, Records, ingredient
from hookmap.methods.registry import BUILT_IN, METHODS, Method, as_method, find_method, method
from hookmap.methods.replaying import Distribution, Probe
from hookmap.methods.weighting import WeightedSum, contributions, weighted_sum
from hookmap.render.look import Look

__all__ = [
    "INGREDIENTS",
    "METHODS",
    "Distribution",
    "ImageIngredient",
    "Ingredient",
    "Method",
    "Pass",
    "Probe",
    "Records",
    "WeightedSum",
    "as_method",
    "attention",
    "baselines",
    "contributions",
    "default_method",
    "eigen",
    "find_method",
    "fullgrad",
    "gradient",
    "ingredient",
    "masking",
    "method",
    "pixels",
    "relevance",
    "replaying",
    "superpixels",
    "weighted_sum",
]

_MODULES = (attention, baselines, eigen, fullgrad, gradient, masking, pixels, relevance, replaying, superpixels)
_FAMILIES = {module.__name__.rpartition(".")[2]: module for module in _MODULES}


def _function(named: str) -> Callable[..., Any]:
    """The function that table.toml names, such as ``gradient.gradcam``."""
    module, _, name = named.partition(".")
    function: Callable[..., Any] = getattr(_FAMILIES[module], name)
    return function


_READ: dict[str, Callable[[Any], Any]] = {"function": _function, "score": _function, "look": lambda look: Look(**look)}

for _name, _facts in tomllib.loads(Path(__file__).with_name("table.toml").read_text(encoding="utf-8")).items():
    METHODS[_name] = Method(
        name=_name, **{key: _READ.get(key, lambda fact: fact)(fact) for key, fact in _facts.items()}
    )
BUILT_IN.update(METHODS)


ALIKE = 0.9
"""Where at least this much of the gradient is the same at all places, its mean says what it says."""


def default_method(form: Form, alike: float | None = None, *, local: bool = False, attended: bool = False) -> Method:
    """What is best where nothing is asked for, by what the model gives and by what was measured.

    Args:
        form: of what the model gives.
        alike: how much of the gradient is the same at all places of the layer, 0..1; None where that isn't known.
        local: of dense outputs, whether a target is at a place of its own and no class in its whole region.
        attended: whether class tokens read the layers by attention.

    Where class tokens read the places, the value path: what they read of each, as far as the score felt it; on a
    trained ViT, of all that know the class, it lies most in the object (benchmarks/objects.py). Else Grad-CAM where
    what follows the layer treats all places alike: there its mean gradient is the gradient. Elsewhere,
    before heads that flatten, class tokens and weighted places, HiResCAM, which takes the gradient place by place and
    adds up to the score where the rest is homogeneous. So it is for a place in a dense output, for the mask of a
    prompt, and for embeddings: summed over the places that a class token reads block by block, it adds up what each of
    them gave. A class in its whole region is found by Grad-CAM: which channels speak for it over all of the region says
    where it is (on a trained segmenter and five photos .77 of the energy lay in the object on average, of HiResCAM's
    .57). For detections ODAM: an object's gradient is where the object is, and a mean over all places forgets it.
    """
    if form == "detections":
        return METHODS["odam"]
    if form == "regions":
        return METHODS["hirescam" if local else "gradcam"]
    if attended:
        return METHODS["valuepath"]
    apart = form in ("embeddings", "masks") or (alike is not None and alike < ALIKE)
    return METHODS["hirescam" if apart else "gradcam"]
