"""Pages: several pictures with captions, a network's overview, and figures for papers."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hookmap._files import written_whole
from hookmap.errors import HookmapError
from hookmap.render.colors import Heat, palette
from hookmap.render.look import Look
from hookmap.render.overlay import fitted, font

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

INK, QUIET, RULE = (28, 28, 32), (110, 112, 120), (226, 227, 232)
MARGIN = 24
FIGURES = {".pdf", ".svg"}
"""Endings of files that hold a figure and not only its pixels."""


def contact_sheet(
    tiles: Sequence[tuple[Image.Image, str, str]],
    *,
    columns: int | None = None,
    tile: int = 300,
    note: tuple[str, Look | None] = ("", None),
) -> Image.Image:
    """Pictures with a title and a quiet line below each, in rows on white.

    Args:
        tiles: (picture, title, subtitle).
        columns: by default up to four, of many pictures so many that the page is about as wide as high.
        tile: longer side of a picture.
        note: written below all, and a look whose two colours are named there: see :func:`write_note`.
    """
    from PIL import Image, ImageDraw

    columns = columns or (min(4, len(tiles)) if len(tiles) <= 16 else round(math.sqrt(1.3 * len(tiles))))
    if len(tiles) > 4 and columns == 4 and len(tiles) % 4 == 1:
        columns = 3 if len(tiles) % 3 != 1 else 5
    shown = [(fit(picture, tile), title, below) for picture, title, below in tiles]
    width = max(p.width for p, _, _ in shown)
    height = max(p.height for p, _, _ in shown)
    step_x, step_y = width + 16, height + 56
    rows = -(-len(shown) // columns)
    foot = 18 if any(note) else 0
    size = columns * step_x - 16 + 2 * MARGIN, rows * step_y - 12 + 2 * MARGIN + foot
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for i, (picture, title, below) in enumerate(shown):
        x, y = MARGIN + (i % columns) * step_x, MARGIN + (i // columns) * step_y
        canvas.paste(picture, (x, y + height - picture.height))
        draw.text((x, y + height + 6), cut(draw, title, 16, width), INK, font(16))
        draw.text((x, y + height + 27), cut(draw, below, 12, width), QUIET, font(12))
    write_note(canvas, *note)
    return canvas


def write_note(page: Image.Image, text: str, look: Look | None = None) -> None:
    """A quiet line at the foot of a page, and at its right what the two colours of a symmetric look mean."""
    from PIL import Image, ImageDraw

    draw, y, right = ImageDraw.Draw(page), page.height - MARGIN, page.width - MARGIN
    if look is not None:
        against, towards = look.ends
        draw.text((right, y), towards, QUIET, font(12), anchor="ra")
        right -= math.ceil(draw.textlength(towards, font=font(12))) + 6 + 72
        ramp = Image.fromarray(np.round(palette(look.colors)[None]).astype(np.uint8)).resize((72, 8))
        page.paste(ramp, (right, y + 4))
        draw.text((right - 6, y), against, QUIET, font(12), anchor="ra")
        right -= math.ceil(draw.textlength(against, font=font(12))) + 18
    draw.text((MARGIN, y), cut(draw, text, 12, right - MARGIN), QUIET, font(12))


@dataclass(frozen=True, eq=False)
class OverviewRow:
    """One layer on the overview page: three lines of text and its tiles."""

    title: str
    lines: tuple[str, str]
    tiles: Sequence[Image.Image]


def overview_page(
    photo: Image.Image,
    title: str,
    subtitle: str,
    rows: Sequence[OverviewRow],
    *,
    tile: int = 64,
    heads: tuple[str, str] = ("mean", "channels that vary most"),
) -> Image.Image:
    """A network from input to output: the photo above, one row of tiles per layer.

    Args:
        photo: in its head.
        title: of the page.
        subtitle: below it.
        rows: one per layer.
        tile: width of a tile, where there is none.
        heads: above the first tile of each row, and above the others.
    """
    from PIL import Image, ImageDraw

    text = 250
    across = max((len(row.tiles) for row in rows), default=1)
    widest = max((t.width for row in rows for t in row.tiles), default=tile)
    heights = [max(46, *(t.height for t in row.tiles)) + 12 for row in rows]
    head = fit(photo, 150)
    width = 2 * MARGIN + text + across * (widest + 4) + 8
    canvas = Image.new("RGB", (width, 2 * MARGIN + head.height + 44 + sum(heights)), "white")
    draw = ImageDraw.Draw(canvas)
    canvas.paste(head, (MARGIN, MARGIN))
    x = MARGIN + max(text, head.width + 20)
    draw.text((x, MARGIN + head.height - 52), title, INK, font(22))
    draw.text((x, MARGIN + head.height - 20), cut(draw, subtitle, 13, width - x - MARGIN), QUIET, font(13))
    y = MARGIN + head.height + 18
    x = MARGIN + text
    draw.text((x, y), heads[0], QUIET, font(11))
    draw.text((x + widest + 12, y), heads[1], QUIET, font(11))
    y += 20
    for row, height in zip(rows, heights, strict=True):
        draw.line((MARGIN, y, width - MARGIN, y), RULE)
        draw.text((MARGIN, y + 5), cut(draw, row.title, 14, text - 12), INK, font(14))
        for i, line in enumerate(row.lines):
            draw.text((MARGIN, y + 23 + 15 * i), cut(draw, line, 11, text - 12), QUIET, font(11))
        for i, picture in enumerate(row.tiles):
            canvas.paste(picture, (x + i * (widest + 4) + (8 if i else 0), y + 6))
        y += height
    return canvas


def heatmap_figure(photo: Image.Image, drawn: Image.Image, heat: Heat, *, title: str, subtitle: str) -> Figure:
    """Photo, overlay and colour bar side by side as a matplotlib figure, whose text stays text in SVG and PDF.

    Args:
        photo: as it was given.
        drawn: with its heatmap.
        heat: the map, for its colours.
        title: what was explained.
        subtitle: how.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    pictures = [drawn] if photo is drawn else [photo, drawn]
    across = 4.2 * len(pictures) + 0.9
    tallest = max(picture.height / picture.width for picture in pictures)
    high = 0.85 + 0.18 * subtitle.count("\n") + 4.2 * tallest
    figure = _figure(across, high, title)
    panels = list(figure.subplots(1, len(pictures), squeeze=False)[0])
    for axes, picture in zip(panels, pictures, strict=True):
        axes.imshow(picture)
        axes.set_axis_off()
    panels[0].set_title(subtitle, fontsize=9, loc="left", color="#6e7078")
    low, high = heat.span
    if heat.blank:
        return figure
    bar = figure.colorbar(
        ScalarMappable(Normalize(low, high), ListedColormap(palette(heat.look.colors) / 255)),
        ax=panels,
        shrink=0.85,
        aspect=28,
        pad=0.015,
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    if heat.look.symmetric:
        against, towards = heat.look.ends
        bar.ax.set_title(towards, fontsize=9)
        bar.ax.set_xlabel(against, fontsize=9)
    return figure


def points_figure(columns: Sequence[Sequence[float]], *, names: Sequence[str], title: str, label: str) -> Figure:
    """A column of points for each layer, from input to output, as a matplotlib figure.

    Args:
        columns: the values of each layer.
        names: of the layers.
        title: of the figure.
        label: of the values.
    """
    figure = _figure(max(5.0, 1.6 + 0.36 * len(columns)), 4.0, title)
    axes = figure.subplots()
    for depth, values in enumerate(columns):
        shades = [0.15 + 0.7 * rank / max(1, len(values) - 1) for rank in range(len(values))]
        colors = [palette("viridis")[round(shade * (len(palette("viridis")) - 1))] / 255 for shade in shades]
        axes.scatter([depth] * len(values), values, s=26, c=colors, linewidths=0.4, edgecolors="white", zorder=3)
    axes.set_ylim(0, None)
    axes.set_ylabel(label, fontsize=9, color="#6e7078")
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", color="#e2e3e8", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _figure(across: float, high: float, title: str) -> Figure:
    """A figure of inches, whose text stays text in SVG and PDF."""
    import matplotlib
    from matplotlib.figure import Figure

    class TextFigure(Figure):
        def savefig(self, *to: Any, **how: Any) -> None:
            with matplotlib.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42}):
                super().savefig(*to, **how)

    figure = TextFigure(figsize=(across, high), dpi=150, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    return figure


def picture_of(figure: Figure) -> Image.Image:
    """A matplotlib figure in pixels."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a matplotlib figure as a PDF or SVG.

    Raises:
        HookmapError: if the place can't be written; nothing is left behind.
    """
    path = Path(path)
    try:
        with written_whole(path) as place:
            figure.savefig(place, format=path.suffix[1:].lower())
    except OSError as error:
        raise HookmapError(f"{path} can't be written ({error.strerror or error}); choose another place") from None
    return path


def fit(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side as given."""
    from PIL import Image

    height, width = fitted((picture.height, picture.width), side)
    return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def cut(draw: Any, text: str, size: int, width: float) -> str:
    """The text, ended with dots where it would be wider than ``width``."""
    if draw.textlength(text, font=font(size)) <= width:
        return text
    while text and draw.textlength(text + "...", font=font(size)) > width:
        text = text[:-1]
    return text + "..."


def film_frame(picture: Image.Image, title: str, below: str, done: float) -> Image.Image:
    """A picture under a title, a quiet text beside it, and a line that shows how much is done, 0..1."""
    from PIL import Image, ImageDraw

    head = 44
    canvas = Image.new("RGB", (picture.width + 2 * MARGIN, picture.height + head + 2 * MARGIN - 8), "white")
    draw = ImageDraw.Draw(canvas)
    right, line = canvas.width - MARGIN, MARGIN + 24
    draw.text((MARGIN, MARGIN - 6), title, INK, font(20))
    left = MARGIN + math.ceil(draw.textlength(title, font=font(20))) + 8
    draw.text((left, MARGIN + 1), cut(draw, below, 13, right - left), QUIET, font(13))
    draw.line((MARGIN, line, right, line), RULE, 3)
    draw.line((MARGIN, line, MARGIN + round(done * (right - MARGIN)), line), INK, 3)
    canvas.paste(picture, (MARGIN, line + 12))
    return canvas
