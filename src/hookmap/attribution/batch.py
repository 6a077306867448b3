"""From one batch to its heatmaps: every target, layer and method from shared evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookmap._progress import Track
from hookmap.adapters.adapter import Adapter, Fusion
from hookmap.attribution.engine import Batch
from hookmap.attribution.evidence import Evidence
from hookmap.attribution.modifiers import Variation, augmented, eigen_smoothed, fused, noisy
from hookmap.errors import HookmapError, TargetError
from hookmap.hooks.capture import INPUT
from hookmap.hooks.matching import LayerSpec, match_layers
from hookmap.hooks.preserve import preserved
from hookmap.layers.layouts import Layout
from hookmap.layers.trace import Trace
from hookmap.methods import Method, default_method
from hookmap.render.look import Part, check_part
from hookmap.results.heatmap import Heatmap
from hookmap.results.question import Position, Question, Settings
from hookmap.targets import Goal, PerImage
from hookmap.targets.pinned import Goals

_Asked: TypeAlias = "tuple[Method, str | None]"


@dataclass(frozen=True)
class Plan:
    """What is asked about every image.

    Attributes:
        targets: what to explain.
        methods: how; none: what is best for the model.
        layer: where to look; None: where it is best.
        settings: how it is taken.
        part: of the signed map that is wanted, or None for the method's own.
        lenient: leave out, with a remark, a method that isn't defined here, instead of raising.
        track: called with a description and a total, gives a function that is told of progress.

    Raises:
        HookmapError: for a plan that can't be.
    """

    targets: Sequence[Goal]
    methods: Sequence[Method] = ()
    layer: LayerSpec | None = None
    settings: Settings = field(default_factory=Settings)
    part: Part | None = None
    lenient: bool = False
    track: Track = field(default=lambda what, total: lambda done: None)

    def __post_init__(self) -> None:
        check_part(self.part)
        if self.settings.fuse not in (None, "sum", "last") and self.part in ("negative", "signed"):
            raise HookmapError(
                f"fuse={self.settings.fuse!r} takes the positive part of each layer; for others take fuse='sum'"
            )
        if not self.targets:
            raise TargetError("an empty list of targets was given; pass at least one")

    def for_images(self, numbers: Sequence[int]) -> Plan:
        """The plan for the images of these numbers, where targets differ from image to image."""
        own = [goal.chosen(numbers) if isinstance(goal, PerImage) else goal for goal in self.targets]
        return replace(self, targets=own)

    def check(self, images: int) -> None:
        """Raise a :class:`TargetError` if there were targets for other images than came."""
        for goal in self.targets:
            if isinstance(goal, PerImage) and len(goal.targets) != images:
                raise TargetError(f"{goal} came for {images} images; pass one target per image")


def explain_batch(batch: Batch, plan: Plan) -> list[Heatmap]:
    """Heatmaps, image by image, then target, layer and method; what the user should read is remarked to the engine.

    Raises:
        HookmapError: if a target, a layer or a method can't be asked of these images.
    """
    engine, x = batch.engine, batch.x
    traced = engine.trace(x)
    if traced.form == "detections" and len(batch.views) > 1:  # each has detections of its own
        return [heatmap for b in range(len(batch.views)) for heatmap in explain_batch(batch[b], plan)]
    plan = plan.for_images(batch.numbers)
    methods, settings = list(plan.methods) or [default_method(traced.form)], plan.settings
    names: list[str] = []
    if any(method.per_layer for method in methods):
        names = engine.default_layers(x) if plan.layer is None else list(match_layers(engine.called, plan.layer))
    if plan.layer is None and settings.fuse is None and len(names) > 1 and isinstance(engine.called, Adapter):
        settings = replace(settings, fuse=engine.called.fuse)
    used = [eigen_smoothed(method) for method in methods] if settings.eigen_smooth else methods
    layouts = {name: traced.layout(name) for name in names}
    with preserved(engine.model):
        # A model may work in place on its input.
        return _explained(batch, replace(plan, methods=methods, settings=settings), used, layouts, traced)


def _explained(
    batch: Batch, plan: Plan, used: Sequence[Method], layouts: Mapping[str, Layout], traced: Trace
) -> list[Heatmap]:
    """Heatmaps of a batch by a plan that says all methods and settings; ``used`` are its methods as they are called."""
    engine, x, views, settings = batch.engine, batch.x, batch.views, plan.settings

    def evidence_of(inputs: Tensor, pin: Callable[[Any], Goals]) -> Evidence:
        return Evidence(engine.execution, inputs, layouts, used, traced, settings, plan.track, pin)

    geometries = [view.geometry for view in views]
    evidence = evidence_of(x, lambda output: Goals(plan.targets, output, geometries, engine.label))
    goals = evidence.goals
    asked = [(m, name) for name in [*layouts, None] for m in used if m.per_layer == (name is not None)]
    if plan.lenient:
        asked = _defined(evidence, asked, engine.remark)
    maps = [evidence.map(method, name) for method, name in asked]

    def on_pixels(raw: Tensor) -> bool:
        return raw.shape[2:] == x.shape[2:]

    def undone(variation: Variation, raw: Tensor) -> Tensor:
        return variation.undo(raw, 1.0 if on_pixels(raw) else x.shape[-1] / traced.field[-1])

    variations = _variations(x, settings)
    for variation in variations:
        there = goals.mirrored(x.shape[-1]) if variation.mirrored else goals
        other = evidence_of(variation.x, _as(there))
        maps = [total + undone(variation, other.map(*one)) for total, one in zip(maps, asked, strict=True)]
    if variations:
        maps = [total / (1 + len(variations)) for total in maps]
    originals = {method.name: method for method in plan.methods}
    made = [
        Made(originals[method.name], (name,) if name else (), name or INPUT, raw)
        for (method, name), raw in zip(asked, maps, strict=True)
    ]
    if settings.fuse is not None and len(layouts) > 1:
        made = _fused(made, settings.fuse)
    scores = evidence.scores.tolist()
    layers = list(dict.fromkeys(one.layer for one in made))
    order = list(originals)
    about = engine.about()

    heatmaps = []
    for b, view in enumerate(views):
        for t in range(len(goals)):
            subject, (number, again) = goals.subject(t, b), goals.asked(t, b)
            given = view.tensor if view.preprocessed else None
            heatmaps += [
                Heatmap(
                    raw=one.raw[t, b],
                    picture=view.picture,
                    geometry=view.geometry if on_pixels(one.raw) else view.geometry.spanning(traced.field),
                    method=one.method,
                    layer=one.layer,
                    target=subject.target,
                    index=subject.index,
                    score=scores[t][b],
                    probability=subject.probability,
                    where=subject.where,
                    box=subject.box,
                    number=subject.number,
                    frames=view.frames,
                    look=one.method.look_of(plan.part),
                    question=Question(
                        again, one.method, one.layers, settings, *about, (len(goals), len(views)), (t, b), given
                    ),
                    position=Position(
                        batch.numbers[b], t, layers.index(one.layer), order.index(one.method.name), number
                    ),
                )
                for one in made
            ]
    for name in layouts:
        if (calls := evidence.calls(name)) > 1:
            engine.remark(f"layer {name!r} ran {calls} times; this is its last call")
        if len(same := evidence.same(name) & {method.name for method in used}) > 1:
            engine.remark(
                f"at {name!r} the methods {', '.join(sorted(same))} give the same map, because the gradient is the "
                "same at all places there (only pooling and a linear head follow); it was computed once"
            )
    if goals.assumed:
        engine.remark(goals.assumed)
    return heatmaps


@dataclass(frozen=True, eq=False)
class Made:
    """Maps of one method at one layer, or fused from several.

    Attributes:
        method: how.
        layers: that were looked at.
        layer: how results call them.
        raw: ``(T, B, *grid)``.
    """

    method: Method
    layers: tuple[str, ...]
    layer: str
    raw: Tensor


def _as(goals: Goals) -> Callable[[Any], Goals]:
    """Targets that are pinned already."""
    return lambda _: goals


def _variations(x: Tensor, settings: Settings) -> list[Variation]:
    changed = augmented(x) if settings.aug_smooth else []
    return [*changed, *(noisy(x, settings.noise_smooth, settings.generator()) if settings.noise_smooth else ())]


def _fused(made: Sequence[Made], how: Fusion) -> list[Made]:
    result = []
    for name in dict.fromkeys(one.method.name for one in made):
        mine = [one for one in made if one.method.name == name]
        if len(mine) == 1:
            result += mine
            continue
        shape = mine[0].raw.shape[:2]
        raw = fused([one.raw.flatten(0, 1) for one in mine], how)
        names = [one.layer for one in mine]
        listed = ", ".join(names) if len(names) < 6 else f"{names[0]} to {names[-1]}"
        result.append(Made(mine[0].method, tuple(names), f"{how} of {listed}", raw.reshape(*shape, *raw.shape[1:])))
    return result


def _defined(evidence: Evidence, asked: Sequence[_Asked], remark: Callable[[str], None]) -> list[_Asked]:
    """The methods that are defined for this model, layer and target; why the others aren't is remarked."""
    defined = []
    for method, name in asked:
        try:
            evidence.map(method, name)
        except torch.OutOfMemoryError:
            raise
        except (HookmapError, RuntimeError) as error:
            remark(f"{method.name} is left out: {error}")
        else:
            defined.append((method, name))
    return defined
