"""Where the photos lie, and pictures that nobody should decode."""

from __future__ import annotations

import zlib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PHOTOS = REPOSITORY / "examples" / "photos"


def bomb() -> bytes:
    """A PNG that says it has 20000 x 20000 pixels."""
    header = b"IHDR" + (20000).to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    data = b"IDAT" + zlib.compress(bytes(2501 * 20))
    chunks = [(c, len(c) - 4) for c in (header, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        n.to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c, n in chunks
    )
