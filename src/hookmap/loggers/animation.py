"""Pictures in time as one file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hookmap._files import write_bytes
from hookmap.errors import HookmapError

if TYPE_CHECKING:
    from PIL import Image

_OPTIONS: dict[str, dict[str, Any]] = {"WEBP": {"quality": 82, "method": 3}, "GIF": {"optimize": False}}


@dataclass(frozen=True, eq=False)
class Animation:
    """Frames of one size, shown in a loop.

    Attributes:
        frames: RGB pictures; several.
        milliseconds: how long each is shown.
    """

    frames: Sequence[Image.Image]
    milliseconds: Sequence[int]

    def encoded(self, kind: Literal["WEBP", "GIF"]) -> bytes:
        """The file's bytes."""
        buffer = io.BytesIO()
        first, *others = _with_one_palette(self.frames) if kind == "GIF" else self.frames
        timing = {"duration": list(self.milliseconds), "loop": 0}
        first.save(buffer, kind, save_all=True, append_images=others, **timing, **_OPTIONS[kind])
        return buffer.getvalue()

    def save(self, path: str | Path) -> Path:
        """Write a ``.webp`` (small, all colours) or a ``.gif``; folders are made.

        Raises:
            HookmapError: for another ending, or if the place can't be written; nothing is left behind.
        """
        path = Path(path)
        if path.suffix.lower() not in (".webp", ".gif"):
            raise HookmapError(f"{path.name!r} doesn't end in .webp or .gif, as animations do")
        content = self.encoded("GIF" if path.suffix.lower() == ".gif" else "WEBP")
        return write_bytes(path, lambda: content)


def _with_one_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """The frames in the 256 colours that suit the first, the middle and the last: what rests stays the same pixels."""
    from PIL import Image

    width, height = frames[0].size
    some = Image.new("RGB", (width, 3 * height))
    for i, frame in enumerate((frames[0], frames[len(frames) // 2], frames[-1])):
        some.paste(frame, (0, i * height))
    palette = some.reduce(2).quantize(256, Image.Quantize.MEDIANCUT)
    return [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
