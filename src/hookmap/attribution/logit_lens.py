"""The logit lens: what the model's own head would say of the tokens after each block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hookmap._devices import out_of_memory
from hookmap.attribution.attention import attentions_of, only_image, within
from hookmap.attribution.engine import Engine
from hookmap.attribution.execution import copies_at_once
from hookmap.errors import TargetError
from hookmap.hooks.capture import capture
from hookmap.hooks.preserve import preserved
from hookmap.hooks.replay import rerun
from hookmap.layers.blocks import blocks_of
from hookmap.methods.weighting import full_precision
from hookmap.results.logit_lens import LogitLens
from hookmap.targets.resolved import ResolvedTargets

_MOST_SCORES = 2**24


def logit_lens(engine: Engine, image: Any, target: Any) -> LogitLens:
    """The head on every block's tokens: see :meth:`hookmap.Lens.logit_lens`.

    Raises:
        LayerError: if the model isn't a row of blocks.
        TargetError: if the model gives no class scores, or the target isn't one.
    """
    batch, geometry = only_image(engine, image)
    x, view, traced = batch.x, batch.views[0], engine.trace(batch.x)
    names = blocks_of(traced, within(attentions_of(batch).values()), "a logit lens")
    last, layout = names[-1], traced.layout(names[-1])
    axis = layout.batch_axis
    goals = engine.goals(target)
    if len(goals) != 1:
        raise TargetError(f"a logit lens is of one target, and {len(goals)} came")
    with preserved(engine.model), torch.no_grad():
        with capture(engine.called, names, gradients=False) as seen, engine.execution.casting(x):
            output = engine.called(x)
            blocks = torch.cat([seen[name].activation for name in names], axis)
            tokens = blocks.movedim(axis, 0)
            depth = seen.replay(last, tokens, sample=0, axis=axis)
        targets = ResolvedTargets(goals, output, [view.geometry], engine.label, traced.reading, x.shape[2:])
        try:
            probabilities = traced.reading.scores(depth).in_full().probabilities
        except TargetError:
            raise TargetError(f"a logit lens is of class scores, and {engine.name} gives none") from None

        def head(patches: Tensor, count: int) -> Tensor:
            """The target's score if each of the tokens (K, C) stands in the place of all tokens, so many."""
            everywhere = patches[:, None].expand(-1, count, -1)
            with engine.execution.casting(x):
                if count == tokens.shape[1]:
                    output = seen.replay(last, everywhere, sample=0, axis=axis)
                else:
                    output = rerun(engine.called, ((x,), {}), modules[last], everywhere, 0, axis)
            return full_precision(targets.scores(output, 0)[0])

        modules = dict(engine.called.named_modules())
        patches = layout.to_grid(blocks).movedim(1, -1)
        count = _enough(head, patches.flatten(1, -2)[:, 0], 1 + layout.prefix + layout.suffix, tokens.shape[1])
        most = copies_at_once(x, traced, last) * tokens.shape[1] // count
        parts = torch.split(patches.flatten(0, -2), max(1, min(most, _MOST_SCORES // probabilities.shape[1])))
        maps = torch.cat([head(part, count) for part in parts]).reshape(patches.shape[:-1])
    return LogitLens(
        blocks=names,
        probabilities=probabilities.cpu(),
        labels=[engine.label(index) for index in range(probabilities.shape[1])],
        target=targets[0][0].name,
        likelihoods=targets.likely(depth, 0)[0].cpu(),
        maps=maps.cpu(),
        picture=view.picture,
        geometry=geometry,
        model=engine.name,
    )


def _enough(head: Callable[[Tensor, int], Tensor], some: Tensor, few: int, whole: int) -> int:
    """How many tokens must follow the last block: a few where that is the same, for a hundredth of the price."""
    wanted = head(some, whole)
    try:
        got = head(some, few)
    except Exception as error:  # the model's own way of saying that it wants all of them
        if out_of_memory(error):
            raise
        return whole
    close = got.shape == wanted.shape and float((got - wanted).abs().max()) <= 1e-3 * float(wanted.abs().max())
    return few if close else whole
