"""What the channels of one layer did over many images, in parts that can be put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from hookmap.errors import LayerError

ImageId: TypeAlias = "str | int"
Ids: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Figures of the C channels of one layer over any number of images, whose memory doesn't grow with them.

    Parts of a data set are merged to exactly what the whole gives (the moments up to rounding in float64), in
    whatever order. Everything is on the CPU.

    Attributes:
        count: values per channel: images times places.
        images: how many there were.
        mean: ``(C,)``, float64.
        deviations: ``(C,)``, float64: the sum of the squared deviations from the mean.
        inactive: ``(C,)``, int64: how many values are 0 or below.
        least: ``(C,)``, float64.
        most: ``(C,)``, float64.
        strongest: ``(C, k)``, float64: the largest value of each of the k images that excite the channel most,
            descending; ``-inf`` where there were fewer images.
        strongest_sums: ``(C, k)``, float64: the sum over that value's cell and its neighbours. Of values that are
            equally large, as where an activation clips, the one with the larger surroundings is the stronger.
        strongest_images: ``(C, k)``, the names or numbers of these images; None where there were fewer.
        ties: ``(C,)``, int64: how many images reach the largest value.
        strongest_places: ``(C, k, axes)``, float64: the centre of the cell with that value, as fractions 0..1 of the
            grid, in the grid's order (y, x); NaN where there were fewer.

    A channel with a NaN has NaN for its moments and range; the strongest images are ranked by their other values.
    """

    count: int
    images: int
    mean: Tensor
    deviations: Tensor
    inactive: Tensor
    least: Tensor
    most: Tensor
    ties: Tensor
    strongest: Tensor
    strongest_sums: Tensor
    strongest_images: Ids
    strongest_places: Tensor

    @classmethod
    def of(cls, activation: Tensor, ids: Sequence[ImageId], k: int = 9) -> ChannelStatistics:
        """Figures of a batch.

        Args:
            activation: ``(B, C, *grid)``, or ``(B, C)`` for vectors.
            ids: name or number of each of the B images; equally strong images are ranked by it.
            k: how many images are kept per channel.

        Raises:
            LayerError: for an activation without channels or images, or with another number of ids.
        """
        if activation.ndim < 2 or not activation.numel() or len(ids) != len(activation) or k < 0:
            raise LayerError(
                f"an activation of shape {tuple(activation.shape)} came with {len(ids)} ids and k={k}; expected "
                "(B, C, *grid) with at least one value, B ids and k of 0 or more"
            )
        activation = activation.detach()
        values = (activation.cpu() if activation.device.type == "mps" else activation).double()
        images, channels, *grid = values.shape
        values = values.reshape(images, channels, -1).transpose(0, 1)  # (C, B, places)
        mean = values.mean((1, 2))
        # A channel that is the same everywhere deviates by nothing, whatever the rounding of its mean.
        least, most = values.amin((1, 2)), values.amax((1, 2))
        mean = torch.where(least == most, least, mean)
        known = values.masked_fill(values.isnan(), -torch.inf)
        peaks = known.amax(2)
        sums = _with_neighbours(known.reshape(channels, images, *grid)).reshape(known.shape)
        around = torch.where(known == peaks[..., None], sums, -torch.inf)
        best = around.amax(2)
        # Of several places that are equally strong the first: `argmax` doesn't promise that.
        numbers = torch.arange(values.shape[2], device=values.device)
        cells = torch.where(around == best[..., None], numbers, len(numbers)).amin(2).cpu().numpy()
        places = np.zeros((*cells.shape, len(grid)))
        for axis in reversed(range(len(grid))):
            places[..., axis] = (cells % grid[axis] + 0.5) / grid[axis]
            cells //= grid[axis]
        names = np.empty((channels, images), object)
        names[:] = list(ids)
        return cls(
            count=values.shape[1] * values.shape[2],
            images=images,
            mean=mean.cpu(),
            deviations=(values - mean[:, None, None]).square().sum((1, 2)).cpu(),
            inactive=(values <= 0).sum((1, 2)).cpu(),
            least=least.cpu(),
            most=most.cpu(),
            ties=(peaks == most[:, None]).sum(1).cpu(),
            **_strongest(peaks.cpu().numpy(), best.cpu().numpy(), names, places, k),
        )

    def merged(self, other: ChannelStatistics) -> ChannelStatistics:
        """The figures of both together (Chan, Golub and LeVeque 1979, "Updating Formulae"); of many, with ``reduce``.

        With counts m and n, means a and b: the mean is (m a + n b) / (m + n), the squared deviations are
        those of both and (a - b)^2 m n / (m + n).

        Raises:
            LayerError: if they are of layers with other channels or axes, or keep another number of images.
        """
        if self.strongest_places.shape != other.strongest_places.shape:
            shapes = [" x ".join(map(str, one.strongest_places.shape)) for one in (self, other)]
            raise LayerError(
                f"statistics of channels x strongest images x axes {shapes[0]} and {shapes[1]} can't be merged; both "
                "must be of one layer with the same k"
            )
        count = self.count + other.count
        mean = self.mean * (self.count / count) + other.mean * (other.count / count)
        least, most = torch.minimum(self.least, other.least), torch.maximum(self.most, other.most)
        apart = (self.mean - other.mean).square() * (self.count * other.count / count)
        return ChannelStatistics(
            count=count,
            images=self.images + other.images,
            mean=torch.where(least == most, least, mean),
            deviations=self.deviations + other.deviations + apart,
            inactive=self.inactive + other.inactive,
            least=least,
            most=most,
            ties=self.ties * (self.most == most) + other.ties * (other.most == most),
            **_strongest(
                np.concatenate([self.strongest.numpy(), other.strongest.numpy()], 1),
                np.concatenate([self.strongest_sums.numpy(), other.strongest_sums.numpy()], 1),
                np.concatenate([self.strongest_images, other.strongest_images], 1),
                np.concatenate([self.strongest_places.numpy(), other.strongest_places.numpy()], 1),
                self.strongest.shape[1],
            ),
        )

    @property
    def variance(self) -> Tensor:
        """``(C,)``, float64: the mean squared deviation from the mean."""
        return self.deviations / self.count

    @property
    def sparsity(self) -> Tensor:
        """``(C,)``, float64: the share of values that are 0 or below, 0..1."""
        return self.inactive.double() / self.count

    @property
    def dead(self) -> Tensor:
        """``(C,)``, bool: whether the channel had the same value everywhere on all images."""
        return self.least == self.most


def _with_neighbours(grids: Tensor) -> Tensor:
    """Each cell of ``(C, B, *grid)`` and the cells beside it along all axes, summed; what isn't finite counts as 0."""
    total = grids.nan_to_num(0, 0, 0)
    for axis in range(2, grids.ndim):
        padded = pad(total.movedim(axis, -1), (1, 1))
        total = (padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]).movedim(-1, axis)
    return total


def _strongest(values: Ids, sums: Ids, names: Ids, places: Ids, k: int) -> dict[str, Any]:
    """The k largest of each row ``(C, n)``; among equals by their surroundings, then by name and by place."""
    # Numbers before names, and what is missing last.
    order = sorted(set(names.flat), key=lambda name: (name is None, isinstance(name, str), name))
    rank = {name: i for i, name in enumerate(order)}
    ranks = np.array([rank[name] for name in names.flat]).reshape(names.shape)
    # The last key counts first.
    keys = (*np.moveaxis(places, -1, 0)[::-1], ranks, -sums, -values)
    best = np.lexsort(keys, axis=-1)[:, :k]
    channels, count = best.shape
    strongest = torch.full((channels, k), -torch.inf, dtype=torch.float64)
    surroundings = torch.full((channels, k), -torch.inf, dtype=torch.float64)
    images = np.full((channels, k), None, object)
    where = torch.full((channels, k, places.shape[-1]), torch.nan, dtype=torch.float64)
    strongest[:, :count] = torch.from_numpy(np.take_along_axis(values, best, 1))
    surroundings[:, :count] = torch.from_numpy(np.take_along_axis(sums, best, 1))
    images[:, :count] = np.take_along_axis(names, best, 1)
    where[:, :count] = torch.from_numpy(np.take_along_axis(places, best[..., None], 1))
    ranked = {"strongest": strongest, "strongest_sums": surroundings}
    return {**ranked, "strongest_images": images, "strongest_places": where}
