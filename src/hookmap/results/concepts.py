"""Concepts: what few things a layer sees in one or many images, where they are, and what the model calls them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from hookmap._files import keep_inputs, save_image
from hookmap.errors import HookmapError
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.images.views import View
from hookmap.render.notebook import html_of
from hookmap.targets import Class

if TYPE_CHECKING:
    from PIL import Image

    from hookmap.render.concepts import Entry

Factorization = Literal["nmf", "pca"]
UNSURE = 0.1
"""A concept whose most probable class is less probable has no name on the page."""
PLAIN = 0.4
"""The membership from which a concept's number is written on the photo."""
DETAIL = 2.4
"""Cells across the detail of a concept."""


@dataclass(frozen=True, eq=False)
class Concept:
    """One concept: a feature vector that places of all images have in common.

    Attributes:
        vector: ``(C,)``: for NMF, what the concept adds to the activation where it is strongest; for PCA, a direction
            of unit length.
        share: of the activation's energy (for PCA, of its variance) that the concept explains, 0..1.
        classes: what the model makes of the vector at every place, the most probable first; each is a target for
            ``lens.explain``. Empty for PCA, and where the output isn't classes.
        probabilities: of the classes, by softmax.
    """

    vector: Tensor
    share: float
    classes: tuple[Class, ...] = ()
    probabilities: tuple[float, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The classes in words, without their synonyms."""
        return [str(one).split(",")[0] for one in self.classes]

    @property
    def title(self) -> str:
        """Its classes and how sure the model is of each."""
        return ", ".join(f"{label} {p:.0%}" for label, p in zip(self.labels, self.probabilities, strict=True))

    def __repr__(self) -> str:
        return f"Concept({self.share:.0%} {self.title}".rstrip() + ")"


class Concepts(Sequence[Concept]):
    """The concepts of a layer, by falling share, and where they are in each image.

    Made by :meth:`hookmap.Lens.concepts`. Draws itself as one page: photos, concepts in colour, and a legend.

    Attributes:
        memberships: of each image, how much of each concept is in each place of the layer's grid, ``(k, *grid)``.
            For NMF 0..1, 1 where the concept is strongest over all images; for PCA signed.
        pictures: the images as they were given.
        layer: where the activation was taken.
        method: ``"nmf"`` or ``"pca"``.

    >>> import hookmap as hm
    >>> concepts = hm.Lens("efficientnet_lite0").concepts("examples/photos/coffee.jpg", concepts=3)
    >>> concepts[0].labels[0], tuple(concepts.memberships[0].shape), tuple(concepts.map(0).shape)
    ('espresso', (3, 7, 7), (3, 400, 600))
    """

    def __init__(
        self,
        concepts: Sequence[Concept],
        memberships: Sequence[Tensor],
        views: Sequence[View],
        *,
        layer: str,
        method: Factorization,
    ) -> None:
        self._concepts = list(concepts)
        self._geometries = [view.geometry for view in views]
        self._frames = [view.frames for view in views]
        self.memberships = list(memberships)
        self.pictures: list[Picture] = [view.picture for view in views]
        self.layer = layer
        self.method = method

    @overload
    def __getitem__(self, index: int) -> Concept: ...
    @overload
    def __getitem__(self, index: slice) -> list[Concept]: ...
    def __getitem__(self, index: int | slice) -> Concept | list[Concept]:
        """One concept by number, the one with the largest share first."""
        return self._concepts[index]

    def __len__(self) -> int:
        return len(self._concepts)

    def __iter__(self) -> Iterator[Concept]:
        return iter(self._concepts)

    def __repr__(self) -> str:
        lines = "".join(f"  {concept!r},\n" for concept in self)
        return f"Concepts([\n{lines}], {self.method} at {self.layer!r}, {len(self.pictures)} images)"

    @property
    def vectors(self) -> Tensor:
        """All concepts' feature vectors, ``(k, C)``."""
        return torch.stack([concept.vector for concept in self])

    @property
    def explained(self) -> float:
        """The share of the activation that all concepts explain together, 0..1."""
        return min(1.0, sum(concept.share for concept in self))

    def map(self, image: int = 0) -> Tensor:
        """Memberships on an image's own pixels, ``(k, H, W)`` or ``(k, t, H, W)``; 0 where the model didn't look."""
        return self._geometries[self._number(image)].lay_back(_with_rows(self.memberships[image]))

    def overlay(self, image: int = 0) -> Image.Image:
        """One photo in grey with each concept in its colour, the stronger the more opaque.

        For PCA the first three components are red, green and blue, and what is negative has the opposite colour; on
        one scale for all images. Of a video, the frame where concepts are strongest.
        """
        from hookmap.render.overlay import size_for_people

        picture = self.pictures[self._number(image)]
        return self._drawn(image, size_for_people((picture.height, picture.width)))[1]

    def page(self) -> Image.Image:
        """All photos with their concepts, and a legend: colour, name, share and a detail of each."""
        from hookmap.render.concepts import Panel, concepts_page, side_of_photos
        from hookmap.render.overlay import fitted

        side, panels = side_of_photos(len(self.pictures)), []
        for image, picture in enumerate(self.pictures):
            size = fitted((picture.height, picture.width), side)
            peaks = self._peaks(image, size) if self.method == "nmf" else []
            panels.append(Panel(*self._drawn(image, size), picture.name, peaks))
        parts, of = ("concepts", "activity") if self.method == "nmf" else ("components", "variance")
        how = f"{len(self)} {parts} by {self.method.upper()}"
        named = any(concept.classes for concept in self)
        return concepts_page(
            panels,
            [self._entry(number) for number in range(len(self))],
            title=panels[0].name if len(panels) == 1 else f"{len(panels)} images",
            subtitle=f"{how} explain {self.explained:.0%} of the {of} of {self.layer}",
            heading="concept, and what the model calls it" if named else parts[:-1],
        )

    def save(self, path: str | Path) -> Path:
        """Write the page as an image file.

        Raises:
            HookmapError: if the place can't be written, or holds one of the photos; nothing half-written is left.
        """
        keep_inputs((picture.path for picture in self.pictures), [path])
        return save_image(self.page(), path)

    def _repr_html_(self) -> str:
        rows = [[str(number), concept.title, f"{concept.share:.0%}"] for number, concept in enumerate(self, 1)]
        below = f"{self.method.upper()} at {self.layer}"
        return html_of(self.page(), f"{len(self)} concepts", below, rows, heads=["", "concept", "share"])

    def _number(self, image: int) -> int:
        if not -len(self.pictures) <= image < len(self.pictures):
            raise HookmapError(f"image {image} doesn't exist; there are {len(self.pictures)}, counted from 0")
        return image

    def _still(self, image: int) -> tuple[np.ndarray[Any, Any], Tensor]:
        """Pixels ``(H, W, 3)`` and memberships ``(k, h, w)``; of a video, of the frame where concepts are strongest."""
        cells, pixels, frames = self.memberships[image].float(), self.pictures[image].pixels, self._frames[image]
        if cells.ndim == 4:
            strongest = int(cells.abs().sum((0, 2, 3)).argmax())
            if frames is not None:
                pixels = frames[int((strongest + 0.5) * len(frames) / cells.shape[1])]
            cells = cells[:, strongest]
        return pixels, _with_rows(cells)

    def _drawn(self, image: int, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
        """The photo, and the photo with its concepts, both of a size (H, W)."""
        from hookmap.render.concepts import components_overlay, concepts_overlay
        from hookmap.render.overlay import resized

        pixels, cells = self._still(image)
        photo, geometry = resized(pixels, size), self._geometries[image].displayed(size)
        maps = geometry.lay_back(cells, "cubic").cpu().numpy()
        if self.method == "nmf":
            return photo, concepts_overlay(photo, maps, geometry)
        limits = torch.stack([one.flatten(1).abs().amax(1) for one in self.memberships]).amax(0).float().cpu().numpy()
        return photo, components_overlay(photo, maps[:3], limits[:3], geometry)

    def _peaks(self, image: int, size: tuple[int, int]) -> list[tuple[int, float, float]]:
        """The concepts that are plain to see in an image, each with the place (x, y) where it is strongest."""
        _, cells = self._still(image)
        geometry, peaks = self._geometries[image].displayed(size), []
        for number, one in enumerate(cells):
            row, column = divmod(int(one.argmax()), one.shape[1])
            if one[row, column] >= PLAIN and int(cells[:, row, column].argmax()) == number:
                peaks.append((number, *_centre(geometry, one.shape, row, column)))
        return peaks

    def _entry(self, number: int) -> Entry:
        from hookmap.render.concepts import COMPONENTS, NOT_DRAWN, Entry, color

        concept = self[number]
        if self.method == "pca":
            tone, below = COMPONENTS[number] if number < len(COMPONENTS) else NOT_DRAWN
            return Entry(tone, f"component {number + 1}", "", below, concept.share)
        title, sure, below = f"concept {number + 1}", "", ""
        if concept.classes:
            likely = [f"{name} {p:.0%}" for name, p in zip(concept.labels, concept.probabilities, strict=True)]
            title, sure = concept.labels[0], f"{concept.probabilities[0]:.0%}"
            below = ", ".join(text for text in likely[1:] if not text.endswith(" 0%"))
            if concept.probabilities[0] < UNSURE:
                title, sure, below = "no class in particular", "", f"at most {likely[0]}"
        return Entry(color(number), title, sure, below, concept.share, self._detail(number))

    def _detail(self, number: int) -> Image.Image:
        """The part of a photo where a concept is strongest over all images."""
        from hookmap.render.concepts import detail

        image = max(range(len(self.pictures)), key=lambda image: float(self.memberships[image][number].max()))
        pixels, cells = self._still(image)
        geometry, grid = self._geometries[image], cells.shape[1:]
        row, column = divmod(int(cells[number].argmax()), grid[1])
        sides = [length / (n * s) for length, n, s in zip(geometry.input, grid, geometry.scale, strict=True)]
        return detail(pixels, *_centre(geometry, grid, row, column), DETAIL * max(sides))


def _with_rows(memberships: Tensor) -> Tensor:
    """A sequence ``(k, l)`` as one row of cells; grids stay."""
    return memberships[:, None] if memberships.ndim == 2 else memberships


def _centre(geometry: Geometry, grid: Sequence[int], row: int, column: int) -> tuple[float, float]:
    """The middle (x, y) of a cell on the original's pixels."""
    height, width = (length / cells for length, cells in zip(geometry.input, grid, strict=True))
    x, y = geometry.to_original(torch.tensor([(column + 0.5) * width, (row + 0.5) * height])).tolist()
    return x, y
