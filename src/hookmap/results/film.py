"""Heatmaps of a video's frames: what a film shows of each, on one scale of colour from beginning to end."""

from __future__ import annotations

import math
import pickle
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from hookmap.images.geometry import Geometry
from hookmap.images.loading import Pixels
from hookmap.render.colors import Array, heat_of
from hookmap.render.look import Look, LookOptions
from hookmap.results.heatmap import Heatmap
from hookmap.results.planes import part_of

if TYPE_CHECKING:
    from PIL import Image

CALMED = 0.05
"""Share of the frames that may be drawn as equally strong, so that a single flash doesn't darken a film."""

_Span = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Shot:
    """One heatmap, or those of all objects, over one frame.

    Attributes:
        panel: numbers of the target, the layer and the method; all objects have one panel.
        scale: which panels have one scale of colour: numbers of the layer and the method.
        values: what is shown, on the map's grid ``(h, w)``.
        span: the values that would be drawn as the weakest and the strongest if there were no other frame; the same
            twice where there's nothing to draw.
        geometry: from the frame's pixels to the grid.
        look: how it is drawn.
        title: what was explained.
        boxes: of objects, each with its title and number.
    """

    panel: tuple[int, int, int]
    scale: tuple[int, int]
    values: Array
    span: _Span
    geometry: Geometry
    look: Look
    title: str
    boxes: tuple[tuple[tuple[float, float, float, float], str, int], ...] = ()

    @property
    def shows(self) -> bool:
        """Whether there is anything to draw."""
        return self.span[1] > self.span[0]


def shots_of(heatmaps: Sequence[Heatmap], look: LookOptions) -> list[list[Shot]]:
    """What is shown of the heatmaps of one frame, or of one clip, frame by frame.

    Args:
        heatmaps: of one image or one clip.
        look: what is to be drawn otherwise than the heatmaps say.
    """
    clip = next((len(h.frames) for h in heatmaps if h.frames is not None), 1)
    several = len({h.position.method for h in heatmaps}) > 1, len({h.layer for h in heatmaps}) > 1
    frames = []
    for number in range(clip):
        shots: dict[tuple[int, int, int], Shot] = {}
        for heatmap in heatmaps:
            shot = _shot(heatmap, number, clip, heatmap.look.but(look), several)
            shots[shot.panel] = _together(shots[shot.panel], shot) if shot.panel in shots else shot
        frames.append(list(shots.values()))
    return frames


def _shot(heatmap: Heatmap, number: int, clip: int, look: Look, several: tuple[bool, bool]) -> Shot:
    place, scale = heatmap.position, (heatmap.position.layer, heatmap.position.method)
    values = part_of(heatmap.raw.detach().float().cpu().nan_to_num(posinf=0.0, neginf=0.0), look.part)
    if values.ndim == 3:
        values = values[number * len(values) // clip]
    span = heatmap.planes(look)[0].span(look) if heatmap.evidence == "some" else (0.0, 0.0)
    title = heatmap.title.rpartition(f", {heatmap.where}")[0] if heatmap.where else heatmap.title
    if heatmap.box is not None:
        own = ((heatmap.box, title, heatmap.number or 0),)
        return Shot((-1, *scale), scale, values.numpy(), span, heatmap.geometry, look, "", own)
    told = [title, heatmap.caveat] + [heatmap.method.title] * several[0] + [f"at {heatmap.layer}"] * several[1]
    title = ", ".join(part for part in told if part)
    return Shot((place.target, *scale), scale, values.numpy(), span, heatmap.geometry, look, title)


def _together(one: Shot, other: Shot) -> Shot:
    """Objects of one frame: at each place the stronger map."""
    values = np.where(np.abs(other.values) > np.abs(one.values), other.values, one.values)
    span = min(one.span[0], other.span[0]), max(one.span[1], other.span[1])
    return Shot(one.panel, one.scale, values, span, one.geometry, one.look, "", one.boxes + other.boxes)


class Reel(AbstractContextManager["Reel"]):
    """The shots of all frames, kept in a file until the film's scale is known: its length costs disk, not memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._spans: dict[tuple[int, int], list[_Span]] = defaultdict(list)
        self._looks: dict[tuple[int, int], Look] = {}
        self._panels: set[tuple[int, int, int]] = set()
        self._length = 0

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._length

    @property
    def panels(self) -> int:
        """How many pictures stand side by side."""
        return max(1, len(self._panels))

    @property
    def columns(self) -> int:
        """How many of them in a row."""
        return math.ceil(math.sqrt(self.panels))

    def add(self, shots: Sequence[Shot]) -> None:
        """What the next frame shows; none where there is nothing to explain."""
        for shot in shots:
            self._panels.add(shot.panel)
            self._looks[shot.scale] = shot.look
            if shot.shows:
                self._spans[shot.scale].append(shot.span)
        pickle.dump(list(shots), self._file)
        self._length += 1

    def __iter__(self) -> Iterator[list[Shot]]:
        place = 0
        for _ in range(self._length):
            self._file.seek(place)
            shots = pickle.load(self._file)
            place = self._file.tell()
            yield shots

    @cached_property
    def scales(self) -> dict[tuple[int, int], tuple[_Span, float]]:
        """Of the whole film: the values drawn as the weakest and the strongest, and where the ramp begins.

        Nearly all frames stay within these values, and half of them would have an earlier beginning of their own.
        """
        spans = {scale: self._span(scale) for scale in self._looks}
        starts: dict[tuple[int, int], list[float]] = defaultdict(list)
        for shot in (shot for shots in self for shot in shots if shot.shows):
            starts[shot.scale].append(heat_of(shot.values, shot.look, spans[shot.scale]).start)
        return {scale: (span, float(np.median(starts[scale] or [0.0]))) for scale, span in spans.items()}

    def _span(self, scale: tuple[int, int]) -> _Span:
        if not self._spans[scale]:
            return 0.0, 0.0
        lows, highs = (np.asarray(ends) for ends in zip(*self._spans[scale], strict=True))
        high, look = float(np.quantile(highs, 1 - CALMED)), self._looks[scale]
        if look.symmetric:
            return -high, high
        return float(np.quantile(lows, CALMED)), high

    def drawn(self, pixels: Pixels, shots: Sequence[Shot], size: tuple[int, int]) -> Image.Image:
        """A frame of the film.

        Args:
            pixels: of the video's frame, ``(H, W, 3)``.
            shots: over it.
            size: (H, W) of each panel.
        """
        from hookmap.render.grid import arrange
        from hookmap.render.overlay import resized

        photo, shown = resized(pixels, size), {shot.panel: shot for shot in shots}
        panels = [
            self._panel(photo, shown[panel], pixels.shape[:2]) if panel in shown else photo
            for panel in sorted(self._panels)
        ]
        return arrange(panels or [photo], columns=self.columns)

    def _panel(self, photo: Image.Image, shot: Shot, full: tuple[int, int]) -> Image.Image:
        from hookmap.render.overlay import Mark, keyed, labelled, marked, overlay

        size = photo.height, photo.width
        span, start = self.scales[shot.scale] if shot.shows else ((0.0, 0.0), 0.0)
        picture = overlay(photo, heat_of(shot.values, shot.look, span, start), shot.geometry.displayed(size))
        y, x = size[0] / full[0], size[1] / full[1]
        marks = [
            Mark((left * x, top * y, right * x, bottom * y), title, number)
            for (left, top, right, bottom), title, number in shot.boxes
        ]
        return keyed(labelled(marked(picture, marks) if marks else picture, shot.title), shot.look)
