"""What the channels of a layer respond to over a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hookmap.analysis.crops import cropped
from hookmap.analysis.drawing import Line, Page, lines_page
from hookmap.analysis.frames import NotApplicableError, short
from hookmap.errors import DataError, LayerError
from hookmap.layers.channels import ChannelStatistics

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from hookmap.runs.results import Run

_CELLS = 3
_SHOWN = 16


@dataclass(frozen=True, eq=False)
class ChannelAtlas(Page):
    """The channels of one layer and the patches that excite them most.

    Attributes:
        run: they are of.
        layer: its name.
        statistics: of its channels.
        field: (height, width) of a patch as shares of the grid: what one cell of the layer sees, as the run measured
            it; else three cells, where the grid is known, or a third.
        table: a row per channel: ``channel``, ``mean``, ``std``, ``sparsity`` (share of values that are 0 or below),
            ``dead`` (the same value everywhere on all images), ``strongest`` (its largest value), ``ties`` (how many
            images reach it: where an activation clips, many; they are ranked by the sum around it); of its strongest
            images ``label`` and ``label_share`` (the most frequent true class, and how many of those with one are of
            it, 0..1), ``prediction`` and ``prediction_share`` (likewise).
    """

    run: Run
    layer: str
    statistics: ChannelStatistics
    field: tuple[float, float]
    table: pd.DataFrame

    @property
    def dead(self) -> list[int]:
        """The channels that had the same value everywhere on all images."""
        return [int(channel) for channel in np.flatnonzero(self.table["dead"])]

    def search(self, name: str, by: Literal["label", "prediction"] = "prediction", *, share: float = 0.5) -> list[int]:
        """The channels whose strongest images are mostly of one class, the purest and then the strongest first.

        Args:
            name: of the class, or one of its synonyms.
            by: whether the class is the images' label or prediction.
            share: of the strongest images, more than which must be of the class, 0..1.

        Raises:
            DataError: if no image of the run is of this class.
        """
        classes = self._classes(by)
        wanted = name.casefold().strip()
        alike = {one for one in set(classes.values()) if wanted in {part.strip() for part in one.casefold().split(",")}}
        alike |= {one for one in set(classes.values()) if one.casefold() == wanted}
        if not alike:
            known = ", ".join(sorted({short(one) for one in classes.values()})[:8])
            raise DataError(f"no image of {self.run.folder} has a {by} {name!r}; there are {known}, ...")
        shares = []
        for channel in range(len(self.table)):
            mine = [classes.get(image) for image in self._images(channel)]
            shares.append(sum(one in alike for one in mine) / max(1, len(mine)))
        found = [
            channel for channel, much in enumerate(shares) if much > share and not self.table["dead"].iloc[channel]
        ]
        return sorted(found, key=lambda c: (-shares[c], -float(self.statistics.strongest[c, 0])))

    def patches(self, channel: int, count: int = 9) -> list[Image.Image]:
        """The parts of the pictures that excite a channel most, the strongest first.

        Cut from the originals where their files are still there, else from thumbnails.

        Args:
            channel: its number.
            count: how many at most.

        Raises:
            LayerError: if there is no such channel, or the layer has no rows and columns.
        """
        if not 0 <= channel < len(self.table):
            raise LayerError(f"there's no channel {channel} in {self.layer!r}; it has {len(self.table)}")
        if self.statistics.strongest_places.shape[2] != 2:
            raise LayerError(f"layer {self.layer!r} has no rows and columns, so its channels have no patches")
        images = self._images(channel)[:count]
        places = self.statistics.strongest_places[channel].tolist()
        rows = _first_rows(self.run)
        return [
            self._patch(rows.loc[image], image, *place)
            for image, place in zip(images, places, strict=False)
            if image in rows.index
        ]

    def figure(self, channels: Sequence[int] | None = None, count: int = 9) -> Image.Image:
        """A row of patches per channel.

        Args:
            channels: their numbers; by default up to 16 of those whose strongest images are most of one prediction.
            count: patches of each.
        """
        if channels is None:
            alive = self.table[~self.table["dead"]]
            purest = alive.sort_values(["prediction_share", "strongest"], ascending=False, kind="stable")
            channels = [int(channel) for channel in purest["channel"].iloc[:_SHOWN]]
        lines = []
        for channel in channels:
            one = self.table.iloc[channel]
            told = [f"strongest {one['strongest']:.3g}{tied(one['ties'])}, {one['sparsity']:.0%} of values 0 or below"]
            told += [
                f"{by} {one[f'{by}_share']:.0%} {short(one[by])}"
                for by in ("label", "prediction")
                if isinstance(one[by], str)
            ]
            lines.append(Line(f"channel {channel}", told, self.patches(channel, count)))
        dead = len(self.dead)
        note = (
            f"{len(self.table):,} channels over {self.statistics.images:,} images, {dead or 'none'} dead; the patches "
            "that excite them most"
        )
        return lines_page(f"Channels of {self.layer}", note, lines, tile=84, text=270)

    def _images(self, channel: int) -> list[str]:
        return [image for image in self.statistics.strongest_images[channel] if image is not None]

    def _classes(self, by: str) -> dict[str, str]:
        names = _first_rows(self.run)[by].dropna()
        return dict(zip(names.index, names, strict=True))

    def _patch(self, row: Any, image: str, y: float, x: float) -> Image.Image:
        """A place of the grid and what its cell sees, on the picture."""
        wide, high = row["grid_right"] - row["grid_left"], row["grid_bottom"] - row["grid_top"]
        # Square in the model's eyes; at the picture's edges moved inside.
        centre = row["grid_left"] + x * wide, row["grid_top"] + y * high
        half = self.field[1] * wide / 2, self.field[0] * high / 2
        size = row["width"], row["height"]
        low = [(c - h) / s for c, h, s in zip(centre, half, size, strict=True)]
        top = [(c + h) / s for c, h, s in zip(centre, half, size, strict=True)]
        return cropped(self.run, image, row["path"], (*low, *top))


def channel_atlas(run: Run, layer: str | None = None) -> ChannelAtlas:
    """The channels of a layer that the run watched.

    Args:
        run: made with ``channels=``.
        layer: its name; by default the first.

    Raises:
        NotApplicableError: if the run watched no channels.
        LayerError: if it didn't watch this layer's.
    """
    import pandas as pd

    if not run.channels:
        raise NotApplicableError(f"{run.folder} holds nothing of channels; run it with --channels (channels=True)")
    if layer is not None and layer not in run.channels:
        raise LayerError(
            f"{run.folder} holds nothing of the channels of {layer!r}; it watched {', '.join(run.channels)}"
        )
    layer = next(iter(run.channels)) if layer is None else layer
    statistics = run.channels[layer]
    columns: dict[str, Any] = {
        "channel": np.arange(len(statistics.mean)),
        "mean": statistics.mean.numpy(),
        "std": statistics.variance.clamp(min=0).sqrt().numpy(),
        "sparsity": statistics.sparsity.numpy(),
        "dead": statistics.dead.numpy(),
        "strongest": statistics.most.numpy(),
        "ties": statistics.ties.numpy(),
    }
    rows = _first_rows(run)
    for by in ("label", "prediction"):
        names = rows[by].dropna().to_dict()
        told = [_most_frequent([names.get(image) for image in images]) for images in statistics.strongest_images]
        columns |= {by: [name for name, _ in told], f"{by}_share": [share for _, share in told]}
    return ChannelAtlas(run, layer, statistics, _field(run, layer), pd.DataFrame(columns))


def tied(images: int) -> str:
    """How many images reach the largest value, if several do."""
    return f" in {images:,} images" if images > 1 else ""


def _first_rows(run: Run) -> pd.DataFrame:
    """One row per image that was explained, by its id."""
    named = [
        "id",
        "path",
        "height",
        "width",
        "label",
        "prediction",
        "grid_left",
        "grid_top",
        "grid_right",
        "grid_bottom",
    ]
    return run.of_heatmaps(named).drop_duplicates("id").set_index("id")


def _most_frequent(names: Sequence[str | None]) -> tuple[str | None, float]:
    known = Counter(name for name in names if name is not None)
    if not known:
        return None, float("nan")
    name, count = known.most_common(1)[0]
    return name, count / known.total()


def _field(run: Run, layer: str) -> tuple[float, float]:
    """What a cell sees, as shares of the grid."""
    measured = (run.about.get("channels") or {}).get(layer) if isinstance(run.about.get("channels"), dict) else None
    if measured:
        return float(measured[0]), float(measured[1])
    explained = run.of_heatmaps(["layer"]).query("layer == @layer")
    grid = [*run.maps([explained.index[0]])[0].shape] if len(explained) else []
    return (min(1.0, _CELLS / grid[0]), min(1.0, _CELLS / grid[1])) if len(grid) == 2 else (1 / 3, 1 / 3)
