"""A run on disk: a folder of Parquet parts that only grows, readable without hookmap.

A part is a number of images and holds one file of each kind; the index is written last, so a part exists as a whole or
not at all, whenever the process is killed::

    RUN/
      run.json                            what was asked, of which model
      index.parquet/part-000000.parquet   a row per heatmap
      maps.parquet/part-000000.parquet    the maps, in the order of the index's rows
      pictures.parquet/part-000000.parquet  a small JPEG per image
      channels.parquet/part-000000.parquet  if asked for: what the channels of layers did
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookmap._files import written_whole
from hookmap._optional import require
from hookmap.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

INDEX, MAPS, PICTURES, CHANNELS = "index", "maps", "pictures", "channels"
_KINDS = (CHANNELS, PICTURES, MAPS, INDEX)  # as they are written: the index makes a part valid


class Store:
    """The folder of a run.

    Args:
        folder: where it is, or will be.
    """

    def __init__(self, folder: str | Path) -> None:
        require("pyarrow", extra="dataset")
        self.folder = Path(folder).expanduser()
        self._names: list[str] | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What ``run.json`` says.

        Raises:
            DataError: if the folder isn't that of a run.
        """
        try:
            about: dict[str, Any] = json.loads(self._about.read_text(encoding="utf-8"))
            about["model"]["name"]
        except FileNotFoundError:
            raise DataError(
                f"{self.folder} holds no run.json; pass the folder that `hookmap run --out` wrote"
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{self._about} can't be read ({error}); pass the folder of a run") from None
        return about

    @property
    def _about(self) -> Path:
        return self.folder / "run.json"

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write ``run.json``."""
        text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        with self._said("run.json"), written_whole(self._about) as place:
            place.write_text(text, encoding="utf-8")

    def check(self) -> None:
        """Raise a :class:`DataError` if the folder holds other files and no run."""
        if not self._about.exists() and self.folder.exists() and any(self.folder.glob("[!.]*")):
            raise DataError(f"{self.folder} holds other files and no run; pass a folder that is new or empty")

    def tidy(self) -> None:
        """Remove what a killed process left of a part."""
        for path in self.folder.glob(".run-*.json"):
            path.unlink()
        valid = {path.name for path in self.parts()}
        for kind in _KINDS:
            for pattern in ("part-*.parquet", ".part-*.parquet"):
                for path in self._folder(kind).glob(pattern):
                    if path.name not in valid:
                        path.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process writes at a time; a process that dies leaves no lock behind.

        Raises:
            DataError: if another process is writing.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / ".lock", timeout=0)
        with self._said("its lock"):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                raise DataError(
                    f"another process is writing {self.folder}; wait for it, or pass another folder"
                ) from None
        try:
            yield
        finally:
            lock.release()

    def parts(self, kind: str = INDEX) -> list[Path]:
        """The files of one kind that belong to whole parts, in order."""
        names = self._whole() if self._names is None else self._names
        return [path for name in names if (path := self._folder(kind) / name).exists()]

    def as_it_is(self) -> Store:
        """The store with the parts that are there now, also if more are written."""
        now = Store(self.folder)
        now._names = self._whole()
        return now

    def _whole(self) -> list[str]:
        index, maps = ({path.name for path in self._folder(kind).glob("part-*.parquet")} for kind in (INDEX, MAPS))
        return sorted(index & maps)

    def next_part(self) -> int:
        """The number of the first part that isn't there."""
        return 1 + max((int(path.stem.partition("-")[2]) for path in self.parts()), default=-1)

    def done(self) -> set[str]:
        """The ids of all images that are in the run."""
        return {name for part in self.each(INDEX, ["id"]) for name in part["id"].to_pylist()}

    def each(self, kind: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The tables of one kind, part by part."""
        import pyarrow.parquet as pq
        from pyarrow import ArrowInvalid

        for path in self.parts(kind):
            try:
                yield pq.ParquetFile(path).read(columns=columns)
            except (ArrowInvalid, OSError) as error:
                index = self._folder(INDEX) / path.name
                raise DataError(
                    f"{path} is damaged ({error}); delete {index}, and --resume runs its images again"
                ) from None

    def read(self, kind: str) -> pa.Table | None:
        """All parts of one kind as one table, or None if there are none."""
        import pyarrow as pa

        tables = list(self.each(kind))
        return pa.concat_tables(tables) if tables else None

    def commit(self, part: int, tables: Mapping[str, pa.Table]) -> None:
        """Write a part, whole or not at all; the same part again takes its place.

        Raises:
            DataError: if the disk is full or the folder can't be written.
        """
        import pyarrow.parquet as pq

        for kind in _KINDS:
            if kind in tables:
                path = self._folder(kind) / f"part-{part:06d}.parquet"
                with self._said(f"{path.parent.name}/{path.name}"), written_whole(path) as place:
                    pq.write_table(tables[kind], place, compression="zstd")

    def _folder(self, kind: str) -> Path:
        return self.folder / f"{kind}.parquet"

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DataError(
                    f"the disk of {self.folder} is full, and {what} wasn't written; what was written before is whole: "
                    "free some space and go on with --resume (resume=True)"
                ) from None
            raise DataError(
                f"{self.folder} can't be written ({error.strerror or error}); pass another folder as --out (out=)"
            ) from None
