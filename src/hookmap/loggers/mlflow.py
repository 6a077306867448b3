"""To MLflow."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookmap._optional import require
from hookmap.errors import HookmapError

if TYPE_CHECKING:
    from PIL import Image

    from hookmap.loggers.animation import Animation


class MLflow:
    """Writes into a run of yours, which stays open.

    Args:
        run: what ``mlflow.start_run()`` gave, or a run's id; by default the run that is active when something is
            written.
        client: an ``MlflowClient``, where the run isn't on the tracking server that is set.
    """

    def __init__(self, run: Any = None, client: Any = None) -> None:
        self._id: str | None = run if isinstance(run, str) or run is None else run.info.run_id
        self._client = client

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        """Add a picture.

        Raises:
            HookmapError: if mlflow isn't installed or no run is active.
        """
        client, run = self._open()
        client.log_image(run, image, key=_allowed(tag), step=step, synchronous=True)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add numbers by their tags."""
        client, run = self._open()
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        client.log_batch(run, [Metric(_allowed(tag), value, now, step) for tag, value in values.items()])

    def animation(self, tag: str, animation: Animation, step: int) -> None:
        """Add an animation as the artifact ``animations/<tag>.webp``."""
        client, run = self._open()
        with tempfile.TemporaryDirectory() as folder:
            path = animation.save(Path(folder) / f"{_allowed(tag).replace('/', '_')}.webp")
            client.log_artifact(run, str(path), "animations")

    def close(self) -> None:
        """Nothing waits; the run stays open."""

    def _open(self) -> tuple[Any, str]:
        require("mlflow", extra="mlflow")
        import mlflow

        if self._id is None:
            active = mlflow.active_run()
            if active is None:
                raise HookmapError("no MLflow run is active; call mlflow.start_run() first, or pass hm.MLflow(run)")
            self._id = active.info.run_id
        if self._client is None:
            self._client = mlflow.MlflowClient()
        return self._client, self._id


def _allowed(tag: str) -> str:
    """The tag in the characters that MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", tag, flags=re.ASCII)
