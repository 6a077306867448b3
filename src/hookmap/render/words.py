"""A text whose words are coloured by what they add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hookmap.render.colors import Array, palette
from hookmap.render.figure import INK, MARGIN, QUIET, fit, write_note
from hookmap.render.look import Look
from hookmap.render.overlay import font

if TYPE_CHECKING:
    from PIL import Image

LOOK = Look("signed", "symmetric")
_PHOTO, _TEXT, _FACE, _SMALL = 240, 460, 24, 13
_PAD, _GAP, _ROW = 8, 6, 70


def words_page(pixels: Array, words: Sequence[tuple[str, float]], note: str) -> Image.Image:
    """The photo beside the words, each on its colour and above what it adds; the strongest has the deepest colour.

    Args:
        pixels: of the photo.
        words: each with what it adds.
        note: at the foot.
    """
    from PIL import Image, ImageDraw

    photo = fit(Image.fromarray(pixels), _PHOTO)
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines: list[list[tuple[str, float, float]]] = [[]]
    used = 0.0
    for text, share in words:
        wide = max(draw.textlength(text, font=_face(text)), draw.textlength(f"{share:+.3f}", font=font(_SMALL)))
        if lines[-1] and used + wide + 2 * _PAD > _TEXT:
            lines.append([])
            used = 0.0
        lines[-1].append((text, share, wide + 2 * _PAD))
        used += wide + 2 * _PAD + _GAP
    widest = max(sum(wide + _GAP for _, _, wide in line) - _GAP for line in lines)
    inner = max(photo.height, len(lines) * _ROW - 16)
    page = Image.new(
        "RGB", (3 * MARGIN + photo.width + max(_TEXT, math.ceil(widest)), inner + 2 * MARGIN + 26), "white"
    )
    page.paste(photo, (MARGIN, MARGIN + (inner - photo.height) // 2))
    draw = ImageDraw.Draw(page)
    most = max((abs(share) for _, share in words), default=0.0) or 1.0
    colors = palette(LOOK.colors)
    y = MARGIN + (inner - (len(lines) * _ROW - 16)) // 2
    for line in lines:
        x = float(2 * MARGIN + photo.width)
        for text, share, wide in line:
            color = colors[round((0.5 + 0.42 * share / most) * (len(colors) - 1))]
            draw.rounded_rectangle((x, y, x + wide, y + 36), 6, fill=tuple(map(int, color)))
            ink = INK if float(color @ (0.299, 0.587, 0.114)) > 140 else (255, 255, 255)
            draw.text((x + wide / 2, y + 18), text, ink, _face(text), anchor="mm")
            draw.text((x + wide / 2, y + 40), f"{share:+.3f}", QUIET, font(_SMALL), anchor="ma")
            x += wide + _GAP
        y += _ROW
    write_note(page, note, LOOK)
    return page


def _face(text: str) -> Any:
    """The typeface of all pages, or for what that doesn't hold one with more scripts."""
    from PIL import ImageFont

    if all(ord(letter) < 0x180 for letter in text):
        return font(_FACE)
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), _FACE)
