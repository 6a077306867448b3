"""Heatmap methods: pure functions of tensors, and their table.

A method is a function whose parameters say what it needs, each by a word of :data:`INGREDIENTS`; hookmap gathers that
once for all methods that are asked for together. Your own takes three lines::

    @hookmap.method
    def mycam(activation, gradient):
        return (activation * gradient.abs()).sum(1)

and is then ``lens.explain(image, method="mycam")``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hookmap.adapters.outputs import Form
from hookmap.methods import baselines, eigen, fullgrad, gradient, masking, replaying
from hookmap.methods.registry import BUILT_IN, INGREDIENTS, METHODS, Method, as_method, find_method, method
from hookmap.methods.replaying import Probe
from hookmap.methods.weighting import WeightedSum, contributions, weighted_sum

__all__ = [
    "INGREDIENTS",
    "METHODS",
    "Method",
    "Probe",
    "WeightedSum",
    "as_method",
    "baselines",
    "contributions",
    "default_method",
    "eigen",
    "find_method",
    "fullgrad",
    "gradient",
    "masking",
    "method",
    "replaying",
    "weighted_sum",
]

_FAMILIES = {"baselines": baselines, "eigen": eigen, "fullgrad": fullgrad, "gradient": gradient}
_FAMILIES |= {"masking": masking, "replaying": replaying}


def _function(named: str) -> Callable[..., Any]:
    """The function that table.toml names, such as ``gradient.gradcam``."""
    module, _, name = named.partition(".")
    function: Callable[..., Any] = getattr(_FAMILIES[module], name)
    return function


for _name, _facts in tomllib.loads(Path(__file__).with_name("table.toml").read_text(encoding="utf-8")).items():
    METHODS[_name] = Method(
        name=_name, **_facts | {key: _function(_facts[key]) for key in ("function", "score") if key in _facts}
    )
BUILT_IN.update(METHODS)


def default_method(form: Form) -> Method:
    """What is best where nothing is asked for, by what the model gives.

    Grad-CAM; for detections ODAM: an object's gradient is where the object is, and a mean over all places, Grad-CAM's
    weight, forgets it. For embeddings HiResCAM: summed over the places that a class token reads block by block,
    gradient times activation adds up what each of them gave, which a mean weight doesn't (and where the gradient is the
    same at all places it is Grad-CAM).
    """
    return METHODS[{"detections": "odam", "embeddings": "hirescam"}.get(form, "gradcam")]
