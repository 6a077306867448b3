"""What is exported: from a batch of inputs to what the model says of it and its heatmaps, in one function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hookmap._nested import tensors_in
from hookmap._progress import silent
from hookmap.adapters.adapter import Fusion
from hookmap.adapters.outputs import Detections
from hookmap.attribution.engine import Engine
from hookmap.attribution.forward import Forward
from hookmap.attribution.modifiers import fused
from hookmap.layers.layouts import Layout
from hookmap.methods import Method
from hookmap.models.onnx.about import HEATMAP
from hookmap.render.look import Part
from hookmap.results.planes import part_of
from hookmap.results.question import Settings
from hookmap.targets import Goal
from hookmap.targets.traced import TracedTargets


@dataclass(frozen=True, eq=False)
class Explaining:
    """A model and one question, as a function of a batch: the same pass, targets and method as in an explanation.

    Attributes:
        engine: of the model.
        goals: T targets.
        method: that makes the maps.
        layouts: of the layers that are looked at.
        fuse: how maps of several layers become one.
        part: of the signed map.
    """

    engine: Engine
    goals: Sequence[Goal]
    method: Method
    layouts: Mapping[str, Layout]
    fuse: Fusion | None
    part: Part

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """The model's own outputs by their names, and ``"heatmap"``, ``(B, T, *grid)``.

        Args:
            x: ``(B, C, *size)``.
        """
        traced, said = self.engine.trace(x), list[Any]()

        def settled(output: Any) -> TracedTargets:
            said.append(output)
            return TracedTargets(self.goals, output, traced.reading)

        run = Forward(self.engine.execution, x, self.layouts, [self.method], traced, Settings(), silent, settled)
        maps = [run.map(self.method, layer).flatten(0, 1) for layer in self.layouts]
        raw = maps[0] if self.fuse is None else fused(maps, self.fuse)
        raw = raw.reshape(len(self.goals), -1, *raw.shape[1:]).transpose(0, 1)
        return {name: tensor.detach() for name, tensor in outputs_of(said[-1]).items()} | {
            HEATMAP: part_of(raw, self.part).detach()
        }


def outputs_of(output: Any) -> dict[str, Tensor]:
    """A model's outputs by their names; a bare tensor is the ``"prediction"``."""
    if isinstance(output, Detections):
        return {name: getattr(output, name) for name in ("scores", "boxes", "probabilities")}
    return {name or "prediction": tensor for name, tensor in tensors_in(output).items()}
