"""Write files whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookmap.errors import DataError, HookmapError

if TYPE_CHECKING:
    from PIL import Image


# Pages of feature maps are large: compressing them hard takes longer than making them, for 3 % of their size.
_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 92}, "PNG": {"compress_level": 1}}


LOCK = ".lock"
"""The file that a process holds while it writes into a folder."""


def cache_folder(name: str) -> Path:
    """Where hookmap keeps something of this name for the user, between processes."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hookmap" / name


def keep_inputs(images: Iterable[Path | None], writes: Iterable[str | Path]) -> None:
    """Raise a :class:`HookmapError` if one of the files that are to be written is one of the images."""
    inputs = {identity: image for image in images if image and (identity := _identity(image)) is not None}
    for place in writes:
        if (identity := _identity(Path(place))) in inputs and identity is not None:
            raise HookmapError(
                f"{place} would be written over {inputs[identity]}, which is one of the images; choose another place "
                "(on the command line with -o)"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def save_image(image: Image.Image, path: str | Path) -> Path:
    """Write an image in the format of the path's ending (PNG, JPEG, WebP, TIFF, PDF); folders are made.

    Raises:
        HookmapError: if the ending names no image format or the place can't be written; nothing is left behind.
    """
    from PIL import Image as PILImage

    path = Path(path)
    formats = PILImage.registered_extensions()
    kind = formats.get(path.suffix.lower())
    if kind is None or kind not in PILImage.SAVE:
        raise HookmapError(f"{path.name!r} doesn't end in an image format; use .png, .jpg, .webp, .tiff or .pdf")
    return write_bytes(path, partial(_encoded, image, kind))


def write_bytes(path: Path, content: Callable[[], bytes]) -> Path:
    """Write a file whole; folders are made.

    Raises:
        HookmapError: if the place can't be written; nothing is left behind.
    """
    try:
        with written_whole(path) as place:
            place.write_bytes(content())
    except OSError as error:
        raise HookmapError(
            f"{path} can't be written ({error.strerror or error}); choose another place with -o or save(path)"
        ) from None
    return path


def as_png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG, as notebooks and loggers take it."""
    return _encoded(image, "PNG")


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **_OPTIONS.get(kind, {}))
    return buffer.getvalue()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place beside the path to write to; the file takes the path's name once the disk has all of it.

    Whatever goes wrong on the way, and whenever the process is killed, the path holds what it held before.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}-", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(temporary)
        # mkstemp makes files that only their owner can read.
        os.chmod(temporary, 0o666 & ~_umask())
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
            with suppress(OSError):  # another's files are in it by now
                for folder in made:
                    folder.rmdir()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time writes into a folder, which is made; a process that dies leaves no lock behind.

    Raises:
        DataError: if another process is writing.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DataError(f"another process is writing {folder}; wait for it, or pass another folder") from None
    try:
        yield
    finally:
        lock.release()


def _flush(path: str | Path) -> None:
    """Wait until the disk has what was written to a file or a folder."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows doesn't open folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
