"""Torchvision's detectors: run as they are, and read before and after their own post-processing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hookmap.hooks import hooked
from hookmap.models.adapter import Adapter
from hookmap.outputs import Detections, Kept
from hookmap.preprocessing import Preprocessing

PIXELS = Preprocessing(resize=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), any_size=True)
"""These models resize, normalise and pad by themselves: they are given the picture in its own size, 0..1."""


class TorchvisionDetector(Adapter):
    """What all of them share: the model itself runs, and hooks read what its post-processing hides."""

    @property
    def levels(self) -> Sequence[str]:
        """The outputs of the feature pyramid; where there is none, what the head looks at."""
        names = [name for name, _ in self.named_modules()]
        pyramid = [n for n in names if n.startswith("backbone.fpn.layer_blocks.") and n.count(".") == 3]
        extra = [n for n in names if n.startswith(("backbone.extra.", "backbone.features.")) and n.count(".") == 2]
        return pyramid or extra[-6:]

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
            found = self.plain([*x])
        high, wide = gave[self.plain.transform][0].image_sizes[0]
        scale = x.new_tensor([x.shape[-1] / wide, x.shape[-2] / high] * 2)
        return found, [gave[module] for module in modules], scale


class TwoStageDetector(TorchvisionDetector):
    """Faster, Mask and Keypoint R-CNN: a candidate is a proposal."""

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections of a batch ``(B, 3, H, W)``, 0..1; boxes are class by class."""
        heads = self.plain.roi_heads
        found, ((proposals, _), (logits, regression)), scale = self._run(x, [self.plain.rpn, heads.box_predictor])
        counts = [len(some) for some in proposals]
        boxes = heads.box_coder.decode(regression, proposals) * scale
        scores, every, sure = (
            nn.utils.rnn.pad_sequence(list(t.split(counts)), batch_first=True)
            for t in (logits, boxes, logits.softmax(-1))
        )
        return Detections(scores, every, sure, _kept(found, every, sure), fixed=False)


class OneStageDetector(TorchvisionDetector):
    """RetinaNet, FCOS, SSD and SSDLite: a candidate is an anchor."""

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections of a batch ``(B, 3, H, W)``, 0..1."""
        found, (head, anchors), scale = self._run(x, [self.plain.head, self.plain.anchor_generator])
        logits, coder = head["cls_logits"], self.plain.box_coder
        decode = getattr(coder, "decode_single", coder.decode)
        regression = head["bbox_regression"]
        boxes = torch.stack([decode(r, a) for r, a in zip(regression, anchors, strict=True)]) * scale
        if "bbox_ctrness" in head:
            # FCOS ranks by the geometric mean of class and centredness; as a score, its log-odds.
            sure = (logits.sigmoid() * head["bbox_ctrness"].sigmoid()).sqrt()
            logits = sure.logit(eps=1e-6)
        else:
            sure = logits.softmax(-1) if type(self.plain).__name__ == "SSD" else logits.sigmoid()
        return Detections(logits, boxes, sure, _kept(found, boxes, sure))


def _kept(found: Sequence[dict[str, Tensor]], boxes: Tensor, sure: Tensor) -> list[list[Kept]]:
    """Which candidate each detection is: the one whose probability and box it has."""
    result = []
    for one, places, probabilities in zip(found, boxes.detach(), sure.detach(), strict=True):
        kept = []
        for box, score, label in zip(
            one["boxes"].detach(), one["scores"].detach(), one["labels"].tolist(), strict=True
        ):
            mine = places[:, label] if places.ndim == 3 else places
            size = (box[2:] - box[:2]).max().clamp(min=1)
            # Clipped to the picture, as the detection was.
            away = (torch.minimum(mine.clamp(min=0), box[[2, 3, 2, 3]]) - box).abs().amax(-1) / size
            kept.append(Kept(int(((probabilities[:, label] - score).abs() * 1e3 + away).argmin()), label))
        result.append(kept)
    return result
