"""What Ultralytics models give, as targets read it: detections with their candidates, classes, dense scores."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hookmap.adapters.adapter import Adapter
from hookmap.adapters.outputs import Detections, Kept
from hookmap.images.preprocessing import Preprocessing
from hookmap.models.transformers.detectors import best_of_all, in_pixels
from hookmap.models.ultralytics.letterbox import GREY, Letterbox

# Across a detection's box, as Mask R-CNN's.
_MASK_SIDE = 28


class UltralyticsAdapter(Adapter):
    """What all of them share: labels, preprocessing, and a head that is run without a trace.

    Args:
        model: a ``YOLO``, or the network in it.
    """

    usual_size = 640

    def __init__(self, model: Any) -> None:
        super().__init__(network_of(model))
        self.labels = _labels(self.plain)
        self.preprocessing = self._preparing(_size(model, self.usual_size))

    @property
    def levels(self) -> Sequence[str]:
        """The layers that the head looks at: the pyramid."""
        return [f"model.{number}" for number in self.plain.model[-1].f]

    def _preparing(self, size: tuple[int, int]) -> Preprocessing | None:
        """From picture to input, as the library's ``predict`` does it for a picture alone."""
        return _letterbox(size, "letterbox", self.plain)

    def _run(self, x: Tensor) -> Any:
        """What the network gives, and what its head knew before post-processing.

        A head remembers the grid of its last input. The one that runs is a copy, on the very same layers: the user's is
        left as it is, remembers nothing that can't be differentiated, and two threads don't meet in it.
        """
        network, layers, head = (copy.copy(some) for some in (self.plain, self.plain.model, self.plain.model[-1]))
        vars(head).pop("forward", None)  # compiled, it would be the other one's
        vars(head).update(shape=None, shapes=None, export=False, postprocess=_as_it_is, _forward_hooks=OrderedDict())
        vars(layers)["_modules"] = {**self.plain.model._modules, str(len(layers) - 1): head}
        vars(network)["_modules"] = {**self.plain._modules, "model": layers}
        return network(x)


class Detector(UltralyticsAdapter):
    """YOLO: a candidate is a cell of a level, and what is kept is what the library's own post-processing keeps.

    That is non-maximum suppression, or, where the head is set to ``end2end``, the best of its one-to-one branch.

    Args:
        model: a ``YOLO``, or the network in it.
        least: smallest probability of a detection, as ``conf`` of the library.
        overlap: largest intersection over union of two detections of one class, as ``iou``.
        most: detections per image, as ``max_det``.
    """

    def __init__(self, model: Any, *, least: float = 0.25, overlap: float = 0.7, most: int = 300) -> None:
        super().__init__(model)
        self.least, self.overlap, self.most = least, overlap, most

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections of a batch ``(B, 3, H, W)``, 0..1."""
        rows, raw = self._run(x)
        return self._found(rows, self._branch(raw))

    @property
    def _end2end(self) -> bool:
        return bool(getattr(self.plain.model[-1], "end2end", False))

    def _branch(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """The part of the head's raw output that the detections come from."""
        chosen: Mapping[str, Any] = raw.get("one2one" if self._end2end else "one2many", raw)
        return chosen

    def _found(self, rows: Tensor, raw: Mapping[str, Tensor]) -> Detections:
        """The library's rows of box, probabilities and more, with the scores that they were made from."""
        rows = rows if self._end2end else rows.mT
        scores = raw["scores"].mT
        probabilities = rows[..., 4 : 4 + scores.shape[-1]]
        kept = self._best(probabilities) if self._end2end else self._suppressed(rows, scores.shape[-1])
        return Detections(scores, self._boxes(rows), probabilities, kept, least=self.least)

    def _boxes(self, rows: Tensor) -> Tensor:
        """Boxes ``(B, N, 4)`` as corners."""
        if self._end2end:
            return rows[..., :4]
        middle, half = rows[..., :2], rows[..., 2:4] / 2
        return torch.cat([middle - half, middle + half], -1)

    def _suppressed(self, rows: Tensor, classes: int, **how: Any) -> list[list[Kept]]:
        from ultralytics.utils.nms import non_max_suppression

        limits = {"max_det": self.most, "max_time_img": float("inf")}
        given = rows.detach().float().mT
        found, numbers = non_max_suppression(
            given, self.least, self.overlap, nc=classes, return_idxs=True, **limits, **how
        )
        return [
            [Kept(int(row), int(label)) for row, label in zip(mine.flatten().tolist(), one[:, 5].tolist(), strict=True)]
            for one, mine in zip(found, numbers, strict=True)
        ]

    def _best(self, probabilities: Tensor) -> list[list[Kept]]:
        head = self.plain.model[-1]
        sure, labels, rows = (
            t.flatten(1).tolist() for t in head.get_topk_index(probabilities.detach(), max(self.most, 300))
        )
        return [
            [Kept(row, int(label)) for p, label, row in zip(*some, strict=True) if p > self.least][: self.most]
            for some in zip(sure, labels, rows, strict=True)
        ]


class Segmenter(Detector):
    """YOLO that also gives a mask of each detection: prototypes of the whole picture, weighed by its coefficients."""

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections, with masks, of a batch ``(B, 3, H, W)``, 0..1."""
        from torchvision.ops import roi_align
        from ultralytics.utils.ops import process_mask

        (rows, prototypes), raw = self._run(x)
        branch = self._branch(raw)
        found, coefficients = self._found(rows, branch), branch["mask_coefficient"].mT
        kept, masks = [], []
        for mine, own, weights, boxes in zip(found.kept, prototypes, coefficients, found.boxes.detach(), strict=True):
            numbers = [k.row for k in mine]
            drawn = process_mask(own.detach(), weights[numbers].detach().float(), boxes[numbers], x.shape[2:], True)
            # The library drops a detection whose mask is empty.
            mine = [k for k, mask in zip(mine, drawn, strict=True) if mask.any()]
            numbers = [k.row for k in mine]
            whole = torch.einsum("dm,mhw->dhw", weights[numbers], own)
            places = torch.cat([torch.arange(len(mine)).to(boxes)[:, None], boxes[numbers]], 1).to(whole)
            scale = whole.shape[-1] / x.shape[-1]
            masks.append(roi_align(whole[:, None], places, _MASK_SIDE, scale, aligned=True)[:, 0])
            kept.append(mine)
        return replace(found, kept=kept, masks=masks)


class PoseDetector(Detector):
    """YOLO that also finds keypoints of each detection; a keypoint's score is how visible it is."""

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections, with keypoints, of a batch ``(B, 3, H, W)``, 0..1."""
        rows, raw = self._run(x)
        branch = self._branch(raw)
        found, (count, values) = self._found(rows, branch), self.plain.model[-1].kpt_shape
        if values < 3:
            return found
        visible = branch["kpts"].unflatten(1, (count, values))[:, :, 2].mT
        points = [mine[[k.row for k in kept]] for mine, kept in zip(visible, found.kept, strict=True)]
        return replace(found, keypoints=points, joints=self.joints)

    @property
    def joints(self) -> Sequence[str]:
        """The names of the keypoints, if the model or COCO has them."""
        from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights as weights

        count = self.plain.model[-1].kpt_shape[0]
        known = getattr(self.plain, "kpt_names", None) or {}
        own = [str(name) for name in known.get(0, ())]
        if len(own) == count and not all(name.isdecimal() for name in own):
            return own
        usual: Sequence[str] = weights.DEFAULT.meta["keypoint_names"]
        return usual if len(usual) == count and self.labels == ["person"] else ()


class TurnedDetector(Detector):
    """YOLO with turned boxes (OBB): a candidate's box is the upright one around its turned one."""

    def _boxes(self, rows: Tensor) -> Tensor:
        middle, (wide, high), angle = rows[..., :2], rows[..., 2:4].unbind(-1), rows[..., -1]
        along, across = angle.cos().abs(), angle.sin().abs()
        half = torch.stack([wide * along + high * across, wide * across + high * along], -1) / 2
        return torch.cat([middle - half, middle + half], -1)

    def _suppressed(self, rows: Tensor, classes: int, **how: Any) -> list[list[Kept]]:
        return super()._suppressed(rows, classes, rotated=True, **how)


class QueryDetector(UltralyticsAdapter):
    """RT-DETR: a candidate is what one query found.

    Args:
        model: an ``RTDETR``, or the network in it.
        least: smallest probability of a detection, as ``conf`` of the library.
    """

    def __init__(self, model: Any, *, least: float = 0.25) -> None:
        super().__init__(model)
        self.least = least

    def _preparing(self, size: tuple[int, int]) -> Preprocessing | None:
        return _letterbox(size, size, self.plain)

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections of a batch ``(B, 3, H, W)``, 0..1."""
        _, (boxes, scores, *_) = self._run(x)
        probabilities = scores[-1].sigmoid()
        kept = best_of_all(probabilities, self.least, probabilities.shape[1])
        # Queries are chosen from the image: a row is another candidate elsewhere.
        return Detections(scores[-1], in_pixels(boxes[-1], x), probabilities, kept, fixed=False, least=self.least)


class Classifier(UltralyticsAdapter):
    """YOLO for image classification."""

    usual_size = 224
    levels: Sequence[str] = ()

    def _preparing(self, size: tuple[int, int]) -> Preprocessing | None:
        from ultralytics.data.augment import classify_transforms

        own = getattr(self.plain, "transforms", None)
        resize = getattr(own.transforms[0], "size", None) if own is not None else None
        trained = own is not None and resize in (size[0], size)
        return Preprocessing.from_transform(own if trained else classify_transforms(size))

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(B, K)`` before softmax."""
        _, scores = self._run(x)
        return scores  # type: ignore[no-any-return]


class SemanticSegmenter(UltralyticsAdapter):
    """YOLO for semantic segmentation, explained where the backbone ends: later layers hold little but the scores."""

    @property
    def levels(self) -> Sequence[str]:
        """The end of the backbone."""
        return [f"model.{len(self.plain.yaml['backbone']) - 1}"]

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of each place, ``(B, K, h, w)``, before softmax."""
        scores: Tensor = self._run(x)
        return scores


class DepthEstimator(SemanticSegmenter):
    """YOLO for depth: one number per place, in metres."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.labels = ["depth"]

    def _preparing(self, size: tuple[int, int]) -> Preprocessing | None:
        return _letterbox(size, size, self.plain)


ADAPTERS: Mapping[str, type[UltralyticsAdapter]] = {
    "Detect": Detector,
    "v10Detect": Detector,
    "Segment": Segmenter,
    "Segment26": Segmenter,
    "Pose": PoseDetector,
    "Pose26": PoseDetector,
    "OBB": TurnedDetector,
    "OBB26": TurnedDetector,
    "RTDETRDecoder": QueryDetector,
    "Classify": Classifier,
    "SemanticSegment": SemanticSegmenter,
    "Depth": DepthEstimator,
}
"""By the class of the head."""


def network_of(model: Any) -> nn.Module:
    """The network in a ``YOLO``; a network is itself."""
    inner = model.model if any(kind.__module__ == "ultralytics.engine.model" for kind in type(model).__mro__) else model
    network: nn.Module = inner
    return network


def _as_it_is(*rows: Tensor) -> Any:
    """Candidates that are left to be looked at, instead of the best of them."""
    return rows if len(rows) > 1 else rows[0]


def _letterbox(size: tuple[int, int], resize: Any, network: Any) -> Preprocessing | None:
    if network.yaml.get("channels", 3) != 3:
        return None
    plain: Mapping[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return Letterbox(size, resize, **plain, fill=GREY, any_size=True, stride=_stride(network))


def _stride(network: Any) -> int:
    return max(int(network.stride.max()), 32) if hasattr(network, "stride") else 32


def _size(model: Any, usual: int) -> tuple[int, int]:
    """The input's size that the library would take, (h, w)."""
    network = network_of(model)
    args = getattr(network, "args", None) or {}
    known = {**(args if isinstance(args, Mapping) else vars(args)), **getattr(model, "overrides", {})}
    given = known.get("imgsz") or usual
    sides = [given] if isinstance(given, int) else list(given)
    step = _stride(network)
    high, wide = (-(-int(side) // step) * step for side in (sides[0], sides[-1]))
    return high, wide


def _labels(network: Any) -> list[str] | None:
    """The class names, unless they are only numbers."""
    known = getattr(network, "names", None) or {}
    names = [str(known[index]) for index in sorted(known)] if isinstance(known, Mapping) else [str(n) for n in known]
    return None if all(name == str(index) for index, name in enumerate(names)) else names
