"""Results of explaining: one heatmap, and all of them together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
from torch import Tensor

from hookmap._files import keep_inputs, save_image
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.methods import Method
from hookmap.methods.registry import plain_name
from hookmap.render.colors import Heat
from hookmap.render.figure import FIGURES, save_figure
from hookmap.render.look import Look, LookOptions
from hookmap.render.notebook import html_of
from hookmap.results.check import Check
from hookmap.results.planes import Plane, part_of, planes_of
from hookmap.results.question import Position, Question

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image


Axis = Literal["image", "target", "layer", "method"]
Evidence = Literal["none", "faint", "even", "some"]
"""What a map shows: nothing; next to nothing beside what speaks against; the same everywhere; or evidence."""
FAINT, WEAK = 0.01, 0.1
"""Of the strongest evidence, for or against: a map whose strongest place is a smaller share is faint, or weak."""


@dataclass(eq=False)
class Heatmap:
    """One heatmap: why one target scored as it did on one image, seen from one layer.

    Attributes:
        raw: the signed map on the layer's grid, ``(h, w)``, ``(t, h, w)`` or, of a series, ``(l,)``, in the method's
            own units.
        picture: the image as it was given.
        geometry: from the image's pixels to the model's input and back.
        method: how it was made.
        layer: where the activation was taken.
        target: what was explained, in words.
        index: class index, or None for other targets.
        score: the target's score (for a class, its logit).
        probability: of the class, by softmax over the classes; None for other targets.
        where: the target is on the picture, in words; empty if it is about all of it.
        box: of a detection, (left, top, right, bottom) in pixels of the picture, else None.
        frames: ``(T, H, W, 3)`` for video, else None.
        look: how it is drawn, and which part of the signed map that is; chosen once, by its method and ``part=``.
        caution: what its method says against trusting it, in a few words; empty where nothing.
        number: of a detection, as it is asked for: 2 for "box 2"; else None.
        question: everything that decided this map beside the image, so that it can be asked again; None if it was made
            otherwise.
        check: how far it can be believed, if that was asked; see :meth:`hookmap.Lens.check`.
        position: where it stands among those of its call.
    """

    raw: Tensor
    picture: Picture
    geometry: Geometry
    method: Method
    layer: str
    target: str
    index: int | None
    score: float
    probability: float | None = None
    where: str = ""
    box: tuple[float, float, float, float] | None = None
    frames: np.ndarray[Any, Any] | None = None
    look: Look = field(default_factory=Look)
    number: int | None = None
    caution: str = ""
    question: Question | None = None
    position: Position = field(default_factory=Position)
    check: Check | None = None

    @property
    def values(self) -> Tensor:
        """The part of the map that is shown: as the method's paper defines it (after a ReLU where the paper has one).

        The negative part is given as positive numbers: where the evidence against the target is.
        """
        return part_of(self.raw, self.look.part)

    @property
    def strength(self) -> float:
        """The strongest place that is shown, as a share of the strongest evidence for or against, 0..1."""
        raw = self.raw.float().abs()
        most = float(raw.max()) if raw.numel() else 0.0
        return float(self.values.float().abs().max()) / most if most > 0 else 0.0

    @property
    def evidence(self) -> Evidence:
        """Whether the map shows evidence; what shows none shouldn't be read, and is left out of means."""
        if not self.strength > 0:
            return "none"
        if self.strength < FAINT:
            return "faint"
        low, high = self.values.float().aminmax()
        return "even" if float(high - low) <= 1e-6 * float(high.abs()) else "some"

    @property
    def coverage(self) -> float | None:
        """At a default layer, the share of what passes it that passes the places that are shown, 0..1; else None.

        Where a class token carries the rest, no map at this layer shows that.
        """
        question = self.question
        choice = question.choice if question is not None else None
        return choice.coverage if choice is not None and question and choice.layers == question.layers else None

    @property
    def map(self) -> Tensor:
        """:attr:`values` on the original image's pixels, ``(H, W)`` or ``(t, H, W)``; 0 where the model didn't look.

        Of a series it is ``(L,)``.
        """
        if self.raw.ndim == 1:
            return self.geometry.lay_back(self.values[None])[0]
        return self.geometry.lay_back(self.values)

    @property
    def title(self) -> str:
        """The target and how sure the model is of it."""
        sure = f"{self.probability:.0%}" if self.probability is not None else f"{self.score:.3g}"
        if not math.isfinite(self.score):
            sure = "(the score isn't finite)"
        name = self.target if self.index is None else self.target.split(",")[0]  # without a class's synonyms
        return f"{name} {sure}" + (f", {self.where}" if self.where else "")

    def __repr__(self) -> str:
        grid = "x".join(map(str, self.raw.shape))
        return f"Heatmap({self.title!r}, {self.method.name} at {self.layer!r}, {grid}, {self.picture.name!r})"

    @property
    def caveat(self) -> str:
        """In a few words, why there is little or nothing to see or trust; empty where there is evidence."""
        if self.evidence != "some":
            words = {"none": "no evidence", "faint": "next to no evidence", "even": "the same everywhere"}
            return words[self.evidence]
        if self.look.scale == "max" and self.look.part != "signed" and self.strength < WEAK:
            other = "for" if self.look.part == "negative" else "against"
            return f"weak: {self.strength:.0%} of the evidence {other}"
        if self.check is not None and self.check.word != "strong":
            return f"{self.check.word}, when checked" if self.check.word == "weak" else self.check.word
        return self.caution

    def overlay(self, *, size: int | None = None, **look: Unpack[LookOptions]) -> Image.Image:
        """The heatmap over the photo; of a video, over the frame where it is strongest.

        Of a volume (a clip in grey) three planes through the strongest place. What a map doesn't show is said in a
        corner, and what the colours of a signed map mean.

        Args:
            size: the longer side in pixels; by default that of the picture, but from 320 to 2048.
            **look: what is to be drawn otherwise than ``look`` says.

        Raises:
            HookmapError: for a look that can't be, or a colour map that there isn't.
        """
        from hookmap.render.overlay import keyed

        picture = self.painted(size=size, mark=self.title.rpartition(f", {self.where}")[0], **look)
        return keyed(picture, self.look.but(look))

    def painted(
        self,
        *,
        size: int | None = None,
        mark: str | None = None,
        span: tuple[float, float] | None = None,
        **look: Unpack[LookOptions],
    ) -> Image.Image:
        """:meth:`overlay` without what its colours mean.

        Args:
            size: likewise.
            mark: what is written at a detection's box; None draws no box.
            span: a scale that is shared with other heatmaps, as :meth:`heat` gives it.
            **look: likewise.
        """
        from hookmap.render.overlay import Mark, fitted, labelled, marked, overlay, resized, size_for_people

        chosen = self.look.but(look)
        planes = self.planes(chosen)
        drawn: list[Image.Image] = []
        for plane in planes:
            full = plane.picture.height, plane.picture.width
            shape = size_for_people(full) if size is None else fitted(full, size)
            heat = self._heat(plane, chosen, span)
            picture = overlay(resized(plane.picture.pixels, shape), heat, plane.geometry.displayed(shape))
            if self.box is not None and mark is not None:
                y, x = shape[0] / full[0], shape[1] / full[1]
                left, top, right, bottom = self.box
                picture = marked(picture, [Mark((left * x, top * y, right * x, bottom * y), mark, self.number or 0)])
            drawn.append(picture)
        if len(drawn) == 1:
            return labelled(drawn[0], self.caveat)
        from hookmap.render.figure import contact_sheet, fit

        row = contact_sheet([(d, p.name, "") for d, p in zip(drawn, planes, strict=True)], columns=3)
        return labelled(row if size is None else fit(row, size), self.caveat)

    def heat(self, **look: Unpack[LookOptions]) -> Heat:
        """What is drawn, on the map's own grid, in shares of its scale; of a volume its first plane."""
        chosen = self.look.but(look)
        return self._heat(self.planes(chosen)[0], chosen)

    def figure(self, **look: Unpack[LookOptions]) -> Figure:
        """Photo, overlay and colour bar with class, score, method and layer as a matplotlib figure, for papers.

        ``.savefig("x.pdf")`` and ``.svg`` keep their text as text.
        """
        from hookmap.render.figure import heatmap_figure
        from hookmap.render.overlay import resized, size_for_people

        drawn = self.painted(mark="", **look)
        planes = self.planes()
        pixels = planes[0].picture.pixels
        photo = resized(pixels, size_for_people(pixels.shape[:2])) if len(planes) == 1 else drawn
        how = f"{self.method.title} at {self.layer}, score {self.score:.4g}"
        how += f"\n{self.check}" if self.check is not None else ""
        return heatmap_figure(photo, drawn, self.heat(**look), title=self.title, subtitle=how)

    def save(self, path: str | Path, *, size: int | None = None, **look: Unpack[LookOptions]) -> Path:
        """Write the overlay as an image file; as a PDF or SVG the :meth:`figure`.

        Raises:
            HookmapError: if the place can't be written, or holds the photo itself; nothing half-written is left.
        """
        keep_inputs([self.picture.path], [path])
        if Path(path).suffix.lower() in FIGURES:
            return save_figure(self.figure(**look), path)
        return save_image(self.overlay(size=size, **look), path)

    @property
    def row(self) -> dict[str, Any]:
        """What a table says of it."""
        names = ("target", "index", "score", "probability", "where", "box", "layer")
        about = {name: getattr(self, name) for name in names}
        shown = {"method": self.method.name, "evidence": self.evidence, "caveat": self.caveat}
        return {"image": self.picture.name, **about, **shown, **(self.check.row if self.check is not None else {})}

    def numpy(self) -> np.ndarray[Any, Any]:
        """:attr:`map` as float32."""
        array: np.ndarray[Any, Any] = self.map.float().cpu().numpy()
        return array

    def is_called(self, name: str, axis: Axis | None = None) -> bool:
        """Whether this is the name of its image, target (also a class's index), layer or method; or of one of them."""
        plain = name.casefold().strip()
        synonyms = {part.strip() for part in self.target.casefold().split(",")} | {str(self.index)}
        fits: dict[Axis, bool] = {
            "image": name == self.picture.name,
            "target": name in (self.target, self.where) or plain in synonyms,
            "layer": name == self.layer,
            "method": plain_name(name) == self.method.name or plain == self.method.title.casefold(),
        }
        return any(fits.values()) if axis is None else fits[axis]

    def _repr_html_(self) -> str:
        return html_of(self.overlay(), self.title, f"{self.picture.name}, {self.method.title} at {self.layer}")

    def planes(self, look: Look | None = None) -> list[Plane]:
        """The pictures that show it: one, or of a volume three."""
        return planes_of(self.raw, (look or self.look).part, self.picture, self.frames, self.geometry)

    def _heat(self, plane: Plane, look: Look, span: tuple[float, float] | None = None) -> Heat:
        # Nothing, next to nothing and the same everywhere aren't lit.
        return plane.heat(look, span if self.evidence == "some" else (0.0, 0.0))
