"""Which layer is best for a heatmap, and what decides how a map is to be made there: found by looking, in one pass."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hookmap._devices import out_of_memory
from hookmap.adapters.adapter import Fusion
from hookmap.errors import HookmapError, LayerError
from hookmap.hooks.capture import INPUT, Capture, capture
from hookmap.layers.trace import Trace, as_arguments, main_tensor, owners, size_text

# Layers that pass on, rearrange or shrink what another made: never the best one to explain.
_SHRINKS = re.compile(r"pool", re.IGNORECASE)
_PASSES_ON = re.compile(r"dropout|identity|flatten|permute|droppath|stochasticdepth|reshape", re.IGNORECASE)
# Not a whole block that is named after its attention.
_ATTENTION = re.compile(r"(attention|attn)(?!\w*(block|coderlayer)$)", re.IGNORECASE)

LOW_COVERAGE = 0.5
"""Where less of what passes a layer passes its places, its map leaves out most of the decision."""
_ALL = 0.999
"""Where less does, class tokens carry a part of the decision."""
_READS = 3
"""The last attentions whose reads of the places are added up, where class tokens carry a part of the decision. On a
trained ViT and 27 photos the energy on the object was 1.81 of its share of the picture, of the last read alone 1.53."""


@dataclass(frozen=True)
class Measured:
    """The layers that were found, and what the gradient of the model's largest output is there.

    Attributes:
        layers: by name, in the order in which they run; several are the levels that detections are read from, or what
            class tokens read the places from.
        fuse: how the maps of several layers become one.
        attended: whether class tokens read these layers by an attention that can be read.
        alike: how much of the gradient is the same at all places, 0..1: see :func:`alikeness`; None where no gradient
            was seen.
        coverage: the share of what passes the layer that passes the places of its grid, 0..1, the rest being class and
            register tokens: see :func:`coverage_of`; None where no gradient was seen.
    """

    layers: tuple[str, ...]
    alike: float | None = None
    coverage: float | None = None
    fuse: Fusion = "last"
    attended: bool = False


def choose(model: nn.Module, inputs: Any, traced: Trace) -> Measured:
    """The best layer for a heatmap: the last one that still has places, and through which places matter.

    The later a layer, the more it knows of the decision; after global pooling there is no place left, and
    after a transformer's last attention the patch tokens no longer reach the class token: their gradient is
    exactly zero. So the candidates are the last readable outputs that a layer made (pooling, dropout and
    rearrangement, which only pass on, and the insides of attention are left out), and the gradient of the
    largest output decides: the last candidate to which it is not zero all over. Where class tokens carry a part of the
    decision, it is what they read the places from: the last candidates before the last attentions, added up.

    Where the output itself has places (dense scores), the last layers hold little but the output itself. Then it is the
    last such candidate at the network's bottleneck: see :func:`_bottleneck`. Detections are read from several levels:
    see :func:`_levels`.

    Raises:
        LayerError: if no layer's output can be read as a grid, with what to pass.
    """
    candidates = candidates_in(traced)
    if not candidates:
        shapes = "; ".join(f"{i.name} {i.shape}" for i in traced.layers.values() if i.name and i.shape)
        raise LayerError(
            "no layer of this model gives something that can be read as a grid of positions on a "
            f"{size_text(traced.field)} input; pass layer=... with layouts=... (outputs: {shapes[:300]})"
        )
    reads = _reads(candidates, traced)
    for names in _ways(candidates, traced):
        measured = _looked(model, inputs, traced, sorted({*names, *reads}, key=candidates.index), reads)
        if measured is not None:
            return measured
    # A head of zeros, as some libraries start with, tells nothing: assume that a class token is read.
    last = traced.layers[candidates[-1]].layout
    if last is not None and last.order == "tokens" and last.prefix:
        candidates = _before_attentions(candidates, traced) or candidates
    return Measured((candidates[-1],))


def _ways(candidates: list[str], traced: Trace) -> Iterator[list[str]]:
    """Candidates to look at together, until a gradient reaches one."""
    if traced.form == "detections" and (levels := _small_enough(candidates, traced)):
        yield levels
    if traced.form in ("regions", "detections") and (inner := _bottleneck(candidates, traced)):
        yield inner
        candidates = inner
    # Nearly always among the last few; the whole list only where a long head follows.
    for count in (16, 48, len(candidates)):
        yield candidates[-count:]


def last_layer(traced: Trace) -> str:
    """The last layer that has places, whether or not the decision passes through them.

    Raises:
        LayerError: if there's none.
    """
    candidates = candidates_in(traced)
    if not candidates:
        raise LayerError("no layer of this model gives something that can be read as a grid; pass layer= and layouts=")
    return candidates[-1]


def candidates_in(traced: Trace) -> list[str]:
    """Layers that can be read as a grid, each tensor by the module that made it, in the order in which they ran."""
    kinds = {name: info.kind for name, info in traced.layers.items()}
    parents = {name.rpartition(".")[0] for name in kinds if name}
    chosen: list[str] = []
    for output in traced.outputs:
        leaves = [name for name in output.modules if name not in parents]
        if leaves and all(_SHRINKS.search(kinds[name]) for name in leaves):
            continue
        # The outermost layer that gives this very tensor: "layer4", not "layer4.2.relu".
        makers = (n for n in reversed(output.modules) if n in parents or not _PASSES_ON.search(kinds[n]))
        name = next((n for n in makers if n), None)
        if name is None or in_attention(name, traced):
            continue
        info = traced.layers[name]
        # A layer that ran several times is no single place in the network.
        if info.calls == 1 and info.layout and max(info.layout.grid[-2:]) > 1:
            chosen.append(name)
    return chosen


def in_attention(name: str, traced: Trace) -> bool:
    """Whether a layer is an attention or inside of one.

    By its class or by what its model calls it: some name the class MHSA, but the part attn.
    """
    return any(
        _ATTENTION.search(traced.layers[owner].kind) or _ATTENTION.fullmatch(owner.rpartition(".")[2])
        for owner in owners(name)
        if owner in traced.layers and owner
    )


def attention_follows(name: str, traced: Trace) -> bool:
    """Whether there is an attention inside of a layer or after it, all of which a graph from there on shows.

    Not from inside of an attention: its windows are made before.
    """
    names = list(traced.layers)
    after = names[names.index(name) :] if name in names else []
    return not in_attention(name, traced) and any(in_attention(each, traced) for each in after)


def _before_attentions(candidates: Sequence[str], traced: Trace) -> list[str]:
    """The last candidate before each attention, in the order in which they run."""
    before: dict[str, None] = {}
    last: str | None = None
    known = set(candidates)
    for name in (name for output in traced.outputs for name in output.modules):
        if name in known:
            last = name
        elif last is not None and _ATTENTION.search(traced.layers[name].kind):
            before[last] = None
    return list(before)


def _reads(candidates: Sequence[str], traced: Trace) -> list[str]:
    """What the last attentions read the places from, where grids (h, w) of a classifier stand beside other tokens."""
    layout = traced.layers[candidates[-1]].layout
    if traced.form != "classes" or layout is None or len(layout.grid) != 2 or not (layout.prefix or layout.suffix):
        return []
    return _before_attentions(candidates, traced)[-_READS:]


def _bottleneck(candidates: Sequence[str], traced: Trace) -> list[str]:
    """The candidates on the smallest grid that holds a good share of the parameters, where most of them are.

    A decoder's grids grow again, and a pyramid's pooled branches are smaller still, but hold next to nothing. A network
    may come to that grid several times (nested ones do), and a head may stand on it: what counts is the visit, within
    one part of the model, with the most parameters.
    """
    parents = {name.rpartition(".")[0] for name in traced.layers if name}
    visits: list[tuple[tuple[str, tuple[int, ...]], list[str]]] = []
    for output in traced.outputs:
        info = traced.layers[output.modules[0]]
        if info.layout is None or max(info.layout.grid[-2:]) <= 1:
            continue
        part = info.name.partition(".")[0]
        key = (part if part in parents else "", info.layout.grid)
        if not visits or visits[-1][0] != key:
            visits.append((key, []))
        visits[-1][1].extend(output.modules)
    weights = [sum(traced.layers[n].parameters for n in names if n not in parents) for _, names in visits]
    held: dict[tuple[int, ...], int] = {}
    for ((_, grid), _), weight in zip(visits, weights, strict=True):
        held[grid] = held.get(grid, 0) + weight
    grids = [grid for grid, weight in held.items() if weight >= 0.1 * sum(held.values())]
    smallest = min(grids or held, key=math.prod, default=())
    _, best = max(((weight, i) for i, weight in enumerate(weights) if visits[i][0][1] == smallest), default=(0, -1))
    inner = [name for name in candidates if best >= 0 and name in visits[best][1]]
    # A score for each place on this grid (deep supervision) is no feature map.
    scores = (traced.layers[""].shape or ())[1:2]
    return [name for name in inner if (traced.layers[name].shape or ())[1:2] != scores] or inner


# ---------------------------------------------------------------- what a gradient shows


def _looked(
    model: nn.Module, inputs: Any, traced: Trace, candidates: Sequence[str], reads: Sequence[str]
) -> Measured | None:
    for extra in ([], [INPUT]):
        try:
            measured = _look(model, inputs, traced, candidates, reads, extra)
        except (HookmapError, RuntimeError, IndexError) as error:
            if out_of_memory(error):
                raise
            continue
        if measured is not None:
            return measured
    return None


def _look(
    model: nn.Module,
    inputs: Any,
    traced: Trace,
    candidates: Sequence[str],
    reads: Sequence[str],
    extra: Sequence[str],
) -> Measured | None:
    args, kwargs = as_arguments(inputs)
    with capture(model, [*candidates, *extra], attention=bool(reads)) as seen:
        scores = main_tensor(traced.reading.raw(model(*args, **kwargs)))
        if scores is None:
            return None
        if traced.form == "detections":
            seen.differentiate(scores[:, _rows(scores.shape[1])].flatten(2).amax(2).T)
            return _levels(seen, candidates, traced)
        # Over all places: a single one may be saturated.
        seen.differentiate(scores.amax(1).mean() if traced.form == "regions" else scores.flatten().max())
        gradients = {name: _gradient(seen, name, traced) for name in candidates}
        reached = [name for name in reversed(candidates) if (g := gradients[name]) is not None and bool(g.any())]
        name = _but_class_scores(reached, gradients, traced, scores)
        if name is None:
            return None
        coverage, layers = coverage_of(seen, name, traced), [name]
        live = [n for n in reads if n in reached]
        if coverage < _ALL and live:
            name, coverage, layers = live[-1], coverage_of(seen, live[-1], traced), live
        gradient = gradients[name]
        assert gradient is not None
        fuse: Fusion = "sum" if len(layers) > 1 else "last"
        attended = layers == live and all(a.reached and not a.windowed for a in seen.attentions[-len(layers) :])
        return Measured(tuple(layers), alikeness(gradient[0]), coverage, fuse, attended)


def _but_class_scores(
    reached: Sequence[str], gradients: dict[str, Tensor | None], traced: Trace, scores: Tensor
) -> str | None:
    """The last layer that a gradient reaches, or the one before it if its channels are the classes.

    A head that scores every place and then pools: its channels are the classes, not what speaks for them.
    """
    first = next(iter(reached), None)
    own = gradients[first] if first is not None else None
    if first is None or own is None or traced.form != "classes" or scores.ndim != 2 or own.shape[1] != scores.shape[1]:
        return first
    # Then a class's score depends on its own channel alone; a norm before an embedding is pooled isn't such a head.
    if int(own[0].flatten(1).any(1).sum()) > 1 or "norm" in traced.layers[first].kind.casefold():
        return first
    return next((n for n in reached if (g := gradients[n]) is not None and g.shape[1] != scores.shape[1]), first)


def _gradient(seen: Capture, name: str, traced: Trace) -> Tensor | None:
    """``(1, C, *grid)``, or None where none arrives."""
    # Of several outputs the first is looked at; a tower's pooled vector may have a gradient where its tokens have none.
    call = seen[name].calls[0]
    gradient = call.gradients.get(next(iter(call.activations)))
    return None if gradient is None else traced.layout(name).to_grid(gradient)


def alikeness(gradient: Tensor) -> float:
    r"""How much of a gradient ``(C, *grid)`` is the same at all places, 0..1.

    .. math:: 1 - \frac{\sum_{k,i} (g_{k,i} - \bar g_k)^2 / (N - K)}{\sum_{k,i} g_{k,i}^2 / N}

    over the N places and channels where it isn't zero, with the mean of each of the K channels over those places: the
    adjusted share of variance that one weight per channel explains. It is 1 where only average pooling and a linear
    head follow, also behind a ReLU, whose mask hides places and weights none; it is 0 where each place has weights of
    its own, as before ``Flatten`` and ``Linear``. Grad-CAM, whose weights are those means, is defined where it is 1.
    """
    flat = gradient.flatten(1).double()
    present = flat != 0
    counts = present.sum(1)
    values, channels = int(counts.sum()), int((counts > 0).sum())
    if values <= channels:
        return 0.0
    means = flat.sum(1) / counts.clamp(min=1)
    apart = ((flat - means[:, None]) * present).square().sum() / (values - channels)
    return min(1.0, max(0.0, 1 - float(apart / (flat.square().sum() / values))))


def coverage_of(seen: Capture, name: str, traced: Trace) -> float:
    """The share of gradient times activation, by magnitude, that lies at places of the grid and not at other tokens."""
    layout, call = traced.layout(name), seen[name].calls[0]
    if not layout.prefix and not layout.suffix:
        return 1.0
    passed = (call.gradient * call.activation.detach()).float().abs()
    whole = float(passed.sum())
    return float(layout.to_grid(passed).sum()) / whole if whole > 0 else 0.0


# ---------------------------------------------------------------- levels of detectors


def _small_enough(candidates: Sequence[str], traced: Trace) -> list[str]:
    """The candidates on grids with no more places than there are candidates for detections: each place gives one."""
    rows = (traced.layers[""].shape or (0, 0))[1]
    return [name for name in candidates if math.prod(traced.layout(name).grid) <= rows]


def _rows(count: int) -> list[int]:
    """A row of each of a detector's levels.

    Rows stand level by level, and each level has about a quarter of the rows of the one beside it: the finest is the
    first, or the last.
    """
    steps = [int(0.6 * count / 4**step) for step in range(5)]
    return sorted({row for step in steps for row in (step, count - 1 - step)})


def _levels(seen: Capture, candidates: Sequence[str], traced: Trace) -> Measured | None:
    """The layers from which rows are read, each at its own stride, in the order in which they run.

    Of a row it is the last layer that holds features: at which its score reads other channels than scores themselves
    are made of, which are its class and whether something is there; where a softmax follows, all classes and those. A
    detection is shown by the last of the layers that its gradient reaches: the one at its own stride.
    """
    count = traced.classes or 0
    of_scores = {0, 1, 2, count, count + 1, count + 2}
    reads: dict[str, Tensor] = {}
    for name in candidates:
        gradient = _gradient(seen, name, traced)
        if gradient is not None:
            reads[name] = gradient[:, 0].flatten(2).any(2).sum(1)
    levels = set()
    for row in range(len(next(iter(reads.values()), ()))):
        levels.update([name for name, channels in reads.items() if int(channels[row]) not in of_scores][-1:])
    return Measured(tuple(name for name in candidates if name in levels)) if levels else None
