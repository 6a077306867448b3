"""What the layers of a model do on the probe set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from hookmap.attribution.features import features_of_batch
from hookmap.hooks.matching import LayerSpec
from hookmap.images.loading import Picture
from hookmap.images.views import View
from hookmap.layers.channels import ChannelStatistics
from hookmap.layers.choice import candidates_in
from hookmap.layers.trace import Trace
from hookmap.render.figure import OverviewRow, overview_page
from hookmap.render.grid import tiles
from hookmap.results.features import LayerMaps

if TYPE_CHECKING:
    from PIL import Image

    from hookmap.lens import Lens

_STAGES = 4
_TILES = 12


@dataclass(frozen=True, eq=False)
class Layers:
    """The chosen layers on the probe set.

    Attributes:
        statistics: of all images, by layer.
        first: the feature maps of the first image.
        picture: the first image.
    """

    statistics: Mapping[str, ChannelStatistics]
    first: Sequence[LayerMaps]
    picture: Picture

    def scalars(self) -> dict[str, float]:
        """Mean, standard deviation, share of values at 0 or below and share of dead channels of each layer."""
        values = {}
        for name, s in self.statistics.items():
            # All channels have the same number of values: the variance within them and that of their means.
            spread = s.variance.mean() + s.mean.var(correction=0)
            values[f"statistics/{name}/mean"] = float(s.mean.mean())
            values[f"statistics/{name}/std"] = float(spread.sqrt())
            values[f"statistics/{name}/sparsity"] = float(s.sparsity.mean())
            values[f"statistics/{name}/dead share"] = float(s.dead.double().mean())
        return values

    def liveliest(self) -> dict[str, list[int]]:
        """The channels of each layer that vary most over the first image."""
        return {maps.name: maps.select("variance", top=_TILES) for maps in self.first}

    def page(self, title: str, subtitle: str, channels: Mapping[str, Sequence[int]]) -> Image.Image:
        """A row for each layer: the mean over its channels, then these channels."""
        from PIL import Image

        rows = []
        for maps in self.first:
            s = self.statistics[maps.name]
            chosen = list(channels[maps.name])
            few = replace(maps, maps=maps.maps[:, chosen])._still()[0].cpu().numpy()
            mean = maps.reduce("mean").cpu().numpy()
            drawn = [*tiles(mean, tile=64, colormap="gray"), *tiles(few, tile=64, labels=[str(c) for c in chosen])]
            span = f"{float(s.least.min()):.2g} to {float(s.most.max()):.2g}"
            dead = f", {int(s.dead.sum())} dead" if s.dead.any() else ""
            lines = (
                f"{maps.kind}  {maps.shape.replace('x', ' x ')}",
                f"{span}, {float(s.sparsity.mean()):.0%} at 0 or below{dead}",
            )
            rows.append(OverviewRow(maps.name, lines, drawn))
        return overview_page(Image.fromarray(self.picture.pixels), title, subtitle, rows)


def look_at_layers(lens: Lens, views: Sequence[View], layers: LayerSpec | None, batch_size: int) -> Layers:
    """One pass without gradients over the images; only the first one's feature maps are kept.

    Args:
        lens: of the model.
        views: the images.
        layers: which; by default a few from input to output, see :func:`stages`.
        batch_size: images per pass.

    Raises:
        LayerError: if a layer isn't there or can't be read as a grid.
    """
    statistics: dict[str, ChannelStatistics] = {}
    first: list[LayerMaps] = []
    for batch in lens.engine.batches(list(views), batch_size):
        spec: LayerSpec = stages(lens.engine.trace(batch.x)) if layers is None else layers
        for maps in features_of_batch(batch, spec):
            part = ChannelStatistics.of(maps.maps, range(len(batch.views)), k=0)
            known = statistics.get(maps.name)
            statistics[maps.name] = part if known is None else known.merged(part)
            if batch.views[0] is views[0]:
                first.append(replace(maps, maps=maps.maps[:1]))
    return Layers(statistics, first, views[0].picture)


def stages(traced: Trace) -> list[str]:
    """A few layers from input to output: of each size of grid the one that holds most, or every so many of one size.

    Where blocks hold the layers, the blocks are meant.
    """
    candidates = list(dict.fromkeys(candidates_in(traced)))
    parents = {name.rpartition(".")[0] for name in traced.layers if name}
    candidates = [name for name in candidates if name in parents] or candidates
    largest: dict[tuple[int, ...], str] = {}
    for name in candidates:
        known = largest.get(grid := traced.layout(name).grid)
        # Of layers that hold nothing the last.
        if known is None or traced.layers[name].parameters >= traced.layers[known].parameters * (name in parents):
            largest[grid] = name
    if len(largest) > 2:
        return _evenly(sorted(largest.values(), key=candidates.index))
    depths = Counter(name.count(".") for name in candidates)
    depth = min((d for d, count in depths.items() if count >= _STAGES), default=None)
    return _evenly([name for name in candidates if depth in (None, name.count("."))])


def _evenly(names: Sequence[str]) -> list[str]:
    """Up to four of them, the last among them."""
    some = torch.linspace(-1, len(names) - 1, min(_STAGES, len(names)) + 1)[1:].round().long()
    return [names[i] for i in some.tolist()]
