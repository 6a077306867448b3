"""A run that was written: tables and arrays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hookmap._optional import require
from hookmap.datasets.sources.names import counted
from hookmap.errors import DataError
from hookmap.runs.rows import COLUMNS, flattened, geometry_of
from hookmap.runs.store import CHANNELS, INDEX, MAPS, PICTURES, Store
from hookmap.runs.channels import gathered
from hookmap.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from hookmap.layers.channels import ChannelStatistics

Maps = np.ndarray[Any, Any]


class Run:
    """What a run found; everything is read when it is first asked for.

    Args:
        folder: of the run.

    Raises:
        DataError: if it isn't one.
    """

    def __init__(self, folder: str | Path) -> None:
        require("pandas", "pyarrow", extra="dataset")
        self._store = Store(folder).as_it_is()
        self.folder = self._store.folder
        self.about = self._store.about

    def __repr__(self) -> str:
        images = self.table["id"].nunique()
        return (
            f"Run({str(self.folder)!r}: {len(self.table)} heatmaps of {images} images, {self.about['model']['name']})"
        )

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The index: a row per heatmap, or per image that has none; columns as in :data:`hookmap.runs.rows.COLUMNS`.

        The row's number is that of its map.
        """
        import pandas as pd

        found = self._store.read(INDEX)
        if found is None:
            return pd.DataFrame(columns=list(COLUMNS))
        frame: pd.DataFrame = found.to_pandas()
        return frame

    @cached_property
    def explained(self) -> pd.DataFrame:
        """The rows of :attr:`table` that have a heatmap."""
        return self.table[self.table["target"].notna()]

    @cached_property
    def errors(self) -> pd.DataFrame:
        """The images that couldn't be read or explained: id, path and why."""
        return self.table.loc[self.table["error"].notna(), ["id", "path", "error"]]

    def summary(self) -> list[str]:
        """What there is to know first, a sentence each."""
        images, some = self.table.drop_duplicates("id"), self.explained
        methods, layers = (" and ".join(some[name].unique()[:3]) or "nothing" for name in ("method", "layer"))
        count = f"{counted(len(images), 'image')}, {counted(len(some), 'heatmap')}"
        said = [f"{count} by {methods} at {layers} in {self.folder}"]
        judged = images["correct"].dropna()
        if len(judged):
            said.append(f"{judged.mean():.1%} of {len(judged)} images are predicted as they are labelled")
        empty = int((some["map_most"] == some["map_least"]).sum())
        if empty:
            said.append(f"{empty} heatmaps are the same everywhere: nothing in that layer speaks for the target")
        return said

    def maps(self, rows: Sequence[int] | None = None) -> list[Maps]:
        """Signed maps on their layers' grids, in the method's own units, float32.

        Args:
            rows: numbers of rows of :attr:`table`; by default all.
        """
        numbers = range(len(self.table)) if rows is None else rows
        flat, ends, shapes = self._maps
        scale = self.table["map_scale"].to_numpy(np.float32)
        return [
            np.nan_to_num(scale[i]) * flat[ends[i] : ends[i + 1]].astype(np.float32).reshape(shapes[i]) for i in numbers
        ]

    def values(self, rows: Sequence[int] | None = None) -> list[Maps]:
        """The maps as they are shown: only what is above 0 where the method's paper says so, below 0 where asked."""
        numbers = list(range(len(self.table)) if rows is None else rows)
        parts = self.table["part"].to_numpy()
        shown = []
        for i, values in zip(numbers, self.maps(numbers), strict=True):
            values = -values if parts[i] == "negative" else values
            shown.append(values if parts[i] == "signed" else values.clip(0))
        return shown

    def framed(self, rows: Sequence[int] | None = None, side: int = 32) -> Maps:
        """Each map over its whole picture, all pictures squeezed into one square frame, ``(N, side, side)``, float32.

        What speaks for the target only, and each sums to 1 (or is 0 everywhere). What the model didn't see is 0.

        Args:
            rows: of :attr:`table`; by default those of :attr:`explained`.
            side: of the frame.
        """
        numbers = [*self.explained.index] if rows is None else [*rows]
        places = self.table.loc[numbers].to_dict("records")
        framed = np.zeros((len(numbers), side, side), np.float32)
        for frame, row, values in zip(framed, places, self.values(numbers), strict=True):
            shown = geometry_of(row).displayed((side, side))
            frame[:] = shown.lay_back(torch.from_numpy(flattened(values).clip(0))).numpy()
        total = framed.sum((1, 2), keepdims=True)
        framed /= np.where(total > 0, total, 1)
        return framed

    def thumbnail(self, image: str) -> Image.Image | None:
        """The small copy of an image, by its id; None if there's none."""
        from PIL import Image as PILImage

        data = self.thumbnails.get(image)
        return None if data is None else PILImage.open(io.BytesIO(data))

    @cached_property
    def thumbnails(self) -> dict[str, bytes]:
        """JPEGs by the ids of their images."""
        found = self._store.read(PICTURES)
        return {} if found is None else dict(zip(found["id"].to_pylist(), found["jpeg"].to_pylist(), strict=True))

    @cached_property
    def channels(self) -> dict[str, ChannelStatistics]:
        """What the channels of layers did over the data set, by layer; empty if that wasn't asked for."""
        return gathered(self._store.each(CHANNELS))

    @cached_property
    def _maps(self) -> tuple[Maps, Maps, list[tuple[int, ...]]]:
        names, flat, lengths, shapes = list[str](), list[Maps](), list[int](), list[tuple[int, ...]]()
        for part in self._store.each(MAPS):
            maps = part["map"].combine_chunks()
            names += part["id"].to_pylist()
            flat.append(maps.flatten().to_numpy(zero_copy_only=False))
            lengths += maps.value_lengths().to_pylist()
            shapes += map(tuple, part["shape"].to_pylist())
        if names != self.table["id"].tolist():
            raise DataError(f"the maps of {self.folder} don't belong to its index; run it again into another folder")
        ends = np.cumsum([0, *lengths], dtype=np.int64)
        return np.concatenate([np.empty(0, np.float16), *flat]), ends, shapes


def open_run(folder: str | Path) -> Run:
    """The run in a folder."""
    return Run(folder)
