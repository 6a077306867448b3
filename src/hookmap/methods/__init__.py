"""Heatmap methods: pure functions of tensors, and the registry that names them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from hookmap.errors import HookmapError
from hookmap.methods.gradient import gradcam

__all__ = ["METHODS", "Method", "find_method", "gradcam"]


@dataclass(frozen=True)
class Method:
    """A method by name.

    Attributes:
        name: what the user writes.
        function: ``(activation (B, C, *grid), gradient (B, C, *grid)) -> signed map (B, *grid)``.
        rectified: whether the paper ends in a ReLU, so that only the positive part is its heatmap.
        paper: where it is defined.
        summary: one line for lists.
    """

    name: str
    function: Callable[[Tensor, Tensor], Tensor]
    rectified: bool
    paper: str
    summary: str


METHODS: dict[str, Method] = {
    method.name: method
    for method in [
        Method(
            "gradcam",
            gradcam,
            rectified=True,
            paper="Selvaraju et al. 2017, arXiv:1610.02391",
            summary="feature maps weighted by their mean gradient",
        ),
    ]
}


def find_method(name: str) -> Method:
    """The method of a name; upper case, hyphens, underscores and a plus sign don't matter.

    Raises:
        HookmapError: naming the closest methods.
    """
    plain = name.casefold().replace("-", "").replace("_", "").replace("++", "pp")
    if plain in METHODS:
        return METHODS[plain]
    close = difflib.get_close_matches(plain, METHODS, n=3, cutoff=0.5) or list(METHODS)
    raise HookmapError(f"there's no method {name!r}; did you mean {', '.join(close)}? (`hookmap methods` lists all)")
