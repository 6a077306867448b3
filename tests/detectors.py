"""Small detectors of torchvision's families with seeded random weights, and a synthetic one with a known answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection, resnet18, vgg
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.ssd import SSD, _vgg_extractor
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import hookmap as hm
from networks import noise, stirred

SIZE = {"min_size": 96, "max_size": 160}
CHANNELS = 96


def _pyramid(layers: Sequence[int], more: nn.Module | None = None) -> nn.Module:
    """A ResNet-18 with a feature pyramid of few channels over these layers."""
    returned = {f"layer{k}": str(i) for i, k in enumerate(layers)}
    body = resnet18(weights=None, norm_layer=FrozenBatchNorm2d)
    return BackboneWithFPN(body, returned, [32 * 2**k for k in layers], CHANNELS, more)


def _two_stage(kind: Any, classes: int = 4, **options: Any) -> nn.Module:
    backbone = _pyramid([1, 2, 3, 4])
    options |= {"rpn_post_nms_top_n_test": 60, "box_detections_per_img": 8, "box_nms_thresh": 0.4}
    model = kind(backbone, classes, **SIZE, **options)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(60)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(20)
    return model


def _keypoints() -> nn.Module:
    """With a narrower head than torchvision's own."""
    head = {"keypoint_head": KeypointRCNNHeads(CHANNELS, (32, 32)), "keypoint_predictor": KeypointRCNNPredictor(32, 17)}
    return _two_stage(detection.KeypointRCNN, classes=2, box_score_thresh=1e-4, **head)


def _one_stage(kind: Any, classes: int = 4, p5: bool = True) -> nn.Module:
    backbone = _pyramid([2, 3, 4], LastLevelP6P7(CHANNELS if p5 else 512, CHANNELS))
    model = kind(backbone, classes, **SIZE, detections_per_img=8, nms_thresh=0.4, topk_candidates=100)
    with torch.no_grad():
        head = model.head.classification_head
        head.cls_logits.weight.mul_(20 if kind is detection.FCOS else 60)
        head.cls_logits.bias.fill_(-2)
        for layer in (*head.conv.modules(), *model.head.regression_head.conv.modules()):
            if isinstance(layer, nn.Conv2d):  # as strong as with the 256 channels that they are initialised for
                layer.weight.mul_((256 / CHANNELS) ** 0.5)
        model.head.regression_head.bbox_reg.weight.mul_(20)
        if hasattr(model.head.regression_head, "bbox_ctrness"):
            model.head.regression_head.bbox_ctrness.weight.mul_(20)
    return model


def _ssd(build: Any) -> nn.Module:
    model: nn.Module = build(num_classes=4, detections_per_img=8, nms_thresh=0.4, topk_candidates=50)
    with torch.no_grad():
        for last in model.head.classification_head.module_list:
            (last if isinstance(last, nn.Conv2d) else last[-1]).weight.mul_(8)
    return model


def _ssd300(**options: Any) -> nn.Module:
    """SSD300 as it is, on a VGG with fewer layers and without its classifier."""
    backbone = _vgg_extractor(SimpleNamespace(features=vgg.make_layers(vgg.cfgs["A"])), False, 5)
    boxes = DefaultBoxGenerator([[2], [2, 3], [2, 3], [2, 3], [2], [2]], steps=[8, 16, 32, 64, 100, 300])
    return SSD(backbone, boxes, (300, 300), **options)


_ssdlite = partial(detection.ssdlite320_mobilenet_v3_large, weights=None, weights_backbone=None)

FAMILIES: dict[str, Any] = {
    "faster": partial(_two_stage, detection.FasterRCNN),
    "mask": partial(_two_stage, detection.MaskRCNN),
    "keypoint": _keypoints,
    "retinanet": partial(_one_stage, detection.RetinaNet),
    "retinanet without P5": partial(_one_stage, detection.RetinaNet, p5=False),
    "fcos": partial(_one_stage, detection.FCOS),
    "ssd": partial(_ssd, _ssd300),
    "ssdlite": partial(_ssd, _ssdlite),
}


def detector(name: str) -> nn.Module:
    torch.manual_seed(0)
    return stirred(FAMILIES[name]())


def picture(height: int = 110, width: int = 150) -> Tensor:
    """Smooth noise as an image ``(H, W, 3)``, uint8."""
    small = noise(1, 3, 9, 12)
    large = nn.functional.interpolate(small, (height, width), mode="bicubic")
    return (large * 60 + 128).clamp(0, 255).byte()[0].permute(1, 2, 0)


class Bright(nn.Module):
    """Finds squares of a colour: one candidate per cell of 8x8 pixels, sure where the cell is of its class's colour."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.cells = nn.AvgPool2d(8)
        self.head = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.blur.weight.fill_(1 / 9)
            self.head.weight.copy_(torch.tensor([[8.0, -4, -4], [-4, 8, -4]])[..., None, None])
            self.head.bias.fill_(-4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(self.blur(x)))


class Squares(hm.Adapter):
    """Red and green squares of two cells a side."""

    @property
    def levels(self) -> list[str]:
        return ["cells"]

    def forward(self, x: Tensor) -> hm.Detections:
        scores = self.plain(x)
        h, w = scores.shape[2:]
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        middle = torch.stack([x, y], -1).to(scores).flatten(0, 1) * 8 + 4
        boxes = torch.cat([middle - 8, middle + 8], 1).expand(len(scores), -1, -1)
        scores = scores.flatten(2).mT
        kept = hm.keep_best(boxes, scores.sigmoid(), least=0.5, overlap=0.1)
        return hm.Detections(scores, boxes, scores.sigmoid(), kept, least=0.5)


def squares() -> hm.Lens:
    plain = hm.Preprocessing(size=(64, 96), resize=None, mean=(0.0,) * 3, std=(1.0,) * 3, any_size=True)
    return hm.Lens(Squares(Bright()), preprocessing=plain, labels=["red", "green"])


def scene(*things: tuple[int, int, int], height: int = 64, width: int = 96) -> Any:
    """A dark image with bright squares of 16 pixels: (channel, top, left) of each."""
    image = torch.zeros(height, width, 3, dtype=torch.uint8)
    for channel, top, left in things:
        image[top : top + 16, left : left + 16, channel] = 255
    return image.numpy()
