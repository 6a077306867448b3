"""From one batch to its heatmaps: every target, layer and method from shared evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import Tensor

from hookmap.errors import HookmapError
from hookmap.evidence import Evidence, Settings
from hookmap.execution import Execution
from hookmap.goals import Goal, Goals
from hookmap.heatmap import Heatmap, Part
from hookmap.layers import Trace
from hookmap.layouts import Layout
from hookmap.methods import Method
from hookmap.modifiers import Fusion, Variation, augmented, eigen_smoothed, fused, noisy
from hookmap.targets import Contrast, name_of
from hookmap.views import View

_Asked: TypeAlias = "tuple[Method, str | None]"


@dataclass(frozen=True)
class Plan:
    """What is asked about a batch.

    Attributes:
        targets: what to explain.
        methods: how.
        settings: seed, budget and progress.
        aug_smooth: average over mirrored, darker and brighter copies.
        noise_smooth: average over this many noisy copies too.
        fuse: how layers become one map, or None.
        part: of the signed map that is wanted, or None for the method's own.
        lenient: leave out, with a remark, a method that isn't defined here, instead of raising.
    """

    targets: Sequence[Goal]
    methods: Sequence[Method]
    settings: Settings
    aug_smooth: bool = False
    noise_smooth: int = 0
    fuse: Fusion | None = None
    part: Part | None = None
    lenient: bool = False

    def with_eigen_smooth(self) -> Plan:
        """The plan with every method's feature maps smoothed."""
        return replace(self, methods=[eigen_smoothed(method) for method in self.methods])


def explain_batch(
    execution: Execution,
    batch: Sequence[View],
    x: Tensor,
    layouts: Mapping[str, Layout],
    traced: Trace,
    plan: Plan,
    label: Callable[[int], str],
) -> tuple[list[Heatmap], list[str]]:
    """Heatmaps, image by image, then target, layer and method; and remarks that the user should read.

    Args:
        execution: the model, in evaluation mode, and how to run it.
        batch: B images.
        x: their input, ``(B, C, *size)``.
        layouts: the layers that methods of feature maps look at.
        traced: the model's layers.
        plan: what is asked.
        label: names a class.
    """
    evidence = Evidence(execution, x, layouts, plan.targets, plan.methods, traced, plan.settings)
    asked = [(m, name) for name in [*layouts, None] for m in plan.methods if m.per_layer == (name is not None)]
    asked, remarks = _defined(evidence, asked) if plan.lenient else (asked, [])
    maps = [evidence.map(method, name) for method, name in asked]
    for variation in _variations(x, plan):
        other = Evidence(
            execution, variation.x, layouts, plan.targets, plan.methods, traced, plan.settings, pinned=evidence.goals
        )
        maps = [total + variation.undo(other.map(*one)) for total, one in zip(maps, asked, strict=True)]
    count = 1 + len(_variations(x, plan))
    found = [(method, name or "input", raw / count) for (method, name), raw in zip(asked, maps, strict=True)]
    if plan.fuse is not None and len(layouts) > 1:
        found = _fused(found, plan.fuse)
    scores = evidence.scores.float().tolist()
    heatmaps = []
    for b, view in enumerate(batch):
        for t, goal in enumerate(plan.targets):
            index, title, p = _named(goal, evidence.goals, b, label)
            heatmaps += [
                Heatmap(
                    raw=raw[t, b],
                    picture=view.picture,
                    geometry=view.geometry,
                    method=method,
                    layer=name,
                    target=title,
                    index=index,
                    score=scores[t][b],
                    probability=p,
                    frames=view.frames,
                    part=plan.part,
                )
                for method, name, raw in found
            ]
    return heatmaps, remarks + _same(evidence, layouts)


def _variations(x: Tensor, plan: Plan) -> list[Variation]:
    changed = augmented(x) if plan.aug_smooth else []
    return changed + noisy(x, plan.noise_smooth, plan.settings.generator())


def _fused(found: Sequence[tuple[Method, str, Tensor]], how: Fusion) -> list[tuple[Method, str, Tensor]]:
    methods = list({method.name: method for method, _, _ in found}.values())
    result = []
    for method in methods:
        mine = [(name, raw) for own, name, raw in found if own.name == method.name]
        if len(mine) == 1:
            result.append((method, *mine[0]))
            continue
        shape = mine[0][1].shape[:2]
        one = fused([raw.flatten(0, 1) for _, raw in mine], how)
        result.append((method, f"{how} of {', '.join(name for name, _ in mine)}", one.reshape(*shape, *one.shape[1:])))
    return result


def _named(goal: Goal, goals: Goals, b: int, label: Callable[[int], str]) -> tuple[int | None, str, float | None]:
    """A target's class index, name and probability on one image."""
    index, title = goals.index(goal, b), name_of(_labelled(goal, goals, b, label))
    probability = None if index is None or goals.probabilities is None else float(goals.probabilities[b, index])
    return index, title, probability


def _labelled(goal: Any, goals: Goals, b: int, label: Callable[[int], str]) -> Any:
    """The target with the name of each class that it is about, also where that is the predicted one."""
    if isinstance(goal, Contrast):
        this, that = (_labelled(part, goals, b, label) for part in (goal.this, goal.that))
        return replace(goal, this=this, that=that)
    index = goals.index(goal, b)
    return goal if index is None else replace(goal, label=label(index))


def _defined(evidence: Evidence, asked: Sequence[_Asked]) -> tuple[list[_Asked], list[str]]:
    """The methods that are defined for this model, layer and target, and why the others aren't."""
    defined, remarks = [], []
    for method, name in asked:
        try:
            evidence.map(method, name)
        except HookmapError as error:
            remarks.append(f"{method.name} is left out: {error}")
        else:
            defined.append((method, name))
    return defined, remarks


def _same(evidence: Evidence, layouts: Mapping[str, Layout]) -> list[str]:
    return [
        f"at {name!r} the methods {', '.join(sorted(same))} give the same map, because the gradient is the same at all "
        "places there (only pooling and a linear head follow); it was computed once"
        for name in layouts
        if (same := evidence.same(name))
    ]
