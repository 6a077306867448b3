"""Beneath a method stand the gallery's examples that call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx


def _shown(app: Sphinx, kind: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Sphinx-gallery writes a file for each name, which is empty where no example uses it."""
    folder = app.config.sphinx_gallery_conf["backreferences_dir"]
    examples = Path(app.srcdir, folder, f"{name}.examples")
    if kind == "method" and examples.exists() and examples.stat().st_size:
        lines += ["", ".. rubric:: Examples", "", f".. minigallery:: {name}", ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _shown, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
