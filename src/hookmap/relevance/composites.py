"""Which rules go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from hookmap.relevance.layers import Epsilon, Flat, Gamma, LayerRule, Zero, ZPlus
from hookmap.relevance.rules import Backward


@dataclass(frozen=True)
class Composite:
    """Rules for a whole model, used together.

    Attributes:
        name: of the composite.
        linear: the rule of linear layers.
        convolution: that of convolutions.
        first: that of whichever layer sees the input, or None for its kind's.
        attention: "values": attention weights are held constant, so that relevance passes through values only (CP-LRP,
            Ali et al. 2022, arXiv:2202.07304); "halves": each factor of a product gets half, and the softmax hands on
            its gradient (AttnLRP, Achtibat et al. 2024, arXiv:2402.05602), so that queries and keys get a quarter each.
        rules: of further kinds of node, by their name without "Backward0", before the built-in ones.
    """

    name: str
    linear: LayerRule = field(default_factory=Zero)
    convolution: LayerRule = field(default_factory=Zero)
    first: LayerRule | Flat | None = None
    attention: Literal["values", "halves"] = "values"
    rules: Mapping[str, Backward] = field(default_factory=dict)


ZERO = Composite("zero")
"""Gradient x input with every layer as it is; what bends hands on all of its output."""

LRP = Composite("lrp", linear=Gamma(0.05), convolution=Gamma(0.25), first=Flat())
"""Gamma in every layer, and a flat first one."""

ATTNLRP = replace(LRP, name="attnlrp", attention="halves")
"""The same with the attention of AttnLRP."""

EPSILON_PLUS_FLAT = Composite("epsilon plus flat", linear=Epsilon(), convolution=ZPlus(), first=Flat())
"""As zennit's of this name; for plain convolutional networks."""
