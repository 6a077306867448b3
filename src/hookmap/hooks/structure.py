"""Which modules a model is made of, read so quickly that every call can look again."""

from __future__ import annotations

from typing import TypeAlias

from torch import nn

Structure: TypeAlias = tuple[list[nn.Module], list[str]]


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Every module of a model once, the model first; those of the model that an adapter calls too."""
    return structure(model)[0]


def structure(model: nn.Module) -> Structure:
    """The modules of a model and the names under which they hold one another: equal until somebody operates on it."""
    modules: dict[nn.Module, None] = {}
    names: list[str] = []
    left: list[nn.Module | None] = [model]
    while left:
        module = left.pop()
        if module is None or module in modules:
            continue
        modules[module] = None
        if children := module._modules:
            names += children.keys()
            left += children.values()
        # An adapter shares the tables of the model that it calls, so that model is not among its modules.
        if "plain" in module.__dict__ and isinstance(module.__dict__["plain"], nn.Module):
            left.append(module.__dict__["plain"])
    return list(modules), names
