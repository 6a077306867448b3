"""What the channels of layers do over a data set, gathered in the passes that explain it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hookmap._nested import tensors_in
from hookmap.errors import LayerError, NothingDetectedError
from hookmap.hooks.registration import hooked
from hookmap.layers.channels import ChannelStatistics
from hookmap.layers.layouts import Layout
from hookmap.runs.store import CHANNELS

if TYPE_CHECKING:
    import pyarrow as pa

STRONGEST = 9
"""So many images are remembered per channel."""
_PER_CHANNEL = dict.fromkeys(("mean", "deviations", "least", "most"), torch.float64) | dict.fromkeys(
    ("inactive", "ties"), torch.int64
)


@dataclass(eq=False)
class ChannelRecorder:
    """Statistics of the channels of some layers over the images of a part.

    Attributes:
        statistics: by layer.
    """

    statistics: dict[str, ChannelStatistics] = field(default_factory=dict)

    @contextmanager
    def over(self, layers: Mapping[str, tuple[nn.Module, Layout]], ids: Sequence[str]) -> Iterator[None]:
        """Count what layers give for the images of these ids, inside a block whose first whole pass is over them."""
        gave: dict[str, Tensor] = {}
        names = {module: (name, layout) for name, (module, layout) in layers.items()}

        def note(module: nn.Module, _: Any, output: Any) -> None:
            name, layout = names[module]
            value = next((t for t in tensors_in(output).values() if t.ndim > 1), None)
            if name in gave or value is None:  # later passes are over changed copies
                return
            with suppress(LayerError):  # a call of another shape is none of the image's grid
                grid = layout.of_call(value).to_grid(value)
                if len(grid) == len(ids):
                    gave[name] = grid.detach().clone()  # an activation after it may work in place

        def count() -> None:
            for name, grid in gave.items():
                self.add(ChannelRecorder({name: ChannelStatistics.of(grid, ids, STRONGEST)}))

        with hooked(names, note):
            try:
                yield
            except NothingDetectedError:  # the image was looked at all the same
                count()
                raise
        count()

    def add(self, other: ChannelRecorder) -> None:
        """Take in what was found of other images."""
        for name, mine in other.statistics.items():
            self.statistics[name] = self.statistics[name].merged(mine) if name in self.statistics else mine

    def tables(self) -> dict[str, pa.Table]:
        """A row per layer and channel, or nothing if nothing was watched."""
        import pyarrow as pa

        if not self.statistics:
            return {}
        rows = [row for layer, statistics in self.statistics.items() for row in _rows(layer, statistics)]
        return {CHANNELS: pa.Table.from_pylist(rows)}


def _rows(layer: str, statistics: ChannelStatistics) -> Iterator[dict[str, Any]]:
    s = statistics
    columns = zip(
        *(getattr(s, name).tolist() for name in (*_PER_CHANNEL, "strongest", "strongest_sums")),
        s.strongest_images.tolist(),
        s.strongest_places.tolist(),
        strict=True,
    )
    names = [*_PER_CHANNEL, "strongest", "strongest_sums", "strongest_images", "strongest_places"]
    for channel, values in enumerate(columns):
        yield {"layer": layer, "channel": channel, "count": s.count, "images": s.images} | dict(
            zip(names, values, strict=True)
        )


def merged(parts: Iterable[pa.Table]) -> dict[str, ChannelStatistics]:
    """The statistics of all parts together, by layer."""
    recorder = ChannelRecorder()
    for part in parts:
        layers = part.to_pandas().groupby("layer", sort=False)
        recorder.add(ChannelRecorder({layer: _read(rows) for layer, rows in layers}))
    return recorder.statistics


def _read(rows: Any) -> ChannelStatistics:
    images = np.empty((len(rows), len(rows["strongest_images"].iloc[0])), object)
    images[:] = rows["strongest_images"].tolist()
    return ChannelStatistics(
        count=int(rows["count"].iloc[0]),
        images=int(rows["images"].iloc[0]),
        **{name: torch.tensor(rows[name].tolist(), dtype=kind) for name, kind in _PER_CHANNEL.items()},
        strongest=torch.tensor(np.stack(rows["strongest"].tolist()), dtype=torch.float64),
        strongest_sums=torch.tensor(np.stack(rows["strongest_sums"].tolist()), dtype=torch.float64),
        strongest_images=images,
        strongest_places=torch.tensor(
            [[[*place] for place in places] for places in rows["strongest_places"]], dtype=torch.float64
        ),
    )
