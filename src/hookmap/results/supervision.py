"""What was found in a picture as Roboflow's supervision holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hookmap._optional import require
from hookmap.errors import HookmapError

if TYPE_CHECKING:
    from hookmap.results.heatmap import Heatmap
    from hookmap.results.predictions import Prediction


def to_supervision(found: Sequence[Prediction | Heatmap]) -> Any:
    """Detections of one picture as a ``supervision.Detections``: boxes, classes, confidence, and ``class_name``.

    Args:
        found: a picture's part of what :meth:`hookmap.Lens.predict` gives, or heatmaps of detections; of several
            heatmaps of one box the first.

    Returns:
        A ``supervision.Detections``, in the same order; an empty one if nothing was detected.

    Raises:
        HookmapError: for what has no box: predicted classes and regions.
        MissingLibraryError: without supervision: ``pip install 'hookmap[supervision]'``.

    >>> import hookmap as hm
    >>> cup = hm.Prediction(index=47, label="cup", score=2.0, probability=0.88, box=(10.0, 20.0, 110.0, 90.0))
    >>> hm.to_supervision([cup]).xyxy.tolist()
    [[10.0, 20.0, 110.0, 90.0]]
    """
    require("supervision", extra="supervision")
    import supervision

    rows: dict[tuple[Any, ...], tuple[int, str, float]] = {}
    for one in found:
        name = one.label if hasattr(one, "label") else one.target
        if one.box is None:
            raise HookmapError(f"{name!r} has no box, so it is no detection; pass what a detector found")
        sure = one.score if one.probability is None else one.probability
        rows.setdefault((*one.box, one.index), (-1 if one.index is None else one.index, name, sure))
    if not rows:
        return supervision.Detections.empty()
    numbers, names, sure = zip(*rows.values(), strict=True)
    return supervision.Detections(
        xyxy=np.array([key[:4] for key in rows], np.float32),
        class_id=np.array(numbers, int),
        confidence=np.array(sure, np.float32),
        data={"class_name": np.array(names)},
    )
