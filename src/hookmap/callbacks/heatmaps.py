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

SIDE = 320
"""The longer side of a photo on a page."""


def explained(lens: Lens, views: Sequence[View], target: Any, batch_size: int, **question: Any) -> list[Heatmap]:
    """Heatmaps of the images; of a detector, those of the images in which it finds something."""
    explanation = lens.explain(list(views), target, on_error="skip", progress=False, batch_size=batch_size, **question)
    for error in explanation.errors.values():
        if not isinstance(error, NothingDetectedError):
            raise error
    return list(explanation)


def caption(heatmap: Heatmap) -> str:
    """What stands below a heatmap: its title, and that it shows nothing, if so."""
    return heatmap.title if heatmap.evidence == "some" else f"{heatmap.title}: no evidence"


def named_apart(views: Sequence[View]) -> list[View]:
    """The images, each under a name of its own: tags and animations tell them apart by these."""
    named: dict[str, View] = {}
    for view in views:
        name, number = view.picture.name, 1
        while name in named:
            number += 1
            name = f"{view.picture.name} ({number})"
        named[name] = replace(view, picture=view.picture.renamed(name))
    return list(named.values())


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
