"""Parts of a model made weaker while questions are asked: channels of a layer, heads of an attention, concepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hookmap._nested import map_tensors, tensors_in
from hookmap.attribution.engine import Engine
from hookmap.errors import LayerError
from hookmap.hooks.capture import capture
from hookmap.hooks.matching import match_layers
from hookmap.hooks.preserve import preserved
from hookmap.hooks.registration import hooked, hooked_before
from hookmap.layers.trace import Trace


@dataclass(frozen=True)
class Muting:
    """Channels of a layer, heads of an attention, or concepts of an opened image, that are made weaker.

    Attributes:
        layer: by name.
        numbers: of the channels, heads or concepts.
        factor: what they are multiplied with; 0 mutes them.
        of: what the numbers are those of; concepts are those that :meth:`hookmap.Lens.concepts` finds on the image that
            was opened, which is :class:`ConceptMuting`.
    """

    layer: str
    numbers: tuple[int, ...]
    factor: float = 0.0
    of: Literal["channels", "heads", "concepts"] = "channels"


@dataclass(frozen=True, eq=False)
class ConceptMuting:
    r"""Concepts of a layer that are made weaker at every place.

    With all concepts as the rows of :math:`V` and an activation's coordinates in them by least squares,
    :math:`m = a V^+`, a concept's component is :math:`m_j v_j`, and the activation becomes
    :math:`a - (1 - f) \sum_j m_j v_j`: the other coordinates, and what no concept explains, stay.

    Attributes:
        layer: by name.
        vectors: of all concepts, ``(k, C)``.
        numbers: of those that are made weaker.
        factor: what their components are multiplied with; 0 mutes them.
    """

    layer: str
    vectors: Tensor
    numbers: tuple[int, ...]
    factor: float = 0.0


@contextmanager
def muted(engine: Engine, x: Tensor, mutings: Sequence[Muting | ConceptMuting]) -> Iterator[None]:
    """Whatever runs the model in this block, in this thread, runs it with these parts made weaker.

    Args:
        engine: of the model.
        x: an input of the size that is meant, ``(B, C, *size)``.
        mutings: what is made weaker.

    Raises:
        LayerError: for layers, channels and heads that there aren't, and heads that can't be told apart.
    """
    traced, modules = engine.trace(x), dict(engine.called.named_modules())
    with ExitStack() as stack:
        for muting in mutings:
            layer = next(iter(match_layers(engine.called, muting.layer)))
            if isinstance(muting, ConceptMuting):
                axis, _ = _channels(traced, layer)
                _check(muting.numbers, len(muting.vectors), f"{muting.layer!r} has concepts")
                stack.enter_context(hooked([modules[layer]], _without_components(muting, axis), first=True))
            elif muting.of == "channels":
                axis, count = _channels(traced, layer)
                _check(muting.numbers, count, f"layer {muting.layer!r} has channels")
                change = _weakened(muting.numbers, muting.factor, axis, count)
                stack.enter_context(hooked([modules[layer]], change, first=True))
            elif muting.of == "concepts":
                raise LayerError("concepts are those of an opened image; pass what lens.concepts found")
            else:
                name, heads = _after_heads(engine, x, traced, layer)
                _check(muting.numbers, heads, f"layer {muting.layer!r} has heads")
                change = _weakened(muting.numbers, muting.factor, -1, heads)
                stack.enter_context(hooked_before([modules[name]], change))
        yield


def _check(numbers: Sequence[int], count: int, what: str) -> None:
    for number in numbers:
        if not 0 <= number < count:
            raise LayerError(f"{what} 0 to {count - 1}; {number} doesn't exist")


def _channels(traced: Trace, layer: str) -> tuple[int, int]:
    """The axis of a layer's channels, and how many there are."""
    info = traced.info(layer)
    if info.shape is None or len(info.shape) < 2:
        raise LayerError(f"layer {layer!r} gives no channels that could be muted; pass another layer")
    axis = 1 if info.layout is not None and info.layout.order == "channels first" else -1
    return axis, info.shape[axis]


def _weakened(numbers: Sequence[int], factor: float, axis: int, parts: int) -> Callable[[nn.Module, Any, Any], Any]:
    """A hook that multiplies equal parts of the main tensor's axis."""

    def weaker(tensor: Tensor) -> Tensor:
        size = tensor.shape[axis]
        factors = tensor.new_ones(parts)
        factors[list(numbers)] = factor
        shape = [1] * tensor.ndim
        shape[axis] = size
        return tensor * factors.repeat_interleave(size // parts).reshape(shape)

    return _on_the_main_tensor(weaker)


def _without_components(muting: ConceptMuting, axis: int) -> Callable[[nn.Module, Any, Any], Any]:
    """A hook that makes the components of concepts weaker along the main tensor's axis."""
    numbers = list(muting.numbers)
    vectors = muting.vectors.detach().double().cpu()
    coordinates = torch.linalg.pinv(vectors)[:, numbers]
    removed: Tensor = (1 - muting.factor) * coordinates @ vectors[numbers]  # (C, C)

    def weaker(tensor: Tensor) -> Tensor:
        places = tensor.movedim(axis, -1)
        return (places - places @ removed.to(tensor)).movedim(-1, axis)

    return _on_the_main_tensor(weaker)


def _on_the_main_tensor(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Any], Any]:
    """A hook that changes the first tensor of what it is given."""

    def hook(_: nn.Module, __: Any, given: Any) -> Any:
        main = next(iter(tensors_in(given)))
        return map_tensors(lambda key, tensor: change(tensor) if key == main else tensor, given)

    return hook


def _after_heads(engine: Engine, x: Tensor, traced: Trace, layer: str) -> tuple[str, int]:
    """The linear layer that takes what the heads of an attention give, side by side, and how many they are."""
    with preserved(engine.model), capture(engine.called, (), attention=True) as seen, torch.no_grad():
        engine.called(x[:1].clone())
        inside = [one for one in seen.attentions if f"{one.module}.".startswith(f"{layer}.")]
        if not inside:
            raise LayerError(f"no attention ran in {layer!r}, so it has no heads")
        module, heads = inside[0].module, inside[0].heads
    modules = dict(engine.called.named_modules())
    ran = traced.order
    linears = [
        name
        for name, one in modules.items()
        if name.startswith(f"{module}.") and type(one) is nn.Linear and name in ran and one.in_features % heads == 0
    ]
    if len(linears) < 2:
        raise LayerError(
            f"the heads of {module!r} can't be muted: what they give isn't taken by a linear layer of its own; mute "
            "channels of the layer instead"
        )
    return max(linears, key=ran.__getitem__), heads
