"""Heatmaps in numbers: pure functions, most of a scorer, an image and maps.

Those that may vote on which map is right are :func:`srg` and :func:`road`; the others are shown, and their docstrings
say what wins them without being right. :class:`Metric` takes any of them over many images.
"""

from __future__ import annotations

from hookmap.metrics.faithfulness import (
    adcc,
    average_drop,
    complexity,
    gain,
    increase,
    infidelity,
    max_sensitivity,
    sparseness,
)
from hookmap.metrics.fills import FILLS
from hookmap.metrics.localization import energy, grid_pointing, in_boxes, iou, pointing
from hookmap.metrics.metric import Metric
from hookmap.metrics.removal import Curves, deletion, insertion, removal, road, srg
from hookmap.metrics.sanity import class_sensitivity, emprt, smprt, stability

__all__ = [
    "FILLS",
    "Curves",
    "Metric",
    "adcc",
    "average_drop",
    "class_sensitivity",
    "complexity",
    "deletion",
    "emprt",
    "energy",
    "gain",
    "grid_pointing",
    "in_boxes",
    "increase",
    "infidelity",
    "insertion",
    "iou",
    "max_sensitivity",
    "pointing",
    "removal",
    "road",
    "smprt",
    "sparseness",
    "srg",
    "stability",
]
