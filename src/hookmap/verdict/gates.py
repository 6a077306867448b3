"""What a method must pass before it is recommended, however well it votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap.adapters.adapter import Adapter
from hookmap.attribution.engine import Batch, Engine
from hookmap.attribution.scoring import resolved_on
from hookmap.errors import HookmapError, LayerError
from hookmap.layers.layouts import Layout
from hookmap.metrics.correlation import pearson
from hookmap.metrics.localization import energy, grid_pointing
from hookmap.results.question import Settings
from hookmap.targets import PREDICTED, Class, Goal
from hookmap.verdict.candidates import Candidate, maps_of, stacked

LEAKAGE = 0.05
"""The most energy that may lie where the model can't have looked."""
BLIND = 0.95
"""Maps of two classes that correlate more, on average, don't answer for a class."""
CHANCE = 0.25
"""Of the paste test: what is pasted covers so much."""
CELLS = 4


class Mosaic(Adapter):
    """A model that sees four images as one picture of two by two, and whose output is that of one cell alone.

    Args:
        model: what is called, on the four cells as four images.
        cell: 0 to 3, whose output is given: evidence in the others is impossible.
    """

    def __init__(self, model: torch.nn.Module, cell: int = 0) -> None:
        super().__init__(model)
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``(B, K)`` of one cell of ``(B, C, 2 H, 2 W)``.

        Raises:
            HookmapError: if the model gives anything but class scores.
        """
        top, bottom = x.chunk(2, 2)
        cells = torch.stack([*top.chunk(2, 3), *bottom.chunk(2, 3)], 1).flatten(0, 1)
        output = self.plain(cells)
        if not isinstance(output, Tensor) or output.ndim != 2:
            raise HookmapError("a mosaic can be asked of models that give class scores (B, K)")
        return output[self.cell :: CELLS]


@dataclass(frozen=True)
class MosaicLayout(Layout):
    """A layer's layout for the four cells, put together again.

    Attributes:
        of_cell: its layout for one image.
    """

    of_cell: Layout | None = None

    @classmethod
    def of(cls, layout: Layout) -> MosaicLayout:
        """Of a layer that is read so for one image."""
        high, wide = layout.grid
        return cls(layout.order, (2 * high, 2 * wide), of_cell=layout)

    def to_grid(self, activation: Tensor) -> Tensor:
        """``(..., B, C, 2 h, 2 w)`` of the activations of 4 B images."""
        assert self.of_cell is not None
        cells = self.of_cell.to_grid(activation)
        cells = cells.reshape(*cells.shape[:-4], -1, 2, 2, *cells.shape[-3:])  # (..., B, 2, 2, C, h, w)
        return cells.movedim((-5, -4), (-4, -2)).flatten(-4, -3).flatten(-2)

    def of_call(self, activation: Tensor) -> Layout:
        """The same for every call."""
        return self

    def from_grid(self, grid: Tensor, like: Tensor) -> Tensor:
        """Never.

        Raises:
            LayerError: always.
        """
        raise LayerError("a mosaic's layers can't be replayed")


def mosaic_of(engine: Engine, images: Sequence[Batch], cell: int, candidates: Sequence[Candidate]) -> Batch:
    """Four images of one size as a batch of one picture, with an engine that answers for one of its cells.

    Raises:
        HookmapError: for models whose layers or outputs aren't those of a classifier of pictures.
    """
    x = torch.cat([batch.x for batch in images])
    traced = engine.trace(x)
    names = {name for candidate in candidates for name in candidate.layers}
    if any(len(traced.layout(name).grid) != 2 or traced.layout(name).frames == "batch" for name in names):
        raise HookmapError("a mosaic can be made of images (C, H, W) only")
    twin = engine.beside(Mosaic(engine.called, cell), {name: MosaicLayout.of(traced.layout(name)) for name in names})
    rows = [torch.cat([x[0], x[1]], 2), torch.cat([x[2], x[3]], 2)]
    return replace(next(twin.batches(torch.cat(rows, 1)[None], 1)), engine=twin)


def leakage(
    engine: Engine, images: Sequence[Batch], goal: Goal, candidates: Sequence[Candidate], settings: Settings, cell: int
) -> dict[Candidate, float]:
    r"""DiFull: the share of a map's positive energy in the cells of a mosaic that the score can't have come from.

    .. math:: 1 - \frac{\sum_{i \in \text{cell}} \max(0, m_i)}{\sum_i \max(0, m_i)}

    Rao, Böhle and Schiele, *Towards Better Understanding Attribution Methods*, CVPR 2022, arXiv:2205.10435. Every cell
    runs through the model on its own, and one cell's output is explained: 0 is right. Methods that weight whole
    channels show what else in the mosaic looks like the class.

    Args:
        engine: of a classifier.
        images: four batches of one image each, of one size; best of different classes.
        goal: what is asked of the cell.
        candidates: those that aren't defined here are left out.
        settings: of the methods.
        cell: 0 to 3.
    """
    batch = mosaic_of(engine, images, cell, candidates)
    maps = maps_of(batch, goal, candidates, settings)
    inside = {candidate: float(grid_pointing(raw[None], divmod(cell, 2))) for candidate, raw in maps.items()}
    return {candidate: 1 - share for candidate, share in inside.items() if share == share}  # no map without energy


def class_similarity(
    batch: Batch, goal: Goal, other: int, candidates: Sequence[Candidate], settings: Settings
) -> dict[Candidate, float]:
    """How alike the maps of two classes are on one image, -1..1: Pearson's correlation over cells; 1 is a blind method.

    Args:
        batch: of one image.
        goal: what is asked.
        other: another class.
        candidates: those that aren't defined here are left out.
        settings: of the methods.
    """
    mine = maps_of(batch, goal, candidates, settings)
    theirs = maps_of(batch, Class(other), candidates, settings)
    both = [candidate for candidate in mine if candidate in theirs]
    if not both:
        return {}
    rows = [stacked({c: maps[c] for c in both}, batch.x[0]).flatten(1) for maps in (mine, theirs)]
    return dict(zip(both, pearson(*rows).tolist(), strict=True))


def paste(
    engine: Engine, scene: Batch, inset: Batch, candidates: Sequence[Candidate], settings: Settings, corner: int
) -> dict[Candidate, float]:
    """The paste test: the share of a map's positive energy on a small copy of another image put into a corner of one.

    The class of that image is asked. Only where it is the model's answer with the copy there and not without does the
    evidence have to lie on the copy, which covers a quarter: .25 is chance.

    Args:
        engine: of a classifier.
        scene: a batch of one image.
        inset: another of the same size.
        candidates: those that aren't defined here are left out.
        settings: of the methods.
        corner: 0 to 3, where it is put.

    Returns:
        Empty where the copy doesn't make its class the answer.
    """
    if scene.x.shape != inset.x.shape or scene.x.ndim != 4:
        return {}
    small = F.interpolate(inset.x, scale_factor=0.5, mode="bilinear", antialias=True)
    high, wide = small.shape[2:]
    top, left = (corner // 2) * (scene.x.shape[2] - high), (corner % 2) * (scene.x.shape[3] - wide)
    x = scene.x.clone()
    x[:, :, top : top + high, left : left + wide] = small
    both = next(engine.batches(x, 1))
    index, without, with_it = (resolved_on(batch, Class(PREDICTED))[0][0].index for batch in (inset, scene, both))
    if index is None or without == index or with_it != index:
        return {}
    mask = torch.zeros(x.shape[2:])
    mask[top : top + high, left : left + wide] = 1
    maps = maps_of(both, Class(index), candidates, settings)
    inside = {candidate: float(energy(raw.clamp(min=0)[None], mask)) for candidate, raw in maps.items()}
    return {candidate: share for candidate, share in inside.items() if share == share}  # no map without energy


def passed(gates: Mapping[str, float | None]) -> list[str]:
    """What is wrong, in words; empty where nothing is."""
    wrong = []
    leak, alike = gates.get("leakage"), gates.get("similarity")
    if leak is not None and leak > LEAKAGE:
        wrong.append(f"{leak:.0%} of its energy lies where the model can't have looked")
    if alike is not None and alike >= BLIND:
        wrong.append("it gives the same map whatever class is asked")
    if (found := gates.get("pasted")) is not None and found <= CHANCE:
        share = f"{found:.0%} of its energy there; chance is {CHANCE:.0%}"
        wrong.append(f"it doesn't find what is pasted in ({share})")
    return wrong
