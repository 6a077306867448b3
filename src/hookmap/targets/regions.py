"""Classes, values and places in one image's dense scores: the score of a class, averaged over a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hookmap.adapters.outputs import Reading, Scores
from hookmap.errors import TargetError
from hookmap.targets.classes import PREDICTED, Binary, Class, Contrast, Probability, Regression, existing, name_of
from hookmap.targets.places import Detection, Place, Point, Proposal
from hookmap.targets.resolving import PlainOutput, Resolved, against, averaging


@dataclass(frozen=True, eq=False, kw_only=True)
class RegionScore(Resolved):
    """What is read of a class or a value, averaged over a region of a dense output: Seg-Grad-CAM's target.

    Vinogradova, Dibrov and Myers, *Towards Interpretable Semantic Segmentation via Gradient-weighted Class Activation
    Mapping*, AAAI 2020, arXiv:2002.11434, eq. 2 (there a sum: a factor that drawing takes out).

    Attributes:
        of: the class and how it is read: its logit, probability, ...; or the value.
        weights: of the cells, ``(h, w)``, of a volume ``(d, h, w)``; they sum to one.
        reading: of the output.
    """

    index: int
    of: Class | Regression
    weights: Tensor
    reading: Reading

    kind = "a region"

    def score(self, output: Any) -> Tensor:
        """Scores ``(K,)``."""
        scores = self._dense(output)
        if isinstance(self.of, Regression) or type(self.of) is Class:
            return self._mean(scores.values)
        if isinstance(self.of, Probability):
            return self._mean(self._probabilities(scores))
        return self._mean(self.of.scale(self.of.logits(scores)))

    def likelihood(self, output: Any) -> Tensor:
        """Mean probability of the class in the region, ``(K,)``, 0..1; of a value, the value."""
        scores = self._dense(output).in_full()
        return self._mean(scores.values if isinstance(self.of, Regression) else self._probabilities(scores))

    def _probabilities(self, scores: Scores) -> Tensor:
        assert isinstance(self.of, Class)
        if scores.squashed and not isinstance(self.of, Binary):
            return scores.probabilities
        return self.of.probability(self.of.logits(scores))

    def _dense(self, output: Any) -> Scores:
        scores = self.reading.dense(output)
        assert scores is not None
        return scores

    def _mean(self, dense: Tensor) -> Tensor:
        return dense[:, self.index].flatten(1) @ self.weights.to(dense).flatten()

    def mirrored(self, width: int) -> RegionScore:
        """The region on the other side."""
        return replace(self, weights=self.weights.flip(-1))


class DenseOutput(PlainOutput):
    """Scores of classes at places, ``(B, K, *grid)``."""

    def of_class(self, target: Any, image: int) -> Sequence[Resolved]:
        """The class in its own region: where it scores highest."""
        return [self._read(target, image)]

    def of_value(self, target: Regression, image: int) -> Sequence[Resolved]:
        """The value, on average over all places."""
        return [self._read(target, image)]

    def of_place(self, target: Any, image: int) -> Sequence[Resolved]:
        """A class, by default the strongest, or a value in the cells that a place covers."""
        if isinstance(target, (Detection, Proposal)):
            raise TargetError(
                f"{target} is a detected object, and this model gives scores of places; pass a Box or a Point"
            )
        of: Any = getattr(target, "of", None) or Class(PREDICTED)
        if not isinstance(of, (Class, Regression)):
            raise TargetError(
                f"{name_of(of)!r} has no score at a place; pass of= a class, hm.Probability, hm.Regression, ..."
            )
        return [self._read(of, image, self._cells(target, image), target)]

    def of_contrast(self, target: Contrast, image: int) -> Sequence[Resolved]:
        """Two classes in the same region, or two values."""
        this, that = self.the_one(target.this, image), target.that
        if isinstance(this, RegionScore):
            if isinstance(this.of, Regression) and isinstance(that, (Place, Regression)):
                return [against(target, this, self.the_one(that, image))]
            if isinstance(that, Class) and isinstance(that.index, int):
                return [against(target, this, self._read(that, image, this.weights))]
        raise TargetError(f"{target} can't be read from a segmenter; contrast two classes")

    def _scores(self, image: int) -> Scores:
        """Of one image, ``(1, K, *grid)``."""
        scores = self.reading.dense(self.output)
        assert scores is not None
        return replace(scores, values=scores.values[image : image + 1].detach()).in_full()

    def _read(
        self, of: Class | Regression, image: int, weights: Tensor | None = None, place: Place | None = None
    ) -> RegionScore:
        """What is read of a class or value in a region, by default its own."""
        scores = self._scores(image)
        logits, what = scores.logits, "value" if isinstance(of, Regression) else "class"
        if isinstance(of.index, int):
            index = existing(of.index, logits.shape[1], what)
        else:
            index = int(most_common(logits)[0]) if weights is None else _strongest(logits[0], weights)
        of = replace(of, index=index)
        region = RegionScore(
            asked=of if place is None else replace(place, of=of),  # type: ignore[call-arg]
            name=str(of if isinstance(of, Regression) else replace(of, label=self.label(index))),
            index=index,
            where=str(place or ""),
            of=of,
            weights=own_region(of, logits.new_tensor([index]).long(), scores)[0] if weights is None else weights,
            reading=self.reading,
        )
        if isinstance(of, Regression):
            return region
        return replace(region, probability=float(region._mean(region._probabilities(scores))))

    def _cells(self, place: Any, image: int) -> Tensor:
        """A place on the grid of the output, as weights that sum to one; of a volume, in all of its slices."""
        geometry = self.geometries[image]
        place.check(geometry.original)
        grid = self._scores(image).values.shape[2:]
        h, w = grid[-2:]
        y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        scale = torch.tensor([geometry.input[1] / w, geometry.input[0] / h])
        covered = place.covers(geometry.to_original(torch.stack([x, y], -1) * scale))
        if not covered.any():
            # Smaller than a cell: the cell that holds its centre.
            at = (geometry.to_input(torch.tensor(place.centre)) / scale).floor().long()
            if not (0 <= at[0] < w and 0 <= at[1] < h):
                raise TargetError(f"{place} lies outside of what the model sees of the picture")
            covered[at[1], at[0]] = True
        if len(grid) == 3:
            slices = torch.ones(grid[0], dtype=torch.bool)
            if isinstance(place, Point) and place.z is not None:
                slices = torch.arange(grid[0]) == self._slice(place, grid[0])
            covered = slices[:, None, None] & covered
        elif getattr(place, "z", None) is not None:
            raise TargetError(f"{place} names a slice, and this model's output has none; leave out z")
        return averaging(covered).to(self.reading.raw(self.output).device)

    def _slice(self, point: Point, count: int) -> int:
        """The output's slice that holds a point of the input."""
        depth = self.size[0] if len(self.size) == 3 else count
        assert point.z is not None
        if not 0 <= point.z < depth:
            raise TargetError(f"{point} lies outside of the {depth} slices that the model sees")
        return int((point.z + 0.5) * count / depth)


class ValuesOutput(DenseOutput):
    """Values at places: depth, height, flow. What speaks of no class, or of one by number or name, means a value."""

    def of_class(self, target: Any, image: int) -> Sequence[Resolved]:
        """The value of that number, on average over all places."""
        return super().of_class(self._value(target), image)

    def of_place(self, target: Any, image: int) -> Sequence[Resolved]:
        """A value, by default the first, at a place."""
        if not isinstance(target, Detection):
            of = getattr(target, "of", None)
            target = replace(target, of=self._value(Class(PREDICTED) if of is None else of))
        return super().of_place(target, image)

    def of_contrast(self, target: Contrast, image: int) -> Sequence[Resolved]:
        """One value rather than another."""
        return super().of_contrast(replace(target, this=self._value(target.this), that=self._value(target.that)), image)

    def _value(self, target: Any) -> Any:
        if type(target) is not Class:
            return target
        index = target.index if isinstance(target.index, int) else 0
        name = target.label or self.label(index)
        return Regression(index, None if name == f"class {index}" else name)


def own_region(of: Class | Regression, index: Tensor, scores: Scores) -> Tensor:
    """The region of a class: where it scores highest, or where a yes or no says yes; of a value, and if empty, all.

    Args:
        of: what is read of the class.
        index: of each image's class, ``(B,)``.
        scores: ``(B, K, *grid)``.

    Returns:
        Weights of the places that sum to one, ``(B, *grid)``.
    """
    logits = scores.logits
    own = torch.ones_like(logits[:, 0], dtype=torch.bool)
    if isinstance(of, Binary):
        own = channel(of.scale(of.logits(scores)), index) > 0
    elif isinstance(of, Class) and logits.shape[1] > 1:
        own = logits.argmax(1) == per_place(index, own)
    elif isinstance(of, Class):
        own = logits[:, 0] > 0
    own = own | ~per_place(own.flatten(1).any(1), own)
    return own.float() / per_place(own.flatten(1).float().sum(1), own)


def channel(dense: Tensor, index: Tensor) -> Tensor:
    """Of dense values ``(B, K, *grid)`` each image's own of the K, ``(B, *grid)``."""
    # Not gathered: the gradient of that adds up in places, which few runtimes can do in half precision.
    mine = index[:, None] == torch.arange(dense.shape[1], device=dense.device)
    return torch.where(mine.reshape(*mine.shape, *[1] * (dense.ndim - 2)), dense, 0).sum(1)


def per_place(values: Tensor, like: Tensor) -> Tensor:
    """One value per image ``(B,)``, with axes of 1 for the places."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _strongest(scores: Tensor, weights: Tensor) -> int:
    return int((scores.flatten(1) @ weights.to(scores).flatten()).argmax())


def most_common(scores: Tensor) -> Tensor:
    """The class of most cells of each image, ``(B,)``, from scores ``(B, K, *grid)``.

    The background, class 0 of most segmenters, only if there is nothing else.
    """
    best, classes = scores.argmax(1).flatten(1), scores.shape[1]
    if classes == 1:
        return best[:, 0]
    counts = best.new_zeros(scores.shape[0], classes).scatter_add(1, best, torch.ones_like(best))[:, 1:]
    return torch.where(counts.amax(1) > 0, counts.argmax(1) + 1, 0)
