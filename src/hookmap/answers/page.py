"""One page of an answer: its words, and for each where in the picture it comes from. No script, no network."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookmap._files import keep_inputs, write_bytes
from hookmap.answers.word import AnswerWord
from hookmap.images.loading import Picture
from hookmap.pages import render_page
from hookmap.render.overlay import fitted, resized
from hookmap.results.heatmap import Heatmap

if TYPE_CHECKING:
    from PIL import Image

_SIDE = 960
"""The longer side of its pictures at most, in pixels."""


@dataclass(frozen=True)
class Page:
    """What a page shows.

    Attributes:
        text: of the answer.
        question: that was asked, or empty.
        picture: that it was asked about.
        model: that answered.
        explained: the words that can be chosen, with their heatmaps.
    """

    text: str
    question: str
    picture: Picture
    model: str
    explained: Sequence[tuple[AnswerWord, Heatmap]]


def write_page(page: Page, path: Path) -> Path:
    """Write the page.

    Raises:
        HookmapError: if the place can't be written, or holds the photo itself; nothing half-written is left.
    """
    keep_inputs([page.picture.path], [path])
    return write_bytes(path, lambda: _rendered(page).encode())


def _rendered(page: Page) -> str:
    picture, text, explained = page.picture, page.text, page.explained
    full = (picture.height, picture.width)
    side = max(320, min(_SIDE, max(full)))
    shown = fitted(full, side)
    # The longest word says most, and is chosen to begin with.
    first = max((word for word, _ in explained), key=lambda word: len(word.text), default=None)
    parts: list[dict[str, Any]] = []
    end = 0
    for word, heatmap in sorted(explained, key=lambda pair: pair[0].start):
        parts.append({"text": text[end : word.start], "map": None})
        parts.append(
            {
                "text": word.text,
                "map": _address(heatmap.overlay(size=side)),
                "alt": f"where {word.text!r} comes from",
                "about": f"{word.text}: {math.exp(word.log_probability):.0%} probable after the words before it",
                "first": word is first,
            }
        )
        end = word.end
    parts.append({"text": text[end:], "map": None})
    how = ", ".join(dict.fromkeys(_way(heatmap) for _, heatmap in explained))
    return render_page(
        "answer",
        title=page.question or picture.name,
        heading=page.question or f"What {page.model} says of {picture.name}",
        picture=picture.name,
        photo=_address(resized(picture.pixels, shown)),
        height=shown[0],
        width=shown[1],
        parts=parts,
        how=f"Said by {page.model}. Warm colours: what speaks for the word, by {how}.",
    )


def _address(image: Image.Image) -> str:
    file = io.BytesIO()
    image.convert("RGB").save(file, "jpeg", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _way(heatmap: Heatmap) -> str:
    return f"{heatmap.method.title} at {heatmap.layer}" if heatmap.method.per_layer else heatmap.method.title
