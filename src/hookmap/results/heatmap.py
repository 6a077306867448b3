"""Results of explaining: one heatmap, and all of them together."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import numpy as np
import torch
from torch import Tensor

from hookmap.errors import HookmapError
from hookmap.files import as_png, save_image
from hookmap.methods import Method
from hookmap.methods.registry import plain_name
from hookmap.pictures.geometry import Geometry
from hookmap.pictures.images import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image


Part = Literal["positive", "negative", "signed"]


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
        name = self.target if self.index is None else self.target.split(",")[0]  # without a class's synonyms
        return f"{name} {sure}" + (f", {self.where}" if self.where else "")

    @property
    def number(self) -> int:
        """Of the detection, as it is asked for: 2 for "box 2"; 0 for other targets."""
        found = re.match(r"box (\d+)", self.where)
        return int(found[1]) if found else 0

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
        return picture if self.box is None else marked(picture, [Mark(self.box, tag, self.number)])

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

    def is_called(self, name: str | int) -> bool:
        """Whether this is the name of its image, target (also a class's index), layer or method."""
        name = str(name)
        plain = name.casefold().strip()
        methods = {self.method.name, self.method.title.casefold()}
        synonyms = {part.strip() for part in self.target.casefold().split(",")} | {str(self.index)}
        return (
            name in (self.picture.name, self.layer, self.target, self.where)
            or plain in methods | synonyms
            or plain_name(name) == self.method.name
        )

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


class Explanation(Sequence[Heatmap]):
    """All heatmaps of one call, image by image, then target, layer and method.

    With a single heatmap it saves and draws itself as that one; with several as one labelled sheet: methods against
    layers, targets or images. Names index it: ``explanation["layercam", "layer4"]``.
    """

    def __init__(self, heatmaps: Sequence[Heatmap]) -> None:
        self._heatmaps = list(heatmaps)

    @overload
    def __getitem__(self, index: int) -> Heatmap: ...
    @overload
    def __getitem__(self, index: slice | str | tuple[str, ...]) -> Explanation: ...
    def __getitem__(self, index: int | slice | str | tuple[str, ...]) -> Heatmap | Explanation:
        """One heatmap by number, or those that all given names fit, as an explanation of their own.

        A name is that of an image, a target (or one of its synonyms), a layer or a method.

        Raises:
            KeyError: if a name fits no heatmap, with the names that there are.
        """
        if isinstance(index, slice):
            return Explanation(self._heatmaps[index])
        if not isinstance(index, (str, tuple)):
            return self._heatmaps[operator.index(index)]
        names = (index,) if isinstance(index, str) else index
        found = self._heatmaps
        for name in names:
            found = [heatmap for heatmap in found if heatmap.is_called(name)]
            if not found:
                each = dict.fromkeys(one for h in self for one in (h.picture.name, h.target, h.layer, h.method.name))
                called = " and ".join(map(repr, names))
                raise KeyError(f"no heatmap here is called {called}; there are {', '.join(each)}")
        return Explanation(found)

    def __len__(self) -> int:
        return len(self._heatmaps)

    def __iter__(self) -> Iterator[Heatmap]:
        return iter(self._heatmaps)

    def __repr__(self) -> str:
        return "Explanation([\n" + "".join(f"  {heatmap!r},\n" for heatmap in self) + "])"

    def overlay(self, **look: Any) -> Image.Image:
        """The overlay of the only heatmap, or a contact sheet of several."""
        if len(self) == 1:
            return self[0].overlay(**look)
        from hookmap.render.sheet import explanation_sheet

        return explanation_sheet(self, **look)

    def figure(self, **look: Any) -> Figure:
        """The matplotlib figure of the only heatmap; index one of several first."""
        if len(self) != 1:
            raise HookmapError(f"this explanation holds {len(self)} heatmaps; index one, e.g. explanation[0].figure()")
        return self[0].figure(**look)

    def save(self, path: str | Path, **look: Any) -> Path:
        """Write the overlay, or the contact sheet of several, as one image file."""
        return save_image(self.overlay(**look), path)

    @property
    def raw(self) -> Tensor:
        """All raw maps as ``(N, *grid)``; they must share one grid."""
        return torch.stack([heatmap.raw for heatmap in self])

    def _repr_png_(self) -> bytes:
        return as_png(self.overlay())
