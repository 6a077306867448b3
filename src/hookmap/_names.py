"""Names in words: of methods, without importing them, and what is meant by a name that hookmap doesn't have."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from hookmap._text import did_you_mean


def methods_table() -> dict[str, dict[str, Any]]:
    """What is known of the methods in words."""
    return tomllib.loads((files("hookmap") / "methods" / "table.toml").read_text(encoding="utf-8"))


def unknown(name: str, public: Iterable[str]) -> str:
    """A sentence about a name that isn't public.

    >>> unknown("GradCAM", ["Lens"])
    "hookmap has no 'GradCAM'; methods go by name: lens.explain(image, method='gradcam')"
    >>> unknown("Explaination", ["Explanation", "Lens"])
    "hookmap has no 'Explaination'; did you mean Explanation?"
    """
    method = name.casefold().replace("_", "")
    if method in methods_table():
        meant = f"methods go by name: lens.explain(image, method={method!r})"
    else:
        meant = did_you_mean(name, public, "dir(hookmap) lists what it has")
    return f"hookmap has no {name!r}; {meant}"
