"""What is being explained: one scalar per image, read from the model's output."""

from hookmap.targets.asking import are_detections, boxes_of, resolve
from hookmap.targets.classes import (
    PREDICTED,
    Binary,
    Class,
    Contrast,
    Goal,
    PerImage,
    Probability,
    Regression,
    ReST,
    Target,
    TargetSpec,
    name_of,
)
from hookmap.targets.likeness import Likeness, Similarity, Text, with_references
from hookmap.targets.naming import find_class
from hookmap.targets.places import Box, Detection, Everywhere, Mask, Place, Point, Polygon, Proposal
from hookmap.targets.prompts import Prompt
from hookmap.targets.resolving import PlainOutput, Resolved
from hookmap.targets.words import Word

__all__ = [
    "PREDICTED",
    "Binary",
    "Box",
    "Class",
    "Contrast",
    "Detection",
    "Everywhere",
    "Goal",
    "Likeness",
    "Mask",
    "PerImage",
    "Place",
    "PlainOutput",
    "Point",
    "Polygon",
    "Probability",
    "Prompt",
    "Proposal",
    "ReST",
    "Regression",
    "Resolved",
    "Similarity",
    "Target",
    "TargetSpec",
    "Text",
    "Word",
    "are_detections",
    "boxes_of",
    "find_class",
    "name_of",
    "resolve",
    "with_references",
]
