"""Write a picture whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookmap.errors import HookmapError

if TYPE_CHECKING:
    from PIL import Image


# Pages of feature maps are large: compressing them hard takes longer than making them.
_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 92}, "PNG": {"compress_level": 3}}


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
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}-", suffix=path.suffix)
        with os.fdopen(handle, "wb") as file:
            image.save(file, format=kind, **_OPTIONS.get(kind, {}))
        # mkstemp makes files that only their owner can read.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise HookmapError(
            f"{path} can't be written ({error.strerror or error}); choose another place with -o or save(path)"
        ) from None
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
