"""What a model says of changed copies of an image, for metrics that change images."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from hookmap._devices import out_of_memory
from hookmap.attribution.engine import Batch, Engine
from hookmap.attribution.execution import copies_at_once
from hookmap.errors import HookmapError, TargetError
from hookmap.hooks.preserve import preserved
from hookmap.methods.weighting import full_precision
from hookmap.targets import Goal
from hookmap.targets.resolved import ResolvedTargets

Scale = Literal["probability", "score"]
"""What is read of a target: its probability where it has one, or its score (of a class, the logit)."""
_SIZES = (8, 16, 32)


class Scoring:
    """A model made ready to score many changed inputs of one size.

    Where a copy of the model with its batch norms folded in and channels last gives the same faster, that copy runs: it
    holds the weights as they are now.

    Args:
        engine: of the model.
        x: an input of the size that is meant, ``(B, C, *size)``.
        scale: what is read of the targets.
        batch_size: how many run together; None: how many do fastest, which is worth the trial for thousands.

    Attributes:
        batch_size: how many run together. On a CPU large batches may be slower by half, so 8, 16 and 32 are tried; 1
            where a model takes no other number.
    """

    def __init__(self, engine: Engine, x: Tensor, scale: Scale = "probability", batch_size: int | None = None) -> None:
        if scale not in get_args(Scale):
            raise HookmapError(f"scale is {scale!r}; expected one of {', '.join(get_args(Scale))}")
        self._engine = engine
        self.scale: Scale = scale
        with preserved(engine.model):
            self._run = engine.execution.for_many_passes(x)
            self.batch_size = self._fastest(x[:1]) if batch_size is None else min(batch_size, self._most(x[:1]))

    def of(self, batch: Batch, goal: Goal) -> list[Callable[[Tensor], Tensor]]:
        """Of each image of a batch, from changed inputs ``(K, C, *size)`` to the scores of its target, ``(K,)``.

        What is asked is settled on the plain images: the predicted class stays the class that was predicted.

        Raises:
            TargetError: if the target can't be asked of these images, or means several things on one.
        """
        targets = resolved_on(batch, goal)
        if len(targets) > 1:
            raise TargetError(f"the target {goal} means several things on one image; ask for one of them")
        return [self._scorer(targets, sample) for sample in range(len(batch.x))]

    def _scorer(self, targets: ResolvedTargets, sample: int) -> Callable[[Tensor], Tensor]:
        def scorer(changed: Tensor) -> Tensor:
            with preserved(self._engine.model):
                output = self._run(changed)
            read = targets.likely if self.scale == "probability" else targets.scores
            return full_precision(read(output, sample)[0])

        return scorer

    def _most(self, x: Tensor) -> int:
        """How many fit into memory."""
        engine = self._engine
        return copies_at_once(x, engine.trace(x)) if engine.execution.takes_batches(x) else 1

    def _fastest(self, x: Tensor) -> int:
        most = self._most(x)
        if x.is_cuda:
            return most
        sizes = [size for size in _SIZES if size <= most] or [most]
        return min(sizes, key=lambda size: self._seconds(x, size) / size)

    def _seconds(self, x: Tensor, size: int) -> float:
        together = x.expand(size, *x.shape[1:]).contiguous()
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            try:
                self._run(together)
            except RuntimeError as error:
                if out_of_memory(error):
                    return float("inf")
                raise
            times.append(time.perf_counter() - begin)
        return min(times)


def resolved_on(batch: Batch, goal: Goal) -> ResolvedTargets:
    """What is asked of the images of a batch, settled on what the model says of them as they are."""
    engine, x = batch.engine, batch.x
    reading = engine.trace(x).reading
    geometries = [view.geometry for view in batch.views]
    return ResolvedTargets([goal], engine.output(batch), geometries, engine.label, reading, x.shape[2:])
