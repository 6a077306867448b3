"""Attention as results: what each head looks at, how far, and what of it reaches the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hookmap._files import keep_inputs, save_image
from hookmap._text import counted, listed, short_names
from hookmap.errors import LayerError
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.render.figure import FIGURES, picture_of, save_figure
from hookmap.render.notebook import html_of
from hookmap.results.planes import planes_of
from hookmap.results.seen import LOOK, over_what_was_seen, seen_part

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from hookmap.loggers.animation import Animation

TILE, CELLS = 240, 64
"""Longer sides of a head over the photo, and of its bare map."""


@dataclass(frozen=True)
class Artefacts:
    """Patches whose tokens hold no place: outliers by their norm (Darcet et al. 2024, arXiv:2309.16588).

    Attributes:
        layer: after which the norms were looked at.
        grid: rows and columns of patches.
        places: (row, column) of each.
    """

    layer: str
    grid: tuple[int, ...]
    places: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return listed([f"row {row} column {column}" for row, column in self.places], 3)


class AttentionMaps(Mapping[str, Tensor]):
    """What every head of every layer looks at in one image, by layer: ``(heads, h, w)``.

    A map is attention itself: what it doesn't hold of the sum of one went to tokens that have no place. It says where a
    token looked and not what it did with what it saw, and it knows no target. Made by :meth:`hookmap.Lens.attention`.

    Attributes:
        picture: the image as it was given.
        geometry: from the image's pixels to the model's input and back.
        model: its name.
        asked: who looks: the class token, a token on average, or a patch.
        box: of the patch that was asked about, (left, top, right, bottom) in pixels of the picture; else None.
        artefacts: outliers among the tokens, or None.
        without_artefacts: whether they were left out.

    >>> import timm, hookmap as hm
    >>> lens = hm.Lens(timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10))
    >>> attention = lens.attention("examples/photos/coffee.jpg")
    >>> attention["blocks.1.attn"].shape, attention.maps.shape
    (torch.Size([3, 14, 14]), torch.Size([2, 3, 14, 14]))
    """

    def __init__(
        self,
        maps: Mapping[str, Tensor],
        picture: Picture,
        geometry: Geometry,
        model: str,
        asked: str,
        box: tuple[float, float, float, float] | None = None,
        artefacts: Artefacts | None = None,
        without_artefacts: bool = False,
    ) -> None:
        self._maps = dict(maps)
        self.picture = picture
        self.geometry = geometry
        self.model = model
        self.asked = asked
        self.box = box
        self.artefacts = artefacts
        self.without_artefacts = without_artefacts

    def __getitem__(self, layer: str) -> Tensor:
        try:
            return self._maps[layer]
        except KeyError:
            raise LayerError(f"there is no attention of {layer!r}; there is of {', '.join(self)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def __repr__(self) -> str:
        return f"AttentionMaps({counted(len(self), 'layer')} of {self.model!r}, {self.asked} in {self.picture.name!r})"

    @property
    def maps(self) -> Tensor:
        """All layers, ``(L, heads, h, w)``.

        Raises:
            LayerError: if they differ in heads or grids.
        """
        shapes = dict.fromkeys(tuple(m.shape) for m in self.values())
        if len(shapes) > 1:
            raise LayerError(f"the layers differ in heads or grids: {listed(shapes, 4)}; take them by name")
        return torch.stack(list(self.values()))

    def heads(self, layer: str | None = None) -> Image.Image:
        """All heads of a layer over what the model sees of the photo, each on its own scale; by default of the last."""
        from hookmap.render.figure import contact_sheet

        layer = next(reversed(self._maps)) if layer is None else layer
        maps = self[layer]
        shown = {"mean of all heads": maps.mean(0)} | {f"head {number}": one for number, one in enumerate(maps)}
        tiles = [
            (over_what_was_seen(one, self.picture, self.geometry, TILE, box=self.box), title, self._on_patches(one))
            for title, one in shown.items()
        ]
        return contact_sheet(tiles, tile=TILE, note=(f"{self._about()}  ·  {layer}", None))

    def sheet(self) -> Image.Image:
        """Heads by layers on one page, patch by patch, each on its own scale."""
        from PIL import Image as PILImage

        from hookmap.render.figure import OverviewRow, overview_page

        rows = []
        for name, maps in zip(short_names(self), self.values(), strict=True):
            lines = (f"{counted(len(maps), 'head')}, {' x '.join(map(str, maps.shape[1:]))}", self._on_patches(maps))
            rows.append(OverviewRow(name, lines, [self._bare(one) for one in (maps.mean(0), *maps)]))
        heads = ("mean", f"heads 0 to {max(len(maps) for maps in self.values()) - 1}")
        photo = PILImage.fromarray(seen_part(self.picture, self.geometry)[0].pixels)
        return overview_page(photo, self.model, self._about(), rows, heads=heads)

    def page(self) -> Image.Image:
        """:meth:`heads` of a single layer, the :meth:`sheet` of several."""
        return self.heads() if len(self) == 1 else self.sheet()

    def save(self, path: str | Path) -> Path:
        """Write the :meth:`page` as an image file.

        Raises:
            HookmapError: if the place can't be written, or holds the photo itself; nothing half-written is left.
        """
        keep_inputs([self.picture.path], [path])
        return save_image(self.page(), path)

    def _repr_html_(self) -> str:
        return html_of(self.page(), f"{self.model}, attention", self._about())

    def _about(self) -> str:
        text = f"{self.picture.name}: what {self.asked} looks at"
        if self.artefacts is not None:
            count = counted(len(self.artefacts.places), "artefact token")
            text += f"  ·  {count} {'left out' if self.without_artefacts else f'at {self.artefacts}'}"
        return text

    def _on_patches(self, maps: Tensor) -> str:
        """How much of the attention is shown, where that isn't all."""
        if all(float(m.sum((-2, -1)).min()) > 0.995 for m in self.values()):
            return ""
        return f"{float(maps.sum((-2, -1)).mean()):.0%} on patches"

    def _bare(self, values: Tensor) -> Image.Image:
        from PIL import Image as PILImage

        from hookmap.render.colors import colorize

        heat = planes_of(values, "positive", self.picture, None, self.geometry)[0].heat(LOOK)
        size = [round(side * CELLS / max(values.shape)) for side in values.shape]
        cells = PILImage.fromarray(colorize(heat.shares, LOOK.colors))
        return cells.resize(size[::-1], PILImage.Resampling.NEAREST)


class AttentionDistances(Mapping[str, Tensor]):
    """How far every head looks, by layer: ``(heads,)`` in pixels of the input.

    The distance between a patch and the patches that it looks at, weighted by attention, on average over all patches:
    Dosovitskiy et al. 2021, arXiv:2010.11929, figure 7. What goes to tokens without a place doesn't count. Made by
    :meth:`hookmap.Lens.attention_distances`.

    Attributes:
        picture: the image as it was given.
        model: its name.
        field: size of the model's input (h, w) that distances are to be compared with.
    """

    def __init__(
        self, distances: Mapping[str, Tensor], picture: Picture, model: str, field: tuple[float, float]
    ) -> None:
        self._distances = dict(distances)
        self.picture = picture
        self.model = model
        self.field = field

    def __getitem__(self, layer: str) -> Tensor:
        try:
            return self._distances[layer]
        except KeyError:
            raise LayerError(f"there are no distances of {layer!r}; there are of {', '.join(self)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._distances)

    def __len__(self) -> int:
        return len(self._distances)

    def __repr__(self) -> str:
        return f"AttentionDistances({counted(len(self), 'layer')} of {self.model!r} for {self.picture.name!r})"

    @property
    def distances(self) -> Tensor:
        """All layers, ``(L, heads)``; of layers with fewer heads than others the rest is NaN."""
        return torch.nn.utils.rnn.pad_sequence(list(self.values()), batch_first=True, padding_value=torch.nan)

    def figure(self) -> Figure:
        """Each head as a point over the depth of its layer, those of a layer by falling distance, as in the paper."""
        from hookmap.render.figure import points_figure

        title = f"How far heads look: {self.model}, {self.picture.name}"
        return points_figure(
            [sorted(layer.tolist(), reverse=True) for layer in self.values()],
            names=short_names(self),
            title=title,
            label="mean attention distance, pixels",
        )

    def save(self, path: str | Path) -> Path:
        """Write the :meth:`figure` as an image file, PDF or SVG.

        Raises:
            HookmapError: if the place can't be written, or holds the photo itself; nothing half-written is left.
        """
        keep_inputs([self.picture.path], [path])
        if Path(path).suffix.lower() in FIGURES:
            return save_figure(self.figure(), path)
        return save_image(picture_of(self.figure()), path)

    def _repr_html_(self) -> str:
        return html_of(picture_of(self.figure()), f"{self.model}, attention distance", self.picture.name)


class AttentionRollout:
    """What of the picture reaches the class token (else all tokens) up to each layer: attention rollout over depth.

    Abnar and Zuidema 2020, arXiv:2005.00928. Made by :meth:`hookmap.Lens.attention_rollout`.

    Attributes:
        layers: names of the attentions, first to last.
        maps: rollout up to each, ``(L, h, w)``.
        picture: the image as it was given.
        geometry: from the image's pixels to the model's input and back.
        model: its name.
    """

    def __init__(self, layers: Sequence[str], maps: Tensor, picture: Picture, geometry: Geometry, model: str) -> None:
        self.layers = list(layers)
        self.maps = maps
        self.picture = picture
        self.geometry = geometry
        self.model = model

    def __repr__(self) -> str:
        count = counted(len(self.layers), "layer")
        return f"AttentionRollout({count} of {self.model!r} for {self.picture.name!r})"

    def animation(self, *, size: int = 420) -> Animation:
        """One frame per layer, each on its own scale; the last one rests."""
        from hookmap.loggers.animation import Animation
        from hookmap.render.figure import film_frame

        count = len(self.layers)
        frames = [
            film_frame(self._over(number, size), f"{number + 1}", f"of {count}   {name}", (number + 1) / count)
            for number, name in enumerate(short_names(self.layers))
        ]
        return Animation(frames, [500] * (count - 1) + [2000])

    def strip(self) -> Image.Image:
        """All layers side by side, each on its own scale."""
        from hookmap.render.figure import contact_sheet

        tiles = [(self._over(number, 160), name, "") for number, name in enumerate(short_names(self.layers))]
        columns = next((n for n in (6, 8, 7, 5) if len(tiles) % n == 0), 6)
        note = f"{self.picture.name}: attention rollout of {self.model} up to each layer, each on its own scale"
        return contact_sheet(tiles, columns=min(columns, len(tiles)), tile=160, note=(note, None))

    def save(self, path: str | Path) -> Path:
        """Write the :meth:`animation` as a .webp or .gif, or the :meth:`strip` as another image file.

        Raises:
            HookmapError: if the place can't be written, or holds the photo itself; nothing half-written is left.
        """
        keep_inputs([self.picture.path], [path])
        if Path(path).suffix.lower() in (".webp", ".gif"):
            return self.animation().save(path)
        return save_image(self.strip(), path)

    def _repr_html_(self) -> str:
        return html_of(self.strip(), f"{self.model}, attention rollout", self.picture.name)

    def _over(self, number: int, side: int) -> Image.Image:
        return over_what_was_seen(self.maps[number], self.picture, self.geometry, side)
