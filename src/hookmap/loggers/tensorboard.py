"""To TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookmap._files import as_png
from hookmap.errors import HookmapError

if TYPE_CHECKING:
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    from hookmap.loggers.animation import Animation


class TensorBoard:
    """Writes to a folder of runs, or with a writer of yours, which stays open.

    Args:
        to: the folder, or a ``SummaryWriter``.

    Films are in the images' tab and, with all their colours, as ``<tag>.webp`` in the folder.
    """

    def __init__(self, to: str | Path | SummaryWriter) -> None:
        self._folder = to if isinstance(to, (str, Path)) else None
        self._writer: Any = None if self._folder is not None else to

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        """Add a picture.

        Raises:
            HookmapError: if the folder can't be written.
        """
        self.encoded_image(tag, as_png(image), image.size, step)

    def encoded_image(self, tag: str, encoded: bytes, size: tuple[int, int], step: int) -> None:
        """Add a file of an image of a size (W, H) as it is.

        The writer's own methods would make it a PNG, or ask for a video encoder.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        shown = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=encoded)
        writer = self._open()
        writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=shown)]), step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add numbers by their tags."""
        writer = self._open()
        for tag, value in values.items():
            writer.add_scalar(tag, value, step)

    def animation(self, tag: str, animation: Animation, step: int) -> None:
        """Add an animation, which the images' tab plays, and write it as a file beside the events."""
        self.encoded_image(tag, animation.encoded("GIF"), animation.frames[0].size, step)
        animation.save(Path(self._open().get_logdir()) / f"{tag}.webp")

    def close(self) -> None:
        """Write out what is left; a writer that was given stays open."""
        if self._writer is not None:
            self._writer.flush()
            if self._folder is not None:
                self._writer.close()
                self._writer = None

    def _open(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            try:
                self._writer = SummaryWriter(str(self._folder))
            except OSError as error:
                raise HookmapError(
                    f"{self._folder} can't be written ({error.strerror or error}); choose another log folder"
                ) from None
        return self._writer
