"""Feature maps: what each layer made of the images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hookmap._files import as_png, keep_inputs, save_image, write_bytes
from hookmap._progress import tracking
from hookmap.errors import HookmapError, LayerError
from hookmap.images.loading import Picture
from hookmap.render.grid import TileScale, arrange, tiles
from hookmap.render.notebook import html_of

if TYPE_CHECKING:
    from PIL import Image
    from rich.table import Table
    from torch.utils.tensorboard import SummaryWriter

Ranking = Literal["mean", "variance", "gradient", "influence"]
Channels = int | Sequence[int] | Ranking | Literal["all"]


@dataclass(frozen=True)
class LayerStatistics:
    """Figures of one layer over all images: range, moments, and what is wrong with it.

    Attributes:
        sparsity: fraction of values that are exactly 0.
        dead: channels that are 0 everywhere on all images.
        nan: number of values that are NaN.
        infinite: number of values that are infinite.
    """

    minimum: float
    maximum: float
    mean: float
    std: float
    sparsity: float
    dead: tuple[int, ...]
    nan: int
    infinite: int


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """Feature maps of one layer.

    Attributes:
        name: the layer's own name; a second call of the layer is ``name#2``.
        kind: its class.
        maps: ``(B, C, h, w)``, ``(B, C, t, h, w)`` for video, ``(B, C)`` for vectors.
        layout: how the layer itself holds them.
        gradient: of the target's score, same shape; None if it wasn't asked for.
    """

    name: str
    kind: str
    maps: Tensor
    layout: str
    gradient: Tensor | None = None

    @property
    def shape(self) -> str:
        """Channels and grid, e.g. ``512x7x7``."""
        return "x".join(map(str, self.maps.shape[1:]))

    def statistics(self) -> LayerStatistics:
        """Figures over all images; range and moments are of the finite values."""
        values = self.maps.float()
        finite = values[torch.isfinite(values)]
        low, high = finite.aminmax() if finite.numel() else (torch.tensor(float("nan")),) * 2
        dead = (values.transpose(0, 1).flatten(1) == 0).all(1).nonzero().flatten().tolist()
        return LayerStatistics(
            minimum=float(low),
            maximum=float(high),
            mean=float(finite.mean()),
            std=float(finite.std(correction=0)),
            sparsity=float((values == 0).float().mean()),
            dead=tuple(dead),
            nan=int(values.isnan().sum()),
            infinite=int(values.isinf().sum()),
        )

    def select(self, channels: Channels = "all", *, top: int = 16, image: int = 0) -> list[int]:
        r"""Channel numbers: one, some, all, or the ``top`` of one image ranked by a word.

        ``"mean"`` ranks by the mean activation, ``"variance"`` by the variance over places (the liveliest
        first), ``"gradient"`` by the mean magnitude of the target's gradient, ``"influence"`` by how much the target's
        score would change, to first order, if the channel were muted: :math:`|\sum_{xy} A_{xy} \, \partial s / \partial
        A_{xy}|`.

        Raises:
            LayerError: for a channel that doesn't exist, or a ranking by a gradient that wasn't taken.
        """
        count = self.maps.shape[1]
        if channels == "all":
            return list(range(count))
        if isinstance(channels, str):
            places = self.maps[image].reshape(count, -1).float()
            if channels in ("gradient", "influence"):
                if self.gradient is None:
                    raise LayerError(
                        f"channels={channels!r} needs gradients; call lens.features(..., target='predicted')"
                    )
                slope = self.gradient[image].reshape(count, -1).float()
                rank = slope.abs().mean(1) if channels == "gradient" else (places * slope).sum(1).abs()
            elif channels in ("mean", "variance"):
                rank = places.mean(1) if channels == "mean" else places.var(1, correction=0)
            else:
                rankings = ", ".join(map(repr, get_args(Ranking)))
                raise LayerError(f"channels={channels!r}; use numbers, 'all', or one of {rankings}")
            return rank.nan_to_num().argsort(descending=True, stable=True)[:top].tolist()
        chosen = [channels] if isinstance(channels, int) else list(channels)
        for channel in chosen:
            if not -count <= channel < count:
                raise LayerError(f"layer {self.name!r} has channels 0 to {count - 1}; {channel} doesn't exist")
        return [channel % count for channel in chosen]

    def reduce(self, how: Literal["mean", "max", "pca"] = "mean") -> Tensor:
        """All channels as one picture per image: ``(B, h, w)``, or ``(B, h, w, 3)`` in 0..1 for ``"pca"``.

        The principal components are shared by all images; each is scaled to 0..1 from its minimum to its
        maximum, with the sign that makes its largest loading positive.
        """
        maps = self._still()
        if how == "mean":
            return maps.mean(1)
        if how == "max":
            return maps.amax(1)
        if how != "pca":
            raise LayerError(f"reduce={how!r}; use 'mean', 'max' or 'pca'")
        rows = maps.movedim(1, -1).flatten(0, -2).double().nan_to_num()
        rows = rows - rows.mean(0)
        _, vectors = torch.linalg.eigh(rows.T @ rows)
        basis = vectors[:, -3:].flip(1)
        basis = basis * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
        low, high = (rows @ basis).aminmax(dim=0)
        scaled = (rows @ basis - low) / (high - low).clamp(min=1e-12)
        three = torch.nn.functional.pad(scaled, (0, 3 - scaled.shape[1]))
        return three.float().view(maps.shape[0], *maps.shape[2:], 3)

    def grid(
        self,
        image: int = 0,
        channels: Channels = "all",
        *,
        top: int = 16,
        tile: tuple[int, int] | int | None = None,
        colormap: str = "viridis",
        scale: TileScale = "each",
        upsample: Literal["nearest", "bilinear"] | None = "nearest",
        numbers: bool = True,
        columns: int | None = None,
    ) -> Image.Image:
        """Channels of one image as tiles, with their numbers; arguments as in ``hookmap.render.grid.tiles``.

        By default a tile is 112 pixels, or 56 where there are more than 512 of them.
        """
        chosen = self.select(channels, top=top, image=image)
        tile = tile or (112 if len(chosen) <= 512 else 56)
        maps = self._still()[image][chosen].cpu().numpy()
        labels = [str(c) for c in chosen] if numbers else None
        drawn = tiles(maps, tile=tile, colormap=colormap, scale=scale, upsample=upsample, labels=labels)
        return arrange(drawn, columns=columns)

    def numpy(self) -> np.ndarray[Any, Any]:
        """The maps as a float32 array."""
        array: np.ndarray[Any, Any] = self.maps.float().cpu().numpy()
        return array

    def _still(self) -> Tensor:
        """Maps as pictures (B, C, h, w): the middle of a clip, a vector as a single cell."""
        maps = self.maps.float()
        while maps.ndim > 4:
            maps = maps[:, :, maps.shape[2] // 2]
        return maps.reshape(*maps.shape[:2], *([1] * (4 - maps.ndim)), *maps.shape[2:])


class FeatureMaps(Mapping[str, LayerMaps]):
    """Feature maps of several layers, each under its own name, in the order in which they ran."""

    def __init__(
        self,
        layers: Iterable[LayerMaps],
        pictures: Sequence[Picture],
        overlays: Sequence[tuple[str, Image.Image]] = (),
        model: str = "network",
    ) -> None:
        self._layers = {layer.name: layer for layer in layers}
        self.pictures = list(pictures)
        self.overlays = list(overlays)
        self.model = model

    def __getitem__(self, name: str) -> LayerMaps:
        try:
            return self._layers[name]
        except KeyError:
            raise LayerError(f"there are no feature maps of {name!r}; there are of {', '.join(self)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def statistics(self) -> dict[str, LayerStatistics]:
        """Figures of each layer."""
        return {name: layer.statistics() for name, layer in self.items()}

    def __rich__(self) -> Table:
        """The statistics as a table."""
        from rich.table import Table

        table = Table("layer", "type", box=None, header_style="bold", pad_edge=False)
        for heading in ("shape", "range", "mean", "zeros", "dead", "NaN/inf"):
            table.add_column(heading, justify="right")
        for name, layer in self.items():
            s = layer.statistics()
            bad = str(s.nan + s.infinite) if s.nan + s.infinite else ""
            span = f"{s.minimum:.3g} .. {s.maximum:.3g}"
            dead = str(len(s.dead)) if s.dead else ""
            table.add_row(name, layer.kind, layer.shape, span, f"{s.mean:.3g}", f"{s.sparsity:.0%}", dead, bad)
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=140, no_color=True)
        with console.capture() as text:
            console.print(self.__rich__())
        return text.get()

    def __repr__(self) -> str:
        return f"FeatureMaps({len(self)} layers of {self.model!r}, {len(self.pictures)} images)"

    def overview(self, image: int = 0, *, per_layer: int = 12, tile: int = 64) -> Image.Image:
        """The network's page: one row per layer from input to output.

        Each row holds the mean over all channels, then the ``per_layer`` channels that vary most.
        """
        from PIL import Image as PILImage

        from hookmap.render.figure import OverviewRow, overview_page

        rows = []
        for name, layer in self.items():
            s = layer.statistics()
            dead = f", {len(s.dead)} dead" if s.dead else ""
            lines = (
                f"{layer.kind}  {layer.shape.replace('x', ' x ')}",
                f"{s.minimum:.2g} to {s.maximum:.2g}, {s.sparsity:.0%} zeros{dead}",
            )
            mean = tiles(layer.reduce("mean")[image : image + 1].cpu().numpy(), tile=tile, colormap="gray")
            chosen = layer.select("variance", top=per_layer, image=image)
            maps = layer._still()[image][chosen].cpu().numpy()
            rows.append(OverviewRow(name, lines, [*mean, *tiles(maps, tile=tile)]))
        picture = self.pictures[image]
        subtitle = f"{picture.name}, {len(self)} layers from input to output; each tile on its own scale"
        return overview_page(PILImage.fromarray(picture.pixels), self.model, subtitle, rows, tile=tile)

    def save(
        self,
        folder: str | Path,
        *,
        image: int = 0,
        channels: Channels = "all",
        logdir: str | Path | SummaryWriter | None = None,
        progress: bool = True,
    ) -> list[Path]:
        """Write overview.png, photo.png, the overlays and one PNG of channels per layer into a folder.

        Args:
            folder: where to.
            image: which of the images.
            channels: of each layer, as in ``LayerMaps.select``.
            logdir: also write to TensorBoard, as :meth:`to_tensorboard` does, without drawing anything twice.
            progress: show a bar.

        Raises:
            HookmapError: if the folder can't be written, or one of the files would take a photo's place.
        """
        folder = Path(folder)
        if folder.is_file():
            raise HookmapError(f"{folder} is a file; feature maps are written as a folder of pictures")
        for layer in self.values():
            layer.select(channels, image=image)  # what can't be drawn leaves no half of a folder
        names = ("overview", "photo", *self._heatmap_names(), *self._layer_names())
        keep_inputs((picture.path for picture in self.pictures), [_place(folder, name) for name in names])
        overview = save_image(self.overview(image), _place(folder, "overview"))
        return [overview, *self._write(folder, image, channels, logdir, progress=progress)]

    def to_tensorboard(self, logdir: str | Path | SummaryWriter, step: int = 0, *, progress: bool = True) -> None:
        """Write one image per layer, the photos, the overlays and statistics, under tags that don't change.

        ``features/<layer>`` is the grid of all channels of the first image, each tile on its own
        scale; ``photo/<name>`` and ``heatmap/<name>/<method>`` stand beside them, and
        ``statistics/<layer>/sparsity`` and so on as scalars. A writer that is given stays open.

        Raises:
            HookmapError: if the folder can't be written.
        """
        self._write(None, 0, "all", logdir, step, progress=progress)

    def _write(
        self,
        folder: Path | None,
        image: int,
        channels: Channels,
        logdir: str | Path | SummaryWriter | None,
        step: int = 0,
        *,
        progress: bool,
    ) -> list[Path]:
        """Each picture is drawn and encoded once, and goes to the folder, to TensorBoard, or to both."""
        from PIL import Image as PILImage

        from hookmap.loggers.tensorboard import TensorBoard

        logger = None if logdir is None else TensorBoard(logdir)
        paths: list[Path] = []

        def write(picture: Image.Image, name: str | None, tag: str) -> None:
            encoded = as_png(picture)
            if folder is not None and name is not None:
                paths.append(write_bytes(_place(folder, name), lambda: encoded))
            if logger is not None:
                logger.encoded_image(tag, encoded, picture.size, step)

        try:
            with tracking(progress) as track:
                advance = track("layers", len(self))
                for number, picture in enumerate(self.pictures):
                    pixels = PILImage.fromarray(picture.pixels)
                    write(pixels, "photo" if number == image else None, f"photo/{picture.name}")
                for file, (title, overlay) in zip(self._heatmap_names(), self.overlays, strict=True):
                    write(overlay, file, f"heatmap/{title}")
                for file, (name, layer) in zip(self._layer_names(), self.items(), strict=True):
                    write(layer.grid(image, channels), file, f"features/{name}")
                    if logger is not None:
                        s = layer.statistics()
                        figures = {"mean": s.mean, "std": s.std, "sparsity": s.sparsity, "dead channels": len(s.dead)}
                        logger.scalars({f"statistics/{name}/{key}": value for key, value in figures.items()}, step)
                    advance(1)
        finally:
            if logger is not None:
                logger.close()
        return paths

    def _heatmap_names(self) -> list[str]:
        return [f"heatmap_{title}" for title, _ in self.overlays]

    def _layer_names(self) -> list[str]:
        return [f"{number:03d}_{name}" for number, name in enumerate(self)]

    def _repr_html_(self) -> str:
        title = f"{self.model}, {len(self)} layers" if len(self) else repr(self)
        return html_of(self.overview(), title, ", ".join(picture.name for picture in self.pictures))


def _place(folder: Path, name: str) -> Path:
    plain = re.sub(r"[^\w.-]+", "_", name)
    return folder / f"{plain}.png"
