"""What comparisons decided before, by the fingerprint of a model: in the user's cache, and shipped for the default."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from hookmap._files import cache_folder, write_bytes
from hookmap.errors import HookmapError
from hookmap.results.choice import Choice

AUTO = "auto"
"""The method that stands for what a comparison decided, or else for the default."""


def stored_choice(fingerprint: str) -> Choice | None:
    """What was decided for a model with these weights, by the user's own comparison or else by a shipped one."""
    name = f"{fingerprint}.json"
    for place in (cache_folder("verdicts") / name, files("hookmap.attribution") / "verdicts" / name):
        try:
            return Choice.read(json.loads(place.read_text(encoding="utf-8"))["choice"])
        except (OSError, ValueError, KeyError, TypeError):  # none, or none that can be read: it is made again
            continue
    return None


def store_choice(fingerprint: str, choice: Choice, about: str) -> Path | None:
    """Keep a decision in the user's cache; None where that can't be written.

    Args:
        fingerprint: of the model.
        choice: what was decided.
        about: how, in words.
    """
    text = json.dumps({"choice": asdict(choice), "about": about}, indent=2, ensure_ascii=False)
    try:
        return write_bytes(cache_folder("verdicts") / f"{fingerprint}.json", text.encode)
    except HookmapError:
        return None
