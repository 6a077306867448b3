"""Hooks in, maps out: feature maps of any layer and heatmaps of any decision of a PyTorch vision model.

>>> import hookmap as hm
>>> lens = hm.Lens("efficientnet_lite0")
>>> heatmap = lens.explain("examples/photos/cat.jpg")[0]
>>> heatmap.target, tuple(heatmap.raw.shape), tuple(heatmap.map.shape)
('tiger cat', (7, 7), (300, 451))
"""

from hookmap.adapter import Adapter
from hookmap.capture import capture
from hookmap.concepts import Concepts
from hookmap.dataset import Run, open_run, run
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
from hookmap.features import FeatureMaps
from hookmap.geometry import Geometry
from hookmap.heatmap import Explanation, Heatmap
from hookmap.images import Picture
from hookmap.layouts import Layout
from hookmap.lens import Lens
from hookmap.loggers.mlflow import MLflow
from hookmap.loggers.tensorboard import TensorBoard
from hookmap.loggers.wandb import WandB
from hookmap.methods import method
from hookmap.models.embedding import Embedder
from hookmap.models.image_text import ImageText
from hookmap.outputs import Detections, Embeddings, Kept, Values, keep_best
from hookmap.predictions import Prediction
from hookmap.preprocessing import Preprocessing
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
