"""From one batch to its heatmaps: every target, layer and method from one shared pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from torch import Tensor

from hookmap._devices import out_of_memory
from hookmap._progress import Track, silent
from hookmap.adapters.adapter import Fusion
from hookmap.attribution.engine import About, Batch
from hookmap.attribution.forward import Forward
from hookmap.attribution.modifiers import Variation, augmented, competed, eigen_smoothed, fused
from hookmap.errors import HookmapError, TargetError
from hookmap.hooks.capture import INPUT
from hookmap.hooks.matching import LayerSpec, match_layers
from hookmap.hooks.preserve import preserved
from hookmap.layers.choice import LOW_COVERAGE
from hookmap.layers.layouts import Layout
from hookmap.layers.trace import Trace
from hookmap.methods import ALIKE, METHODS, Method, default_method
from hookmap.methods.ingredients.recorded import gradients
from hookmap.methods.noise import noisy
from hookmap.render.look import Part, check_part
from hookmap.results.choice import Choice
from hookmap.results.heatmap import Heatmap
from hookmap.results.question import Position, Question, Settings
from hookmap.targets import Class, Contrast, Everywhere, Goal, PerImage, Regression
from hookmap.targets.resolved import ResolvedTargets

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
        lenient: methods are compared: leave out, with a remark, one that isn't defined here, instead of raising, and
            don't say how they differ, which is seen.
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
    track: Track = silent

    def __post_init__(self) -> None:
        check_part(self.part)
        if self.settings.fuse not in (None, "sum", "last") and self.part in ("negative", "signed"):
            raise HookmapError(
                f"fuse={self.settings.fuse!r} takes the positive part of each layer; for others take fuse='sum'"
            )
        if not self.targets:
            raise TargetError("an empty list of targets was given; pass at least one")

    @property
    def is_local(self) -> bool:
        """Whether a target is, or may be, at a place of its own and no class as a whole."""
        return any(_is_local(goal) for goal in self.targets)

    @property
    def leaves_choice(self) -> bool:
        """Whether a layer or the method isn't named, so that the model decides."""
        return not self.methods or (self.layer is None and any(method.per_layer for method in self.methods))

    def for_images(self, numbers: Sequence[int]) -> Plan:
        """The plan for the images of these numbers, where targets differ from image to image."""
        own = [goal.chosen(numbers) if isinstance(goal, PerImage) else goal for goal in self.targets]
        return replace(self, targets=own)

    def check(self, images: int) -> None:
        """Raise a :class:`TargetError` if there were targets for other images than came."""
        for goal in self.targets:
            if isinstance(goal, PerImage) and len(goal.targets) != images:
                raise TargetError(
                    f"{goal} came for {images} images; pass one target per image, or a list to ask all of each"
                )


def _is_local(goal: Any) -> bool:
    if isinstance(goal, PerImage):
        return any(map(_is_local, goal.targets))
    if isinstance(goal, Contrast):
        return _is_local(goal.this)
    return not isinstance(goal, (Class, Regression, Everywhere, str, int))


def each_by_itself(batch: Batch) -> bool:
    """Whether several images have objects of their own each, which are explained image by image."""
    return len(batch.views) > 1 and batch.engine.trace(batch.x).form in ("detections", "masks")


def explain_batch(batch: Batch, plan: Plan) -> list[Heatmap]:
    """Heatmaps, image by image, then target, layer and method; what the user should read is remarked to the engine.

    Raises:
        HookmapError: if a target, a layer or a method can't be asked of these images.
    """
    engine, x = batch.engine, batch.x
    engine.check_weights()
    traced = engine.trace(x)
    if each_by_itself(batch):
        return [heatmap for b in range(len(batch.views)) for heatmap in explain_batch(batch[b], plan)]
    plan = plan.for_images(batch.numbers)
    methods, settings = list(plan.methods), plan.settings
    choice = engine.choice(x) if plan.leaves_choice else None
    if not methods and choice:
        somewhere = traced.form == "regions" and plan.is_local
        methods = [default_method("regions", local=True) if somewhere else METHODS[choice.method]]
    names: list[str] = []
    if any(method.per_layer for method in methods):
        if plan.layer is not None:
            names = list(match_layers(engine.called, plan.layer))
        elif choice:
            names = list(choice.layers)
    if choice and plan.layer is None and settings.fuse is None:
        settings = replace(settings, fuse=choice.fuse if len(names) > 1 else None)
    used = [eigen_smoothed(method) for method in methods] if settings.eigen_smooth else methods
    layouts = {name: traced.layout(name) for name in names}
    with preserved(engine.model) as parts:
        plan, about = replace(plan, methods=methods, settings=settings), engine.about(parts)
        # A model may work in place on its input.
        return _explained(batch, plan, used, layouts, traced, choice, about)


def _explained(
    batch: Batch,
    plan: Plan,
    used: Sequence[Method],
    layouts: Mapping[str, Layout],
    traced: Trace,
    choice: Choice | None,
    about: About,
) -> list[Heatmap]:
    """Heatmaps of a batch by a plan that says all methods and settings; ``used`` are its methods as they are called."""
    engine, x, views, settings = batch.engine, batch.x, batch.views, plan.settings

    def forward(inputs: Tensor, resolve: Callable[[Any], ResolvedTargets]) -> Forward:
        kept = batch.passes if inputs is x else None
        return Forward(engine.execution, inputs, layouts, used, traced, settings, plan.track, resolve, kept)

    geometries = [view.geometry for view in views]

    def resolved(output: Any) -> ResolvedTargets:
        own = ResolvedTargets(plan.targets, output, geometries, engine.label, traced.reading, x.shape[2:])
        return own.with_rivals(output, settings.rivals) if settings.rivals else own

    run = forward(x, resolved)
    targets = run.targets
    count = len(targets) // (1 + settings.rivals)
    asked = [(m, name) for name in [*layouts, None] for m in used if m.per_layer == (name is not None)]
    if plan.lenient:
        asked = _defined(run, asked, engine.remark)
    maps = [run.map(method, name) for method, name in asked]

    def on_pixels(raw: Tensor) -> bool:
        return raw.shape[2:] == x.shape[2:]

    def undone(variation: Variation, raw: Tensor) -> Tensor:
        return variation.undo(raw, 1.0 if on_pixels(raw) else x.shape[-1] / traced.field[-1])

    variations = _variations(x, settings)
    for variation in variations:
        there = targets.mirrored(x.shape[-1]) if variation.mirrored else targets
        other = forward(variation.x, _as(there))
        maps = [total + undone(variation, other.map(*pair)) for total, pair in zip(maps, asked, strict=True)]
    if variations:
        maps = [total / (1 + len(variations)) for total in maps]
    if settings.rivals:
        maps = [
            competed(every.reshape(-1, count, *every.shape[1:])) if method.knows_target else every[:count]
            for every, (method, _) in zip(maps, asked, strict=True)
        ]
    originals = {method.name: method for method in plan.methods}
    made = [
        Made(originals[method.name], (name,) if name else (), name or INPUT, raw)
        for (method, name), raw in zip(asked, maps, strict=True)
    ]
    if settings.fuse is not None and len(layouts) > 1:
        made = _fused(made, settings.fuse)
    scores = run.scores.tolist()
    layers = list(dict.fromkeys(maps.layer for maps in made))
    order = list(originals)

    heatmaps = []
    for b, view in enumerate(views):
        for t in range(count):
            target = targets[t][b]
            given = view.tensor if view.preprocessed else None
            heatmaps += [
                Heatmap(
                    raw=shown.raw[t, b],
                    picture=view.picture,
                    geometry=view.geometry if on_pixels(shown.raw) else view.geometry.spanning(traced.field),
                    method=shown.method,
                    layer=shown.layer,
                    target=target.name,
                    index=target.index,
                    score=scores[t][b],
                    probability=target.probability,
                    where=target.where,
                    box=target.box,
                    number=target.number,
                    caution=(run.cautions.get((shown.method.name, b)) or [""] * count)[t],
                    frames=view.frames,
                    look=shown.method.look_of(plan.part),
                    question=Question(
                        target.asked,
                        shown.method,
                        shown.layers,
                        settings,
                        *about,
                        (count, len(views)),
                        (t, b),
                        given,
                        choice,
                    ),
                    position=Position(
                        batch.numbers[b], t, layers.index(shown.layer), order.index(shown.method.name), targets.given(t)
                    ),
                )
                for shown in made
            ]
    default = choice if choice is not None and choice.layers == tuple(layouts) else None
    if default is not None and default.coverage is not None and default.coverage < LOW_COVERAGE:
        engine.remark(
            f"the map at {', '.join(layouts)} shows {default.coverage:.0%} of what passes there; the rest passes tokens"
            " without a place in the picture, such as a class token"
        )
    averages = any(method.name == "gradcam" for method in used) and (default is None or default.method != "gradcam")
    for name in layouts if averages and not plan.lenient else ():
        if (alike := engine.alike(x, name, lambda layer: gradients(run, layer))) < ALIKE:
            engine.remark(
                f"Grad-CAM averages the gradient over all places, and at {name!r} {alike:.0%} of it is the same there; "
                "hirescam takes it place by place"
            )
    for name in layouts:
        if (calls := run.calls(name)) > 1:
            engine.remark(f"layer {name!r} ran {calls} times; this is its last call")
        if len(same := run.same(name) & {method.name for method in used}) > 1 and not plan.lenient:
            engine.remark(
                f"at {name!r} the methods {', '.join(sorted(same))} give the same map, because the gradient is the "
                "same at all places there (only pooling and a linear head follow); it was computed once"
            )
    if targets.assumed:
        engine.remark(targets.assumed)
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


def _as(targets: ResolvedTargets) -> Callable[[Any], ResolvedTargets]:
    """Targets that are resolved already."""
    return lambda _: targets


def _variations(x: Tensor, settings: Settings) -> list[Variation]:
    changed = augmented(x) if settings.aug_smooth else []
    rough = noisy(x, settings.noise_smooth, settings.generator()) if settings.noise_smooth else ()
    return changed + [Variation(copies) for copies in rough]


def _fused(made: Sequence[Made], how: Fusion) -> list[Made]:
    result = []
    for name in dict.fromkeys(maps.method.name for maps in made):
        mine = [maps for maps in made if maps.method.name == name]
        if len(mine) == 1:
            result += mine
            continue
        shape = mine[0].raw.shape[:2]
        raw = fused([maps.raw.flatten(0, 1) for maps in mine], how)
        names = [maps.layer for maps in mine]
        listed = ", ".join(names) if len(names) < 6 else f"{names[0]} to {names[-1]}"
        result.append(Made(mine[0].method, tuple(names), f"{how} of {listed}", raw.reshape(*shape, *raw.shape[1:])))
    return result


def _defined(run: Forward, asked: Sequence[_Asked], remark: Callable[[str], None]) -> list[_Asked]:
    """The methods that are defined for this model, layer and target; why the others aren't is remarked."""
    defined = []
    undefined: dict[str, dict[str, str]] = {}  # alike but for the method's name
    for method, name in asked:
        try:
            run.map(method, name)
        except (HookmapError, RuntimeError) as error:
            if out_of_memory(error):
                raise
            undefined.setdefault(str(error).replace(method.name, "", 1), {})[method.name] = str(error)
        else:
            defined.append((method, name))
    for same in undefined.values():
        first, *_ = same.values()
        remark(f"{', '.join(same)} {'is' if len(same) == 1 else 'are'} left out: {first}")
    return defined
