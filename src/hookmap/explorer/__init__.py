"""What a person asks of models and pictures in the app, a notebook or a saved view, and how it is answered."""

from __future__ import annotations

from pathlib import Path

SAMPLES = tuple(sorted((Path(__file__).parent / "samples").glob("*.jpg")))
"""Photos to begin with."""
