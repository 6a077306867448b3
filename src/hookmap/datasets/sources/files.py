"""Image files: in a folder, by a pattern, in a list."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import product

from hookmap._text import counted, listed, printable
from hookmap.datasets.sources.base import Item, Source
from hookmap.datasets.sources.names import below, is_image_name
from hookmap.errors import DataError

WILD = re.compile(r"[*?\[]")


class Files(Source):
    """Image files, each once.

    Args:
        paths: absolute.
        folder: ids are the paths below it.
        kind: for the description.
        place: where the files came from, for the description.
        labels: one per path, where they are known.
        classes: the labels by index.
        notes: what is known already.
    """

    def __init__(
        self,
        paths: Sequence[str],
        folder: str,
        kind: str,
        place: str,
        labels: Sequence[str | int | None] | None = None,
        classes: Sequence[str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        first: dict[str, int] = {}
        for number, path in enumerate(paths):
            first.setdefault(path, number)
        kept = list(first.values())
        self.paths = list(first)
        self.labels = None if labels is None else [labels[number] for number in kept]
        self.ids: Sequence[str] = below(self.paths, folder)
        self.classes = classes
        self.unlabelled = labels is None and not classes
        self.description = {"kind": kind, "from": printable(place), "images": len(self.paths)}
        self.notes = [*notes, *repeats(len(paths) - len(kept))]

    def item(self, number: int) -> Item:
        """The file of that number, unopened."""
        path = self.paths[number]
        return Item(self.ids[number], path, printable(path), self.labels[number] if self.labels else None)


def repeats(number: int) -> list[str]:
    """The note on paths that came again."""
    came = counted(number, "path came again and is", "paths came again and are")
    return [f"{came} run once"] if number else []


def folder(path: str, *, labels: bool = True) -> Files:
    """All images in a folder and in the folders below it; labels from an ``ImageFolder`` tree.

    Hidden files and folders are left out. A linked folder is followed, but no folder is read twice. If every image
    lies in one of several folders, as torchvision's ``ImageFolder`` wants it, their names are the labels.

    Raises:
        DataError: if it can't be read or holds no image.
    """
    found = _Walk(os.path.abspath(path))
    start = len(os.path.join(found.root, ""))
    paths = sorted(filter(is_image_name, found.files), key=lambda image: image[start:].split(os.sep))
    if not paths:
        kinds = Counter(os.path.splitext(name)[1].lower() or "without a suffix" for name in map(printable, found.files))
        held = f", but {listed(f'{number} {suffix}' for suffix, number in kinds.most_common())}" if kinds else ""
        raise DataError(
            f"the folder {printable(path)} holds no images{held}{''.join(f'; {note}' for note in found.notes)}; "
            "pass a folder of .jpg, .png, .webp, ..., or the tar, CSV, Parquet or JSON file of the data set"
        )
    if labels and all(os.sep in image[start:] for image in paths):
        names = [printable(image[start:].split(os.sep, 1)[0]) for image in paths]
        classes = sorted(set(names))
        if len(classes) > 1:
            return Files(paths, found.root, "image folder", path, names, classes, found.notes)
    return Files(paths, found.root, "folder", path, notes=found.notes)


def pattern(given: str) -> Files:
    """The images whose paths fit a pattern with ``*``, ``?``, ``[...]`` and ``**``.

    Raises:
        DataError: if there is none.
    """
    start = os.path.abspath(os.path.dirname(WILD.split(given, maxsplit=1)[0]))
    paths, notes = _fitting(given)
    images = [path for path in paths if is_image_name(path)]
    if not images:
        but = f", only {listed(os.path.basename(path) for path in map(printable, paths))}" if paths else ""
        known = "".join(f"; {note}" for note in notes)
        raise DataError(f"{printable(given)} fits no images{but}{known}; check the pattern ([[] is a bracket)")
    return Files(images, start, "pattern", given, notes=notes)


def expand(given: str) -> list[str]:
    """The absolute paths of the files that fit a pattern, in order; braces as in ``{000..012}`` or ``{a,b}`` too."""
    return [
        path for one in braces(given) for path in (_fitting(one)[0] if WILD.search(one) else [os.path.abspath(one)])
    ]


def braces(given: str) -> list[str]:
    """A name with its braces written out, as a shell does.

    >>> braces("x-{08..10}.tar"), braces("{a,b}{1,2}")
    (['x-08.tar', 'x-09.tar', 'x-10.tar'], ['a1', 'a2', 'b1', 'b2'])
    """
    parts = re.split(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}", given)
    choices = [[part] if i % 2 == 0 else _choices(part) for i, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*choices)]


def several(given: Sequence[str], *, kind: str = "list", place: str = "", base: str = ".") -> Files:
    """Files, folders and patterns named one by one; relative ones from a folder.

    Raises:
        DataError: if the list is empty, or one of its folders or patterns holds no images.
    """
    paths: list[str] = []
    notes: list[str] = []
    base = os.path.abspath(base)
    for one in given:
        path = os.path.normpath(os.path.join(base, os.path.expanduser(one)))
        if os.path.isdir(path):
            some = folder(path, labels=False)
        elif WILD.search(one) and not os.path.lexists(path):
            some = pattern(os.path.join(glob.escape(base), os.path.expanduser(one)))
        else:
            paths.append(path)
            continue
        paths += some.paths
        notes += some.notes
    if not paths:
        raise DataError(f"{place or 'an empty list of paths'} came and names no image; pass at least one")
    return Files(paths, base, kind, place or counted(len(given), "path"), notes=notes)


def text(path: str, base: str | None = None) -> Files:
    """The images that a text file names, one a line; relative paths from the file's folder."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = [line.rstrip("\r\n") for line in file]
    except OSError as error:
        raise DataError(f"{printable(path)} can't be read ({error.strerror}); check the path") from None
    names = [line for line in lines if line.strip()]
    return several(names, kind="text file", place=path, base=base or base_folder(path, names))


def base_folder(path: str, names: Sequence[str]) -> str:
    """Where the relative paths in a file start: at its folder, or at the working folder if the first are there."""
    beside = os.path.dirname(os.path.abspath(path))
    some = names[:20]
    if not any(os.path.exists(os.path.join(beside, name)) for name in some) and any(map(os.path.exists, some)):
        return os.getcwd()
    return beside


class _Walk:
    """All files in a folder and below it, hidden ones left out, no folder twice.

    Attributes:
        files: their paths, in no order.
        notes: folders that can't be read, and links to what is read already.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: list[str] = []
        self._unreadable: list[str] = []
        self._again: list[str] = []
        self._seen: set[str] = set()
        self._links: list[str] = []
        self._read(root)
        # Links come last: a folder is read under its own name if it has one here.
        around = os.path.join(os.path.realpath(root), "")
        while self._links:
            link = min(self._links)
            self._links.remove(link)
            if around.startswith(os.path.join(os.path.realpath(link), "")):
                self._again.append(link)
            else:
                self._read(link)

    @property
    def notes(self) -> list[str]:
        notes = []
        for paths, one, many in (
            (self._unreadable, "folder can't be read", "folders can't be read"),
            (self._again, "link leads to a folder read already", "links lead to folders read already"),
        ):
            if paths:
                names = (path if path == self.root else os.path.relpath(path, self.root) for path in sorted(paths))
                notes.append(f"{counted(len(paths), one, many)}: {listed(map(printable, names))}")
        return notes

    def _read(self, path: str) -> None:
        waiting = [path]
        while waiting:
            path = waiting.pop()
            real = os.path.realpath(path)
            if real in self._seen:
                self._again.append(path)
                continue
            self._seen.add(real)
            try:
                with os.scandir(path) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        if _is_folder(entry):
                            if _is_run(entry.path):
                                continue
                            (self._links if entry.is_symlink() else waiting).append(entry.path)
                        elif _is_readable(entry):
                            self.files.append(entry.path)
            except OSError:
                self._unreadable.append(path)


def _is_run(folder: str) -> bool:
    """Whether this is what a run over the data set wrote."""
    return os.path.isfile(os.path.join(folder, "run.json")) and os.path.isdir(os.path.join(folder, "index.parquet"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_readable(entry: os.DirEntry[str]) -> bool:
    """A file, or a link to nothing, which is an error to report; not a pipe, which would be waited for."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True


def _fitting(shape: str) -> tuple[list[str], list[str]]:
    """Files that fit a pattern, in order, and notes; ``glob`` alone would run in circles where links do."""
    parts = shape.split("/")
    if "**" not in parts:
        return sorted(os.path.abspath(path) for path in glob.glob(shape) if not os.path.isdir(path)), []
    deep = parts.index("**")
    start = "/".join(parts[:deep]) or ("/" if shape.startswith("/") else ".")
    paths: set[str] = set()
    notes: list[str] = []
    for folder in sorted(glob.glob(start)) if WILD.search(start) else [start]:
        found = _Walk(os.path.abspath(folder))
        skip = len(os.path.join(found.root, ""))
        paths.update(path for path in found.files if _fits(path[skip:].split(os.sep), parts[deep:]))
        notes += found.notes
    return sorted(paths), notes


def _fits(names: Sequence[str], shapes: Sequence[str]) -> bool:
    if not shapes:
        return not names
    if shapes[0] == "**":
        return any(_fits(names[skipped:], shapes[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], shapes[0]) and _fits(names[1:], shapes[1:])


def _choices(part: str) -> list[str]:
    if "," in part:
        return part.split(",")
    first, _, last = part.partition("..")
    if not (first.isdecimal() and last.isdecimal()):
        return [f"{{{part}}}"]
    width = len(first) if first.startswith("0") else 0
    step = 1 if int(first) <= int(last) else -1
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + step, step)]
