"""Relevance: scores shared out to where they came from, by walking the graph of the unmodified model with rules."""

from __future__ import annotations

from hookmap.relevance.account import Account
from hookmap.relevance.balanced import balanced_gradients
from hookmap.relevance.composites import ATTNLRP, EPSILON_PLUS_FLAT, LRP, ZERO, Composite
from hookmap.relevance.layers import Epsilon, Flat, Gamma, Layer, LayerRule, Shares, Zero, ZPlus
from hookmap.relevance.propagate import Relevance, relevance

__all__ = [
    "ATTNLRP",
    "EPSILON_PLUS_FLAT",
    "LRP",
    "ZERO",
    "Account",
    "Composite",
    "Epsilon",
    "Flat",
    "Gamma",
    "Layer",
    "LayerRule",
    "Relevance",
    "Shares",
    "ZPlus",
    "Zero",
    "balanced_gradients",
    "relevance",
]
