"""Concepts in colour over their photos, and the page with its legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from hookmap.images.geometry import Geometry
from hookmap.render.colors import Array
from hookmap.render.figure import INK, MARGIN, QUIET, RULE, cut
from hookmap.render.overlay import dimmed, font, greyed

if TYPE_CHECKING:
    from PIL import Image

Color: TypeAlias = "tuple[int, int, int]"

# Told apart by normal and by colour-blind eyes: under every dichromacy any two of the first five are at least 0.15
# apart in OKLab, of eight 0.11, of ten 0.08 (Okabe and Ito's seven: 0.076).
PALETTE: tuple[Color, ...] = (
    (235, 150, 10),
    (40, 80, 210),
    (75, 195, 245),
    (200, 25, 60),
    (240, 228, 66),
    (143, 15, 124),
    (67, 254, 226),
    (6, 162, 174),
    (128, 91, 254),
    (253, 97, 127),
)
COMPONENTS: tuple[tuple[Color, str], ...] = (
    ((250, 90, 90), "red; cyan where negative"),
    ((70, 205, 70), "green; magenta where negative"),
    ((90, 110, 250), "blue; yellow where negative"),
)
NOT_DRAWN: tuple[Color, str] = ((186, 188, 194), "not drawn")

_STRONGEST, _WEAK, _FULL, _FADE, _SHARP = 0.8, 0.08, 0.85, 1.3, 4
_OUTLINED, _LINE = 0.4, 0.9
_GAP, _BETWEEN = 6, 18
_LEGEND, _CHIP, _CARD, _BADGE = 292, 56, 70, 21


@dataclass(frozen=True, eq=False)
class Panel:
    """One photo on the page.

    Attributes:
        photo: as it was given.
        drawn: with its concepts, of the same size.
        name: of the image.
        peaks: number of a concept from 0, and where to write it (x, y).
    """

    photo: Image.Image
    drawn: Image.Image
    name: str
    peaks: Sequence[tuple[int, float, float]] = ()


@dataclass(frozen=True, eq=False)
class Entry:
    """One concept in the legend.

    Attributes:
        color: of its bar and frame.
        title: first line.
        sure: how sure the model is of the title, or nothing.
        below: second line.
        share: 0..1, drawn as a bar.
        detail: of a photo, where the concept is strongest.
    """

    color: Color
    title: str
    sure: str
    below: str
    share: float
    detail: Image.Image | None = None


def concepts_overlay(photo: Image.Image, maps: Array, geometry: Geometry) -> Image.Image:
    """The photo in grey, each place in the colour of its strongest concept, the stronger the more opaque.

    Args:
        photo: RGB, ``H`` pixels high and ``W`` wide.
        maps: memberships on its pixels, ``(k, H, W)``, 0..1; outlined where they are above 0.4 and the largest.
        geometry: of the photo: what the model didn't see of it is dimmed.
    """
    maps = np.clip(np.nan_to_num(maps), 0, 1)
    colors = np.array([color(j) for j in range(len(maps))], np.float32)
    # Where concepts meet, a mean of their colours would look like a third concept: the stronger soon wins.
    weights = maps**_SHARP
    mixed = np.einsum("khw,kc->hwc", weights / np.maximum(weights.sum(0), 1e-12), colors)
    alpha = _STRONGEST * np.clip((maps.max(0) - _WEAK) / (_FULL - _WEAK), 0, 1) ** _FADE
    line = _outlines(maps, max(photo.size) / 320)[..., None]
    mixed += (255 - mixed) * 0.25 * line
    return _blended(photo, mixed, np.maximum(alpha[..., None], _LINE * line), geometry)


def components_overlay(photo: Image.Image, maps: Array, limits: Array, geometry: Geometry) -> Image.Image:
    """Up to three components as red, green and blue over the photo in grey, the stronger the more opaque.

    Args:
        photo: as in :func:`concepts_overlay`.
        maps: components on its pixels, ``(1..3, H, W)``, signed: what is negative has the opposite colour.
        limits: the magnitude that is drawn as the strongest, per component.
        geometry: as in :func:`concepts_overlay`.
    """
    scaled = np.clip(np.nan_to_num(maps) / np.maximum(limits, 1e-12)[:, None, None], -1, 1)
    strength = np.abs(scaled).max(0)
    hue = np.zeros((*maps.shape[1:], 3), np.float32)
    hue[..., : len(maps)] = np.moveaxis(scaled / np.maximum(strength, 1e-12), 0, -1)
    # Each component also takes away a little of the other two's colours: purer ones.
    rgb = np.clip(0.5 + hue @ (np.eye(3) * 0.7 - 0.2), 0, 1)
    alpha = _STRONGEST * strength[..., None] ** 0.7
    return _blended(photo, rgb * 255, alpha, geometry)


def concepts_page(
    panels: Sequence[Panel], entries: Sequence[Entry], *, title: str, subtitle: str, heading: str
) -> Image.Image:
    """Photos beside what was found in them, and the legend.

    Args:
        panels: one per image.
        entries: one per concept.
        title: of the page.
        subtitle: a quiet line below it.
        heading: above the legend.
    """
    from PIL import Image, ImageDraw

    across = 1 if len(panels) < 4 else 2 if len(panels) < 13 else 3
    rows = [panels[i : i + across] for i in range(0, len(panels), across)]
    caption = 24 if len(panels) > 1 else 0
    heights = [max(panel.photo.height for panel in row) + caption for row in rows]
    width = max(panel.photo.width for panel in panels)
    step = 2 * width + _GAP + _BETWEEN
    top, left = MARGIN + 62, MARGIN + across * step + 10
    height = max(sum(heights) + (len(rows) - 1) * 12, len(entries) * _CARD)
    canvas = Image.new("RGB", (left + _LEGEND + MARGIN, top + height + MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN - 4), cut(draw, title, 22, left - 2 * MARGIN), INK, font(22))
    draw.text((MARGIN, MARGIN + 25), cut(draw, subtitle, 13, left - 2 * MARGIN), QUIET, font(13))
    draw.text((left, top - 24), heading, QUIET, font(12))
    draw.text((left + _LEGEND, top - 24), "share", QUIET, font(12), anchor="ra")
    y = top
    for row, tall in zip(rows, heights, strict=True):
        for i, panel in enumerate(row):
            x = MARGIN + i * step
            canvas.paste(panel.photo, (x, y))
            canvas.paste(_numbered(panel), (x + panel.photo.width + _GAP, y))
            if caption:
                draw.text((x, y + panel.photo.height + 4), cut(draw, panel.name, 12, 2 * width), QUIET, font(12))
        y += tall + 12
    largest = max(entry.share for entry in entries)
    for number, entry in enumerate(entries):
        _write_entry(canvas, left, top + number * _CARD, number, entry, entry.share / max(largest, 1e-9))
    return canvas


def color(concept: int) -> Color:
    """The colour of a concept by its number from 0; past ten they come again, told apart by their numbers."""
    return PALETTE[concept % len(PALETTE)]


def side_of_photos(count: int) -> int:
    """The longer side of a photo on a page of so many."""
    return 440 if count == 1 else 300 if count < 4 else 232 if count < 13 else 160


def detail(pixels: Array, x: float, y: float, side: float) -> Image.Image:
    """A square of a photo around a place, moved inward at the photo's edges."""
    from PIL import Image

    height, width = pixels.shape[:2]
    length = max(1, round(min(side, height, width)))
    left, top = (round(min(max(at - length / 2, 0), room - length)) for at, room in ((x, width), (y, height)))
    return Image.fromarray(pixels[top : top + length, left : left + length])


def _outlines(maps: Array, width: float) -> Array:
    """Lines ``(H, W)``, 0..1, inside the edge of where a concept is strong and the strongest."""
    line = np.zeros(maps.shape[1:], np.float32)
    if min(line.shape) < 2:
        return line
    for j, one in enumerate(maps):
        above = one - np.delete(maps, j, 0).max(0, initial=_OUTLINED)
        if (above > 0).any():
            # The distance from the edge in pixels, to first order.
            distance = above / (np.hypot(*np.gradient(above)) + 1e-4)
            line = np.maximum(line, np.clip(width / 2 + 0.5 - np.abs(distance - width / 2), 0, 1))
    return line


def _blended(photo: Image.Image, colors: Array, alpha: Array, geometry: Geometry) -> Image.Image:
    """Colours over a photo in grey; what the model didn't see is dimmed, as on heatmaps."""
    from PIL import Image

    grey = greyed(np.asarray(photo))
    mixed = np.round(grey * (1 - alpha) + colors * alpha).clip(0, 255).astype(np.uint8)
    return dimmed(Image.fromarray(mixed), grey, geometry)


def _numbered(panel: Panel) -> Image.Image:
    drawn, margin = panel.drawn.copy(), _BADGE // 2 + 3
    for number, *place in panel.peaks:
        x, y = (round(min(max(at, margin), side - margin)) for at, side in zip(place, drawn.size, strict=True))
        _write_badge(drawn, x, y, number, color(number))
    return drawn


def _write_entry(canvas: Image.Image, x: int, y: int, number: int, entry: Entry, length: float) -> None:
    from PIL import ImageDraw

    chip = _chip(entry)
    canvas.paste(chip, (x, y), chip)
    _write_badge(canvas, x + _CHIP - 3, y + _CHIP - 3, number, entry.color)
    draw = ImageDraw.Draw(canvas)
    left, room = x + _CHIP + 14, _LEGEND - _CHIP - 14
    name = cut(draw, entry.title, 16, room - draw.textlength(f" {entry.sure}", font=font(13)))
    draw.text((left, y - 1), name, INK, font(16))
    draw.text((left + draw.textlength(f"{name} ", font=font(16)), y + 2), entry.sure, QUIET, font(13))
    draw.text((left, y + 20), cut(draw, entry.below, 12, room), QUIET, font(12))
    full = room - 42
    draw.rounded_rectangle((left, y + 43, left + full, y + 49), 3, RULE)
    draw.rounded_rectangle((left, y + 43, left + max(6, full * length), y + 49), 3, entry.color)
    draw.text((x + _LEGEND, y + 38), f"{entry.share:.0%}", QUIET, font(13), anchor="ra")


def _chip(entry: Entry) -> Image.Image:
    """A square in the concept's colour, filled with the detail."""
    from PIL import Image

    chip = Image.new("RGB", (_CHIP, _CHIP), entry.color)
    if entry.detail is not None:
        inner = _rounded(entry.detail.convert("RGB").resize((_CHIP - 6, _CHIP - 6), Image.Resampling.LANCZOS), 6)
        chip.paste(inner, (3, 3), inner)
    return _rounded(chip, 8)


def _rounded(picture: Image.Image, radius: int) -> Image.Image:
    """The picture with rounded corners, as RGBA."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", (picture.width * 4, picture.height * 4))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), radius * 4, 255)
    rounded = picture.convert("RGBA")
    rounded.putalpha(mask.resize(picture.size, Image.Resampling.LANCZOS))
    return rounded


def _write_badge(canvas: Image.Image, x: int, y: int, number: int, fill: Color) -> None:
    """A concept's number, from 1, in a small disc around (x, y)."""
    from PIL import Image, ImageDraw

    large = _BADGE * 4
    disc = Image.new("RGBA", (large, large))
    ImageDraw.Draw(disc).ellipse((2, 2, large - 3, large - 3), (*fill, 255), (255, 255, 255, 255), 6)
    disc = disc.resize((_BADGE, _BADGE), Image.Resampling.LANCZOS)
    bright = 0.3 * fill[0] + 0.59 * fill[1] + 0.11 * fill[2] > 140
    middle = _BADGE / 2
    ImageDraw.Draw(disc).text((middle, middle), str(number + 1), INK if bright else "white", font(12), anchor="mm")
    canvas.paste(disc, (x - _BADGE // 2, y - _BADGE // 2), disc)
