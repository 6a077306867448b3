"""One page of an answer: its words, and for each where in the picture it comes from. No script, no network."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookmap._files import written_whole
from hookmap.errors import HookmapError
from hookmap.pages import render_page
from hookmap.results.heatmap import Heatmap

if TYPE_CHECKING:
    from PIL import Image

    from hookmap.answers.answer import Answer, AnswerWord

_SIDE = 960
"""The longer side of its pictures at most, in pixels."""


def write_answer(answer: Answer, model: str, explained: Sequence[tuple[AnswerWord, Heatmap]], path: Path) -> Path:
    """Write the page.

    Args:
        answer: what was said.
        model: by whom.
        explained: the words that can be chosen, with their heatmaps.
        path: of the page.

    Raises:
        HookmapError: if the place can't be written; nothing half-written is left.
    """
    page = _page(answer, model, explained)
    try:
        with written_whole(path) as place:
            place.write_text(page, encoding="utf-8")
    except OSError as error:
        raise HookmapError(f"{path} can't be written ({error.strerror or error}); pass another place") from None
    return path


def _page(answer: Answer, model: str, explained: Sequence[tuple[AnswerWord, Heatmap]]) -> str:
    from hookmap.render.overlay import fitted, resized

    picture = answer.picture
    full = (picture.height, picture.width)
    side = max(320, min(_SIDE, max(full)))
    shown = fitted(full, side)
    # The longest word says most, and is chosen to begin with.
    first = max((word for word, _ in explained), key=lambda word: len(word.text), default=None)
    parts: list[dict[str, Any]] = []
    end = 0
    for word, heatmap in sorted(explained, key=lambda pair: pair[0].start):
        parts.append({"text": answer.text[end : word.start], "map": None})
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
    parts.append({"text": answer.text[end:], "map": None})
    how = ", ".join(dict.fromkeys(_way(heatmap) for _, heatmap in explained))
    return render_page(
        "answer",
        title=answer.question or picture.name,
        heading=answer.question or f"What {model} says of {picture.name}",
        picture=picture.name,
        photo=_address(resized(picture.pixels, shown)),
        height=shown[0],
        width=shown[1],
        parts=parts,
        how=f"Said by {model}. Warm colours: what speaks for the word, by {how}. Choose another word to see its own.",
    )


def _address(image: Image.Image | Any) -> str:
    from PIL import Image

    file = io.BytesIO()
    made = image if isinstance(image, Image.Image) else Image.fromarray(image)
    made.convert("RGB").save(file, "jpeg", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _way(heatmap: Heatmap) -> str:
    return f"{heatmap.method.title} at {heatmap.layer}" if heatmap.method.per_layer else heatmap.method.title
