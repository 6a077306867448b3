"""The stages of a network: the few layers that one walks through from the picture to the decision."""

from __future__ import annotations

from itertools import pairwise

from hookmap.layers.trace import Trace

FEW = 5
"""Modules that hold others are opened, the largest first, until there are so many stages."""


def stages_of(traced: Trace) -> list[str]:
    """Layers that follow each other and give a grid of rows and columns, by name, in the order in which they ran.

    Of layers that give the same shape one after the other within a block (convolution, norm, activation), the last is
    taken.
    """
    order = traced.order
    children: dict[str, list[str]] = {}
    for name in traced.layers:
        if name:
            children.setdefault(name.rpartition(".")[0], []).append(name)
    stages, leaves = [""], set[str]()
    while len(_shown(stages, order, traced)) < FEW:
        held = [name for name in stages if name in children and name not in leaves]
        if not held:
            break
        largest = max(held, key=lambda name: traced.layers[name].parameters)
        inside = [name for name in stages if name != largest] + children[largest]
        if len(_shown(inside, order, traced)) < len(_shown(stages, order, traced)):
            leaves.add(largest)  # what it holds can't be looked at
        else:
            stages = inside
    return _shown(stages, order, traced)


def _shown(names: list[str], order: dict[str, int], traced: Trace) -> list[str]:
    ran = sorted((name for name in names if name in order and _has_places(name, traced)), key=order.__getitem__)
    shapes = [traced.layers[name].shape for name in ran]
    repeated = [shape == after for shape, after in pairwise([*shapes, None])]
    return [name for name, again in zip(ran, repeated, strict=True) if not (again and _is_step(name, traced))]


def _has_places(name: str, traced: Trace) -> bool:
    layout = traced.layers[name].layout
    return bool(name) and layout is not None and len(layout.grid) == 2 and max(layout.grid) > 1


def _is_step(name: str, traced: Trace) -> bool:
    """Whether a layer holds no others: it is a step on the way, and no block."""
    return not any(other.startswith(f"{name}.") for other in traced.layers)
