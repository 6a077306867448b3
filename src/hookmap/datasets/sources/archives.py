"""WebDataset's tars: files of one name are one sample. They are read where they lie; nothing is unpacked."""

from __future__ import annotations

import os
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from hookmap._text import counted, listed, printable
from hookmap.datasets.sources.base import Item, Source
from hookmap.datasets.sources.names import is_image_name, unique
from hookmap.datasets.sources.samples import as_label, in_json
from hookmap.errors import DataError

_NAME = re.compile(r"(?:\./)*(?!__[^/]*__(?:$|/))((?:.*/|)[^./]+)\.([^/]*)$")


class _Part(NamedTuple):
    """Where a file lies in its tar."""

    start: int
    size: int


class _Sample(NamedTuple):
    """Where a sample's files lie."""

    shard: int
    image: _Part
    label: _Part | None
    is_json: bool


class Archives(Source):
    """The samples of uncompressed tars, found in one pass over their headers.

    As in the WebDataset library, files in a row whose names are the same up to the first dot are one sample. The
    label is what ``.cls``, ``.json`` or ``.txt`` holds.

    Args:
        paths: of the tars.
        place: for the description.
        image: suffix of the picture if a sample has several, as ``"jpg"`` or ``"left.png"``.
        label: suffix of the label, or its key in ``.json``; False for no labels.

    Raises:
        DataError: if a tar can't be read, is compressed, or none holds a picture.
    """

    def __init__(
        self, paths: Sequence[str], place: str, *, image: str | None = None, label: str | bool | None = None
    ) -> None:
        self._shards = list(dict.fromkeys(map(os.path.abspath, paths)))
        self._key = label if isinstance(label, str) else None
        self._samples: list[_Sample] = []
        names: list[str] = []
        notes: list[str] = []
        suffixes: Counter[str] = Counter()
        several = 0
        for shard, path in enumerate(self._shards):
            groups, cut = _scan(path)
            if cut:
                notes.append(f"{printable(path)} breaks off after {counted(len(groups), 'sample')} ({cut})")
            folder = "" if len(self._shards) == 1 else f"{os.path.basename(path).removesuffix('.tar')}/"
            for key, parts in groups:
                suffixes.update(list(parts))
                pictures = [s for s in parts if (s == image.lower().lstrip(".") if image else is_image_name(f".{s}"))]
                if not pictures:
                    continue
                several += len(pictures) > 1
                picture = min(pictures, key=lambda suffix: suffix.count("."))
                suffix = "" if label is False else self._suffix(parts)
                self._samples.append(_Sample(shard, parts[picture], parts.get(suffix), suffix.endswith("json")))
                names.append(folder + key)
        if not names:
            held = f"only {listed(f'.{suffix}' for suffix, _ in suffixes.most_common())}" if suffixes else "no samples"
            wanted = f".{image}" if image else "pictures"
            raise DataError(f"{printable(place)} holds {held}; pass WebDataset tars with {wanted} in them")
        if several:
            some = counted(several, "sample holds several pictures", "samples hold several pictures")
            notes.append(f"{some}, of which the first is run; pass the suffix of another as image")
        twice = len(paths) - len(self._shards)
        if twice:
            notes.append(f"{counted(twice, 'tar came again and is', 'tars came again and are')} run once")
        self.notes = notes
        self.ids: Sequence[str] = unique(map(printable, names))
        self.description = {"kind": "WebDataset", "from": printable(place), "images": len(names)}
        self.description["shards"] = len(self._shards)

    def item(self, number: int) -> Item:
        """The sample of that number, its picture as it is encoded."""
        shard, image, label, is_json = self._samples[number]
        with open(self._shards[shard], "rb") as file:
            file.seek(image.start)
            picture = file.read(image.size)
            text = ""
            if label is not None:
                file.seek(label.start)
                text = file.read(label.size).decode("utf-8", "replace")
        return Item(self.ids[number], picture, label=in_json(text, self._key) if is_json else as_label(text))

    def _suffix(self, parts: dict[str, _Part]) -> str:
        """The suffix of the file that holds the label."""
        if self._key is not None:
            return self._key if self._key in parts else "json"
        return next((suffix for suffix in ("cls", "json", "txt") if suffix in parts), "")


def _scan(path: str) -> tuple[list[tuple[str, dict[str, _Part]]], str]:
    """A tar's samples in order, and how it breaks off if it does."""
    groups: list[tuple[str, dict[str, _Part]]] = []
    cut = ""
    try:
        with tarfile.open(path, "r:") as tar:
            length = os.path.getsize(path)
            try:
                for member in iter(tar.next, None):
                    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                    split = _NAME.match(member.name)
                    if not member.isreg() or member.issparse() or not split:
                        continue
                    key, suffix = split[1], split[2].lower()
                    if member.offset_data + member.size > length:
                        cut = "in a file"
                        break
                    if not groups or groups[-1][0] != key or suffix in groups[-1][1]:
                        groups.append((key, {}))
                    groups[-1][1][suffix] = _Part(member.offset_data, member.size)
            except tarfile.TarError as error:
                cut = str(error)
    except tarfile.ReadError as error:
        if _is_compressed(path):
            raise DataError(
                f"{printable(path)} is compressed, so its pictures can't be reached one by one; "
                "decompress it to a plain .tar, which is hardly larger"
            ) from None
        raise DataError(f"{printable(path)} isn't a tar ({error}); pass a WebDataset tar") from None
    except OSError as error:
        raise DataError(f"{printable(path)} can't be read ({error.strerror}); check the path") from None
    return groups, cut


def _is_compressed(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
