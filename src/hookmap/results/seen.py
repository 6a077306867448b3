"""Maps over what the model saw of a photo: for views of many small pictures, which have no room for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.render.look import Look
from hookmap.results.planes import planes_of

if TYPE_CHECKING:
    from PIL import Image

LOOK = Look(outliers=0.02)
"""A few single patches would hide all others."""


def seen_part(picture: Picture, geometry: Geometry) -> tuple[Picture, Geometry]:
    """The part of a picture that the model saw, and where the input lies on it."""
    left, top, right, bottom = (round(edge) for edge in geometry.seen)
    part = Picture(picture.pixels[top:bottom, left:right], picture.name)
    return part, geometry.part(top, left, (part.height, part.width))


def over_what_was_seen(
    values: Tensor,
    picture: Picture,
    geometry: Geometry,
    side: int,
    *,
    look: Look = LOOK,
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """A map over the part of its photo that the model saw.

    Args:
        values: ``(h, w)``.
        picture: the image as it was given.
        geometry: from its pixels to the model's input.
        side: the longer side of what is drawn, in pixels.
        look: of the map.
        box: to be marked, (left, top, right, bottom) in pixels of the picture.
    """
    from hookmap.render.overlay import Mark, fitted, marked, overlay, resized

    left, top, _, _ = geometry.seen
    part, geometry = seen_part(picture, geometry)
    size = fitted((part.height, part.width), side)
    heat = planes_of(values, look.part, part, None, geometry)[0].heat(look)
    photo = resized(part.pixels, size)
    if look.symmetric:  # two colours want a photo that has none
        photo = photo.convert("L").convert("RGB")
    drawn = overlay(photo, heat, geometry.displayed(size))
    if box is None:
        return drawn
    factor = drawn.width / part.width
    x0, y0, x1, y1 = (factor * (at - start) for at, start in zip(box, (left, top, left, top), strict=True))
    return marked(drawn, [Mark((x0, y0, x1, y1))])
