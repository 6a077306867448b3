"""What layers a model has, how they lay out their activations, and which is best for a heatmap."""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as default
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from hookmap._nested import map_tensors, tensors_in
from hookmap.adapters.outputs import Form, Reading, may_be_probabilities, read, told_by_graph
from hookmap.errors import HookmapError, LayerError
from hookmap.hooks.capture import Capture, capture
from hookmap.hooks.registration import hooked
from hookmap.layers.layouts import Layout, read_layout

if TYPE_CHECKING:
    from rich.tree import Tree

# Layers that pass on, rearrange or shrink what another made: never the best one to explain.
_SHRINKS = re.compile(r"pool", re.IGNORECASE)
_PASSES_ON = re.compile(r"dropout|identity|flatten|permute|droppath|stochasticdepth|reshape", re.IGNORECASE)
# Not a whole block that is named after its attention.
_ATTENTION = re.compile(r"(attention|attn)(?!\w*(block|coderlayer)$)", re.IGNORECASE)
_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
)


@dataclass(eq=False)
class LayerInfo:
    """One layer as it ran on one input.

    Attributes:
        name: dotted module name; ``""`` is the model.
        kind: the module's class name.
        shape: output shape for a batch of one; of the first tensor if there are several; None if the layer
            didn't run or returns no tensor.
        layout: how the output holds its grid; None where it can't be read as one.
        parameters: number of parameters, those of sub-layers included.
        calls: how many times the layer ran.
    """

    name: str
    kind: str
    parameters: int
    shape: tuple[int, ...] | None = None
    layout: Layout | None = None
    calls: int = 0


@dataclass(eq=False)
class _Output:
    """One tensor as it left one or several modules, innermost first."""

    tensor: weakref.ref[Tensor]
    modules: list[str]
    version: int


@dataclass(eq=False)
class Trace:
    """The layers of a model as they ran on one example input, from input to output.

    Attributes:
        layers: by name.
        field: the size that grids span.
        outputs: every tensor that layers gave, in order.
        reading: how the model's outputs are read.
        second_names: of layers that can be reached by several, the first of which is in ``layers``.
    """

    layers: dict[str, LayerInfo]
    field: tuple[float, ...]
    outputs: list[_Output] = default(default_factory=list)
    reading: Reading = default(default_factory=Reading)
    second_names: dict[str, str] = default(default_factory=dict)

    @property
    def form(self) -> Form:
        """What the model gives."""
        return self.reading.form

    @property
    def classes(self) -> int | None:
        """How many classes the model tells apart, or values it gives at a place; None if neither."""
        return self.reading.classes

    def info(self, name: str) -> LayerInfo:
        """A layer, by any of its names."""
        return self.layers[self.second_names.get(name, name)]

    def layout(self, name: str) -> Layout:
        """The layout of a layer.

        Raises:
            LayerError: if the layer didn't run, or its output can't be read as a grid.
        """
        info = self.info(name)
        if info.shape is None:
            raise LayerError(f"layer {name!r} ({info.kind}) didn't run or returned no tensor; pass another layer")
        if info.layout is None:
            raise LayerError(
                f"layer {name!r} ({info.kind}) gives {info.shape} for one {_size(self.field)} input, which can't "
                "be read as a grid of positions; pass another layer, or say how to read it with "
                f'Lens(..., layouts={{"{name}": hm.Layout("tokens", grid=(h, w), prefix=1)}})'
            )
        return info.layout


def trace(
    model: nn.Module,
    inputs: Any,
    *,
    prefix: int | None = None,
    field: Sequence[float] | None = None,
    labels: int | None = None,
) -> Trace:
    """Run the model once, without gradients, and note each layer's output shape and layout.

    Args:
        model: in evaluation mode.
        inputs: one input with a batch axis of 1: a tensor, or a tuple or dict of arguments whose first
            floating-point tensor of rank 3 or more is the image.
        prefix: number of prefix tokens; by default the model's ``num_prefix_tokens``, or what fits. Those after the
            grid's are its ``num_suffix_tokens``. A model whose tokens come in another order says how by a method
            ``token_layouts(size)``.
        field: the size that grids span; by default the image's own.
        labels: how many class names are known: what tells the scores from other outputs.
    """
    args, kwargs = as_arguments(inputs)
    image = next((t for t in tensors_in((args, kwargs)).values() if t.is_floating_point() and t.ndim >= 3), None)
    if image is None:
        raise LayerError("the model's input holds no image-like floating-point tensor (B, C, ...)")
    span = tuple(field or image.shape[2:])
    area = tuple(round(side) for side in span)
    if prefix is None:
        prefix = getattr(model, "num_prefix_tokens", None)
    suffix = getattr(model, "num_suffix_tokens", 0)
    told = getattr(model, "token_layouts", None)
    tokens = told(area) if callable(told) else ()
    modules = dict(model.named_modules())
    parameters = {name: sum(p.numel() for p in m.parameters()) for name, m in modules.items()}
    result = Trace({n: LayerInfo(n, type(m).__name__, parameters[n]) for n, m in modules.items()}, span)
    names = {module: name for name, module in modules.items()}
    result.second_names = {
        name: names[module] for name, module in model.named_modules(remove_duplicate=False) if name not in modules
    }
    grids: list[tuple[int, ...]] = []
    made: dict[int, _Output] = {}
    evidence: dict[str, dict[tuple[int, ...], Literal["first", "last"]]] = {name: {} for name in modules}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        tensor = _main(output)
        info = result.layers[names[module]]
        info.calls += 1
        if tensor is None:
            return
        shape = tuple(tensor.shape)
        side = _channel_side(module, shape)
        name = info.name
        if side:
            for owner in _owners(name):
                evidence[owner].setdefault(shape, side)
        info.shape = shape
        former = info.layout
        info.layout = read_layout(
            shape, area, channels=evidence[name].get(shape), grids=grids, prefix=prefix, suffix=suffix, tokens=tokens
        )
        if info.calls > 1 and info.layout and info.layout.order == "tokens" and info.layout != former:
            info.layout = None  # one module on sequences of several kinds
        if info.layout and info.layout.order != "tokens" and (not grids or grids[-1] != info.layout.grid):
            grids.append(info.layout.grid)
        before, version = made.get(id(tensor)), 0 if tensor.is_inference() else tensor._version
        if before is not None and before.tensor() is tensor and before is result.outputs[-1]:
            # What a layer gives beside it (pooled, say) was made before a hook on that layer could change it.
            if sum(t.is_floating_point() for t in tensors_in(output).values()) == 1:
                before.modules.append(name)
            before.version = version
        # A tower that returns its tokens beside what it pooled from them doesn't make them: others ran since.
        elif before is None or before.tensor() is not tensor or before.version != version:
            made[id(tensor)] = _Output(weakref.ref(tensor), [name], version)
            result.outputs.append(made[id(tensor)])

    with hooked(modules.values(), note), torch.no_grad():
        output = model(*args, **kwargs)
    result.reading = read(output, labels, image.shape[2:])
    if may_be_probabilities(result.reading, output):
        with torch.enable_grad():
            # Copies, because a model may work in place on its input, which no leaf of a graph allows.
            args, kwargs = map_tensors(
                lambda _, t: t.detach().requires_grad_().clone() if t.is_floating_point() else t, (args, kwargs)
            )
            result.reading = told_by_graph(result.reading, model(*args, **kwargs))
    return result


def _channel_side(module: nn.Module, shape: tuple[int, ...]) -> Literal["first", "last"] | None:
    if isinstance(module, _CHANNELS_FIRST):
        return "first"
    if getattr(module, "data_format", None) == "channels_first":  # ConvNeXt's LayerNorm, of several libraries
        return "first"
    last = isinstance(module, (nn.Linear, nn.LayerNorm)) and len(shape) > 3
    # torchvision's LayerNorm2d and its like normalise channels-first maps although they derive from LayerNorm.
    return "last" if last and "2d" not in type(module).__name__ else None


def _owners(name: str) -> Iterator[str]:
    """The layer and all that contain it: a.b, a, and the model."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def _main(output: Any) -> Tensor | None:
    return next((t for t in tensors_in(output).values() if t.is_floating_point()), None)


def as_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A model's inputs as positional and keyword arguments: a tensor, a tuple or a dict of keywords."""
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def choose_layer(model: nn.Module, inputs: Any, traced: Trace) -> str:
    """The best layer for a heatmap: the last one that still has places, and through which places matter.

    The later a layer, the more it knows of the decision; after global pooling there is no place left, and
    after a transformer's last attention the patch tokens no longer reach the class token: their gradient is
    exactly zero. So the candidates are the last readable outputs that a layer made (pooling, dropout and
    rearrangement, which only pass on, and the insides of attention are left out), and the gradient of the
    largest output decides: the last candidate to which it is not zero all over.

    Where the output itself has places (dense scores, detections), the last layers hold little but the output itself.
    Then it is the last such candidate at the network's bottleneck: see :func:`_bottleneck`.

    Raises:
        LayerError: if no layer's output can be read as a grid, with what to pass.
    """
    candidates = candidates_in(traced)
    if not candidates:
        shapes = "; ".join(f"{i.name} {i.shape}" for i in traced.layers.values() if i.name and i.shape)
        raise LayerError(
            "no layer of this model gives something that can be read as a grid of positions on a "
            f"{_size(traced.field)} input; pass layer=... with layouts=... (outputs: {shapes[:300]})"
        )
    # Nearly always among the last few; the whole list only where a long head follows.
    ways = [candidates[-48:], candidates]
    if traced.form in ("regions", "detections") and (inner := _bottleneck(candidates, traced)):
        ways, candidates = [inner, *ways], inner
    for some in ways:
        for extra in ([], ["input"]):
            try:
                live = _live(model, inputs, traced, some, extra)
            except (HookmapError, RuntimeError, IndexError):
                continue
            if live:
                return live
    # A head of zeros, as some libraries start with, tells nothing: assume that a class token is read.
    last = traced.layers[candidates[-1]].layout
    if last is not None and last.order == "tokens" and last.prefix:
        order = [name for output in traced.outputs for name in output.modules]
        attention = max((i for i, n in enumerate(order) if _ATTENTION.search(traced.layers[n].kind)), default=-1)
        return next((n for n in reversed(candidates) if order.index(n) < attention), candidates[-1])
    return candidates[-1]


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
        if name is None or any(_is_attention(owner, kinds) for owner in _owners(name) if owner):
            continue
        info = traced.layers[name]
        # A layer that ran several times is no single place in the network.
        if info.calls == 1 and info.layout and max(info.layout.grid[-2:]) > 1:
            chosen.append(name)
    return chosen


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
    found = [name for name in candidates if best >= 0 and name in visits[best][1]]
    # A score for each place on this grid (deep supervision) is no feature map.
    scores = (traced.layers[""].shape or ())[1:2]
    return [name for name in found if (traced.layers[name].shape or ())[1:2] != scores] or found


def _is_attention(name: str, kinds: dict[str, str]) -> bool:
    """By its class or by what its model calls it: some name the class MHSA, but the part attn."""
    return bool(_ATTENTION.search(kinds[name]) or _ATTENTION.fullmatch(name.rpartition(".")[2]))


def _live(model: nn.Module, inputs: Any, traced: Trace, candidates: Sequence[str], extra: Sequence[str]) -> str | None:
    args, kwargs = as_arguments(inputs)
    with capture(model, [*candidates, *extra]) as seen:
        scores = _main(traced.reading.raw(model(*args, **kwargs)))
        if scores is None:
            return None
        # Over all places: a single one may be saturated.
        seen.differentiate(scores.amax(1).mean() if traced.form == "regions" else scores.flatten().max())
        live = (name for name in reversed(candidates) if _has_gradient(seen, name, traced))
        first = next(live, None)
        # A head that scores every place and then pools: its channels are the classes, not what speaks for them.
        counts = {name: traced.layout(name).channels(seen[name].activation) for name in candidates}
        if first is None or traced.form != "classes" or scores.ndim != 2 or counts[first] != scores.shape[1]:
            return first
        # Then a class's score depends on its own channel alone; a norm before an embedding is pooled isn't such a head.
        own = traced.layout(first).to_grid(seen[first].gradient)
        if int(own[0].flatten(1).any(1).sum()) > 1 or "norm" in traced.layers[first].kind.casefold():
            return first
        return next((name for name in live if counts[name] != scores.shape[1]), first)


def _has_gradient(seen: Capture, name: str, traced: Trace) -> bool:
    # Of several outputs the first is looked at; a tower's pooled vector may have a gradient where its tokens have none.
    call = seen[name].calls[0]
    gradient = call.gradients.get(next(iter(call.activations)))
    return gradient is not None and bool(traced.layout(name).to_grid(gradient).any())


def _size(area: Sequence[float]) -> str:
    return "x".join(f"{side:.0f}" for side in area)


class LayerTree(Sequence[LayerInfo]):
    """The layers of a model as a tree to read: ``print`` it, or index it like a list."""

    def __init__(self, traced: Trace, *, model: str, default: str | None) -> None:
        self._infos = list(traced.layers.values())
        self._model = model
        self._default = default

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            found = next((info for info in self._infos if info.name == index), None)
            if found is None:
                raise LayerError(f"there's no layer {index!r}; print the tree to see their names")
            return found
        return self._infos[index]

    def __len__(self) -> int:
        return len(self._infos)

    def __rich__(self) -> Tree:
        """A rich tree: name, type, output shape, layout; the default layer for heatmaps is marked."""
        from rich.markup import escape
        from rich.tree import Tree

        nodes: dict[str, Tree] = {}
        for info in self._infos:
            label = f"[bold]{escape(info.name.rpartition('.')[2] or self._model)}[/] [cyan]{info.kind}[/]"
            if info.shape:
                label += f"  {'x'.join(map(str, info.shape[1:])) or 'scalar'}"
            if info.layout:
                label += f"  [green]{info.layout}[/]"
            if info.calls > 1:
                label += f"  [yellow]runs {info.calls} times[/]"
            if not info.calls and info.name:
                label += "  [dim]not run[/]"
            if info.name == self._default:
                label += "  [bold magenta]<- heatmaps are taken here[/]"
            parent = nodes.get(info.name.rpartition(".")[0]) if info.name else None
            nodes[info.name] = parent.add(label) if parent is not None else Tree(label, guide_style="dim")
        return nodes[""]

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=160, no_color=True)
        with console.capture() as text:
            console.print(self.__rich__())
        return text.get()

    __repr__ = __str__
