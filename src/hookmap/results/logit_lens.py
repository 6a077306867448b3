"""The logit lens as a result: when over depth the model has made up its mind, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from hookmap._files import keep_inputs, save_image
from hookmap._optional import require
from hookmap._text import counted, short_names
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.render.look import Look
from hookmap.render.notebook import html_of
from hookmap.results.seen import over_what_was_seen

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

LOOK = Look("signed", "symmetric", outliers=0.02)
TOP, TILE = 5, 240
"""Classes of each block in the table, and pixels of a block's map on the page."""


@dataclass(frozen=True, eq=False)
class LogitLens:
    """What the model's own head says of the tokens after each block, as if that block were the last.

    After nostalgebraist's logit lens (2020) for language models. The head was trained on the last block's tokens only:
    what it says of early ones is what they already have in common with those. Made by
    :meth:`hookmap.Lens.logit_lens`.

    Attributes:
        blocks: names, first to last.
        probabilities: of all classes, ``(L, K)``; the last row is what the model says.
        labels: names of the classes.
        target: what the maps are of, in words.
        likelihoods: of the target, ``(L,)``: probabilities of a class, else scores.
        maps: the target's score (of a class, its logit) for each patch, ``(L, h, w)``: its token in the place of all
            tokens that the head reads.
        picture: the image as it was given.
        geometry: from the image's pixels to the model's input and back.
        model: its name.

    >>> import timm, hookmap as hm
    >>> lens = hm.Lens(timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10))
    >>> found = lens.logit_lens("examples/photos/coffee.jpg")
    >>> found.probabilities.shape, found.maps.shape
    (torch.Size([2, 10]), torch.Size([2, 14, 14]))
    """

    blocks: Sequence[str]
    probabilities: Tensor
    labels: Sequence[str]
    target: str
    likelihoods: Tensor
    maps: Tensor
    picture: Picture
    geometry: Geometry
    model: str

    def __repr__(self) -> str:
        count = counted(len(self.blocks), "block")
        return f"LogitLens({count} of {self.model!r}, {self.target!r} in {self.picture.name!r})"

    @property
    def table(self) -> pd.DataFrame:
        """The most probable classes after each block: block, depth, rank, index, class and probability."""
        require("pandas", extra="dataset")
        import pandas as pd

        best = self.probabilities.topk(min(TOP, len(self.labels)))
        rows = [
            {"block": block, "depth": depth, "rank": rank, "index": i, "class": self.labels[i], "probability": p}
            for depth, (block, sure, indices) in enumerate(zip(self.blocks, *map(Tensor.tolist, best), strict=True), 1)
            for rank, (p, i) in enumerate(zip(sure, indices, strict=True), 1)
        ]
        return pd.DataFrame(rows)

    def page(self) -> Image.Image:
        """Where each block's tokens speak for the target, with the most probable class of each block."""
        from hookmap.render.figure import contact_sheet

        sure, classes = self.probabilities.max(1)
        tiles = []
        for number, name in enumerate(short_names(self.blocks)):
            drawn = over_what_was_seen(self.maps[number], self.picture, self.geometry, TILE, look=LOOK)
            label = self.labels[int(classes[number])].split(",")[0]
            below = f"{name}  ·  {self._named} {self._likely(number)}"
            tiles.append((drawn, f"{label} {float(sure[number]):.0%}", below))
        columns = next((n for n in (6, 4, 5) if len(tiles) % n == 0), None)
        note = (
            f"{self.picture.name}: what the head of {self.model} says of each block's tokens; over the photo, patch by "
        )
        note += f"patch, for or against {self._named}, each map on its own scale"
        return contact_sheet(tiles, columns=columns, tile=TILE, note=(note, LOOK))

    def save(self, path: str | Path) -> Path:
        """Write the :meth:`page` as an image file.

        Raises:
            HookmapError: if the place can't be written, or holds the photo itself; nothing half-written is left.
        """
        keep_inputs([self.picture.path], [path])
        return save_image(self.page(), path)

    def _repr_html_(self) -> str:
        rows = [
            [name, self.labels[int(row.argmax())], f"{float(row.max()):.0%}", self._likely(number)]
            for number, (name, row) in enumerate(zip(self.blocks, self.probabilities, strict=True))
        ]
        heads = ["block", "most probable class", "", self._named]
        return html_of(self.page(), f"{self.model}, logit lens", self.picture.name, rows, heads=heads)

    @property
    def _named(self) -> str:
        return self.target.split(",")[0]

    def _likely(self, number: int) -> str:
        value = float(self.likelihoods[number])
        return f"{value:.1%}" if 0 <= value <= 1 else f"{value:.3g}"
