"""What pages are made of."""

from __future__ import annotations

from pathlib import Path

BUILT = Path(__file__).parent / "built"
"""What ``ui/`` is built to."""
