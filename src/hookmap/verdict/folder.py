"""Where a comparison keeps what is done, so that it can be interrupted: a small JSON file per image and stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from hookmap._files import LOCK, locked, write_bytes
from hookmap._optional import require
from hookmap.errors import DataError

NAME, TABLE, EXAMPLES = "verdict.json", "table.parquet", "examples.npz"
"""What a comparison ends with: the verdict, its table, and heatmaps of a few images."""


class Folder:
    """The folder of a comparison, or with None nothing but memory.

    Args:
        place: where it is, or will be.
    """

    def __init__(self, place: str | Path | None) -> None:
        self.place = None if place is None else Path(place).expanduser()
        self._kept: dict[str, Any] = {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process writes at a time; a folder that was made for nothing is removed again.

        Raises:
            DataError: if another process is writing, or the folder can't be made.
        """
        if self.place is None:
            yield
            return
        require("filelock", extra="dataset")
        made = [folder for folder in (self.place, *self.place.parents) if not folder.exists()]
        with ExitStack() as held:
            try:
                held.enter_context(locked(self.place))
            except OSError as error:
                raise DataError(
                    f"{self.place} can't be written ({error.strerror or error}); choose another folder"
                ) from None
            try:
                yield
            finally:
                (self.place / LOCK).unlink(missing_ok=True)
                with suppress(OSError):  # what holds something stays
                    for folder in made:
                        folder.rmdir()

    def begin(self, asked: Mapping[str, Any], *, resume: bool) -> None:
        """Note what is asked.

        Raises:
            DataError: if the folder holds other files, a comparison that mustn't be gone on with, or that of another
                question.
        """
        if self.place is None:
            return
        path = self.place / "asked.json"
        if not path.exists():
            if any(p.name != LOCK for p in self.place.iterdir()):
                raise DataError(f"{self.place} holds other files and no comparison; pass a folder that is new or empty")
            self._write(path, asked)
            return
        before = self._read(path)
        if not resume:
            raise DataError(
                f"{self.place} holds a comparison already; go on with it by --resume (resume=True), or pass another "
                "folder"
            )
        different = [name for name in asked if before.get(name) != json.loads(json.dumps(asked[name]))]
        if different:
            raise DataError(f"{self.place} holds another comparison ({', '.join(different)}); pass another folder")

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What was made before under this name, or is made and kept now; anything that JSON holds."""
        if name in self._kept:
            return self._kept[name]
        path = None if self.place is None else self.place / "done" / f"{name}.json"
        if path is not None and path.exists():
            value = self._read(path)
        else:
            value = make()
            if path is not None:
                self._write(path, value)
        self._kept[name] = value
        return value

    def _read(self, path: Path) -> Any:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} can't be read ({error}); remove it, and it is made again") from None

    def _write(self, path: Path, value: Any) -> None:
        write_bytes(path, lambda: json.dumps(value).encode())
