"""Detectors and a segmenter with really trained weights, as a user would add them: one small class each.

The weights lie outside of the repository (ONNX files); tests that need them are skipped where they are absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hookmap as hm

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS, PHOTOS = SHARED / "weights", SHARED / "photos"


def network(name: str, version: int | None = None) -> nn.Module:
    file = WEIGHTS / name
    if not file.exists():
        pytest.skip(f"the trained weights {name} aren't on this machine")
    onnx, onnx2torch = pytest.importorskip("onnx"), pytest.importorskip("onnx2torch")
    graph = onnx.load(file)
    if version is not None:
        graph = onnx.version_converter.convert_version(graph, version)
    return onnx2torch.convert(graph).eval()


class FastestDet(hm.Adapter):
    """One grid of candidates; class probabilities and objectness come out as probabilities."""

    levels: Sequence[str] = ["Relu_248"]

    def forward(self, x: Tensor) -> hm.Detections:
        out = self.plain(x.flip(1))  # trained on BGR
        h, w = out.shape[-2:]
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        middle = (torch.stack([x, y]).to(out) + out[:, 1:3].tanh()) * 16
        half = out[:, 3:5].sigmoid() * 352 / 2
        boxes = torch.cat([middle - half, middle + half], 1).flatten(2).mT
        sure = (out[:, :1] ** 0.6 * out[:, 5:] ** 0.4).flatten(2).mT
        return hm.Detections(sure.logit(eps=1e-6), boxes, sure, hm.keep_best(boxes, sure, least=0.6, overlap=0.45))


class CenterFace(hm.Adapter):
    """A heatmap of face centres at a quarter of the input's size."""

    levels: Sequence[str] = ["Add_10"]  # the neck, at a sixteenth of the input's size

    def forward(self, x: Tensor) -> hm.Detections:
        heat, scale, offset, _ = self.plain(x * 255)
        h, w = heat.shape[-2:]
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        middle = (torch.stack([x, y]).to(heat) + offset.flip(1) + 0.5) * 4
        half = scale.flip(1).exp() * 4 / 2
        boxes = torch.cat([middle - half, middle + half], 1).flatten(2).mT
        sure = heat.flatten(2).mT
        return hm.Detections(sure.logit(eps=1e-6), boxes, sure, hm.keep_best(boxes, sure, least=0.5, overlap=0.3))


class U2Net(hm.Adapter):
    """One score per place: whether it belongs to what stands out."""

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x)[0].logit(eps=1e-6)


def fastestdet() -> hm.Lens:
    names = (WEIGHTS / "coco.names").read_text().splitlines() if (WEIGHTS / "coco.names").exists() else None
    plain = hm.Preprocessing(size=(352, 352), resize=(352, 352), mean=(0.0,) * 3, std=(1.0,) * 3)
    return hm.Lens(FastestDet(network("FastestDet.onnx")), preprocessing=plain, labels=names)


def centerface(size: tuple[int, int] = (640, 640)) -> hm.Lens:
    plain = hm.Preprocessing(size=size, resize="letterbox", mean=(0.0,) * 3, std=(1.0,) * 3)
    return hm.Lens(CenterFace(network("centerface.onnx", 13)), preprocessing=plain, labels=["face"])


def u2net() -> hm.Lens:
    plain = hm.Preprocessing(size=(320, 320), resize=(320, 320))
    return hm.Lens(U2Net(network("u2netp.onnx")), preprocessing=plain, labels=["what stands out"])
