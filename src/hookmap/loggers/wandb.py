"""To Weights & Biases."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookmap._optional import require
from hookmap.errors import HookmapError

if TYPE_CHECKING:
    from PIL import Image

    from hookmap.loggers.animation import Animation

_STEP = "hookmap/step"


class WandB:
    """Writes into a run of yours, which stays open.

    Args:
        run: what ``wandb.init()`` gave; by default the run that is active when something is written.

    Everything is drawn over ``hookmap/step``. The run's own count of steps stays as it would be: what hookmap logs
    goes with the next thing that you log.
    """

    def __init__(self, run: Any = None) -> None:
        self._run = run
        self._known: set[str] = set()
        self._at: tuple[int, int] | None = None

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        """Add a picture.

        Raises:
            HookmapError: if wandb isn't installed or no run is active.
        """
        self._log({tag: _wandb().Image(image)}, step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add numbers by their tags."""
        self._log(dict(values), step)

    def animation(self, tag: str, animation: Animation, step: int) -> None:
        """Add an animation."""
        with tempfile.TemporaryDirectory() as folder:
            path = animation.save(Path(folder) / "animation.gif")
            self._log({tag: _wandb().Video(str(path), format="gif")}, step)

    def close(self) -> None:
        """Hand over what waits for the next thing that is logged; the run stays open."""
        if self._at is not None and self._run.step == self._at[0]:
            self._run.log({}, commit=True)
        self._at = None

    def _log(self, values: dict[str, Any], step: int) -> None:
        if self._run is None:
            self._run = _wandb().run
            if self._run is None:
                raise HookmapError("no W&B run is active; call wandb.init() first, or pass hm.WandB(run)")
        for tag in values:
            if tag not in self._known:  # each by itself: others of its group may be the user's
                self._known.add(tag)
                self._run.define_metric(_STEP, hidden=True)
                self._run.define_metric(tag, step_metric=_STEP)
        # Two steps of ours between two rows of the user's need a row each, or the second would replace the first.
        if self._at is not None and self._at[0] == self._run.step and self._at[1] != step:
            self._run.log({}, commit=True)
        self._run.log({**values, _STEP: step}, commit=False)
        self._at = self._run.step, step


def _wandb() -> Any:
    require("wandb", extra="wandb")
    import wandb

    return wandb
