"""All heatmaps of one call, along their axes: image, target, layer and method."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, get_args, overload

import torch
from torch import Tensor

from hookmap._files import keep_inputs, save_image
from hookmap._optional import require
from hookmap._text import counted
from hookmap.errors import HookmapError
from hookmap.render.look import LookOptions
from hookmap.render.notebook import html_of
from hookmap.results.archive import read_archive, save_archive
from hookmap.results.heatmap import Axis, Heatmap
from hookmap.results.supervision import to_supervision

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.figure import Figure
    from PIL import Image

_POSITION: dict[Axis, Callable[[Heatmap], Hashable]] = {
    "image": lambda heatmap: heatmap.position.image,
    "target": lambda heatmap: heatmap.position.target,
    "layer": lambda heatmap: heatmap.position.layer,
    "method": lambda heatmap: heatmap.position.method,
}
_NAME: dict[Axis, Callable[[Heatmap], str]] = {
    "image": lambda heatmap: heatmap.picture.name,
    "target": lambda heatmap: heatmap.target,
    "layer": lambda heatmap: heatmap.layer,
    "method": lambda heatmap: heatmap.method.name,
}


class Explanation(Sequence[Heatmap]):
    """All heatmaps of one call, image by image, then target, layer and method.

    With a single heatmap it saves and draws itself as that one; with several as one labelled sheet: methods against
    layers, targets or images. Names index it: ``explanation["layercam", "layer4"]``; :meth:`select` names the axis too,
    and :meth:`along` goes along one. Images may have different targets: a detector finds as many as there are.

    Args:
        heatmaps: in their order.
        errors: of the images that couldn't be read or explained, by the images' names.
    """

    def __init__(self, heatmaps: Iterable[Heatmap], errors: Mapping[str, HookmapError] | None = None) -> None:
        self._heatmaps = list(heatmaps)
        self.errors = dict(errors or {})

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
        chosen = self._heatmaps
        for name in names:
            chosen = [heatmap for heatmap in chosen if heatmap.is_called(name)]
            if not chosen:
                each = dict.fromkeys(name(h) for h in self for name in _NAME.values())
                called = " and ".join(map(repr, names))
                raise KeyError(f"no heatmap here is called {called}; there are {', '.join(each)}")
        return Explanation(chosen)

    def __len__(self) -> int:
        return len(self._heatmaps)

    def __iter__(self) -> Iterator[Heatmap]:
        return iter(self._heatmaps)

    def __repr__(self) -> str:
        failed = f", {counted(len(self.errors), 'image')} failed" if self.errors else ""
        return "Explanation([\n" + "".join(f"  {heatmap!r},\n" for heatmap in self) + f"]{failed})"

    # ---------------------------------------------------------------- axes

    @property
    def images(self) -> list[str]:
        """Names along the axis of images."""
        return self._names("image")

    @property
    def targets(self) -> list[str]:
        """Names of all targets, in the order in which they first come."""
        return list(dict.fromkeys(self._names("target")))

    @property
    def layers(self) -> list[str]:
        """Names along the axis of layers; ``"input"`` stands for methods of the whole model."""
        return list(dict.fromkeys(self._names("layer")))

    @property
    def methods(self) -> list[str]:
        """Names along the axis of methods."""
        return self._names("method")

    def along(self, axis: Axis) -> list[Explanation]:
        """Its parts along an axis, in order: ``along("image")`` is an explanation for each image.

        Raises:
            HookmapError: for an axis that there isn't.
        """
        position = _POSITION.get(axis)
        if position is None:
            raise HookmapError(f"axis is {axis!r}; expected one of {', '.join(get_args(Axis))}")
        parts: dict[Hashable, list[Heatmap]] = {}
        for heatmap in self:
            parts.setdefault(position(heatmap), []).append(heatmap)
        return [Explanation(parts[key]) for key in sorted(parts)]  # type: ignore[type-var]

    def select(
        self,
        *,
        image: str | int | None = None,
        target: str | int | None = None,
        layer: str | int | None = None,
        method: str | int | None = None,
    ) -> Explanation:
        """The heatmaps of an image, a target, a layer or a method, each by its name or its number along the axis.

        The number of a target is that among its image's targets.

        Raises:
            KeyError: if there is none, with the names that there are.
        """
        chosen = self._heatmaps
        wanted: dict[Axis, str | int | None] = {"image": image, "target": target, "layer": layer, "method": method}
        for axis, key in wanted.items():
            if key is None:
                continue
            if isinstance(key, int):
                keys = sorted({_POSITION[axis](h) for h in self})  # type: ignore[type-var]
                place = keys[key] if -len(keys) <= key < len(keys) else None
                chosen = [h for h in chosen if _POSITION[axis](h) == place]
            else:
                chosen = [h for h in chosen if h.is_called(key, axis)]
            if not chosen:
                names = ", ".join(dict.fromkeys(self._names(axis)))
                raise KeyError(f"no heatmap here has {axis}={key!r}; there are {names}")
        return Explanation(chosen)

    def _names(self, axis: Axis) -> list[str]:
        return [_NAME[axis](part[0]) for part in self.along(axis)] if axis != "target" else [h.target for h in self]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each heatmap: image, target, index, score, probability, where, box, layer, method and evidence.

        Raises:
            HookmapError: without pandas.
        """
        require("pandas", extra="dataset")
        import pandas as pd

        frame = pd.DataFrame([heatmap.row for heatmap in self])
        return frame.astype({"index": "Int64"}) if len(frame) else frame

    @property
    def raw(self) -> Tensor:
        """All raw maps as ``(N, *grid)``; they must share one grid.

        Raises:
            HookmapError: if they don't.
        """
        if len({heatmap.raw.shape for heatmap in self}) > 1:
            raise HookmapError(
                "these maps are on different grids; take heatmap.raw of each, or select() one layer first"
            )
        return torch.stack([heatmap.raw for heatmap in self])

    def to_supervision(self) -> Any:
        """The detections of the only image as a ``supervision.Detections``: see :func:`hookmap.to_supervision`.

        Raises:
            HookmapError: if it holds several images, or heatmaps of no detections.
        """
        if len(images := self.along("image")) > 1:
            raise HookmapError(f"this explanation holds {len(images)} images; take those of one: along('image')[0]")
        return to_supervision(self._heatmaps)

    # ---------------------------------------------------------------- pictures and files

    def overlay(self, *, size: int | None = None, **look: Unpack[LookOptions]) -> Image.Image:
        """The overlay of the only heatmap, or a contact sheet of several, which says how they are scaled.

        Args:
            size: of a single overlay, as in :meth:`hookmap.Heatmap.overlay`.
            **look: likewise, of all.
        """
        if len(self) == 1:
            return self[0].overlay(size=size, **look)
        from hookmap.results.sheet import explanation_sheet

        return explanation_sheet(self, **look)

    def figure(self, **look: Unpack[LookOptions]) -> Figure:
        """The matplotlib figure of the only heatmap; index one of several first."""
        if len(self) != 1:
            raise HookmapError(f"this explanation holds {len(self)} heatmaps; index one, e.g. explanation[0].figure()")
        return self[0].figure(**look)

    def save(self, path: str | Path, *, size: int | None = None, **look: Unpack[LookOptions]) -> Path:
        """Write the overlay, or the contact sheet of several, as one image file; or all of it as an ``.npz``.

        A single heatmap becomes a figure in a ``.pdf`` or ``.svg``: see :meth:`hookmap.Heatmap.save`.

        An ``.npz`` holds everything, pictures too, bit for bit; :func:`hookmap.load` reads it without the model.

        Raises:
            HookmapError: if the place can't be written, or holds one of the photos; nothing half-written is left.
        """
        keep_inputs((heatmap.picture.path for heatmap in self), [path])
        if Path(path).suffix.lower() == ".npz":
            return save_archive(self._heatmaps, self.errors, Path(path))
        if len(self) == 1:
            return self[0].save(path, size=size, **look)
        return save_image(self.overlay(**look), path)

    def _repr_html_(self) -> str:
        if not self:
            return f"<pre>{escape(repr(self))}</pre>"
        if len(self) == 1:
            return self[0]._repr_html_()
        rows = [[h.picture.name, h.title, h.method.title, h.layer, h.caveat] for h in self]
        heads = ["image", "target", "method", "layer", ""]
        return html_of(self.overlay(), f"{len(self)} heatmaps", rows=rows, heads=heads)


def load(path: str | Path) -> Explanation:
    """The explanation that :meth:`hookmap.Explanation.save` wrote into an ``.npz``, bit for bit; without the model.

    Raises:
        HookmapError: if the file can't be read or is no explanation.
    """
    return Explanation(*read_archive(Path(path)))
