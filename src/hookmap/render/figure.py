"""Pages: several pictures with captions, a network's overview, and figures for papers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hookmap.render.colors import Array, limits
from hookmap.render.overlay import DEFAULT_COLORMAP, SIGNED_COLORMAP, font, outside_of, overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

INK, QUIET, RULE = (28, 28, 32), (110, 112, 120), (226, 227, 232)
MARGIN = 24


def contact_sheet(
    tiles: Sequence[tuple[Image.Image, str, str]], *, columns: int | None = None, tile: int = 300
) -> Image.Image:
    """Pictures with a title and a quiet line below each, in rows on white.

    Args:
        tiles: (picture, title, subtitle).
        columns: by default up to four, of many pictures so many that the page is about as wide as high.
        tile: longer side of a picture.
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
    canvas = Image.new("RGB", (columns * step_x - 16 + 2 * MARGIN, rows * step_y - 12 + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (picture, title, below) in enumerate(shown):
        x, y = MARGIN + (i % columns) * step_x, MARGIN + (i // columns) * step_y
        canvas.paste(picture, (x, y + height - picture.height))
        draw.text((x, y + height + 6), cut(draw, title, 16, width), INK, font(16))
        draw.text((x, y + height + 27), cut(draw, below, 12, width), QUIET, font(12))
    return canvas


@dataclass(frozen=True, eq=False)
class OverviewRow:
    """One layer on the overview page: three lines of text and its tiles."""

    title: str
    lines: tuple[str, str]
    tiles: Sequence[Image.Image]


def overview_page(
    photo: Image.Image, title: str, subtitle: str, rows: Sequence[OverviewRow], *, tile: int = 64
) -> Image.Image:
    """A network from input to output: the photo above, one row of tiles per layer."""
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
    draw.text((x, y), "mean", QUIET, font(11))
    draw.text((x + widest + 12, y), "channels that vary most", QUIET, font(11))
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


def heatmap_figure(
    pixels: Array,
    heat: Array,
    *,
    title: str,
    seen: tuple[float, float, float, float] | None = None,
    **look: Any,
) -> Figure:
    """Photo, overlay and colour bar side by side as a matplotlib figure; ``look`` as in :func:`overlay`."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    symmetric = look.get("scale") == "symmetric"
    colormap = look.get("colormap") or (SIGNED_COLORMAP if symmetric else DEFAULT_COLORMAP)
    height, width = pixels.shape[:2]
    figure = Figure(figsize=(9.5, 0.55 + 4.2 * height / width), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(pixels)
    right.imshow(overlay(pixels, heat, seen=seen, **look))
    for axes in (left, right):
        axes.set_axis_off()
    right.set_title(title, fontsize=10, loc="left")
    left.set_title("photo", fontsize=10, loc="left")
    inside = ~outside_of(heat.shape, seen)[..., 0]
    low, high = limits(heat[inside], **{key: look[key] for key in ("scale", "limit", "outliers") if key in look})
    bar = figure.colorbar(
        ScalarMappable(Normalize(low, max(high, low + 1e-12)), colormap),
        ax=[left, right],
        shrink=0.8,
        aspect=30,
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    return figure


def fit(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side as given."""
    from PIL import Image

    factor = side / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def cut(draw: Any, text: str, size: int, width: float) -> str:
    """The text, ended with dots where it would be wider than ``width``."""
    if draw.textlength(text, font=font(size)) <= width:
        return text
    while text and draw.textlength(text + "...", font=font(size)) > width:
        text = text[:-1]
    return text + "..."
