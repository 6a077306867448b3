"""Sentences about things: what was meant, how many there are, what an error says."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


def closest(word: str, names: Iterable[str], most: int = 4) -> list[str]:
    """The names that are most like a word, whatever its capitals.

    >>> closest("Biuld", ["build", "Net", "load"]), closest("zebra", ["build"])
    (['build'], [])
    """
    plain = {name.casefold(): name for name in names}
    return [plain[name] for name in difflib.get_close_matches(word.casefold(), plain, n=most, cutoff=0.6)]


def did_you_mean(word: str, names: Iterable[str], otherwise: str) -> str:
    """The end of a sentence about a word that isn't among the names.

    >>> did_you_mean("gradcan", ["gradcam", "rise"], "use another"), did_you_mean("x", ["rise"], "use another")
    ('did you mean gradcam?', 'use another')
    """
    names = closest(word, names)
    return f"did you mean {', '.join(names)}?" if names else otherwise


def listed(names: Iterable[object], most: int = 5) -> str:
    """Some of the names for a sentence.

    >>> listed("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    given = [str(name) for name in names]
    return ", ".join(given[:most]) + (f" and {len(given) - most} more" if len(given) > most else "")


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    >>> counted(1, "image"), counted(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def short_names(names: Iterable[str]) -> list[str]:
    """Dotted names without what all of them begin and end with; a number keeps what it counts.

    >>> short_names(["vit.blocks.0.attn", "vit.blocks.1.attn"]), short_names(["a.one", "a.two"]), short_names(["a.b"])
    (['blocks.0', 'blocks.1'], ['one', 'two'], ['a.b'])
    """
    parts = [name.split(".") for name in names]
    if len(parts) < 2:
        return [".".join(part) for part in parts]
    shortest = min(map(len, parts)) - 1
    first = next((i for i in range(shortest) if len({part[i] for part in parts}) > 1), shortest)
    last = next((i for i in range(shortest - first) if len({part[-1 - i] for part in parts}) > 1), shortest - first)
    first -= first > 0 and any(part[first].isdigit() for part in parts)
    return [".".join(part[first : len(part) - last]) for part in parts]


def printable(text: str) -> str:
    r"""A file's name, or a sentence with one, as text that can be printed and written.

    Bytes that aren't UTF-8, line breaks and what else would steer a terminal are escaped.

    >>> printable(os.fsdecode(b"caf\xe9.jpg")), printable("a\x1b[31m.jpg"), printable("日本 é.jpg")
    ('caf\\xe9.jpg', 'a\\x1b[31m.jpg', '日本 é.jpg')
    """
    whole = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in whole)
