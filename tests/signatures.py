"""The public names and their parameters, a line each: ``python tests/signatures.py`` writes signatures.txt again."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import hookmap as hm
from hookmap import analysis, metrics, report

FILE = Path(__file__).parent / "signatures.txt"


def _parameters(function: object) -> str:
    """Names, kinds and whether there is a default; not its value, and no types: they may become wider."""
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
    except ValueError:
        return ""
    plain = [
        p.replace(annotation=p.empty, default=p.default if p.default is p.empty else ...)
        for p in signature.parameters.values()
        if p.name not in ("self", "cls")
    ]
    return str(inspect.Signature(plain)).replace("Ellipsis", "...")


def _of(name: str, thing: object) -> Iterator[str]:
    if isinstance(thing, ModuleType) or not callable(thing):
        yield name
        return
    closed = isinstance(thing, type) and issubclass(thing, (enum.Enum, BaseException))
    yield name if closed else name + _parameters(thing)
    for member, value in sorted(vars(thing).items()) if isinstance(thing, type) else ():
        function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if member.startswith("_"):
            continue
        if inspect.isfunction(function):
            yield f"{name}.{member}{_parameters(function)}"
        elif isinstance(value, property):
            yield f"{name}.{member}"


def listed() -> str:
    """All of them."""
    lines = []
    for module in (hm, analysis, metrics, report):
        for name in sorted(module.__all__):
            lines += _of(f"{module.__name__}.{name}", getattr(module, name))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(listed())
