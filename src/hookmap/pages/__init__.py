"""What pages are made of: what ``ui/`` is built to, skeletons, and what a page may do."""

from __future__ import annotations

from pathlib import Path

BUILT = Path(__file__).parent / "built"
"""What ``ui/`` is built to."""


def built(name: str) -> str:
    """The text of a file of :data:`BUILT`."""
    return (BUILT / name).read_text(encoding="utf-8")
