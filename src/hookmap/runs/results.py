"""A run that was written: tables and arrays."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from hookmap._optional import require
from hookmap._text import counted
from hookmap.errors import DataError, HookmapError, HookmapWarning
from hookmap.images.loading import Picture, load
from hookmap.methods import METHODS, Method
from hookmap.methods.registry import LostFunction
from hookmap.render.look import Look, Part
from hookmap.render.overlay import fitted
from hookmap.results.heatmap import Heatmap
from hookmap.results.planes import part_of
from hookmap.runs.channels import merged
from hookmap.runs.fiftyone import as_fiftyone
from hookmap.runs.rows import COLUMNS, flattened, geometry_of, unpacked
from hookmap.runs.store import CHANNELS, INDEX, MAPS, PICTURES, Store, lost_in_words

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from hookmap.layers.channels import ChannelStatistics

Maps = np.ndarray[Any, Any]
_EMPTY = 320
"""The longer side of what stands for a picture that isn't there, in pixels."""
_NOTHING = {
    "none": "nothing above zero",
    "faint": "next to nothing beside what speaks against it",
    "even": "the same everywhere",
}


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
        self.lost = self._store.lost()

    def __repr__(self) -> str:
        images = self.table["id"].nunique()
        return (
            f"Run({str(self.folder)!r}: {len(self.table)} heatmaps of {images} images, {self.about['model']['name']})"
        )

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The index: a row per heatmap, or per image that has none; columns as in ``hookmap.runs.rows.COLUMNS``.

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

    @property
    def complaint(self) -> str:
        """What a run lost since it was written, or that it never came to its end; in a sentence, or empty."""
        if self.lost:
            return (
                f"{self.folder} lost {lost_in_words(self.lost)} since it was written, and what is left is shown; "
                "--resume (resume=True) runs these images again"
            )
        if self.about.get("finished"):
            return ""
        total, done = self.about.get("source", {}).get("images"), self.table["id"].nunique()
        of = f" of {total:,}" if isinstance(total, int) else ""
        return f"the run didn't come to its end: {done:,}{of} images are done; go on with --resume (resume=True)"

    def summary(self) -> list[str]:
        """What there is to know first, a sentence each."""
        images, shown = self.table.drop_duplicates("id"), self.explained
        methods, layers = (" and ".join(shown[name].unique()[:3]) or "nothing" for name in ("method", "layer"))
        count = f"{counted(len(images), 'image')}, {counted(len(shown), 'heatmap')}"
        sentences = [f"{count} by {methods} at {layers} in {self.folder}"]
        judged = images["correct"].dropna()
        if len(judged):
            sentences.append(f"{judged.mean():.1%} of {len(judged)} images are predicted as they are labelled")
        return [*sentences, *filter(None, (without_evidence(shown), self.complaint))]

    def maps(self, rows: Sequence[int] | None = None) -> list[Maps]:
        """Signed maps on their layers' grids, in the method's own units, float32.

        Args:
            rows: numbers of rows of :attr:`table`; by default all.
        """
        numbers = range(len(self.table)) if rows is None else rows
        flat, ends, shapes = self._maps
        scale = self.table["map_scale"].to_numpy(np.float32)
        return [unpacked(flat[ends[i] : ends[i + 1]], shapes[i], scale[i]) for i in numbers]

    def values(self, rows: Sequence[int] | None = None) -> list[Maps]:
        """The maps as they are shown: only what is above 0 where the method's paper says so, below 0 where asked."""
        numbers = list(range(len(self.table)) if rows is None else rows)
        parts = self.table["part"].to_numpy()
        maps = zip(numbers, self.maps(numbers), strict=True)
        return [part_of(torch.from_numpy(values), parts[i] or "positive").numpy() for i, values in maps]

    def look(self, row: int) -> Look:
        """How the heatmap of a row is drawn, as ``run.json`` has it."""
        return look_of(self.about, self.table["method"].iloc[row], self.table["part"].iloc[row])

    def heatmap(self, row: int, *, over: Literal["file", "copy", "nothing"] = "file") -> Heatmap:
        """The heatmap of a row of :attr:`table`, which draws itself as those of :meth:`hookmap.Lens.explain` do.

        Args:
            row: its number.
            over: ``"file"``: its picture is the file where it still is, else the small copy that the run holds;
                ``"copy"``: the small copy, or an empty field; ``"nothing"``: the empty field.

        Raises:
            DataError: if the row has no heatmap.
        """
        if not 0 <= row < len(self.table) or self.table["target"].isna().iloc[row]:
            raise DataError(f"row {row} of {self.folder} has no heatmap; run.explained has the rows that have one")
        told = self.table.iloc[row]
        given: dict[str, Any] = told.where(told.notna(), None).to_dict()
        picture = self._picture(given, over)
        high, wide = picture.height / given["height"], picture.width / given["width"]
        box = None
        if given["where"] and given["box_left"] is not None:
            box = tuple(
                given[f"box_{side}"] * factor
                for side, factor in (("left", wide), ("top", high), ("right", wide), ("bottom", high))
            )
        name = given["method"]
        return Heatmap(
            raw=torch.from_numpy(self.maps([row])[0]),
            picture=picture,
            geometry=geometry_of(given).displayed((picture.height, picture.width)),
            method=METHODS.get(name) or Method(name, name, LostFunction("method", name)),
            layer=given["layer"],
            target=given["target"],
            index=None if given["target_index"] is None else int(given["target_index"]),
            score=float("nan") if given["target_score"] is None else given["target_score"],
            probability=given["target_probability"],
            where=given["where"] or "",
            box=box,
            caution=given.get("caution") or "",
            look=self.look(row),
        )

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

    def to_fiftyone(self, name: str | None = None, *, persistent: bool = False, progress: bool = True) -> Any:
        """The run as a data set of FiftyOne: a sample per image, its heatmaps over it, and all that the index knows.

        A sample has the true class (``ground_truth``), the ``prediction``, a field ``heatmap`` (of several methods or
        targets one each, such as ``heatmap_gradcam``) and, of a detector, ``detections``, which share a heatmap. What
        the index says of a heatmap is an attribute of it; of the image, a field of the sample.

        Args:
            name: of the data set; by default FiftyOne makes one up.
            persistent: whether it stays in FiftyOne's database when the process ends.
            progress: show a bar.

        Returns:
            A ``fiftyone.Dataset``; ``fiftyone.launch_app(dataset)`` shows it.

        Raises:
            DataError: if FiftyOne has a data set of this name.
            MissingLibraryError: without FiftyOne: ``pip install 'hookmap[fiftyone]'``.
        """
        return as_fiftyone(self, name, persistent=persistent, progress=progress)

    def thumbnail(self, image: str) -> Image.Image | None:
        """The small copy of an image, by its id; None if there's none."""
        from PIL import Image as PILImage

        data = self.thumbnails.get(image)
        return None if data is None else PILImage.open(io.BytesIO(data))

    def _picture(self, row: Mapping[str, Any], over: str) -> Picture:
        size = int(row["height"]), int(row["width"])
        if over == "file" and row["path"] is not None:
            with suppress(HookmapError):
                picture = load(row["path"])
                if (picture.height, picture.width) == size:
                    return picture.renamed(row["id"])
        copy = None if over == "nothing" else self.thumbnails.get(row["id"])
        if copy is not None:
            return load(copy).renamed(row["id"])
        return Picture(np.broadcast_to(np.uint8(244), (*fitted(size, min(max(size), _EMPTY)), 3)), row["id"])

    @cached_property
    def thumbnails(self) -> dict[str, bytes]:
        """JPEGs by the ids of their images."""
        found = self._store.read(PICTURES)
        return {} if found is None else dict(zip(found["id"].to_pylist(), found["jpeg"].to_pylist(), strict=True))

    @cached_property
    def channels(self) -> dict[str, ChannelStatistics]:
        """What the channels of layers did over the data set, by layer; empty if that wasn't asked for."""
        return merged(self._store.each(CHANNELS))

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


def look_of(about: Mapping[str, Any], method: str, part: Part) -> Look:
    """How a heatmap is drawn, as a ``run.json`` has it."""
    look = about.get("looks", {}).get(method)
    return Look(part, "symmetric" if part == "signed" else "max") if look is None else Look.from_json(look)


def without_evidence(rows: pd.DataFrame) -> str:
    """How many of these heatmaps show nothing, in a sentence; empty if all show something."""
    counts = rows["evidence"].value_counts()
    words = [f"{counts[kind]:,} {meaning}" for kind, meaning in _NOTHING.items() if kind in counts]
    if not words:
        return ""
    number = int(sum(counts.get(kind, 0) for kind in _NOTHING))
    return (
        f"{number:,} of {counted(len(rows), 'heatmap')} show no evidence for their target ({', '.join(words)}): they "
        "are left out of means and flags, and another method or layer may show more"
    )


def open_run(folder: str | Path) -> Run:
    """The run in a folder; with a warning if a part of it was lost or damaged since it was written."""
    run = Run(folder)
    if run.lost:
        warnings.warn(run.complaint, HookmapWarning, stacklevel=2)
    return run
