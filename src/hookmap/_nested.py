"""Tensors inside what layers take and return: nests of tuples, lists, dicts and dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def tensors_in(output: Any) -> dict[str, Tensor]:
    """Every tensor in a nest of tuples, lists, dicts and dataclasses, by its dotted place in it."""
    found: dict[str, Tensor] = {}

    def note(key: str, tensor: Tensor) -> Tensor:
        found[key] = tensor
        return tensor

    map_tensors(note, output)
    return found


def map_tensors(change: Callable[[str, Tensor], Tensor], output: Any, key: str = "") -> Any:
    """The same nest with each tensor replaced by ``change(place, tensor)``."""

    def inner(step: object, value: Any) -> Any:
        return map_tensors(change, value, f"{key}.{step}" if key else str(step))

    if isinstance(output, Tensor):
        return change(key, output)
    if isinstance(output, Mapping):
        changed: Any = copy.copy(output) if type(output) is not dict else {}
        for name, value in output.items():
            changed[name] = inner(name, value)
        return changed
    if isinstance(output, (tuple, list)):
        values = [inner(i, value) for i, value in enumerate(output)]
        return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        clone: Any = copy.copy(output)
        for field in dataclasses.fields(output):
            object.__setattr__(clone, field.name, inner(field.name, getattr(output, field.name)))
        return clone
    return output
