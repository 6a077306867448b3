"""RF-DETR of the package rfdetr: the object that its users hold, or the module inside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from hookmap.adapters.adapter import Adapter
from hookmap.adapters.outputs import Detections
from hookmap.errors import ModelError
from hookmap.models.loaded import Loaded
from hookmap.models.transformers.adapters import matching
from hookmap.models.transformers.detectors import best_of_all, in_pixels, masks_of
from hookmap.models.transformers.processing import UnfilteredSteps


def knows(model: object) -> bool:
    """Whether this is a detector of the package, or its module."""
    return any(
        kind.__module__.startswith("rfdetr.") and kind.__name__ in ("RFDETR", "LWDETR") for kind in type(model).__mro__
    )


class RFDETRDetector(Adapter):
    """Detectors and instance segmenters: a candidate is what one query found, and may have several classes by sigmoid.

    Args:
        model: the package's object, such as ``RFDETRNano()``, or its module.
        least: smallest probability of a detection.
    """

    def __init__(self, model: Any, *, least: float = 0.5) -> None:
        held = None if isinstance(model, nn.Module) else model
        module = model if held is None else held.model.model
        if module is None:
            raise ModelError(
                f"this {type(model).__name__} gave its module up when it was optimised in place; pass a new one"
            )
        if module.use_grouppose_keypoints:
            raise ModelError(
                "RF-DETR's keypoint models rank detections by their keypoints too, which hookmap can't read; pass a "
                "detector or a segmenter"
            )
        super().__init__(module)
        self.least = least
        self.most = module.num_queries if held is None else held.model.postprocess.num_select
        self.labels = _labels(held, module.class_embed.out_features)
        mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if held is None else (held.means, held.stds)
        size = module.backbone[0].encoder.shape if held is None else (held.model.resolution,) * 2
        if len(mean) == 3:
            self.preprocessing = UnfilteredSteps(tuple(size), tuple(size), tuple(mean), tuple(std))

    @property
    def levels(self) -> Sequence[str]:
        """What the queries look at: the levels that are projected from the backbone."""
        return matching(self, r"backbone\.0\.projector\.stages\.\d+")

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections of a batch ``(B, 3, H, W)``."""
        output = self.plain(x)
        scores, boxes = output["pred_logits"], in_pixels(output["pred_boxes"], x)
        probabilities = scores.sigmoid()
        kept = best_of_all(probabilities, self.least, self.most)
        masks = masks_of(kept, output.get("pred_masks"))
        # Queries start at what is proposed from the picture: a row is another candidate elsewhere.
        return Detections(scores, boxes, probabilities, kept, fixed=False, least=self.least, masks=masks)


def describe(model: Any) -> Loaded:
    """How a detector is called and read, with its labels and its preprocessing."""
    adapter = RFDETRDetector(model)
    return Loaded(adapter.plain, type(model).__name__, adapter.preprocessing, adapter.labels, adapter=adapter)


def _labels(held: Any, count: int) -> list[str] | None:
    """The names of the outputs; a model of COCO numbers its classes as COCO does, with gaps."""
    from rfdetr.assets.coco_classes import COCO_CLASS_NAMES, COCO_CLASSES

    names = None if held is None else held.class_names
    if (names is None or names == COCO_CLASS_NAMES) and count > max(COCO_CLASSES):
        return [COCO_CLASSES.get(i, f"class {i}") for i in range(count)]
    if names is None:
        return None
    return [names[i] if i < len(names) else f"class {i}" for i in range(count)]
