"""What pages may do, as content policies."""

from __future__ import annotations

import base64
import hashlib

APP = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Of the page that the server sends: what it serves itself, and what the page makes of it."""


def of_file(style: str, script: str, *, beside: bool = False) -> str:
    """Of a page in a file: its own style sheet and script, and nothing else but scripts that lie beside it, if any do.

    Args:
        style: the text of its style sheet.
        script: the text of its script; empty: it has none.
        beside: whether scripts lie beside it.
    """
    others = " 'self' file:" if beside else ""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hashed(script)}{others}",
            f"style-src {_hashed(style)}",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hashed(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'" if text else "'none'"
