"""Hooks in, maps out: feature maps of any layer and heatmaps of any decision of a PyTorch vision model.

>>> import hookmap as hm
>>> lens = hm.Lens("efficientnet_lite0")
>>> heatmap = lens.explain("examples/photos/cat.jpg")[0]
>>> heatmap.target, tuple(heatmap.raw.shape), tuple(heatmap.map.shape)
('tiger cat', (7, 7), (300, 451))
"""

from hookmap.capture import capture
from hookmap.concepts import Concepts
from hookmap.errors import (
    DisconnectedError,
    HookmapError,
    HookmapWarning,
    ImageError,
    LayerError,
    ModelError,
    TargetError,
)
from hookmap.features import FeatureMaps
from hookmap.geometry import Geometry
from hookmap.heatmap import Explanation, Heatmap
from hookmap.images import Picture
from hookmap.layouts import Layout
from hookmap.lens import Lens, Prediction
from hookmap.methods import method
from hookmap.models.adapter import Adapter
from hookmap.outputs import Detections, Kept, keep_best
from hookmap.preprocessing import Preprocessing
from hookmap.targets import Box, Class, Contrast, Detection, Everywhere, Mask, Point, Probability, ReST

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "Box",
    "Class",
    "Concepts",
    "Contrast",
    "Detection",
    "Detections",
    "DisconnectedError",
    "Everywhere",
    "Explanation",
    "FeatureMaps",
    "Geometry",
    "Heatmap",
    "HookmapError",
    "HookmapWarning",
    "ImageError",
    "Kept",
    "LayerError",
    "Layout",
    "Lens",
    "Mask",
    "ModelError",
    "Picture",
    "Point",
    "Prediction",
    "Preprocessing",
    "Probability",
    "ReST",
    "TargetError",
    "capture",
    "keep_best",
    "method",
]
