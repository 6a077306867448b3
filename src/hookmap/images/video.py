"""Frames of video files, decoded one after the other when they are asked for."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hookmap._optional import require
from hookmap._text import printable
from hookmap.errors import ImageError, first_line
from hookmap.images.loading import Picture, Pixels, load
from hookmap.images.preprocessing import Preprocessing
from hookmap.images.views import View, input_rank

if TYPE_CHECKING:
    import os

USUAL_CLIP = 16
"""Frames that a model of clips sees at once, where it doesn't say how many."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    Attributes:
        time: when it is shown, in seconds from the beginning of the file.
        picture: the frame, upright.
    """

    time: Fraction
    picture: Picture


class Video:
    """The frames of a video file (MP4, MOV, WebM, MKV, AVI, GIF, ...) as pictures, each decoded when its turn comes.

    ``lens.stream(hm.Video("clip.mp4"))`` explains one after the other, so a film of any length fits into memory; models
    that see clips get as many frames at a time as they were built for. Frames are upright, as a phone's player shows
    them, and keep their own times where these aren't even.

    Args:
        path: of the file.
        every: take every so many-th frame.
        start: seconds at which to begin; by default at the beginning.
        end: seconds before which to stop; by default at the end.

    Attributes:
        path: of the file.
        every: as it was given.
        start: seconds at which the frames begin.
        rate: frames per second of the file, on average.
        length: seconds of the whole file, as it says; 0 where it doesn't.
        size: (H, W) of the first frame, in pixels.
        sound: whether the file has sound too.

    Raises:
        ImageError: if the file can't be read, holds no frames, or none from ``start`` to ``end``.
        MissingLibraryError: without PyAV: ``pip install 'hookmap[video]'``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every: int = 1,
        start: float | None = None,
        end: float | None = None,
    ) -> None:
        self.path = Path(path).expanduser()
        self._what = printable(str(self.path))
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ImageError(f"every is {every!r}; expected a whole number of frames, 1 or more")
        for name, second in (("start", start), ("end", end)):
            if second is not None and not (math.isfinite(second) and second >= 0):
                raise ImageError(f"{name} is {second!r}; expected seconds from the beginning of the video, 0 or more")
        if start is not None and end is not None and not start < end:
            raise ImageError(f"start is {start:g} and end is {end:g}; expected an end after the start, in seconds")
        self.every, self.start = every, _exact(start or 0)
        self._end = None if end is None else _exact(end)
        with self._opened() as (container, stream):
            rate = stream.average_rate or stream.guessed_rate or stream.base_rate
            self.rate = Fraction(rate) if rate else Fraction(25)
            self.sound = bool(container.streams.audio)
            self.length = _length(container, stream, self.rate)
        first = next(self.frames(), None)
        if first is None:
            about = f"it is {float(self.length):.3g} s long" if self.length else "it ends before"
            asked = start is not None or end is not None
            raise ImageError(f"{self._what} has no frames " + (f"there: {about}" if asked else "that can be decoded"))
        self.size = first.picture.height, first.picture.width

    def __repr__(self) -> str:
        return f"Video({self._what!r}, {self.size[1]} x {self.size[0]}, about {self.count} frames)"

    @property
    def name(self) -> str:
        """The file's stem."""
        return self.path.stem

    @property
    def count(self) -> int:
        """How many frames come, as far as the file says before it is decoded; at least 1."""
        end = self.length if self._end is None else min(self._end, self.length or self._end)
        return max(1, math.ceil((end - self.start) * self.rate / self.every))

    def __iter__(self) -> Iterator[Picture]:
        return (frame.picture for frame in self.frames())

    def frames(self) -> Iterator[Frame]:
        """The frames that are taken, in order, with their times.

        Raises:
            ImageError: where the file is damaged.
        """
        with self._opened() as (container, stream):
            first = stream.start_time or 0
            if self.start > 0:
                container.seek(first + int(self.start / stream.time_base), stream=stream)
            taken, time = 0, self.start
            try:
                for number, frame in enumerate(container.decode(stream)):
                    time = number / self.rate if frame.pts is None else (frame.pts - first) * stream.time_base
                    if self._end is not None and time >= self._end:
                        return
                    if time < self.start:
                        continue
                    if taken % self.every == 0:
                        yield Frame(
                            time, Picture(_upright(frame, stream.sample_aspect_ratio), f"{self.name} {_clock(time)}")
                        )
                    taken += 1
            except _of_ffmpeg() as error:
                raise ImageError(
                    f"{self._what} is damaged after {float(time):.3g} s ({_reason(error)}); get a whole copy of it"
                    + (f", or take what comes before: end={float(time):.3g}" if time > self.start else "")
                ) from None

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The open file and its first stream of pictures."""
        require("av", extra="video")
        import av

        if self.path.exists() and not self.path.is_file():
            raise ImageError(f"{self._what} is no file; pass the path of one video")
        try:
            # A playlist may name addresses, and hookmap doesn't download.
            container = av.open(str(self.path), metadata_errors="ignore", options={"protocol_whitelist": "file"})
        except (FileNotFoundError, PermissionError) as error:
            raise ImageError(f"{self._what} can't be read ({error.strerror}); check the path") from None
        except _of_ffmpeg() as error:
            raise ImageError(
                f"{self._what} isn't a whole video in a format that FFmpeg reads ({_reason(error)}); get a whole copy "
                "of it, or convert it to MP4"
            ) from None
        with container:
            # An album cover is a stream of pictures too.
            streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not streams or streams[0].codec_context is None:
                raise ImageError(f"{self._what} holds no pictures that can be decoded; pass a video")
            streams[0].thread_type = "AUTO"
            yield container, streams[0]


def clip_length(model: nn.Module) -> int | None:
    """How many frames a model sees at once; None for a model of single pictures."""
    config = getattr(model, "config", None)
    for word in ("num_frames", "frames_per_clip"):
        if isinstance(count := getattr(config, word, None), int):
            return count
    return USUAL_CLIP if input_rank(model) == 3 else None


def clip_views(video: Video, length: int, preprocessing: Preprocessing) -> Iterator[View]:
    """A video as a model of clips sees it, so many frames at a time; the last frame fills up the last clip."""
    frames = video.frames()
    while clip := [frame.picture for frame in itertools.islice(frames, length)]:
        pictures = clip + clip[-1:] * (length - len(clip))
        inputs, geometries = zip(*map(preprocessing, pictures), strict=True)
        shown = np.stack([picture.pixels for picture in pictures])
        yield View(torch.stack(inputs, 1), pictures[length // 2], geometries[0], shown)


def _length(container: Any, stream: Any, rate: Fraction) -> Fraction:
    """Seconds, as the file says; 0 where it doesn't."""
    if stream.duration:
        return Fraction(stream.duration * stream.time_base)
    if container.duration:
        return Fraction(container.duration, 1_000_000)
    return Fraction(stream.frames) / rate


def _upright(frame: Any, ratio: Fraction | None) -> Pixels:
    """Its pixels ``(H, W, 3)`` as a player shows them: turned, mirrored, as wide as they are high, over white."""
    wide = round(frame.width * (ratio or 1))
    kind = "rgba" if any(part.is_alpha for part in frame.format.components) or "pal8" in frame.format.name else "rgb24"
    pixels = frame.reformat(width=wide, format=kind).to_ndarray()
    return load(_turned(pixels, _matrix(frame))).pixels


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """The signs of where a frame's axes are shown: (x to x, x to y, y to x, y to y)."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            matrix = struct.unpack("=9i", bytes(data))
            return matrix[0], matrix[1], matrix[3], matrix[4]
    return 1, 0, 0, 1


def _turned(pixels: Pixels, matrix: tuple[int, int, int, int]) -> Pixels:
    """Pixels laid as a display matrix says, to the next quarter turn."""
    right, down, back, up = matrix
    if abs(down) + abs(back) > abs(right) + abs(up):
        pixels = pixels.swapaxes(0, 1)
        right, up = back, down
    pixels = pixels[:, ::-1] if right < 0 else pixels
    return np.ascontiguousarray(pixels[::-1] if up < 0 else pixels)


def _exact(seconds: float) -> Fraction:
    """The decimal number that was meant: 0.2 as a float is a little more than the frame's own 1/5."""
    return Fraction(seconds).limit_denominator(1_000_000)


def _clock(time: Fraction) -> str:
    """A time as players write it.

    >>> _clock(Fraction(7325, 100)), _clock(Fraction(3725))
    ('1:13.25', '1:02:05.00')
    """
    hundredths = round(time * 100)
    minutes, seconds = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    shown = f"{seconds // 100:02}.{seconds % 100:02}"
    return f"{hours}:{minutes:02}:{shown}" if hours else f"{minutes}:{shown}"


def _of_ffmpeg() -> type[Exception]:
    """What PyAV raises for files that it can't read."""
    from av.error import FFmpegError

    return FFmpegError


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)
