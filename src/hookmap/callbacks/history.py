"""Heatmaps of the probe set over the steps, as one animation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from hookmap.callbacks.heatmaps import SIDE, caption
from hookmap.images.loading import Picture
from hookmap.loggers.animation import Animation
from hookmap.render.figure import INK, MARGIN, QUIET, RULE, cut, fit
from hookmap.render.overlay import font
from hookmap.results.heatmap import Heatmap

if TYPE_CHECKING:
    from PIL import Image

_HEAD, _BELOW, _CURVE, _GAP, _FINE = 44, 26, 44, 16, 4
_AHEAD, _DOT = (205, 207, 214), (220, 70, 40)


@dataclass(frozen=True, eq=False)
class _Moment:
    step: int
    heatmaps: Mapping[str, Heatmap]


class HeatmapHistory:
    """Heatmaps of the same images at ever later steps, of which at most so many are kept, evenly spaced.

    Args:
        limit: how many moments; when more come, every second one is let go. The last is always there.
    """

    def __init__(self, limit: int) -> None:
        self._limit = max(2, limit)
        self._kept: list[_Moment] = []
        self._latest: _Moment | None = None
        self._count, self._stride = 0, 1

    def __len__(self) -> int:
        return len(self._moments())

    @property
    def steps(self) -> list[int]:
        """The steps of the moments that are kept."""
        return [moment.step for moment in self._moments()]

    def add(self, step: int, heatmaps: Sequence[Heatmap]) -> None:
        """Keep the first heatmap of each image.

        Args:
            step: later than those before.
            heatmaps: small ones, of images with different names. Where a detector finds nothing there is none.
        """
        kept: dict[str, Heatmap] = {}
        for heatmap in heatmaps:
            kept.setdefault(heatmap.picture.name, heatmap)
        self._latest = _Moment(step, kept)
        if self._count % self._stride == 0:
            self._kept.append(self._latest)
            if len(self._kept) == self._limit:
                self._kept, self._stride = self._kept[::2], self._stride * 2
        self._count += 1

    def animated(self) -> Animation:
        """All moments as an animation: each image in a tile with a curve of how sure the model is of the target.

        Each map has its own colour scale, as heatmaps have; how strong it is in the end is what the curve says.
        """
        moments = self._moments()
        photos = {name: h.picture for moment in moments for name, h in moment.heatmaps.items()}
        frames = [_frame(moments, photos, now) for now in range(len(moments))]
        each = min(500, max(80, 8000 // len(frames)))
        return Animation(frames, [each] * (len(frames) - 1) + [max(1500, each)])

    def _moments(self) -> list[_Moment]:
        if self._latest is None or self._kept[-1] is self._latest:
            return self._kept
        return [*self._kept, self._latest]


def _frame(moments: Sequence[_Moment], photos: Mapping[str, Picture], now: int) -> Image.Image:
    from PIL import Image, ImageDraw

    count = len(photos)
    columns = count if count <= 4 else min((3, 4, 5, 6), key=lambda n: (-count % n, abs(n * n - 1.5 * count)))
    side = SIDE if count == 1 else 240 if count <= 6 else 180 if count <= 12 else 130
    here = moments[now].heatmaps
    shown = [
        fit(here[name].overlay() if name in here else Image.fromarray(photo.pixels), side)
        for name, photo in photos.items()
    ]
    width = max(picture.width for picture in shown)
    # The lines of tiles: how high their pictures are, and where each begins.
    heights = [max(picture.height for picture in shown[i : i + columns]) for i in range(0, count, columns)]
    tops = list(accumulate((high + _BELOW + _CURVE + _GAP for high in heights), initial=MARGIN + _HEAD))
    size = (columns * (width + _GAP) - _GAP + 2 * MARGIN, tops[-1] - _GAP + MARGIN)
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    last = moments[-1].step
    draw.text((MARGIN, MARGIN - 6), f"step {moments[now].step:,}", INK, font(20))
    right = size[0] - MARGIN
    draw.text((right, MARGIN - 2), f"of {last:,}", QUIET, font(13), anchor="ra")
    y = MARGIN + 24
    draw.line((MARGIN, y, right, y), RULE, 3)
    first = moments[0].step
    done = (moments[now].step - first) / max(1, last - first)
    draw.line((MARGIN, y, MARGIN + round(done * (right - MARGIN)), y), INK, 3)
    for i, (name, picture) in enumerate(zip(photos, shown, strict=True)):
        x, height = MARGIN + (i % columns) * (width + _GAP), heights[i // columns]
        y = tops[i // columns]
        canvas.paste(picture, (x, y + height - picture.height))
        title = caption(here[name]) if name in here else "nothing detected"
        row = [moment.heatmaps.get(name) for moment in moments]
        draw.text((x, y + height + 6), cut(draw, title, 14, width), INK, font(14))
        if draw.textlength(f"{title}  {name}", font=font(14)) <= width:
            draw.text((x + width, y + height + 8), name, QUIET, font(12), anchor="ra")
        canvas.paste(_curve((width, _CURVE), [m.step for m in moments], row, now), (x, y + height + _BELOW))
    return canvas


def _curve(size: tuple[int, int], steps: Sequence[int], row: Sequence[Heatmap | None], now: int) -> Image.Image:
    """How sure the model is of the target, 0 to 1, or its score from the least to the most; a dot where we are."""
    from PIL import Image, ImageDraw

    sure = all(h.probability is not None for h in row if h is not None)
    values = [math.nan if h is None else h.probability if sure and h.probability is not None else h.score for h in row]
    known = [v for v in values if math.isfinite(v)]
    low, high = (0.0, 1.0) if sure else (min(known, default=0.0), max(known, default=1.0))
    # Lines of Pillow have steps: drawn larger, they are smooth.
    width, height = size[0] * _FINE, size[1] * _FINE
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    pad = 5 * _FINE
    for y in (pad, height - pad):
        draw.line((0, y, width, y), RULE, _FINE)
    points = []
    for step, value in zip(steps, values, strict=True):
        x = pad + (width - 2 * pad) * (step - steps[0]) / max(1, steps[-1] - steps[0])
        share = (value - low) / (high - low) if high > low else 0.5
        points.append((x, height - pad - (height - 2 * pad) * share if math.isfinite(share) else None))
    for i, ((x1, y1), (x2, y2)) in enumerate(pairwise(points)):
        if y1 is not None and y2 is not None:
            draw.line((x1, y1, x2, y2), INK if i < now else _AHEAD, 2 * _FINE)
    x, level = points[now]
    if level is not None:
        radius = 4 * _FINE
        draw.ellipse((x - radius, level - radius, x + radius, level + radius), _DOT)
    return canvas.resize(size, Image.Resampling.LANCZOS)
