"""What layers a model has, and how they lay out their activations, as one pass showed."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as default
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hookmap._nested import tensors_in
from hookmap.adapters.outputs import Form, Reading, Sigmoids, may_be_probabilities, read
from hookmap.errors import LayerError
from hookmap.hooks.registration import hooked
from hookmap.layers.layouts import Layout, read_layout

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

    @property
    def order(self) -> dict[str, int]:
        """The place of each layer that gave a tensor among all outputs; of one that ran several times, the last."""
        return {name: place for place, output in enumerate(self.outputs) for name in output.modules}

    @property
    def held(self) -> int:
        """How many values all outputs hold together, for one image."""
        shapes = (self.layers[output.modules[0]].shape for output in self.outputs)
        return sum(math.prod(shape) for shape in shapes if shape)

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
                f"layer {name!r} ({info.kind}) gives {info.shape} for one {size_text(self.field)} input, which can't "
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
            ``token_layouts(size)``; one that knows each layer's layout itself, or that it has none, says so by a method
            ``own_layout(name, shape)``.
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
    token_layouts = getattr(model, "token_layouts", None)
    own_layout = getattr(model, "own_layout", None)
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
        tensor = main_tensor(output)
        info = result.layers[names[module]]
        info.calls += 1
        if tensor is None:
            return
        shape = tuple(tensor.shape)
        side = _channel_side(module, shape)
        name = info.name
        if side:
            for owner in owners(name):
                evidence[owner].setdefault(shape, side)
        info.shape = shape
        former = info.layout
        # Asked only now that the model runs: it has refused an input of another rank by itself.
        tokens = token_layouts(area) if callable(token_layouts) else ()
        if callable(own_layout):
            info.layout = own_layout(name, shape)
        else:
            info.layout = read_layout(
                shape,
                area,
                channels=evidence[name].get(shape),
                grids=grids,
                prefix=prefix,
                suffix=suffix,
                tokens=tokens,
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
        with torch.no_grad(), Sigmoids() as sigmoids:
            result.reading = sigmoids.told(result.reading, model(*args, **kwargs))
    return result


def _channel_side(module: nn.Module, shape: tuple[int, ...]) -> Literal["first", "last"] | None:
    if isinstance(module, _CHANNELS_FIRST):
        return "first"
    if getattr(module, "data_format", None) == "channels_first":  # ConvNeXt's LayerNorm, of several libraries
        return "first"
    last = isinstance(module, (nn.Linear, nn.LayerNorm)) and len(shape) > 3
    # torchvision's LayerNorm2d and its like normalise channels-first maps although they derive from LayerNorm.
    return "last" if last and "2d" not in type(module).__name__ else None


def owners(name: str) -> Iterator[str]:
    """The layer and all that contain it: a.b, a, and the model."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def main_tensor(output: Any) -> Tensor | None:
    """The first floating-point tensor of an output."""
    return next((t for t in tensors_in(output).values() if t.is_floating_point()), None)


def as_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A model's inputs as positional and keyword arguments: a tensor, a tuple or a dict of keywords."""
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def size_text(area: Sequence[float]) -> str:
    """A size in words: 224x320."""
    return "x".join(f"{side:.0f}" for side in area)
