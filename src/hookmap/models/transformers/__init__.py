"""Models of Hugging Face transformers that see: by name or folder, with their labels and their preprocessing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hookmap._optional import require
from hookmap.adapters.adapter import Adapter
from hookmap.errors import ModelError, first_line
from hookmap.models import image_text, timm, vision_language
from hookmap.models.loaded import Loaded, no_weights
from hookmap.models.transformers.adapters import (
    Classifier,
    DepthEstimator,
    DividedVideoClassifier,
    MaskSegmenter,
    SemanticSegmenter,
    TaskSegmenter,
    TextFinder,
    TransformersAdapter,
    VideoClassifier,
)
from hookmap.models.transformers.detectors import OpenDetector, PhraseDetector, QueryDetector, TextDetector
from hookmap.models.transformers.processing import read
from hookmap.models.transformers.promptable import HighQualitySegmenter, PromptSegmenter, PyramidPromptSegmenter

PREFIX = "hf/"

# Model types without an image processor of their own, and whose they are published with.
_LIKE = {
    "d_fine": "rt_detr",
    "rt_detr_v2": "rt_detr",
    "dab-detr": "conditional_detr",
    "dinov2_with_registers": "dinov2",
}


# Models that follow things through videos, and those for pictures that are made of the same weights.
_FOR_PICTURES = {"Sam2VideoModel": "Sam2Model", "EdgeTamVideoModel": "EdgeTamModel"}


def has(name: str) -> bool:
    """Whether a name is meant for transformers: ``hf/ORG/NAME``, ``ORG/NAME``, or a folder with a ``config.json``."""
    return name.startswith(PREFIX) or "/" in name or (Path(name) / "config.json").is_file()


def build(name: str, *, pretrained: bool = True, num_classes: int | None = None) -> Loaded:
    """The architecture that the repository's or folder's configuration names, with its weights.

    Code that lies beside the weights is never run.

    Raises:
        ModelError: if it can't be had, or isn't one of transformers' own classes.
    """
    library = _library()
    source = name.removeprefix(PREFIX)
    classes = {} if num_classes is None else {"num_labels": num_classes}
    with timm.failing_fast() as offline:
        try:
            config = library.AutoConfig.from_pretrained(source, local_files_only=offline, trust_remote_code=False)
        except Exception as error:  # hub clients raise whatever their transport does
            raise ModelError(
                f"no configuration of {name!r} could be loaded ({_reason(error)}); expected hf/ORG/NAME on the "
                "Hugging Face hub, or a folder with config.json"
            ) from None
        config.update(classes)
        names = config.architectures or ["none"]
        if names[0] in _FOR_PICTURES:
            architecture = getattr(library, _FOR_PICTURES[names[0]])
            config = architecture.config_class.from_pretrained(source, local_files_only=offline)
        else:
            architecture = getattr(library, names[0], None)
        if architecture is None:
            raise ModelError(
                f"{name} is a {names[0]}, which isn't one of transformers' own classes, and hookmap runs no code that "
                "lies beside weights; build it yourself and pass the module"
            )
        if not pretrained:
            config.use_pretrained_backbone = False
            return describe(architecture(config), source, download=not offline)
        try:
            # Weights may lie there in half precision.
            model = architecture.from_pretrained(source, config=config, local_files_only=offline).float()
        except Exception as error:  # likewise
            raise no_weights(name, error) from None
        return describe(model, source, download=not offline)


def knows(model: nn.Module) -> bool:
    """Whether a module is a transformers model, a subclass of one, or an adapter of one from here."""
    return isinstance(model, (TransformersAdapter, vision_language.VisionLanguage)) or any(
        kind.__module__ == "transformers.modeling_utils" for kind in type(model).__mro__
    )


def _library() -> Any:
    require("transformers", extra="transformers")
    import transformers

    return transformers


def _reason(error: BaseException) -> str:
    return first_line(error)[:160]


def renamed(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the names that layers have in memory; transformers writes older ones to disk.

    One that doesn't fit the model is given back as it is.
    """
    known: Any = model
    how: dict[str, Any] = {"state_dict": dict(state), "output_loading_info": True}
    try:
        again, report = type(known).from_pretrained(None, config=known.config, **how)
    except (RuntimeError, ValueError, OSError, KeyError):
        return dict(state)
    return dict(state) if any(report.values()) else again.float().state_dict()


def describe(model: nn.Module, source: str | None = None, *, download: bool = False) -> Loaded:
    """How a transformers model is called and read, its labels, and its preprocessing.

    Args:
        model: that the user built, or an adapter of it.
        source: the folder or repository that its weights came from; by default what the model remembers.
        download: look for the image processor's configuration on the hub as well.
    """
    if (embedding := image_text.describe(model, download=download)) is not None:
        embedding.name = _short(source or embedding.name)
        return embedding
    if (answering := vision_language.describe(model, source, download=download)) is not None:
        answering.name = _short(answering.name)
        return answering
    given = model if isinstance(model, TransformersAdapter) else None
    known: Any = model if given is None else given.plain
    kind = next(kind.__name__ for kind in type(known).__mro__ if kind.__module__.startswith("transformers."))
    loaded = Loaded(known, _short(source or known.name_or_path or type(known).__name__))
    adapter = loaded.adapter = given or _adapter(known, kind)
    loaded.labels = ["depth"] if isinstance(adapter, DepthEstimator) else _labels(known.config)
    if given is not None and given.labels:
        loaded.labels = given.labels
    if given is not None and given.preprocessing is not None:
        loaded.preprocessing = given.preprocessing
    elif hasattr(known, "timm_model"):
        loaded.preprocessing = timm.describe(known.timm_model).preprocessing
    else:
        processor = _published(source or known.name_or_path, download=download)
        if processor is None and (processor := _usual(known.config)) is not None:
            loaded.note = (
                f"{type(known).__name__} comes without an image processor: the usual way of a "
                f"{type(processor).__name__} is assumed; pass preprocessing= to be sure"
            )
        loaded.preprocessing = read(processor) if processor is not None else None
    return loaded


def _short(name: str) -> str:
    """A repository's name as it is; a folder without what lies above it, which says nothing to who reads a page."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def _adapter(model: nn.Module, kind: str) -> Adapter | None:
    """The adapter for a class of transformers; None for one that gives nothing that targets can read."""
    if "ForImageClassification" in kind:
        return Classifier(model)
    if kind.startswith("TimesformerFor"):
        return DividedVideoClassifier(model)
    if kind.endswith("ForVideoClassification"):
        return VideoClassifier(model)
    if kind.endswith("ForSemanticSegmentation"):
        return SemanticSegmenter(model)
    if kind.startswith(("MaskFormerFor", "Mask2FormerFor", "Eomt")):
        return MaskSegmenter(model)
    if kind.startswith("OneFormerFor"):
        return TaskSegmenter(model)
    if kind.endswith("ForDepthEstimation"):
        return DepthEstimator(model)
    if kind.startswith(("OwlViTForObject", "Owlv2ForObject")):
        return TextDetector(model)
    if kind.startswith(("GroundingDinoFor", "MMGroundingDinoFor")):
        return PhraseDetector(model)
    if kind.startswith("OmDetTurboFor"):
        return OpenDetector(model)
    if kind == "SamModel":
        return PromptSegmenter(model)
    if kind == "SamHQModel":
        return HighQualitySegmenter(model)
    if kind in ("Sam2Model", "EdgeTamModel"):
        return PyramidPromptSegmenter(model)
    boxes = ("ForObjectDetection", "DetrForSegmentation", "DetrForInstanceSegmentation")
    if kind.startswith("PPOCR") and kind.endswith(boxes):
        return TextFinder(model)
    if kind.endswith(boxes):
        # What these keep by default.
        most = 100 if kind.startswith(("ConditionalDetr", "DeformableDetr", "DabDetr", "LwDetr")) else None
        return QueryDetector(model, most=most)
    return None


def _labels(config: Any) -> Sequence[str] | None:
    """The configuration's class names, unless they are only placeholders."""
    names = {int(index): str(label) for index, label in (getattr(config, "id2label", None) or {}).items()}
    if not names or all(label == f"LABEL_{index}" for index, label in names.items()):
        return None
    return [names.get(index, f"class {index}") for index in range(max(names) + 1)]


def _published(source: str | None, *, download: bool) -> Any:
    """The processor of images, or of videos, that lies beside the weights, or None."""
    if not source:
        return None
    library = _library()
    for auto in (library.AutoImageProcessor, library.AutoVideoProcessor):
        try:
            return auto.from_pretrained(source, local_files_only=not download, trust_remote_code=False)
        except Exception:  # none there, or nothing that can be reached: then the usual one serves
            continue
    return None


def _usual(config: Any) -> Any:
    """The processor that a model of this type has if nothing else is said, at the size that it was built for."""
    library = _library()
    kind = _LIKE.get(config.model_type)
    known = library.CONFIG_MAPPING[kind] if kind else type(config)
    try:
        mapping = library.IMAGE_PROCESSOR_MAPPING
        if known not in mapping:
            mapping = library.models.auto.video_processing_auto.VIDEO_PROCESSOR_MAPPING
        found = mapping[known]
        ways = found.values() if isinstance(found, dict) else found
        processor: Any = next(way for way in ways if way is not None)()
    except (KeyError, StopIteration, ImportError):
        return None
    seen = getattr(config, "prompt_encoder_config", None) or getattr(config, "vision_config", config)
    side = getattr(seen, "image_size", getattr(seen, "crop_size", None))
    size = dict(getattr(processor, "size", None) or {})
    if square := _windowed(config):
        processor.size = {"height": square, "width": square}
    elif isinstance(side, int) and getattr(processor, "do_center_crop", None):
        factor = side / dict(processor.crop_size)["height"]
        processor.size = {key: round(length * factor) for key, length in size.items()}
        processor.crop_size = {"height": side, "width": side}
    elif isinstance(side, int) and set(size) == {"longest_edge"}:
        processor.size, processor.pad_size = {"longest_edge": side}, {"height": side, "width": side}
    elif isinstance(side, int) and set(size) == {"height", "width"}:
        processor.size = {"height": side, "width": side}
    return processor


def _windowed(config: Any) -> int | None:
    """The side of the square pictures of a detector whose backbone looks through windows; None for another model."""
    if config.model_type in ("lw_detr", "omdet-turbo"):
        return 640  # as published
    if config.model_type != "rf_detr":
        return None
    backbone = config.backbone_config
    window: int = backbone.patch_size * backbone.num_windows
    side: int = backbone.image_size
    return math.ceil(side / window) * window
