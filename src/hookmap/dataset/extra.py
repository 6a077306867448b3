"""Libraries that only data sets need."""

from __future__ import annotations

import importlib.util

from hookmap.errors import DataError


def needed(*libraries: str, extra: str = "dataset") -> None:
    """Raise a :class:`DataError` that says what to install, unless all libraries are there."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(f"this needs {' and '.join(missing)}; pip install 'hookmap[{extra}]'")
