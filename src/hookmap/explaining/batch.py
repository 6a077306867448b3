"""From one batch to its heatmaps: every target, layer and method from shared evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookmap.errors import HookmapError, TargetError
from hookmap.explaining.evidence import Evidence, Settings
from hookmap.explaining.execution import Execution
from hookmap.explaining.goals import Goals
from hookmap.explaining.modifiers import Fusion, Variation, augmented, check_fusion, eigen_smoothed, fused, noisy
from hookmap.looking.capture import INPUT
from hookmap.looking.layers import Trace
from hookmap.looking.layouts import Layout
from hookmap.methods import Method
from hookmap.pictures.views import View
from hookmap.results.heatmap import Heatmap, Part, check_part
from hookmap.targets import Goal, PerImage

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

    Raises:
        HookmapError: for settings that can't be.
    """

    targets: Sequence[Goal]
    methods: Sequence[Method]
    settings: Settings
    aug_smooth: bool = False
    noise_smooth: int = 0
    fuse: Fusion | None = None
    part: Part | None = None
    lenient: bool = False

    def __post_init__(self) -> None:
        if self.noise_smooth < 0:
            raise HookmapError(f"noise_smooth is {self.noise_smooth}; expected how many noisy copies, 0 or more")
        if self.fuse is not None:
            check_fusion(self.fuse)
        if self.fuse not in (None, "sum", "last") and self.part in ("negative", "signed"):
            raise HookmapError(f"fuse={self.fuse!r} takes the positive part of each layer; for others take fuse='sum'")
        check_part(self.part)

    def for_images(self, start: int, count: int) -> Plan:
        """The plan for ``count`` images from number ``start`` on, where targets differ from image to image."""
        own = [one.part(start, count) if isinstance(one, PerImage) else one for one in self.targets]
        return replace(self, targets=own)

    def check(self, images: int) -> None:
        """Raise a :class:`TargetError` if there were targets for other images than came."""
        for one in self.targets:
            if isinstance(one, PerImage) and len(one.targets) != images:
                raise TargetError(f"{one} came for {images} images; pass one target per image")

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
    if traced.form == "detections" and len(batch) > 1:  # each has detections of its own
        alone = [
            explain_batch(execution, batch[b : b + 1], x[b : b + 1], layouts, traced, plan.for_images(b, 1), label)
            for b in range(len(batch))
        ]
        return [h for found, _ in alone for h in found], [r for _, remarks in alone for r in remarks]
    geometries = [view.geometry for view in batch]
    evidence = Evidence(
        execution,
        x,
        layouts,
        plan.methods,
        traced,
        plan.settings,
        pin=lambda output: Goals(plan.targets, output, geometries, label),
    )
    goals = evidence.goals
    asked = [(m, name) for name in [*layouts, None] for m in plan.methods if m.per_layer == (name is not None)]
    asked, remarks = _defined(evidence, asked) if plan.lenient else (asked, [])
    maps = [evidence.map(method, name) for method, name in asked]

    def on_pixels(raw: Tensor) -> bool:
        return raw.shape[2:] == x.shape[2:]

    def undone(variation: Variation, raw: Tensor) -> Tensor:
        return variation.undo(raw, 1.0 if on_pixels(raw) else x.shape[-1] / traced.field[-1])

    variations = _variations(x, plan)
    for variation in variations:
        there = goals.mirrored(x.shape[-1]) if variation.mirrored else goals
        other = Evidence(execution, variation.x, layouts, plan.methods, traced, plan.settings, pin=_as(there))
        maps = [total + undone(variation, other.map(*one)) for total, one in zip(maps, asked, strict=True)]
    if variations:
        maps = [total / (1 + len(variations)) for total in maps]
    found = [(method, name or INPUT, raw) for (method, name), raw in zip(asked, maps, strict=True)]
    if plan.fuse is not None and len(layouts) > 1:
        found = _fused(found, plan.fuse)
    scores = evidence.scores.tolist()

    heatmaps = []
    for b, view in enumerate(batch):
        for t in range(len(goals)):
            subject = goals.subject(t, b)
            heatmaps += [
                Heatmap(
                    raw=raw[t, b],
                    picture=view.picture,
                    geometry=view.geometry if on_pixels(raw) else view.geometry.spanning(traced.field),
                    method=method,
                    layer=name,
                    target=subject.target,
                    index=subject.index,
                    score=scores[t][b],
                    probability=subject.probability,
                    where=subject.where,
                    box=subject.box,
                    frames=view.frames,
                    part=plan.part,
                )
                for method, name, raw in found
            ]
    remarks += [f"layer {n!r} ran {k} times; this is its last call" for n in layouts if (k := evidence.calls(n)) > 1]
    return heatmaps, [*remarks, *_same(evidence, layouts, plan.methods), *([goals.assumed] if goals.assumed else [])]


def _as(goals: Goals) -> Callable[[Any], Goals]:
    """Targets that are pinned already."""
    return lambda _: goals


def _variations(x: Tensor, plan: Plan) -> list[Variation]:
    changed = augmented(x) if plan.aug_smooth else []
    return [*changed, *(noisy(x, plan.noise_smooth, plan.settings.generator()) if plan.noise_smooth else ())]


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
        names = [name for name, _ in mine]
        listed = ", ".join(names) if len(names) < 6 else f"{names[0]} to {names[-1]}"
        result.append((method, f"{how} of {listed}", one.reshape(*shape, *one.shape[1:])))
    return result


def _defined(evidence: Evidence, asked: Sequence[_Asked]) -> tuple[list[_Asked], list[str]]:
    """The methods that are defined for this model, layer and target, and why the others aren't."""
    defined, remarks = [], []
    for method, name in asked:
        try:
            evidence.map(method, name)
        except torch.OutOfMemoryError:
            raise
        except (HookmapError, RuntimeError) as error:
            remarks.append(f"{method.name} is left out: {error}")
        else:
            defined.append((method, name))
    return defined, remarks


def _same(evidence: Evidence, layouts: Mapping[str, Layout], methods: Sequence[Method]) -> list[str]:
    asked = {method.name for method in methods}
    return [
        f"at {name!r} the methods {', '.join(sorted(same))} give the same map, because the gradient is the same at all "
        "places there (only pooling and a linear head follow); it was computed once"
        for name in layouts
        if len(same := evidence.same(name) & asked) > 1
    ]
