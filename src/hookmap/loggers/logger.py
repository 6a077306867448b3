"""What hookmap asks of an experiment tracker, and how one is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hookmap.errors import HookmapError

if TYPE_CHECKING:
    from PIL import Image

    from hookmap.loggers.animation import Animation


@runtime_checkable
class Logger(Protocol):
    """A tracker. Each of its methods may open it: making one costs nothing and writes nothing."""

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        """Add a picture under a tag that is the same at every step."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add numbers by their tags."""

    def animation(self, tag: str, animation: Animation, step: int) -> None:
        """Add an animation."""

    def close(self) -> None:
        """Write out what is left, and close what this logger itself opened."""


def loggers_from(to: Any) -> list[Logger]:
    """The loggers that are meant: a TensorBoard folder or writer, a :class:`Logger`, or a list of these.

    Raises:
        HookmapError: for anything else.
    """
    from hookmap.loggers.tensorboard import TensorBoard

    if isinstance(to, (str, Path)) or hasattr(to, "add_image"):
        return [TensorBoard(to)]
    if isinstance(to, Logger):
        return [to]
    if isinstance(to, (list, tuple)) and to:
        return [logger for one in to for logger in loggers_from(one)]
    raise HookmapError(
        f"to= is a {type(to).__name__}; expected a TensorBoard folder or SummaryWriter, hm.TensorBoard, hm.WandB, "
        "hm.MLflow, or a list of these"
    )
