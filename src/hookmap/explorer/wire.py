"""An answer as bytes: arrays as safetensors, and what they mean as JSON in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from hookmap.errors import HookmapError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Answer:
    """What a question is told.

    Attributes:
        about: a dataclass of :mod:`hookmap.explorer.questions`.
        arrays: by the names that it says.
    """

    about: Any
    arrays: Mapping[str, Tensor] = field(default_factory=dict)


def packed(answer: Answer) -> bytes:
    """The answer as safetensors, with ``{"answer": JSON}`` as metadata.

    >>> from hookmap.explorer.questions import Problem
    >>> b"what came" in packed(Answer(Problem("what came")))
    True
    """
    from safetensors.torch import save

    arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in answer.arrays.items()}
    data: bytes = save(arrays, {"answer": as_json(answer.about)})
    return data


def read(kind: type[T], given: Any) -> T:
    """A message as the dataclass that it is.

    Raises:
        HookmapError: if it isn't.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the question"
        raise HookmapError(f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None


def plain(about: Any) -> Any:
    """A dataclass as what JSON is made of; NaN and infinity, which JSON doesn't have, are None."""
    return _finite(asdict(about))


def as_json(about: Any) -> str:
    """A dataclass as JSON."""
    return json.dumps(plain(about), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value
