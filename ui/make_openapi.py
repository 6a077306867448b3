"""Write ui/openapi.json, from which the types of the interface are made: ``python ui/make_openapi.py``."""

from __future__ import annotations

import json
from pathlib import Path

from hookmap.app.server import App
from hookmap.explorer.answering import Explorer

FILE = Path(__file__).resolve().parent / "openapi.json"


def schema() -> str:
    """The schema of the server, as JSON."""
    return json.dumps(App(Explorer({})).openapi(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(schema(), encoding="utf-8")
