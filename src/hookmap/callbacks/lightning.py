"""A probe as a callback of Lightning."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from torch import nn

from hookmap.callbacks.probe import Probe
from hookmap.errors import MissingLibraryError, ModelError
from hookmap.loggers.logger import Logger, loggers_from
from hookmap.loggers.mlflow import MLflow
from hookmap.loggers.wandb import WandB

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _bases() -> tuple[type, ...]:
    """``Callback`` of the package that is in use; of both, if both are."""
    for package in [name for name in _PACKAGES if name in sys.modules] or _PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            continue
    found = tuple(sys.modules[name].Callback for name in _PACKAGES if name in sys.modules)
    if not found:
        raise MissingLibraryError("Lightning isn't installed; run: pip install 'hookmap[lightning]'")
    return found


class LightningProbe(*_bases()):  # type: ignore[misc]
    """A probe as a callback of Lightning's ``Trainer``.

    It looks at the model before the first batch, after every batch that ends a due step, and at the end.

    Args:
        probe: what to look at; it is closed when fitting ends, also by an exception.
        model: name of the attribute of the LightningModule that holds the network, e.g. ``"net"``; by default the
            LightningModule itself is called with the images.

    If the probe has no logger, the trainer's own are used (TensorBoard, W&B, MLflow), or else its root folder.
    """

    def __init__(self, probe: Probe, model: str | None = None) -> None:
        super().__init__()
        self.probe = probe
        self._model = model

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Look at the model as it starts."""
        if trainer.is_global_zero:
            self.probe.log_to(_loggers_of(trainer))
            self.probe(self._network(pl_module), trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: nn.Module, *_: Any) -> None:
        """Look at the model if the step is due."""
        if trainer.is_global_zero:
            self.probe(self._network(pl_module), trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Look at the model once more."""
        if trainer.is_global_zero:
            self.probe.finish(self._network(pl_module), trainer.global_step)

    def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
        """Write the animation of what there was."""
        if trainer.is_global_zero:
            self.probe.close()

    def _network(self, module: nn.Module) -> nn.Module:
        if self._model is None:
            return module
        network = getattr(module, self._model, None)
        if not isinstance(network, nn.Module):
            raise ModelError(f"{type(module).__name__} has no network in {self._model!r}; pass the attribute's name")
        return network


def _loggers_of(trainer: Any) -> list[Logger]:
    loggers: list[Logger] = []
    for logger in trainer.loggers:
        kind = type(logger).__name__
        if kind == "TensorBoardLogger":
            loggers += loggers_from(logger.experiment)
        elif kind == "WandbLogger":
            loggers.append(WandB(logger.experiment))
        elif kind == "MLFlowLogger":
            loggers.append(MLflow(logger.run_id, logger.experiment))
    return loggers or loggers_from(f"{trainer.default_root_dir}/hookmap")
