"""Write docs/api.md, the reference, from the docstrings of the public names: ``python docs/make_api.py``."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import hookmap as hm
from hookmap import analysis, metrics, report

PAGE = Path(__file__).resolve().parent / "api.md"
_INTRO = """# Reference

Written from the docstrings by `docs/make_api.py`. `import hookmap as hm`; what isn't here isn't public.
"""
_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")


def page() -> str:
    """The page as Markdown."""
    lines = [_INTRO]
    modules = {"hookmap": hm, "hookmap.analysis": analysis, "hookmap.metrics": metrics, "hookmap.report": report}
    for title, module in modules.items():
        lines.append(f"## {title}\n")
        for name in sorted(module.__all__, key=str.casefold):
            lines += _entry(name, getattr(module, name))
    return "\n".join(lines)


def _entry(name: str, thing: object) -> Iterator[str]:
    if isinstance(thing, ModuleType) or not callable(thing):
        return
    yield f"### {name}\n"
    enumeration = isinstance(thing, type) and issubclass(thing, enum.Enum)
    if not enumeration and not (isinstance(thing, type) and issubclass(thing, BaseException)):
        yield f"```text\n{_signature(name, thing)}\n```\n"
    yield _text(thing)
    for member, value in sorted(vars(thing).items()) if isinstance(thing, type) else ():
        function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if member.startswith("_") or not (inspect.isfunction(function) or isinstance(value, property)):
            continue
        called = f"{name}.{member}" if isinstance(value, property) else _signature(f"{name}.{member}", function)
        yield f"#### {member}\n\n```text\n{called}\n```\n"
        yield _text(function)


class _Plain(str):
    """An annotation as it is written."""

    __slots__ = ()
    __repr__ = str.__str__


def _signature(name: str, function: object) -> str:
    """With a parameter a line where it is long, without ``self``."""
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
    except ValueError:
        return name
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    parameters = [
        p.replace(annotation=_Plain(p.annotation)) if isinstance(p.annotation, str) else p for p in parameters
    ]
    # A function's own text holds where it lies in memory.
    parameters = [
        p.replace(default=_Plain(p.default.__name__)) if inspect.isfunction(p.default) else p for p in parameters
    ]
    given = signature.return_annotation
    returns = "" if given in (signature.empty, "None", None) else f" -> {inspect.formatannotation(_Plain(given))}"
    shown = [str(p) for p in parameters]
    if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        keywords = next((i for i, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), len(parameters))
        shown[keywords:keywords] = ["*"] if keywords < len(parameters) else []
    line = f"{name}({', '.join(shown)}){returns}"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {text},\n" for text in shown) + f"){returns}"


def _text(thing: object) -> str:
    """A docstring as Markdown: sections become lists, roles become code, formulas blocks."""
    text = inspect.getdoc(thing) or ""
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    text = re.sub(r":\w+:`~?([^`<]*?)(?: <[^`]*>)?`", r"`\1`", text).replace("``", "`")
    text = re.sub(r"^\.\. math:: (.*(?:\n +.*)*)", r"```math\n\1\n```", text, flags=re.MULTILINE)
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        heading = line.removesuffix(":")
        if line.endswith(":") and heading in _SECTIONS:
            section = heading
            lines += [f"**{heading}**", ""]
        elif not line.startswith(" ") and line:
            section = ""
            lines.append(line)
        elif section and re.match(r"    \S", line):
            lines.append(_item(line.strip(), named=section not in ("Returns", "Yields")))
        else:
            lines.append(f"  {line.strip()}" if section and line else line)
    return "\n".join(lines).strip() + "\n"


def _item(line: str, *, named: bool) -> str:
    name, colon, rest = line.partition(": ")
    return (
        f"- `{name}`: {rest}" if named and colon and re.fullmatch(r"[*\w, ]+", name) else f"- {line}" if named else line
    )


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
