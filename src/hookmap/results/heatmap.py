"""Results of explaining: one heatmap, and all of them together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from torch import Tensor

from hookmap._files import as_png, save_image
from hookmap.errors import HookmapError
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.methods import Method
from hookmap.methods.registry import plain_name
from hookmap.results.question import Position, Question

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image


Part = Literal["positive", "negative", "signed"]
Axis = Literal["image", "target", "layer", "method"]
Evidence = Literal["none", "faint", "even", "some"]
"""What a map shows: nothing; next to nothing beside what speaks against; the same everywhere; or evidence."""
FAINT = 0.01
"""A map whose strongest place is weaker than this share of all evidence, for and against, is faint."""


def check_part(part: str | None) -> None:
    """Raise a :class:`HookmapError` for a part that there isn't."""
    if part is not None and part not in get_args(Part):
        raise HookmapError(f"part is {part!r}; expected one of {', '.join(get_args(Part))}")


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
        part: which part of the signed map is shown; None is what the method's paper shows.
        number: of a detection, as it is asked for: 2 for "box 2"; else None.
        question: everything that decided this map beside the image, so that it can be asked again; None if it was made
            otherwise.
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
    part: Part | None = None
    number: int | None = None
    question: Question | None = None
    position: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        check_part(self.part)

    @property
    def values(self) -> Tensor:
        """The map as the method's paper defines it (after a ReLU where the paper has one), or its :attr:`part`.

        The negative part is given as positive numbers: where the evidence against the target is.
        """
        if self.part == "signed" or (self.part is None and not self.method.rectified):
            return self.raw
        return (-self.raw if self.part == "negative" else self.raw).clamp(min=0)

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

    def overlay(self, **look: Any) -> Image.Image:
        """The heatmap over the photo; of a video, over the frame where it is strongest.

        Args:
            **look: ``colormap``, ``opacity`` (0..1, or ``"ramp"``: the stronger the more opaque), ``scale``
                (``"max"``, ``"minmax"``, ``"symmetric"``) and ``limit``: see
                :func:`hookmap.render.overlay.overlay`.
        """
        from hookmap.render.overlay import Mark, marked

        picture = self.painted(**look)
        tag = self.title.rpartition(f", {self.where}")[0]
        return picture if self.box is None else marked(picture, [Mark(self.box, tag, self.number or 0)])

    def painted(self, **look: Any) -> Image.Image:
        """:meth:`overlay` without the box."""
        from hookmap.render.overlay import overlay

        look = self._look(look)
        pixels, heat = self._still(signed=look.get("scale") == "symmetric")
        return overlay(pixels, heat, seen=self.geometry.seen, **look)

    def figure(self, **look: Any) -> Figure:
        """Photo, overlay and colour bar as a matplotlib figure, for papers (``.savefig("x.pdf")``)."""
        from hookmap.render.figure import heatmap_figure

        look = self._look(look)
        pixels, heat = self._still(signed=look.get("scale") == "symmetric")
        title = f"{self.title}  ({self.method.name}, {self.layer})"
        return heatmap_figure(pixels, heat, title=title, seen=self.geometry.seen, **look)

    def save(self, path: str | Path, **look: Any) -> Path:
        """Write the overlay as an image file; ``look`` as in :meth:`overlay`.

        Raises:
            HookmapError: if the place can't be written; nothing half-written is left.
        """
        return save_image(self.overlay(**look), path)

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

    def _repr_png_(self) -> bytes:
        return as_png(self.overlay())

    def _look(self, look: dict[str, Any]) -> dict[str, Any]:
        usual = self.method.look if self.part is None else {"scale": "symmetric"} if self.part == "signed" else {}
        return {**usual, **look}

    def _still(self, *, signed: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        values = self.raw if signed else self.values
        pixels = self.picture.pixels
        values = values[None] if values.ndim == 1 else values
        if values.ndim == 3:
            strongest = int(values.abs().flatten(1).sum(1).argmax())
            if self.frames is not None:
                pixels = self.frames[int((strongest + 0.5) * len(self.frames) / len(values))]
            values = values[strongest]
        heat: np.ndarray[Any, Any] = self.geometry.lay_back(values, "cubic").float().cpu().numpy()
        # The cubic kernel overshoots: what is drawn never leaves the map's own range.
        return pixels, heat.clip(float(values.min().clamp(max=0)), float(values.max().clamp(min=0)))
