"""A run on disk: a folder of Parquet parts that only grows, readable without hookmap.

A part is a number of images and holds one file of each kind; the index is written last, so a part exists as a whole or
not at all, whenever the process is killed. ``run.json`` says of each part that is done how many images and rows it has,
and the size and CRC-32 of each of its files, so that a part that was lost or damaged later is noticed::

    RUN/
      run.json                            what was asked, of which model, and which parts are done
      index.parquet/part-000000.parquet   a row per heatmap
      maps.parquet/part-000000.parquet    the maps, in the order of the index's rows
      pictures.parquet/part-000000.parquet  a small JPEG per image
      channels.parquet/part-000000.parquet  if asked for: what the channels of layers did
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookmap._files import LOCK, locked, written_whole
from hookmap._optional import require
from hookmap._text import counted
from hookmap.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

INDEX, MAPS, PICTURES, CHANNELS = "index", "maps", "pictures", "channels"
_JOINED = 64
"""So many parts that were read are made one at once: many small columns take more room than a large one."""
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
        self._parts: dict[str, Any] | None = None

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
        """Write ``run.json``, with a line for each part."""
        parts = sorted(about.get("parts", {}).items())
        lines = ",".join(f"\n    {json.dumps(name)}: {json.dumps(part)}" for name, part in parts)
        rest = {name: value for name, value in about.items() if name != "parts"}
        text = json.dumps(rest, indent=2, ensure_ascii=False)[:-2] + f',\n  "parts": {{{lines}\n  }}\n}}\n'
        with self._said("run.json"), written_whole(self._about) as place:
            place.write_text(text, encoding="utf-8")

    def check(self) -> None:
        """Raise a :class:`DataError` if the folder holds other files and no run."""
        if not self._about.exists() and self.folder.exists() and any(self.folder.glob("[!.]*")):
            raise DataError(f"{self.folder} holds other files and no run; pass a folder that is new or empty")

    def lost(self, *, thorough: bool = False) -> dict[str, Mapping[str, Any]]:
        """The parts that were done and aren't whole any more, by name, as ``run.json`` describes them.

        Args:
            thorough: read all files, and compare their checksums too.
        """
        return {name: part for name, part in self._recorded().items() if not self._is_whole(name, part, thorough)}

    def repair(self) -> dict[str, Mapping[str, Any]]:
        """Remove what is left of parts that were never written whole, or aren't whole any more; gives the latter."""
        if not self._about.exists():
            return {}
        about, lost = self.about, self.lost(thorough=True)
        for path in self.folder.glob(".run-*.json"):
            path.unlink()
        recorded = {name: part for name, part in self._recorded().items() if name not in lost}
        for name in {path.name for path in self.parts()} - {*recorded, *lost}:  # written just before the process died
            with suppress(DataError):
                recorded[name] = self._described(name)
        for kind in _KINDS:
            for pattern in ("part-*.parquet", ".part-*.parquet"):
                for path in self._folder(kind).glob(pattern):
                    if path.name not in recorded:
                        path.unlink()
        if recorded != about.get("parts", {}):
            self.describe({**about, "parts": recorded})
        return lost

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process writes at a time; a process that dies leaves no lock behind.

        A block that fails before anything is done leaves nothing, if nothing was there before.

        Raises:
            DataError: if another process is writing.
        """
        began, made = not self._about.exists(), [p for p in (self.folder, *self.folder.parents) if not p.exists()]
        with ExitStack() as held:
            with self._said("its lock"):
                held.enter_context(locked(self.folder))
            try:
                yield
            except BaseException:
                held.close()
                if began and not self.parts():
                    self._leave(made)
                raise

    def _leave(self, made: list[Path]) -> None:
        """Remove what was begun, and the folders that were made for it."""
        for name in (LOCK, "run.json"):
            (self.folder / name).unlink(missing_ok=True)
        for kind in _KINDS:
            for path in self._folder(kind).glob("part-*.parquet"):
                path.unlink()
        with suppress(OSError):  # somebody else may have put something there
            for folder in [*filter(Path.exists, map(self._folder, _KINDS)), *made]:
                folder.rmdir()

    def parts(self, kind: str = INDEX) -> list[Path]:
        """The files of one kind that belong to whole parts, in order."""
        names = self._whole() if self._names is None else self._names
        return [path for name in names if (path := self._folder(kind) / name).exists()]

    def as_it_is(self) -> Store:
        """The store with the parts that are there now, also if more are written."""
        now = Store(self.folder)
        now._parts, now._names = self._recorded(), self._whole()
        return now

    def _whole(self) -> list[str]:
        """The names of the parts that are there as a whole; the last may not be in ``run.json`` yet."""
        index, maps = ({path.name for path in self._folder(kind).glob("part-*.parquet")} for kind in (INDEX, MAPS))
        return sorted((index & maps) - self.lost().keys())

    def _recorded(self) -> dict[str, Any]:
        """What ``run.json`` says of the parts that are done."""
        if self._parts is not None:
            return self._parts
        return dict(self.about.get("parts", {})) if self._about.exists() else {}

    def _is_whole(self, name: str, part: Mapping[str, Any], thorough: bool) -> bool:
        for kind, (size, checksum) in part["files"].items():
            path = self._folder(kind) / name
            if (
                not path.exists()
                or path.stat().st_size != size
                or (thorough and _checksum(path.read_bytes()) != checksum)
            ):
                return False
        return True

    def _described(self, name: str) -> dict[str, Any]:
        """A part as ``run.json`` describes it."""
        files = {}
        for kind in _KINDS:
            if (path := self._folder(kind) / name).exists():
                data = path.read_bytes()
                files[kind] = [len(data), _checksum(data)]
        ids = self._table(self._folder(INDEX) / name, ["id"])["id"]
        return {"images": len(ids.unique()), "rows": len(ids), "files": files}

    def next_part(self) -> int:
        """The number of the first part that isn't there."""
        return 1 + max((int(path.stem.partition("-")[2]) for path in self.parts()), default=-1)

    def counts(self) -> list[int]:
        """How many rows each part has."""
        import pyarrow.parquet as pq

        recorded = self._recorded()
        return [
            recorded[path.name]["rows"] if path.name in recorded else pq.read_metadata(path).num_rows
            for path in self.parts()
        ]

    def done(self) -> set[str]:
        """The ids of all images that are in the run."""
        return {name for part in self.each(INDEX, ["id"]) for name in part["id"].to_pylist()}

    def each(self, kind: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The tables of one kind, part by part."""
        recorded = self._recorded()
        for path in self.parts(kind):
            yield self._table(path, columns, _written(recorded, path.name, kind))

    def _table(self, path: Path, columns: list[str] | None, written: list[Any] | None = None) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            data = path.read_bytes()
            if written not in (None, [len(data), _checksum(data)]):
                raise OSError("it isn't what was written")
            return pq.ParquetFile(pa.BufferReader(data)).read(columns=columns, use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} is damaged ({error}); --resume (resume=True) runs its images again") from None

    def read(self, kind: str, columns: list[str] | None = None) -> pa.Table | None:
        """All parts of one kind as one table, or None if there are none; several are read at a time."""
        import pyarrow as pa

        recorded, paths = self._recorded(), self.parts(kind)
        if not paths:
            return None

        def part(path: Path) -> pa.Table:
            return self._table(path, columns, _written(recorded, path.name, kind))

        with ThreadPoolExecutor(os.cpu_count()) as readers:
            some = (paths[i : i + _JOINED] for i in range(0, len(paths), _JOINED))
            table = pa.concat_tables([pa.concat_tables(readers.map(part, these)).combine_chunks() for these in some])
        whole = {}
        for name in table.column_names:  # one by one, so that no two copies of all are held
            whole[name] = table[name].combine_chunks()
            table = table.drop_columns(name)
        pa.default_memory_pool().release_unused()
        return pa.table(whole)

    def table(self, kind: str, name: str) -> pa.Table:
        """One part, by the name of its file."""
        return self._table(self._folder(kind) / name, None, _written(self._recorded(), name, kind))

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
        about = self.about
        self.describe({**about, "parts": {**about.get("parts", {}), path.name: self._described(path.name)}})

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


def _written(recorded: Mapping[str, Any], part: str, kind: str) -> list[Any] | None:
    """Size and checksum of a file of a part, where they are known."""
    written: list[Any] | None = recorded.get(part, {}).get("files", {}).get(kind)
    return written


def lost_in_words(lost: Mapping[str, Mapping[str, Any]]) -> str:
    """Parts and how many images they held, as the subject of a sentence."""
    parts, images = counted(len(lost), "part"), counted(sum(part["images"] for part in lost.values()), "image")
    return f"{parts} ({images})"


def _checksum(data: bytes) -> str:
    return f"{zlib.crc32(data):08x}"
