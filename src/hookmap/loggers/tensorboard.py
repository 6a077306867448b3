"""Feature maps to TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hookmap.errors import HookmapError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from hookmap.features import FeatureMaps


def log_features(features: FeatureMaps, logdir: str | Path | SummaryWriter, step: int = 0) -> None:
    """Write one image per layer, the photos, the overlays and statistics, under tags that don't change.

    ``features/<layer>`` is the grid of all channels of the first image, each tile on its own
    scale; ``photo/<name>`` and ``heatmap/<name>/<method>`` stand beside them, and
    ``statistics/<layer>/sparsity`` and so on as scalars. A writer that is given stays open.

    Raises:
        HookmapError: if the folder can't be written.
    """
    if isinstance(logdir, (str, Path)):
        from torch.utils.tensorboard import SummaryWriter

        try:
            writer = SummaryWriter(str(logdir))
        except OSError as error:
            raise HookmapError(
                f"{logdir} can't be written ({error.strerror or error}); choose another log folder"
            ) from None
        with writer:
            _write(features, writer, step)
    else:
        _write(features, logdir, step)
        logdir.flush()


def _write(features: FeatureMaps, writer: SummaryWriter, step: int) -> None:
    for picture in features.pictures:
        writer.add_image(f"photo/{picture.name}", picture.pixels, step, dataformats="HWC")
    for title, overlay in features.overlays:
        writer.add_image(f"heatmap/{title}", np.asarray(overlay), step, dataformats="HWC")
    for name, layer in features.items():
        writer.add_image(f"features/{name}", np.asarray(layer.grid()), step, dataformats="HWC")
        s = layer.statistics()
        figures = {"mean": s.mean, "std": s.std, "sparsity": s.sparsity, "dead channels": len(s.dead)}
        for key, value in figures.items():
            writer.add_scalar(f"statistics/{name}/{key}", value, step)
