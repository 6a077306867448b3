"""A probe as a callback of transformers' ``Trainer``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hookmap._optional import require
from hookmap.callbacks.probe import Probe
from hookmap.loggers.logger import Logger, loggers_from
from hookmap.loggers.mlflow import MLflow
from hookmap.loggers.wandb import WandB

require("transformers", extra="transformers")
from transformers import TrainerCallback  # noqa: E402


class TransformersProbe(TrainerCallback):  # type: ignore[misc]
    """A probe as a callback of transformers' ``Trainer``.

    It looks at the model before the first step, after every due optimizer step, and at the end.

    Args:
        probe: what to look at; it is closed when training ends.

    If the probe has no logger, it writes where ``report_to`` says, W&B or MLflow, or else for TensorBoard into
    ``output_dir/runs/hookmap``.
    """

    def __init__(self, probe: Probe) -> None:
        self.probe = probe

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Look at the model as it starts."""
        if state.is_world_process_zero:
            self.probe.log_to(_loggers_of(args))
            self.probe(model, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Look at the model if the step is due."""
        if state.is_world_process_zero:
            self.probe(model, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Look at the model once more and write the animation."""
        if state.is_world_process_zero:
            self.probe.finish(model, state.global_step)


def _loggers_of(args: Any) -> list[Logger]:
    loggers: list[Logger] = []
    if "wandb" in args.report_to:
        loggers.append(WandB())
    if "mlflow" in args.report_to:
        loggers.append(MLflow())
    return loggers or loggers_from(Path(args.output_dir) / "runs" / "hookmap")
