"""Passes over one batch that are kept with their graphs, so that one more question costs only its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from hookmap.attribution.execution import Execution
from hookmap.hooks.capture import Capture, capture

MOST = 2
"""So many passes are kept: one of the layers, one of the attention."""


class Passes:
    """Passes of one model over one input; a question finds the one that holds what it needs, or makes it.

    Not for several threads at once: the gradients of a question stand in the pass until the next one.

    Args:
        layers: that a pass records beside those that are asked for, so that the next question finds them.
        attention: whether it reads attention too.
    """

    def __init__(self, layers: Sequence[str] = (), *, attention: bool = False) -> None:
        self._layers = layers
        self._attention = attention
        self._kept: list[tuple[nn.Module, frozenset[str], bool, Capture, Any]] = []

    def over(
        self,
        model: nn.Module,
        x: Tensor,
        names: Sequence[str],
        casting: AbstractContextManager[Any],
        *,
        attention: bool,
    ) -> tuple[Capture, Any]:
        """What was captured of these layers, and the output, with its graph.

        Args:
            model: in evaluation mode.
            x: its input, the same at every call.
            names: of layers, or ``"input"``.
            casting: the block in which the model is to be called.
            attention: whether attention is read too.
        """
        for place, (of, layers, attended, seen, output) in enumerate(self._kept):
            if of is model and layers >= {*names} and attended >= attention:
                self._kept.insert(0, self._kept.pop(place))
                return seen, output
        layers, attention = frozenset({*names, *self._layers}), attention or self._attention
        with capture(model, sorted(layers), attention=attention, retain_graph=True) as seen, torch.no_grad(), casting:
            output = model(x)
        self._kept = [(model, layers, attention, seen, output), *self._kept][:MOST]
        return seen, output

    def output(self, execution: Execution, x: Tensor) -> Any:
        """The model's output, from whichever pass is there; where no layer can be recorded, none is kept."""
        if self._kept:
            return self._kept[0][-1]
        if not self._layers:
            with torch.no_grad(), execution.casting(x):
                return execution.module(())(x)
        return self.over(execution.module(self._layers), x, (), execution.casting(x), attention=False)[1]
