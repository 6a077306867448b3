"""Many small byte strings of a report: in its page while that stays small, else in scripts beside it.

A page that is opened as a file can't fetch, but it can load scripts. Each holds a chunk of a pile, and is loaded when
something in it is first shown.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hookmap._files import written_whole

CHUNK = 200_000
"""Bytes of a chunk, more or less: so much is read to show one thing of it."""


@dataclass(frozen=True)
class Pile:
    """Byte strings by their number.

    Attributes:
        name: letters only.
        items: the byte strings.
    """

    name: str
    items: Sequence[bytes]

    @property
    def size(self) -> int:
        """Characters of the whole pile."""
        return sum(4 * -(-len(item) // 3) + 1 for item in self.items)

    @property
    def per_chunk(self) -> int:
        """Items of a chunk."""
        return max(1, CHUNK * len(self.items) // max(1, self.size))

    def chunks(self) -> Iterator[str]:
        """The items in base64 with commas between them, chunk by chunk."""
        many = self.per_chunk
        for i in range(0, len(self.items), many):
            yield ",".join(base64.b64encode(item).decode("ascii") for item in self.items[i : i + many])

    def beside(self, folder: Path) -> list[str]:
        """Its chunks as scripts in a folder, whose names change with what they hold; returns these names."""
        names = []
        for number, chunk in enumerate(self.chunks()):
            text = f'hookmapChunk("{self.name}", {number}, "{chunk}");\n'
            names.append(f"{self.name}-{number:03d}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.js")
            if not (folder / names[-1]).exists():
                with written_whole(folder / names[-1]) as place:
                    place.write_text(text, encoding="ascii")
        return names


def stacked(
    piles: Iterable[Pile], folder: Path, most: int
) -> tuple[list[tuple[str, int, str]], dict[str, dict[str, Any]], set[str]]:
    """Piles into the page as long as they all fit, the others beside it.

    Args:
        piles: in the order of their importance.
        folder: for the scripts.
        most: characters that the page may hold.

    Returns:
        The chunks for the page itself, each with its pile's name and its number; what the page must know of each pile
        by name; and the names of the scripts.
    """
    inside: list[tuple[str, int, str]] = []
    known, written = {}, set()
    for pile in piles:
        files: list[str] | None = None
        if pile.size <= most:
            most -= pile.size
            inside += [(pile.name, number, chunk) for number, chunk in enumerate(pile.chunks())]
        else:
            files = pile.beside(folder)
            written |= {*files}
        known[pile.name] = {"perChunk": pile.per_chunk, "files": files, "folder": folder.name}
    return inside, known, written
