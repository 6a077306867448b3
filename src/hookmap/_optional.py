"""Libraries that only some parts need."""

from __future__ import annotations

import importlib.util

from hookmap.errors import MissingLibraryError


def require(*libraries: str, extra: str) -> None:
    """Raise a :class:`MissingLibraryError` that says what to install, unless all libraries are there.

    Args:
        *libraries: by the names under which they are imported.
        extra: of hookmap, that brings them.
    """
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        *others, last = missing
        names, are = (f"{', '.join(others)} and {last}", "aren't") if others else (last, "isn't")
        raise MissingLibraryError(
            f"this needs {names}, which {are} installed; run: pip install 'hookmap[{extra}]' (from a "
            f"clone: pip install -e '.[{extra}]')"
        )
