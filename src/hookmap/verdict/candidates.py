"""What is compared: methods at layers, their maps on one image, and the controls."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hookmap.adapters.adapter import Fusion
from hookmap.attribution.batch import Plan, explain_batch
from hookmap.attribution.engine import Batch, Engine
from hookmap.errors import TargetError
from hookmap.hooks.matching import LayerSpec
from hookmap.images.geometry import Geometry
from hookmap.layers.choice import candidates_in
from hookmap.methods import METHODS, Method
from hookmap.metrics.cells import CELLS, grid_of, in_cells
from hookmap.metrics.correlation import pearson
from hookmap.results.heatmap import Heatmap
from hookmap.results.question import Settings
from hookmap.targets import Goal

USUAL = ("gradcam", "gradcampp", "xgradcam", "hirescam", "layercam", "eigengradcam")
"""Methods that are compared where none is named: each takes one forward and one backward pass."""
OF_ATTENTION = ("valuepath", "gradientattention", "chefer")
"""As well, where the default reads attention."""
CONTROLS = ("gaussian", "meanactivation", "edges")
"""What knows nothing of the question: a method must be better than each."""
RANDOM = "random"
_ALIKE = 1 - 1e-6


@dataclass(frozen=True)
class Candidate:
    """A way to make a heatmap.

    Attributes:
        method: its name.
        layers: where; several are fused, none for methods of the whole model.
        fuse: how several layers' maps become one.
    """

    method: str
    layers: tuple[str, ...] = ()
    fuse: Fusion | None = None

    @property
    def name(self) -> str:
        """In words: "Grad-CAM at layer4"."""
        where = self.layers if len(self.layers) < 4 else (self.layers[0], "...", self.layers[-1])
        return METHODS[self.method].title + (f" at {' + '.join(where)}" if where else "")

    @classmethod
    def of(cls, heatmap: Heatmap) -> Candidate:
        """The way in which a heatmap was made."""
        assert heatmap.question is not None
        layers = heatmap.question.layers
        return cls(heatmap.method.name, layers, heatmap.question.settings.fuse if len(layers) > 1 else None)


def default_candidate(engine: Engine, x: Tensor) -> Candidate:
    """What is drawn where nothing is named."""
    choice = engine.choice(x)
    several = len(choice.layers) > 1
    return Candidate(choice.method, choice.layers, choice.fuse if several else None)


def candidates_of(
    engine: Engine, x: Tensor, methods: Sequence[Method], layers: LayerSpec | None
) -> tuple[list[Candidate], Candidate]:
    """All methods at all layers, and the default, which is among them.

    Where no layers are named: those of the default, and the last of each coarseness before them.
    """
    default = default_candidate(engine, x)
    attends = METHODS[default.method].family == "attention"
    chosen = methods or [METHODS[name] for name in USUAL + (OF_ATTENTION if attends else ())]
    names = list(engine.grids(layers, x)) if layers is not None else _last_of_each_grid(engine, x, default)
    every = [default]
    for method in chosen:
        every += [Candidate(method.name, (name,)) for name in names] if method.per_layer else [Candidate(method.name)]
    return list(dict.fromkeys(every)), default


def _last_of_each_grid(engine: Engine, x: Tensor, default: Candidate) -> list[str]:
    traced = engine.trace(x)
    names = candidates_in(traced)
    last = max((names.index(name) for name in default.layers if name in names), default=len(names) - 1)
    of_grid = {traced.layout(name).grid: name for name in names[: last + 1]}
    deepest = sorted(of_grid.values(), key=names.index)[-3:]
    return list(dict.fromkeys([*deepest, *default.layers]))


def maps_of(batch: Batch, goal: Goal, candidates: Iterable[Candidate], settings: Settings) -> dict[Candidate, Tensor]:
    """The signed map of each candidate on one image, laid over its input; see :func:`heatmaps_of`."""
    return {c: _on_input(heatmap, batch) for c, heatmap in heatmaps_of(batch, goal, candidates, settings).items()}


def heatmaps_of(
    batch: Batch, goal: Goal, candidates: Iterable[Candidate], settings: Settings
) -> dict[Candidate, Heatmap]:
    """The heatmap of each candidate on one image; those that aren't defined here are left out.

    Args:
        batch: of one image.
        goal: what is asked.
        candidates: one pass is shared by all that look at the same layers.
        settings: the seed, and the budget of methods that mask.
    """
    found: dict[Candidate, Heatmap] = {}
    by_layers: dict[tuple[tuple[str, ...], Fusion | None], list[Candidate]] = {}
    for candidate in candidates:
        by_layers.setdefault((candidate.layers, candidate.fuse), []).append(candidate)
    single = {key[0][0]: group for key, group in by_layers.items() if len(key[0]) == 1}
    # Layers at which the same methods are asked share one pass.
    by_methods: dict[tuple[str, ...], list[str]] = {}
    for layer, group in single.items():
        by_methods.setdefault(tuple(sorted(c.method for c in group)), []).append(layer)
    for names, layers in by_methods.items():
        for heatmap in _explained(batch, goal, names, layers, replace(settings, fuse=None)):
            found[Candidate(heatmap.method.name, (heatmap.layer,))] = heatmap
    for (layers_together, fuse), group in by_layers.items():
        if len(layers_together) == 1:
            continue
        names = tuple(c.method for c in group)
        for heatmap in _explained(batch, goal, names, list(layers_together) or None, replace(settings, fuse=fuse)):
            found[Candidate(heatmap.method.name, layers_together, fuse)] = heatmap
    return {candidate: found[candidate] for candidate in candidates if candidate in found}


def _explained(
    batch: Batch, goal: Goal, methods: Sequence[str], layers: list[str] | None, settings: Settings
) -> list[Heatmap]:
    plan = Plan([goal], [METHODS[name] for name in methods], layers, settings, lenient=True)
    heatmaps = explain_batch(batch, plan)
    if any(heatmap.position.target for heatmap in heatmaps):
        raise TargetError("the target means several things on one image; compare asks one thing of each, e.g. box:0")
    return heatmaps


def _on_input(heatmap: Heatmap, batch: Batch) -> Tensor:
    """The map over the whole input: on its own grid, unless that spans more, as where a model pads its input."""
    raw, x = heatmap.raw.detach(), batch.x
    field = batch.engine.trace(x).field
    if raw.ndim != 2 or tuple(field[-2:]) == tuple(x.shape[-2:]) or raw.shape == x.shape[2:]:
        return raw
    size = (x.shape[-2], x.shape[-1])
    return Geometry.identity(size).spanning(field).lay_back(raw)


def stacked(maps: Mapping[Candidate, Tensor], image: Tensor, cells: int = CELLS) -> Tensor:
    """Maps of different grids as one tensor ``(M, *cells)``."""
    grid = grid_of(image, cells)
    return torch.cat([in_cells(each[None], grid).cpu() for each in maps.values()])


def random_maps(image: Tensor, grid: Sequence[int], count: int, seed: int, cells: int = CELLS) -> Tensor:
    """Noise on a layer's grid, in cells ``(count, *cells)``: what knows nothing at all."""
    noise = torch.rand(count, *grid, generator=torch.Generator().manual_seed(seed))
    return in_cells(noise, grid_of(image, cells))


def equal_ones(maps: Sequence[Mapping[Candidate, Tensor]], image: Tensor) -> dict[Candidate, Candidate]:
    """Candidates that give the same map as an earlier one on every image, up to its scale: each with that one."""
    rows: dict[Candidate, list[Tensor]] = {}
    for of_image in maps:
        for candidate, row in zip(of_image, stacked(of_image, image).flatten(1), strict=True):
            rows.setdefault(candidate, []).append(row)
    first: list[Candidate] = []
    equal: dict[Candidate, Candidate] = {}
    for candidate, own in rows.items():
        for other in first:
            others = rows[other]
            if len(own) == len(others) and bool((pearson(torch.stack(own), torch.stack(others)) >= _ALIKE).all()):
                equal[candidate] = other
                break
        else:
            first.append(candidate)
    return equal


def costs(batch: Batch, goal: Goal, candidates: Iterable[Candidate], settings: Settings) -> dict[Candidate, float]:
    """What each candidate takes alone on one image, in forward passes of that image: the best of a few tries."""
    engine = batch.engine

    def forward() -> None:
        engine.output(batch)

    def seconds(work: object, tries: int = 3) -> float:
        times = []
        for _ in range(tries):
            begin = time.perf_counter()
            work()  # type: ignore[operator]
            times.append(time.perf_counter() - begin)
            if times[-1] > 2:
                break
        return min(times)

    forward()
    plain = seconds(forward)
    result = {}
    for candidate in candidates:
        if maps_of(batch, goal, [candidate], settings):
            result[candidate] = seconds(lambda c=candidate: maps_of(batch, goal, [c], settings)) / plain
    return result
