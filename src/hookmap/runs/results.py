"""A run that was written: tables and arrays."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from hookmap._optional import require
from hookmap._text import counted
from hookmap.errors import DataError, HookmapError, HookmapWarning
from hookmap.images.geometry import laid_into_square
from hookmap.images.loading import Picture, load
from hookmap.methods import METHODS, Method
from hookmap.methods.registry import LostFunction
from hookmap.render.look import Look, Part
from hookmap.render.overlay import fitted
from hookmap.results.heatmap import Heatmap
from hookmap.results.planes import part_of
from hookmap.runs.channels import merged
from hookmap.runs.fiftyone import as_fiftyone
from hookmap.runs.parts import PartMaps, Parts, Thumbnails, maps_of
from hookmap.runs.rows import COLUMNS, all_flattened, geometry_of, unpacked
from hookmap.runs.store import CHANNELS, INDEX, Store, lost_in_words

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from hookmap.layers.channels import ChannelStatistics

Maps = np.ndarray[Any, Any]
_EMPTY = 320
"""The longer side of what stands for a picture that isn't there, in pixels."""
_AT_ONCE = 1024
"""So many rows of the table are read at once: that takes about as long as one."""
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
        frame: pd.DataFrame = found.to_pandas(self_destruct=True)
        return frame

    @cached_property
    def explained(self) -> pd.DataFrame:
        """The rows of :attr:`table` that have a heatmap."""
        return self.of_heatmaps([*self.table.columns])

    def of_heatmaps(self, columns: Sequence[str]) -> pd.DataFrame:
        """Columns of the rows of :attr:`table` that have a heatmap."""
        there = self._explained
        return self.table[[*columns]] if there.all() else self.table.loc[there, [*columns]]

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
        found = dict[int, Maps]()
        for here, maps in self._stacks(numbers):
            found.update(zip(here.tolist(), maps, strict=True))
        return [found[i] for i in range(len(numbers))]

    def values(self, rows: Sequence[int] | None = None) -> list[Maps]:
        """The maps as they are shown: only what is above 0 where the method's paper says so, below 0 where asked."""
        numbers = range(len(self.table)) if rows is None else rows
        found = dict[int, Maps]()
        for here, values in self._shown(numbers):
            found.update(zip(here.tolist(), values, strict=True))
        return [found[i] for i in range(len(numbers))]

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
        ((_, heatmap),) = self.heatmaps([row], over=over)
        return heatmap

    def heatmaps(
        self, rows: Sequence[int], *, over: Literal["file", "copy", "nothing"] = "file"
    ) -> Iterator[tuple[int, Heatmap]]:
        """Rows and their heatmaps, part by part: as :meth:`heatmap`, in the fastest order.

        Args:
            rows: numbers of rows of :attr:`table`.
            over: as there.

        Raises:
            DataError: if a row has no heatmap.
        """
        count = len(self.table)
        for row in rows:
            if not 0 <= row < count or not self._explained[row]:
                raise DataError(f"row {row} of {self.folder} has no heatmap; run.explained has the rows that have one")
        for start in range(0, len(rows), _AT_ONCE):
            some = [int(row) for row in rows[start : start + _AT_ONCE]]
            told = self.table.iloc[some].astype(object)
            given = told.where(told.notna(), None).to_dict("records")
            for here, maps in self._stacks(some):
                for i, raw in zip(here, maps, strict=True):
                    yield some[i], self._heatmap(some[i], raw, given[i], over)

    def framed(self, rows: Sequence[int] | None = None, side: int = 32) -> Maps:
        """Each map over its whole picture, all pictures squeezed into one square frame, ``(N, side, side)``, float32.

        What speaks for the target only, and each sums to 1 (or is 0 everywhere). What the model didn't see is 0.

        Args:
            rows: of :attr:`table`; by default those of :attr:`explained`.
            side: of the frame.
        """
        numbers = np.flatnonzero(self._explained) if rows is None else np.asarray(rows, np.int64)
        framed = np.zeros((len(numbers), side, side), np.float32)
        for here, values in self._shown(numbers):
            flat = torch.from_numpy(all_flattened(values)).clamp(min=0)
            y, x = self._ends[numbers[here]].unbind(1)
            framed[here] = laid_into_square(flat, y, x, side).numpy()
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

    def _heatmap(self, row: int, raw: Maps, given: Mapping[str, Any], over: str) -> Heatmap:
        picture = self._picture(row, given, over)
        high, wide = picture.height / given["height"], picture.width / given["width"]
        box = None
        if given["where"] and given["box_left"] is not None:
            box = tuple(
                given[f"box_{side}"] * factor
                for side, factor in (("left", wide), ("top", high), ("right", wide), ("bottom", high))
            )
        name = given["method"]
        return Heatmap(
            raw=torch.from_numpy(raw),
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
            look=look_of(self.about, name, given["part"]),
        )

    def thumbnail(self, image: str) -> Image.Image | None:
        """The small copy of an image, by its id; None if there's none."""
        from PIL import Image as PILImage

        data = self.thumbnails.get(image)
        return None if data is None else PILImage.open(io.BytesIO(data))

    def _picture(self, row: int, given: Mapping[str, Any], over: str) -> Picture:
        size = int(given["height"]), int(given["width"])
        if over == "file" and given["path"] is not None:
            with suppress(HookmapError):
                picture = load(given["path"])
                if (picture.height, picture.width) == size:
                    return picture.renamed(given["id"])
        if over != "nothing":
            ((_, copy),) = self.thumbnails.of([row])
            if copy is not None:
                return load(copy).renamed(given["id"])
        return Picture(np.broadcast_to(np.uint8(244), (*fitted(size, min(max(size), _EMPTY)), 3)), given["id"])

    @cached_property
    def thumbnails(self) -> Thumbnails:
        """JPEGs by the ids of their images, read when they are asked for."""
        return Thumbnails(self._store, self.table["id"])

    @cached_property
    def channels(self) -> dict[str, ChannelStatistics]:
        """What the channels of layers did over the data set, by layer; empty if that wasn't asked for."""
        return merged(self._store.each(CHANNELS))

    @cached_property
    def _explained(self) -> Maps:
        """Which rows have a heatmap."""
        there: Maps = self.table["target"].notna().to_numpy(bool)
        return there

    @cached_property
    def _maps(self) -> Parts[PartMaps]:
        return maps_of(self._store, self.table["id"])

    @cached_property
    def _ends(self) -> torch.Tensor:
        """Where the map of each row begins and ends in its picture, along y and x, ``(N, 2, 2)``, in shares of it."""
        ends = torch.empty(len(self.table), 2, 2, dtype=torch.float64)
        along = ("grid_top", "grid_bottom", "height"), ("grid_left", "grid_right", "width")
        for axis, (low, high, size) in enumerate(along):
            for place, name in enumerate((low, high)):
                ends[:, axis, place] = torch.tensor((self.table[name] / self.table[size]).to_numpy(np.float64))
        return ends

    def _stacks(self, rows: Sequence[int] | Maps) -> Iterator[tuple[Maps, Maps]]:
        """Signed maps of one shape, ``(n, *shape)``, float32, and where their rows stand among those asked."""
        numbers = np.asarray(rows, np.int64)
        scales = self.table["map_scale"].to_numpy(np.float32)
        for here, part, local in self._maps.of(numbers):
            for number, stack in enumerate(part.stacks):
                mine = part.stack_of[local] == number
                if mine.any():
                    scale = scales[numbers[here[mine]]].reshape(-1, *[1] * (stack.ndim - 1))
                    yield here[mine], unpacked(stack[part.place[local[mine]]], scale)

    def _shown(self, rows: Sequence[int] | Maps) -> Iterator[tuple[Maps, Maps]]:
        """:meth:`_stacks`, only what is shown."""
        numbers, parts = np.asarray(rows, np.int64), self.table["part"]
        for here, maps in self._stacks(numbers):
            words = parts.iloc[numbers[here]].fillna("positive").to_numpy()
            for word in dict.fromkeys(words):
                mine = words == word
                yield here[mine], part_of(torch.from_numpy(maps[mine]), word).numpy()


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
