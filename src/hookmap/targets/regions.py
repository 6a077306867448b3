"""Classes, values and places in one image's dense scores: the score of a class, averaged over a region."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hookmap.adapters.outputs import dense_scores
from hookmap.errors import TargetError
from hookmap.images.geometry import Geometry
from hookmap.targets.classes import PREDICTED, Binary, Class, Contrast, PerImage, Regression, name_of
from hookmap.targets.pinning import Pinned, averaging
from hookmap.targets.places import Box, Detection, Everywhere, Mask, Place, Point


@dataclass(frozen=True, eq=False)
class RegionScore(Pinned):
    """What is read of a class or a value, averaged over a region of a dense output: Seg-Grad-CAM's target.

    Vinogradova, Dibrov and Myers, *Towards Interpretable Semantic Segmentation via Gradient-weighted Class Activation
    Mapping*, AAAI 2020, arXiv:2002.11434, eq. 2 (there a sum: a factor that drawing takes out).

    Attributes:
        of: the class and how it is read: its logit, probability, ...; or the value.
        weights: of the cells, ``(h, w)``; they sum to one.
    """

    of: Class | Regression
    weights: Tensor

    def name(self, label: Callable[[int], str]) -> str:
        """The class, as it is read, or the value."""
        return str(self.of if isinstance(self.of, Regression) else replace(self.of, label=label(self.index)))

    def __call__(self, output: Any) -> Tensor:
        """Scores ``(K,)``."""
        dense = _dense(output)
        return self._mean(dense if isinstance(self.of, Regression) else self.of.scale(dense))

    def likelihood(self, output: Any) -> Tensor:
        """Mean probability of the class in the region, ``(K,)``, 0..1; of a value, the value."""
        dense = _dense(output).float()
        return self._mean(dense if isinstance(self.of, Regression) else self.of.probability(dense))

    def _mean(self, dense: Tensor) -> Tensor:
        return torch.einsum("bhw,hw->b", dense[:, self.index], self.weights.to(dense))

    def mirrored(self, width: int) -> RegionScore:
        """The region on the other side."""
        return replace(self, weights=self.weights.flip(-1))


def _dense(output: Any) -> Tensor:
    dense = dense_scores(output)
    assert dense is not None
    return dense


def about_values(goal: Any, label: Callable[[int], str]) -> Any:
    """The target for an output of values: what speaks of no class, or of one by number or name, means a value."""
    if isinstance(goal, Contrast):
        return replace(goal, this=about_values(goal.this, label), that=about_values(goal.that, label))
    if isinstance(goal, PerImage):
        return replace(goal, targets=[about_values(one, label) for one in goal.targets])
    if isinstance(goal, (Box, Point, Mask, Everywhere)):
        of: Any = about_values(Class(PREDICTED) if goal.of is None else goal.of, label)
        return replace(goal, of=of)
    if type(goal) is not Class:
        return goal
    index = goal.index if isinstance(goal.index, int) else 0
    name = goal.label or label(index)
    return Regression(index, None if name == f"class {index}" else name)


def pin_to_region(goal: Any, dense: Tensor, image: int, geometry: Geometry) -> Pinned | Contrast:
    """A class or a place as the score of a region of one image's dense output; a bare class's region is its own."""
    scores: Tensor = dense[image : image + 1].detach().float()
    if isinstance(goal, Contrast):
        this, that = pin_to_region(goal.this, dense, image, geometry), goal.that
        if isinstance(this, RegionScore) and isinstance(this.of, Regression) and isinstance(that, (Place, Regression)):
            return Contrast(this, pin_to_region(that, dense, image, geometry))
        if isinstance(this, RegionScore) and isinstance(that, Class) and isinstance(that.index, int):
            return Contrast(this, _scored(that, scores, this.weights))  # both are asked about the same region
        raise TargetError(f"{goal} can't be read from a segmenter; contrast two classes")
    if isinstance(goal, Detection):
        raise TargetError(f"{goal} is a detected object, and this model gives scores of places; pass a Box or a Point")
    if not isinstance(goal, Place):
        return _scored(goal, scores, None)
    of: Any = getattr(goal, "of", None) or Class(PREDICTED)
    if not isinstance(of, (Class, Regression)):
        raise TargetError(
            f"{name_of(of)!r} has no score at a place; pass of= a class, hm.Probability, hm.Regression, ..."
        )
    return _scored(of, scores, _cells(goal, scores, geometry), goal)


def _scored(of: Class | Regression, scores: Tensor, weights: Tensor | None, place: Any = None) -> RegionScore:
    """What is read in a region of the only image's scores ``(1, K, h, w)``; by default in its own."""
    if isinstance(of.index, int):
        index = of.index
    else:
        index = _most_common(scores[0]) if weights is None else _strongest(scores[0], weights)
    classes = scores.shape[1]
    if not -classes <= index < classes:
        what, several = ("value", "values") if isinstance(of, Regression) else ("class", "classes")
        raise TargetError(f"{what} {index} doesn't exist; the model's output has {classes} {several}")
    found: Class | Regression = replace(of, index=index % classes)
    asked = found if place is None else replace(place, of=found)
    weights = averaging(_own(found, index % classes, scores)) if weights is None else weights
    mean = RegionScore(asked, index % classes, None, str(place or ""), None, found, weights)
    return mean if isinstance(of, Regression) else replace(mean, probability=float(mean.likelihood(scores)))


def _own(of: Class | Regression, index: int, scores: Tensor) -> Tensor:
    """The region of a class: where it scores highest, or where a yes or no says yes; of a value, and if empty, all."""
    own = torch.ones_like(scores[0, 0], dtype=torch.bool)
    if isinstance(of, Binary):
        own = of.scale(scores)[0, index] > 0
    elif isinstance(of, Class):
        own = scores[0].argmax(0) == index if scores.shape[1] > 1 else scores[0, 0] > 0
    return own if own.any() else torch.ones_like(own)


def _cells(place: Place, scores: Tensor, geometry: Geometry) -> Tensor:
    """A place on the grid of a dense output ``(1, K, h, w)``, as weights ``(h, w)`` that sum to one."""
    place.check(geometry.original)
    h, w = scores.shape[2:]
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    scale = torch.tensor([geometry.input[1] / w, geometry.input[0] / h])
    points = geometry.to_original(torch.stack([x, y], -1) * scale)
    covered = place.covers(points)
    if not covered.any():
        # Smaller than a cell: the cell that holds its centre.
        at = (geometry.to_input(torch.tensor(place.centre)) / scale).floor().long()
        if not (0 <= at[0] < w and 0 <= at[1] < h):
            raise TargetError(f"{place} lies outside of what the model sees of the picture")
        covered[at[1], at[0]] = True
    return averaging(covered).to(scores.device)


def _strongest(scores: Tensor, weights: Tensor) -> int:
    return int(torch.einsum("khw,hw->k", scores, weights).argmax())


def _most_common(scores: Tensor) -> int:
    """The class of most cells; the background, class 0 of most segmenters, only if there is nothing else."""
    if len(scores) == 1:
        return 0
    counts = scores.argmax(0).flatten().bincount(minlength=len(scores))
    return int(counts[1:].argmax()) + 1 if counts[1:].any() else 0
