"""Which images come in and where results go: nothing of the user's is ever written over."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from hookmap.errors import HookmapError

SEVERAL = ".npz"
"""The ending of the file that holds the heatmaps of any number of images."""
PAGE = ".html"


def images_in(given: Sequence[str]) -> list[Path]:
    """The image files that are meant by files, folders and patterns.

    Raises:
        HookmapError: for a folder or a pattern without images.
    """
    paths: list[Path] = []
    for name in given:
        path = Path(name).expanduser()
        if path.is_dir() or (re.search(r"[*?\[]", name) and not os.path.lexists(path)):
            from hookmap.datasets.sources.files import several

            paths += [_as_given(image, name) for image in several([name]).paths]
        else:
            paths.append(path)
    return paths


def _as_given(image: str, name: str) -> Path:
    """Relative paths stay relative: they are what sentences say."""
    return Path(image) if os.path.isabs(os.path.expanduser(name)) else Path(os.path.relpath(image))


def is_folder(output: str) -> bool:
    """Whether this place is a folder: it is one, ends like one, or like no file."""
    return output.endswith(("/", os.sep)) or os.path.isdir(output) or not Path(output).suffix


def check_page(output: str) -> None:
    """Raise a :class:`HookmapError` unless a page can have this name."""
    if Path(output).suffix.lower() not in (PAGE, ".htm"):
        raise HookmapError(f"{output} doesn't end in {PAGE}; pass the page's own path as -o")


def check_ending(output: str) -> None:
    """Raise a :class:`HookmapError` unless a file of this name can be written."""
    from PIL import Image

    suffix = Path(output).suffix.lower()
    if suffix not in (SEVERAL, ".svg") and Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise HookmapError(
            f"{output} ends in none of .png, .jpg, .webp, .tiff, .pdf, .svg and .npz; for a folder of this name pass "
            f"{output}/"
        )


def places(images: Sequence[Path], output: str | None, suffix: str) -> list[Path]:
    """Where the result of each image goes; names that would come twice are numbered.

    Args:
        images: the image files.
        output: a file for a single image, a folder for several; None: where the command runs.
        suffix: that is added to an image's name, with the ending of the file.

    Raises:
        HookmapError: if one file is given for several images, or it has the ending of no such file.
    """
    if output is not None and not is_folder(output):
        if len(images) == 1:
            check_page(output) if suffix.endswith(PAGE) else check_ending(output)
            return [Path(output)]
        raise HookmapError(f"-o {output} is one file, and {len(images)} images came; pass a folder: {output}/")
    folder = Path(output or ".")
    chosen: dict[Path, None] = {}
    for image in images:
        place, number = folder / f"{image.stem}_{suffix}", 2
        while place in chosen:
            place, number = folder / f"{image.stem}_{number}_{suffix}", number + 1
        chosen[place] = None
    return list(chosen)
