"""Heatmaps of the probe set at one step, as pages show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hookmap.errors import NothingDetectedError
from hookmap.images.loading import Picture, Pixels
from hookmap.images.views import View
from hookmap.lens import Lens
from hookmap.render.figure import fit
from hookmap.results.heatmap import Heatmap
from hookmap.targets import PerImage

SIDE = 320
"""The longer side of a photo on a page."""


def explained(lens: Lens, views: Sequence[View], target: Any, batch_size: int, **how: Any) -> list[Heatmap]:
    """Heatmaps of the images; of a detector, those of the images in which it finds something."""
    given = {**how, "progress": False, "batch_size": batch_size}
    try:
        return list(lens.explain(list(views), target, **given))
    except NothingDetectedError:
        found: list[Heatmap] = []
    for i, view in enumerate(views):
        try:
            found += lens.explain([view], target.chosen([i]) if isinstance(target, PerImage) else target, **given)
        except NothingDetectedError:
            continue
    return found


def named_apart(views: Sequence[View]) -> list[View]:
    """The images under names of which there aren't two: tags and films tell them apart by these."""
    found: dict[str, View] = {}
    for view in views:
        name, number = view.picture.name, 1
        while name in found:
            number += 1
            name = f"{view.picture.name} ({number})"
        found[name] = replace(view, picture=view.picture.renamed(name))
    return list(found.values())


def in_small(heatmaps: Iterable[Heatmap]) -> list[Heatmap]:
    """The heatmaps on photos as large as a page shows them, on the CPU: quick to draw, and little to keep."""
    photos: dict[int, Picture] = {}
    small = []
    for heatmap in heatmaps:
        whole = heatmap.picture
        photo = photos.setdefault(id(whole), Picture(_shrunk(whole), whole.name, whole.path))
        x, y = photo.width / whole.width, photo.height / whole.height
        box = heatmap.box
        small.append(
            replace(
                heatmap,
                raw=heatmap.raw.detach().float().cpu().clone(),
                picture=photo,
                geometry=heatmap.geometry.displayed((photo.height, photo.width)),
                box=None if box is None else (box[0] * x, box[1] * y, box[2] * x, box[3] * y),
                frames=None,
            )
        )
    return small


def _shrunk(picture: Picture) -> Pixels:
    from PIL import Image

    return np.asarray(fit(Image.fromarray(picture.pixels), SIDE))
