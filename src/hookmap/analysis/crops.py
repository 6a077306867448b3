"""The parts of pictures that lie under the strongest heat, and descriptors of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from hookmap._optional import require
from hookmap.errors import HookmapError, ModelError
from hookmap.images.loading import load
from hookmap.runs.rows import flattened, geometry_of

if TYPE_CHECKING:
    from PIL import Image

    from hookmap.analysis.drawing import Array
    from hookmap.lens import Lens
    from hookmap.runs.results import Run

SHARE = 0.35
"""A crop is a square with this share of the picture's shorter side."""
_SIDE, _BINS = 48, 4
_LARGE, _BATCH = 224, 32


def attended_crops(run: Run, rows: Sequence[int], *, share: float = SHARE) -> list[Image.Image]:
    """Of each heatmap the square of its picture that holds most of the heat.

    It is cut from the original where its file is still there, else from the thumbnail.

    Args:
        run: what was run.
        rows: numbers of rows of the run's table.
        share: of the picture's shorter side that a crop is wide and high.

    Returns:
        RGB pictures; a black one where the run kept no thumbnail and the file is gone.
    """
    table = run.table
    crops = []
    for row, values in zip(rows, run.values(rows), strict=True):
        about = table.loc[row]
        height, width = int(about["height"]), int(about["width"])
        scale = 96 / max(height, width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        flat = torch.from_numpy(flattened(values).clip(0))
        heat = geometry_of(about).displayed(size).lay_back(flat).double().numpy()
        top, left, side = _fullest(heat, max(1, round(share * min(size))))
        box = (left / size[1], top / size[0], (left + side) / size[1], (top + side) / size[0])
        crops.append(cropped(run, about["id"], about["path"], box))
    return crops


def cropped(run: Run, image: str, path: str | None, box: tuple[float, float, float, float]) -> Image.Image:
    """A part of a picture, from its file if it is still there, else from the thumbnail; RGB.

    Args:
        run: that the picture belongs to.
        image: its id.
        path: of its file, if it had one.
        box: (left, top, right, bottom) as shares of its width and height; moved inside the picture.
    """
    from PIL import Image as PILImage

    picture = _original(path) or run.thumbnail(image)
    if picture is None:
        return PILImage.new("RGB", (_SIDE, _SIDE))
    wide, high = (max(1.0, (box[i + 2] - box[i]) * picture.size[i]) for i in (0, 1))
    wide, high = min(wide, picture.width), min(high, picture.height)
    left = min(max((box[0] + box[2]) / 2 * picture.width - wide / 2, 0), picture.width - wide)
    top = min(max((box[1] + box[3]) / 2 * picture.height - high / 2, 0), picture.height - high)
    whole = round(left), round(top), max(round(left) + 1, round(left + wide)), max(round(top) + 1, round(top + high))
    return picture.convert("RGB").crop(whole)


def described(crops: Sequence[Image.Image], lens: Lens | None = None) -> Array:
    """A vector for each crop, ``(N, D)``, float64: what a network makes of it, or its edges and colours.

    Args:
        crops: of any size.
        lens: whose default layer's activation is averaged over its places, scaled to length 1; without, histograms of
            oriented gradients (Dalal and Triggs 2005) and of colours in Lab, each scaled to length 1.

    Raises:
        DataError: if scikit-image isn't there.
        ModelError: if the lens doesn't know how pictures are preprocessed.
    """
    if lens is not None:
        return _embedded(crops, lens)
    require("skimage", extra="dataset")
    return np.stack([np.concatenate([_unit(_edges(crop)), _unit(_colours(crop))]) for crop in crops])


def _fullest(heat: Array, side: int) -> tuple[int, int, int]:
    """(top, left, side) of the square with the largest sum."""
    sums = np.pad(heat.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left), side


def _original(path: str | None) -> Image.Image | None:
    from PIL import Image as PILImage

    if not isinstance(path, str) or not os.path.exists(path):
        return None
    try:
        return PILImage.fromarray(load(path).pixels)
    except HookmapError:
        return None


def _embedded(crops: Sequence[Image.Image], lens: Lens) -> Array:
    if lens.preprocessing is None:
        raise ModelError("this lens doesn't know how pictures are preprocessed; pass preprocessing= to Lens")
    layer = lens.default_layer()
    found = []
    for start in range(0, len(crops), _BATCH):
        # Crops of one size, so that they share a batch whatever the preprocessing does with sizes.
        some = [crop.resize((_LARGE, _LARGE)) for crop in crops[start : start + _BATCH]]
        maps = next(iter(lens.features(some, layers=[layer], batch_size=_BATCH).values())).maps
        found.append(maps.flatten(2).mean(2).double().cpu().numpy())
    vectors = np.concatenate(found)
    return np.stack([_unit(vector) for vector in vectors])


def _edges(crop: Image.Image) -> Array:
    from skimage.feature import hog

    grey = np.asarray(crop.convert("L").resize((_SIDE, _SIDE)), np.float64) / 255
    edges: Array = hog(grey, orientations=8, pixels_per_cell=(16, 16), cells_per_block=(1, 1))
    return edges


def _colours(crop: Image.Image) -> Array:
    from skimage.color import rgb2lab

    lab = rgb2lab(np.asarray(crop.resize((_SIDE, _SIDE)))).reshape(-1, 3)
    bounds = [(0, 100), (-60, 60), (-60, 60)]
    inside = np.stack([values.clip(*ends) for values, ends in zip(lab.T, bounds, strict=True)], 1)
    # The root keeps one flat colour from outweighing all else (Hellinger).
    return np.sqrt(np.histogramdd(inside, [_BINS] * 3, bounds)[0].ravel() / len(lab))


def _unit(vector: Array) -> Array:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector
