"""The pictures that an example saves are shown where it saves them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

_KINDS = {".png", ".jpg", ".gif", ".webp"}


def saved_pictures(block: Any, names: dict[str, Any], gallery: dict[str, Any]) -> str:
    """What sphinx-gallery puts beneath a block of code."""
    shown = gallery.setdefault("_shown_pictures", {})
    target = names["image_path_iterator"]
    copies = []
    # Examples run in the folder that they lie in.
    for picture in sorted(Path(names["src_file"]).parent.glob("*"), key=lambda path: path.stat().st_mtime_ns):
        written = picture.stat().st_mtime_ns
        if picture.suffix in _KINDS and shown.get(picture.name) != written:
            shown[picture.name] = written
            copy = Path(next(target)).with_suffix(picture.suffix)
            shutil.move(picture, copy)
            copies.append(str(copy))
    return figure_rst(copies, gallery["src_dir"]) if copies else ""
