"""What axe finds on a page that stands in a person's way."""

from __future__ import annotations

from typing import Any

import pytest

from pictures import REPOSITORY

SCRIPT = REPOSITORY / "ui" / "node_modules" / "axe-core" / "axe.min.js"


def faults(page: Any) -> list[tuple[str, list[str]]]:
    """Serious faults of a page in a browser: what, and where first."""
    if not SCRIPT.exists():
        pytest.skip("axe needs `npm ci` in ui/")
    page.evaluate(SCRIPT.read_text())
    return [
        (fault["id"], [node["html"][:120] for node in fault["nodes"][:2]])
        for fault in page.evaluate("axe.run()")["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
