"""What is being explained: one scalar per image, read from the model's output."""

from hookmap.targets.asking import resolve
from hookmap.targets.classes import (
    PREDICTED,
    Class,
    Contrast,
    Goal,
    Probability,
    ReST,
    Target,
    TargetSpec,
    find_class,
    name_of,
)
from hookmap.targets.places import Box, Detection, Everywhere, Mask, Place, Point

__all__ = [
    "PREDICTED",
    "Box",
    "Class",
    "Contrast",
    "Detection",
    "Everywhere",
    "Goal",
    "Mask",
    "Place",
    "Point",
    "Probability",
    "ReST",
    "Target",
    "TargetSpec",
    "find_class",
    "name_of",
    "resolve",
]
