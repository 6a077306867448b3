"""Hooks in, maps out: feature maps of any layer and heatmaps of any decision of a PyTorch vision model.

>>> import hookmap as hm
>>> lens = hm.Lens("efficientnet_lite0")
>>> heatmap = lens.explain("examples/photos/cat.jpg")[0]
>>> heatmap.target, tuple(heatmap.raw.shape), tuple(heatmap.map.shape)
('tiger cat', (7, 7), (300, 451))
"""

import importlib
from typing import TYPE_CHECKING, Any

from hookmap.errors import (
    DataError,
    DisconnectedError,
    HookmapError,
    HookmapWarning,
    ImageError,
    LayerError,
    ModelError,
    TargetError,
)
from hookmap.lens import Lens
from hookmap.looking.adapter import Adapter
from hookmap.looking.capture import capture
from hookmap.looking.layouts import Layout
from hookmap.looking.outputs import Detections, Embeddings, Kept, Values, keep_best
from hookmap.methods import method
from hookmap.models.embedding import Embedder
from hookmap.models.image_text import ImageText
from hookmap.pictures.geometry import Geometry
from hookmap.pictures.images import Picture
from hookmap.pictures.preprocessing import Preprocessing
from hookmap.results.concepts import Concepts
from hookmap.results.features import FeatureMaps
from hookmap.results.heatmap import Explanation, Heatmap
from hookmap.results.predictions import Prediction
from hookmap.targets import (
    Binary,
    Box,
    Class,
    Contrast,
    Detection,
    Everywhere,
    Likeness,
    Mask,
    PerImage,
    Point,
    Probability,
    Regression,
    ReST,
    Similarity,
    Text,
)

if TYPE_CHECKING:
    from hookmap.dataset import Run, open_run, run
    from hookmap.loggers.mlflow import MLflow
    from hookmap.loggers.tensorboard import TensorBoard
    from hookmap.loggers.wandb import WandB
    from hookmap.training import Probe

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "Binary",
    "Box",
    "Class",
    "Concepts",
    "Contrast",
    "DataError",
    "Detection",
    "Detections",
    "DisconnectedError",
    "Embedder",
    "Embeddings",
    "Everywhere",
    "Explanation",
    "FeatureMaps",
    "Geometry",
    "Heatmap",
    "HookmapError",
    "HookmapWarning",
    "ImageError",
    "ImageText",
    "Kept",
    "LayerError",
    "Layout",
    "Lens",
    "Likeness",
    "MLflow",
    "Mask",
    "ModelError",
    "PerImage",
    "Picture",
    "Point",
    "Prediction",
    "Preprocessing",
    "Probability",
    "Probe",
    "ReST",
    "Regression",
    "Run",
    "Similarity",
    "TargetError",
    "TensorBoard",
    "Text",
    "Values",
    "WandB",
    "capture",
    "keep_best",
    "method",
    "open_run",
    "run",
]

# Whole data sets and training are imported when they are asked for.
_LATER = {
    "MLflow": "loggers.mlflow",
    "Probe": "training",
    "Run": "dataset",
    "TensorBoard": "loggers.tensorboard",
    "WandB": "loggers.wandb",
    "open_run": "dataset",
    "run": "dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'hookmap' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"hookmap.{_LATER[name]}"), name)
    globals()[name] = found
    return found
