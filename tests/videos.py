"""Small video files, written frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

Pixels = np.ndarray[Any, Any]


def write_video(
    path: Path,
    frames: Sequence[Pixels],
    *,
    rate: int = 10,
    codec: str = "libx264",
    milliseconds: Sequence[int] | None = None,
    matrix: Sequence[int] | None = None,
    sound: bool = False,
) -> Path:
    """Frames ``(H, W, 3)`` as a video, at even times or at these; shown as a display matrix (a, b, c, d) says."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "5"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        noise = container.add_stream("aac", rate=44100, layout="mono") if sound else None
        if noise is not None:
            audio = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            audio.sample_rate, audio.pts = 44100, 0
            container.mux(noise.encode(audio))
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts = milliseconds[number] if milliseconds is not None else number * 1000 // rate
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if noise is not None:
            container.mux(noise.encode())
    if matrix is not None:
        _show_as(path, matrix)
    return path


def _show_as(path: Path, matrix: Sequence[int]) -> None:
    """Write a display matrix where ISO 14496-12 has it: 40 bytes into the header of the first track."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (number << 16 for number in matrix)
    for number, value in enumerate((a, b, 0, c, d, 0, 0, 0, 1 << 30)):
        data[place + 4 * number : place + 4 * number + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(bytes(data))


def quarters(height: int = 48, width: int = 64) -> Pixels:
    """Red, green, blue and white, from the top left clockwise to the bottom left: shows how it is turned."""
    pixels = np.zeros((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    pixels[:top, :left], pixels[:top, left:] = (220, 20, 20), (20, 200, 20)
    pixels[top:, left:], pixels[top:, :left] = (20, 20, 220), (235, 235, 235)
    return pixels
