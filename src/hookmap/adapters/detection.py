"""Torchvision's detectors: run as they are, and read before and after their own post-processing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hookmap.adapters.adapter import Adapter, Fusion
from hookmap.adapters.outputs import Detections, Kept
from hookmap.hooks.registration import hooked
from hookmap.images.preprocessing import Preprocessing

PIXELS = Preprocessing(resize=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), any_size=True)
"""These models resize, normalise and pad by themselves: they are given the picture in its own size, 0..1."""


class TorchvisionDetector(Adapter):
    """What all of them share: the model itself runs, and hooks read what its post-processing hides."""

    @property
    def levels(self) -> Sequence[str]:
        """The outputs of the feature pyramid; where there is none, what the head looks at."""
        names = [name for name, _ in self.named_modules()]
        pyramid = [n for n in names if n.startswith("backbone.fpn.layer_blocks.") and n.count(".") == 3]
        more = getattr(getattr(self.plain.backbone, "fpn", None), "extra_blocks", None)
        if pyramid and getattr(more, "use_P5", True) is False:
            pyramid.append("backbone.fpn.extra_blocks.p6")  # made from the backbone, past the levels above it
        extra = [n for n in names if n.startswith(("backbone.extra.", "backbone.features.")) and n.count(".") == 2]
        levels = pyramid or extra[-6:]
        if hasattr(self.plain.backbone, "scale_weight"):
            # SSD on VGG divides this level by its length at each place: gradient times activation is 0 there. One
            # convolution earlier it isn't.
            levels[0] = f"backbone.features.{len(self.plain.backbone.features) - 3}"
        return levels

    @property
    def fuse(self) -> Fusion:
        """A pyramid's levels are read side by side; without one, each level is made from the one before."""
        return "sum" if hasattr(self.plain.backbone, "fpn") else "last"

    def field(self, size: Sequence[int]) -> tuple[float, ...]:
        """The padded size, in pixels before the model's own resize."""
        images, _ = self.plain.transform([torch.zeros(3, *size)])
        inner, padded = images.image_sizes[0], images.tensors.shape[-2:]
        return tuple(side * p / i for side, p, i in zip(size, padded, inner, strict=True))

    def _run(self, x: Tensor, modules: Sequence[nn.Module]) -> tuple[list[dict[str, Tensor]], list[Any], Tensor]:
        """The model's detections, what modules gave on the way, and the scale from the model's pixels to those of x."""
        gave: dict[nn.Module, Any] = {}

        def note(module: nn.Module, _: Any, output: Any) -> None:
            gave[module] = output

        with hooked([self.plain.transform, *modules], note):
            detections = self.plain([*x])
        high, wide = gave[self.plain.transform][0].image_sizes[0]
        scale = x.new_tensor([x.shape[-1] / wide, x.shape[-2] / high] * 2)
        return detections, [gave[module] for module in modules], scale


class TwoStageDetector(TorchvisionDetector):
    """Faster, Mask and Keypoint R-CNN: a candidate is a proposal."""

    @property
    def joints(self) -> Sequence[str]:
        """The names of a person's keypoints, if there are as many as COCO's."""
        from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights as weights

        names: Sequence[str] = weights.DEFAULT.meta["keypoint_names"]
        predictor = self.plain.roi_heads.keypoint_predictor
        return names if getattr(predictor, "out_channels", None) == len(names) else ()

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections of a batch ``(B, 3, H, W)``, 0..1; boxes are class by class."""
        heads = self.plain.roi_heads
        masked = [heads.mask_predictor] if heads.has_mask() else []
        detections, gave, scale = self._run(x, [self.plain.rpn, heads.box_predictor, *masked])
        (proposals, _), (logits, regression), *drawn = gave
        counts = [len(proposal) for proposal in proposals]
        boxes = heads.box_coder.decode(regression, proposals) * scale
        scores, every, sure = (
            nn.utils.rnn.pad_sequence(list(t.split(counts)), batch_first=True)
            for t in (logits, boxes, _without_background(logits.softmax(-1)))
        )
        masks = None
        if drawn:
            labels = torch.cat([detected["labels"] for detected in detections])
            own = drawn[0][torch.arange(len(labels), device=labels.device), labels]
            masks = own.split([len(detected["labels"]) for detected in detections])
        return Detections(
            scores,
            every,
            sure,
            _kept(detections, every, sure, x.shape),
            fixed=False,
            least=heads.score_thresh,
            masks=masks,
            # The logit of each heatmap at its largest place; its gradient leads through them.
            keypoints=[detected["keypoints_scores"] for detected in detections] if heads.has_keypoint() else None,
            joints=self.joints,
        )


class OneStageDetector(TorchvisionDetector):
    """RetinaNet, FCOS, SSD and SSDLite: a candidate is an anchor."""

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections of a batch ``(B, 3, H, W)``, 0..1."""
        detections, (head, anchors), scale = self._run(x, [self.plain.head, self.plain.anchor_generator])
        logits, coder = head["cls_logits"], self.plain.box_coder
        decode = getattr(coder, "decode_single", coder.decode)
        regression = head["bbox_regression"]
        boxes = torch.stack([decode(r, a) for r, a in zip(regression, anchors, strict=True)]) * scale
        if "bbox_ctrness" in head:
            # FCOS ranks by the geometric mean of class and centredness; as a score, its log-odds.
            both = (functional.logsigmoid(logits) + functional.logsigmoid(head["bbox_ctrness"])) / 2
            sure = both.exp()
            logits = both - (-torch.expm1(both)).clamp(min=torch.finfo(both.dtype).tiny).log()
        else:
            ssd = type(self.plain).__name__ == "SSD"
            sure = _without_background(logits.softmax(-1)) if ssd else logits.sigmoid()
        return Detections(logits, boxes, sure, _kept(detections, boxes, sure, x.shape), least=self.plain.score_thresh)


def _without_background(sure: Tensor) -> Tensor:
    """Probabilities ``(..., K)`` of which class 0, the background, is never detected."""
    return torch.cat([torch.zeros_like(sure[..., :1]), sure[..., 1:]], -1)


def _kept(
    detections: Sequence[dict[str, Tensor]], boxes: Tensor, sure: Tensor, size: Sequence[int]
) -> list[list[Kept]]:
    """Which candidate each detection is: the one whose probability and box, cut off at the picture's edges, it has."""
    edges = boxes.new_tensor([size[-1], size[-2]] * 2)
    result = []
    for detected, places, probabilities in zip(detections, boxes.detach(), sure.detach(), strict=True):
        kept = []
        given = (detected["boxes"].detach(), detected["scores"].detach(), detected["labels"].tolist())
        for box, score, label in zip(*given, strict=True):
            mine = places[:, label] if places.ndim == 3 else places
            away = (torch.minimum(mine.clamp(min=0), edges) - box).abs().amax(-1) / edges.max()
            kept.append(Kept(int(((probabilities[:, label] - score).abs() + away).argmin()), label))
        result.append(kept)
    return result
