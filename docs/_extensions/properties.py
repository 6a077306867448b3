"""The docstring of a property is a sentence, also where it has a colon."""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring


def _sentence(self: GoogleDocstring) -> tuple[str, list[str]]:
    """No type, and all of the text; napoleon takes what stands before a colon for the type."""
    first, *more = self._consume_to_end()
    return "", GoogleDocstring([first, *self._dedent(more)], self._config).lines()


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    GoogleDocstring._consume_inline_attribute = _sentence  # type: ignore[method-assign]
    return {"parallel_read_safe": True, "parallel_write_safe": True}
