"""Two heatmaps of one picture, subtracted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor

from hookmap._files import keep_inputs, save_image
from hookmap.errors import HookmapError
from hookmap.images.geometry import Geometry
from hookmap.render.colors import heat_of
from hookmap.render.look import Look, LookOptions
from hookmap.render.notebook import html_of
from hookmap.render.overlay import fitted, keyed, labelled, overlay, resized, size_for_people
from hookmap.results.heatmap import Heatmap

if TYPE_CHECKING:
    from PIL import Image

SIDE = 256
"""Cells along the longer side of the picture, on which both maps are laid."""
LEAST = 0.25
"""Of the scale: the smallest difference that is drawn as the strongest, so that maps which are alike look alike."""


@dataclass(frozen=True, eq=False)
class Difference:
    """Where one heatmap shows more than another of the same picture; made by :func:`hookmap.difference`.

    Attributes:
        first: the heatmap that is subtracted from.
        second: the heatmap that is subtracted.
        names: of both, as the picture's legend has them.
        values: first minus second, in shares of their scales, ``(h, w)``; from -1 to 1, or from -2 to 2 where both
            are signed.
        area: what of the picture the values span, where both models looked: (left, top, right, bottom) in its pixels.
    """

    first: Heatmap
    second: Heatmap
    names: tuple[str, str]
    values: Tensor
    area: tuple[float, float, float, float]

    @property
    def strongest(self) -> float:
        """The largest difference, of either sign."""
        return float(self.values.abs().max())

    @property
    def look(self) -> Look:
        """How it is drawn: in two colours over a grey photo, from the strongest difference on, but not below .25."""
        ends = (f"more in {self.names[1]}", f"more in {self.names[0]}")
        limit = max(LEAST, self.strongest)
        return Look("signed", "symmetric", limit=limit, colormap="PiYG", grey=True, ends=ends)

    @property
    def caveat(self) -> str:
        """Why they can't be compared as they are; empty where they can."""
        if self.first.target != self.second.target:
            return f"of different targets: {self.first.target.split(',')[0]}, {self.second.target.split(',')[0]}"
        return ""

    def overlay(self, *, size: int | None = None) -> Image.Image:
        """The difference over the photo, with what its colours mean in a corner.

        Args:
            size: the longer side in pixels; by default that of the picture, but from 320 to 2048.
        """
        pixels = self.first.picture.pixels
        full = pixels.shape[:2]
        shape = size_for_people(full) if size is None else fitted(full, size)
        left, top, right, bottom = self.area
        geometry = Geometry(full, (bottom - top, right - left), offset=(-top, -left)).displayed(shape)
        look = self.look
        assert look.limit is not None
        heat = heat_of(self.values.cpu().numpy(), look, (-look.limit, look.limit))
        return labelled(keyed(overlay(resized(pixels, shape), heat, geometry), look), self.caveat)

    def save(self, path: str | Path, *, size: int | None = None) -> Path:
        """Write the overlay as an image file.

        Raises:
            HookmapError: if the place can't be written, or holds the photo itself; nothing half-written is left.
        """
        keep_inputs([self.first.picture.path], [path])
        return save_image(self.overlay(size=size), path)

    def __repr__(self) -> str:
        return f"Difference({self.names[0]!r} minus {self.names[1]!r}, at most {self.strongest:.2f})"

    def _repr_html_(self) -> str:
        return html_of(self.overlay(), f"{self.names[0]} minus {self.names[1]}", self.first.title)


def difference(
    first: Heatmap, second: Heatmap, *, names: tuple[str, str] | None = None, **look: Unpack[LookOptions]
) -> Difference:
    r"""Where one heatmap shows more than another: of two models, methods, layers or targets, on the same picture.

    Units and grids differ between methods and models, so each map is taken as it is drawn, in shares of its own scale
    (:class:`hookmap.Look`), and laid on the picture:
    :math:`\Delta = A / \max |A| - B / \max |B|`
    for maps that begin at 0 or are signed. Where either is signed, both are. What only one of the models saw is left
    out.

    Args:
        first: a heatmap.
        second: another of the same picture.
        names: what they are called in the legend; by default by what they differ in: model, method, layer or target.
        **look: what is to be drawn otherwise than their looks say, of both.

    Raises:
        HookmapError: for heatmaps of different pictures, of videos, volumes and series, and those that have no place of
            the picture in common.

    >>> import hookmap as hm
    >>> one, other = hm.Lens().explain("examples/photos/cat.jpg", method=["gradcam", "layercam"])
    >>> hm.difference(one, other).names
    ('Grad-CAM', 'LayerCAM')
    """
    _check(first, second)
    looks = [one.look.but(look) for one in (first, second)]
    if any(one.symmetric for one in looks):
        looks = [one.but({"scale": "symmetric"}) for one in looks]
    full = first.picture.pixels.shape[:2]
    size = fitted(full, SIDE)
    laid, rows, columns = [], torch.ones(size[0], dtype=torch.bool), torch.ones(size[1], dtype=torch.bool)
    for heatmap, chosen in zip((first, second), looks, strict=True):
        plane = heatmap.planes(chosen)[0]
        shares = torch.from_numpy(plane.heat(chosen, None if heatmap.evidence == "some" else (0.0, 0.0)).shares)
        down, across = heatmap.geometry.displayed(size).weights(shares, "cubic")
        shown = (down @ shares @ across.T).clamp(*shares.aminmax())
        laid.append(2 * shown - 1 if chosen.symmetric else shown)
        rows, columns = rows & (down.sum(1) > 0.5), columns & (across.sum(1) > 0.5)
    if not (rows.any() and columns.any()):
        raise HookmapError("these heatmaps have no place of the picture in common; their models saw other parts of it")
    top, bottom, left, right = *_ends(rows), *_ends(columns)
    y, x = full[0] / size[0], full[1] / size[1]
    return Difference(
        first,
        second,
        names or _names(first, second),
        (laid[0] - laid[1])[top:bottom, left:right],
        (left * x, top * y, right * x, bottom * y),
    )


def _check(first: Heatmap, second: Heatmap) -> None:
    for one in (first, second):
        if one.raw.ndim != 2:
            raise HookmapError(
                f"a heatmap of {one.raw.ndim} dimensions came; differences are those of pictures' heatmaps, with 2"
            )
    mine, other = first.picture, second.picture
    if mine is not other and (mine.pixels.shape != other.pixels.shape or (mine.pixels != other.pixels).any()):
        raise HookmapError(
            f"these heatmaps are of different pictures, {mine.name!r} and {other.name!r}; pass two of the same"
        )


def _ends(seen: Tensor) -> tuple[int, int]:
    at = seen.nonzero()
    return int(at[0]), int(at[-1]) + 1


def _names(first: Heatmap, second: Heatmap) -> tuple[str, str]:
    """By the first of these in which they differ."""
    for name in ("model", "method", "layer", "target"):
        mine, other = (_called(one, name) for one in (first, second))
        if mine != other:
            return mine, other
    return "the first", "the second"


def _called(heatmap: Heatmap, name: str) -> str:
    if name == "model":
        return heatmap.question.model if heatmap.question is not None else ""
    return {"method": heatmap.method.title, "layer": heatmap.layer, "target": heatmap.target.split(",")[0]}[name]
