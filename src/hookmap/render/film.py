"""Pictures one after the other into a film."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookmap._files import written_whole
from hookmap._optional import require
from hookmap.errors import HookmapError
from hookmap.render.overlay import fitted

if TYPE_CHECKING:
    from PIL import Image

FILMS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".gif")
"""Endings of films."""
LARGEST, LARGEST_GIF = 1280, 480
"""Longer sides up to which films are as large as what they show; a GIF stores each pixel of each frame."""
_TICK = Fraction(1, 1000)
_GIF_TICK = Fraction(1, 100)


def is_film(path: str | Path) -> bool:
    """Whether a file of this name is written as a film."""
    return Path(path).suffix.lower() in FILMS


def check_film(path: str | Path) -> None:
    """Raise a :class:`HookmapError` unless a film can have this name."""
    if not is_film(path):
        raise HookmapError(f"{path} doesn't end as a film does; use one of {', '.join(FILMS)}")


def frame_size(size: tuple[int, int], path: str | Path, longer: int | None = None) -> tuple[int, int]:
    """The size (H, W) in which pictures of a size are shown in a film: even, as encoders need it.

    >>> frame_size((1080, 1920), "film.mp4"), frame_size((333, 75), "film.mp4")
    ((720, 1280), (332, 74))
    """
    most = longer or min(max(size), LARGEST_GIF if Path(path).suffix.lower() == ".gif" else LARGEST)
    height, width = fitted(size, most)
    return max(2, height // 2 * 2), max(2, width // 2 * 2)


@contextmanager
def film(path: Path, rate: Fraction) -> Iterator[Callable[[Image.Image, Fraction], None]]:
    """A function that appends a picture at a time in seconds; the file takes its name once the film is whole.

    H.264 where FFmpeg has it, VP9 in a WebM, and in a GIF 256 colours of each frame's own.

    Args:
        path: of the film.
        rate: frames per second, on average; each is shown when its own time comes.

    Raises:
        HookmapError: if the ending is no film's or the place can't be written; nothing half-written is left.
        MissingLibraryError: without PyAV: ``pip install 'hookmap[video]'``.
    """
    check_film(path)
    require("av", extra="video")
    import av

    try:
        with written_whole(path) as place, av.open(str(place), "w", options=_options(path)) as container:
            encoder = _Encoder(container, path.suffix.lower(), rate)
            yield encoder.add
            encoder.end()
    except OSError as error:
        raise HookmapError(
            f"{path} can't be written ({error.strerror or error}); choose another place with -o or film(path)"
        ) from None


def _options(path: Path) -> dict[str, str]:
    """So that browsers play an MP4 while it comes."""
    return {"movflags": "faststart"} if path.suffix.lower() in (".mp4", ".mov", ".m4v") else {}


class _Encoder:
    def __init__(self, container: Any, suffix: str, rate: Fraction) -> None:
        self._container, self._suffix, self._rate = container, suffix, rate
        self._tick = _GIF_TICK if suffix == ".gif" else _TICK
        self._stream: Any = None
        self._graph: Any = None
        self._last = -1

    def add(self, picture: Image.Image, time: Fraction) -> None:
        """A picture, shown from a time on; all have the size of the first."""
        import av

        if self._stream is None:
            self._begin(picture.size)
        frame = av.VideoFrame.from_image(picture)
        frame.pts = self._last = max(self._last + 1, round(time / self._tick))
        frame.time_base = self._tick
        if self._graph is not None:
            self._graph.vpush(frame)
            frame = self._graph.vpull()
            frame.time_base = self._tick
        else:
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            frame.colorspace = frame.color_primaries = frame.color_trc = _BT709
        self._mux(frame)

    def end(self) -> None:
        """What the encoder still holds."""
        if self._stream is not None:
            self._mux(None)

    def _begin(self, size: tuple[int, int]) -> None:
        import av

        gif, webm = self._suffix == ".gif", self._suffix == ".webm"
        h264 = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        codec = "gif" if gif else "libvpx-vp9" if webm else h264
        options = {"libx264": {"crf": "20", "preset": "fast"}, "libvpx-vp9": {"crf": "32", "b": "0", "cpu-used": "4"}}
        stream = self._container.add_stream(codec, rate=self._rate, options=options.get(codec, {}))
        stream.width, stream.height = size
        stream.pix_fmt = "pal8" if gif else "yuv420p"
        stream.codec_context.time_base = self._tick
        if gif:
            self._graph = _palettes(size, self._tick)
        else:
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
        self._stream = stream

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


_BT709 = 1
"""How FFmpeg numbers the colours of high definition."""


def _palettes(size: tuple[int, int], tick: Fraction) -> Any:
    """A graph that gives each frame the 256 colours that suit it best."""
    import av

    graph = av.filter.Graph()
    source = graph.add_buffer(width=size[0], height=size[1], format=av.VideoFormat("rgb24"), time_base=tick)
    split, colors = graph.add("split"), graph.add("palettegen", "stats_mode=single")
    use, sink = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=3"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(colors, 1, 0)
    colors.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
