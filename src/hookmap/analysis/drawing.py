"""What the pages of revealed results are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hookmap._files import as_png, save_image
from hookmap.render.colors import colorize, normalize
from hookmap.render.figure import INK, MARGIN, QUIET, RULE, cut, fit
from hookmap.render.look import DEFAULT_COLORMAP
from hookmap.render.overlay import font

if TYPE_CHECKING:
    from PIL import Image

    from hookmap.runs.results import Run

Array = np.ndarray[Any, Any]
WARN = (200, 60, 40)


class Page(ABC):
    """A result that draws itself."""

    @abstractmethod
    def figure(self) -> Image.Image:
        """The page as a picture."""

    def save(self, path: str | Path) -> Path:
        """Write :meth:`figure` as an image file.

        Raises:
            HookmapError: if the place can't be written; nothing half-written is left.
        """
        return save_image(self.figure(), path)

    def _repr_png_(self) -> bytes:
        return as_png(self.figure())


@dataclass(frozen=True, eq=False)
class Line:
    """A row of a page: text at the left, tiles at the right.

    Attributes:
        title: first line.
        below: quiet lines under it.
        tiles: pictures in a row; None leaves a place empty.
        warning: a word in red above the title, or nothing.
    """

    title: str
    below: Sequence[str]
    tiles: Sequence[Image.Image | None]
    warning: str = ""


def lines_page(
    title: str, subtitle: str, lines: Sequence[Line], *, tile: int = 116, text: int = 230, heads: Sequence[str] = ()
) -> Image.Image:
    """A title and rows of tiles on white.

    Args:
        title: of the page.
        subtitle: a quiet line below it; more lines after a line break.
        lines: from above.
        tile: side of the square that each tile is centred in.
        text: width of the column of text.
        heads: over the columns of tiles; more lines after line breaks.
    """
    from PIL import Image, ImageDraw

    across = max((len(line.tiles) for line in lines), default=1)
    gap = 6
    step = tile + gap
    notes = subtitle.split("\n")
    deepest = max((head.count("\n") + 1 for head in heads), default=0)
    top = MARGIN + 34 + 18 * len(notes) + (6 + 16 * deepest if heads else 4)
    high = [max(tile, 24 + 16 * len(line.below) + (16 if line.warning else 0)) + 16 for line in lines]
    width = max(2 * MARGIN + text + across * step - gap, 720 if not heads else 560)
    canvas = Image.new("RGB", (width, top + sum(high) + MARGIN - 10), "white")
    draw = ImageDraw.Draw(canvas)
    _write_title(canvas, title, notes)
    left = MARGIN + text
    for i, head in enumerate(heads):
        for k, part in enumerate(head.split("\n")):
            draw.text((left + i * step, top - 4 - 16 * (deepest - k)), cut(draw, part, 12, tile), QUIET, font(12))
    y = top
    for line, height in zip(lines, high, strict=True):
        draw.line((MARGIN, y, width - MARGIN, y), RULE)
        at = y + 8
        if line.warning:
            draw.text((MARGIN, at), cut(draw, line.warning, 12, text - 14), WARN, font(12))
            at += 16
        draw.text((MARGIN, at), cut(draw, line.title, 15, text - 14), INK, font(15))
        for i, below in enumerate(line.below):
            draw.text((MARGIN, at + 21 + 16 * i), cut(draw, below, 12, text - 14), QUIET, font(12))
        for i, picture in enumerate(line.tiles):
            if picture is not None:
                _paste(canvas, picture, left + i * step, y + 8, tile, tile)
        y += height
    return canvas


def tiles_page(
    title: str,
    subtitle: str,
    parts: Sequence[tuple[str, Sequence[tuple[Image.Image, str, str]]]],
    *,
    tile: tuple[int, int] = (150, 150),
) -> Image.Image:
    """A title and grids of tiles, each tile with a line and a quiet line below it.

    Args:
        title: of the page.
        subtitle: quiet lines below it.
        parts: each a heading, or nothing, and its tiles: (picture, line, quiet line).
        tile: (width, height) that each tile is centred in.
    """
    from PIL import Image, ImageDraw

    most = max(len(tiles) for _, tiles in parts)
    total = sum(len(tiles) for _, tiles in parts)
    wide, tall = tile
    columns = max(min(most, 3), min(most, round((1.6 * total * tall / wide) ** 0.5)))
    step_x, step_y, heading = wide + 14, tall + 54, 26
    notes = subtitle.split("\n")
    y = MARGIN + 42 + 18 * len(notes)
    high = sum(-(-len(tiles) // columns) * step_y + heading * bool(head) for head, tiles in parts)
    canvas = Image.new("RGB", (max(2 * MARGIN + columns * step_x - 14, 560), y + high + MARGIN - 16), "white")
    draw = ImageDraw.Draw(canvas)
    _write_title(canvas, title, notes)
    for head, tiles in parts:
        if head:
            draw.line((MARGIN, y - 8, canvas.width - MARGIN, y - 8), RULE)
            draw.text((MARGIN, y - 2), head, QUIET, font(13))
            y += heading
        for i, (picture, line, below) in enumerate(tiles):
            x, top = MARGIN + (i % columns) * step_x, y + (i // columns) * step_y
            _paste(canvas, picture, x, top, *tile)
            draw.text((x, top + tall + 4), cut(draw, line, 14, wide), INK, font(14))
            draw.text((x, top + tall + 22), cut(draw, below, 11, wide), QUIET, font(11))
        y += -(-len(tiles) // columns) * step_y
    return canvas


def heat_tile(heat: Array, side: int) -> Image.Image:
    """A map of the common frame in colour.

    What is drawn as the strongest is its largest value, or three times its mean if that is more: an even map shall not
    look hot.

    Args:
        heat: ``(n, n)``.
        side: of the picture, in pixels.
    """
    from PIL import Image

    smooth = Image.fromarray(np.asarray(heat, np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    values = np.asarray(smooth).clip(0, None)
    limit = max(float(values.max()), 3 * float(values.mean()))
    return Image.fromarray(np.ascontiguousarray(colorize(normalize(values, 0, limit), DEFAULT_COLORMAP)))


def overlay_of(run: Run, row: int, side: int) -> Image.Image:
    """The heatmap of a row of the run's table over the small copy of its picture, with its longer side as given."""
    return run.heatmap(row, over="copy").painted(size=side)


def _write_title(canvas: Image.Image, title: str, notes: Sequence[str]) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(canvas)
    room = canvas.width - 2 * MARGIN
    draw.text((MARGIN, MARGIN - 4), cut(draw, title, 22, room), INK, font(22))
    for i, note in enumerate(notes):
        draw.text((MARGIN, MARGIN + 26 + 18 * i), cut(draw, note, 13, room), QUIET, font(13))


def side_by_side(pictures: Sequence[Image.Image], side: int) -> Image.Image:
    """Pictures in a row, each centred in a square."""
    from PIL import Image

    gap = 4
    row = Image.new("RGB", (len(pictures) * (side + gap) - gap, side), "white")
    for i, picture in enumerate(pictures):
        _paste(row, picture, i * (side + gap), 0, side, side)
    return row


def _paste(canvas: Image.Image, picture: Image.Image, x: int, y: int, wide: int, tall: int) -> None:
    """Centred in a field; smaller pictures are enlarged to fill it."""
    factor = min(wide / picture.width, tall / picture.height)
    if abs(factor - 1) > 0.02:
        picture = fit(picture, max(1, round(max(picture.size) * factor)))
    canvas.paste(picture, (x + (wide - picture.width) // 2, y + (tall - picture.height) // 2))


def dots_page(dots: Sequence[tuple[Image.Image, float, float, int]], *, side: int = 900) -> Image.Image:
    """Small pictures in their places in a plane, framed in the colour of their group.

    Args:
        dots: (picture, x, y, number of its group from 1; 0: none).
        side: of the page, in pixels.
    """
    from PIL import Image, ImageDraw

    from hookmap.render.concepts import NOT_DRAWN, color

    canvas = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(canvas)
    at = np.array([(x, y) for _, x, y, _ in dots], float).reshape(-1, 2)
    low, high = at.min(0), at.max(0)
    largest = max(max(picture.size) for picture, *_ in dots)
    room = side - 2 * MARGIN - largest - 6
    for (picture, _, _, group), (x, y) in zip(dots, (at - low) / np.maximum(high - low, 1e-12), strict=True):
        left, top = round(MARGIN + 3 + x * room), round(MARGIN + 3 + (1 - y) * room)
        line = color(group - 1) if group else NOT_DRAWN[0]
        draw.rectangle((left - 3, top - 3, left + picture.width + 2, top + picture.height + 2), line)
        canvas.paste(picture, (left, top))
    return canvas
