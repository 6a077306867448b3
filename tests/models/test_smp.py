"""Segmenters of segmentation_models_pytorch as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import hookmap as hm
from hookmap import models
from hookmap.models.smp import fitting
from networks import noise

smp = pytest.importorskip("segmentation_models_pytorch")


def built(kind: str, encoder: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return getattr(smp, kind)(encoder, encoder_weights=None, classes=3, **options).eval()


@pytest.mark.parametrize(
    ("kind", "encoder", "layer"),
    [
        ("Unet", "resnet18", "encoder.layer4"),
        ("FPN", "mobilenet_v2", "encoder.features.18"),
        ("Segformer", "mit_b0", "encoder.block4"),
        ("PAN", "resnet18", "encoder.layer4"),
    ],
)
def test_the_encoder_is_explained(kind: str, encoder: str, layer: str) -> None:
    heatmap = hm.Lens(built(kind, encoder)).explain(noise(1, 3, 128, 192))[0]
    assert heatmap.layer == layer
    assert heatmap.raw.any()
    assert heatmap.map.shape == (128, 192)


def test_a_photo_and_places_on_it(cat: Path) -> None:
    lens = hm.Lens(built("Unet", "resnet18"), labels=["wall", "floor", "cat"])
    with pytest.warns(hm.HookmapWarning, match=r"Unet\(resnet18\) doesn't say .* multiples of 32; pass preprocessing="):
        whole, point = lens.explain(cat, target=["cat", hm.Point(200, 150, of="cat")])
    assert whole.raw.shape == (9, 14)
    assert whole.map.shape == point.map.shape == (300, 451)
    assert (point.target, point.where) == ("cat", "point (200, 150)")
    assert {p.label for p in lens.predict(cat)[0]} <= {"wall", "floor", "cat"}


def test_a_second_head_is_left_to_functions() -> None:
    """Masks come first; the labels of the whole picture are read by a function."""
    model = built("Unet", "resnet18", aux_params={"classes": 4})
    with pytest.warns(hm.HookmapWarning, match="several tensors that may be its scores .* and '0' is read"):
        masks, labels = hm.Lens(model).explain(noise(1, 3, 64, 64), target=[1, lambda output: output[1][:, 2]])
    assert masks.index == 1
    assert labels.index is None
    assert labels.raw.any()


def test_what_the_encoder_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models.describe(built("Unet", "tu-inception_next_atto")).preprocessing.mean == (0.485, 0.456, 0.406)
    assert models.describe(built("Unet", "tu-tf_mobilenetv3_small_075")).preprocessing.std == (0.5, 0.5, 0.5)
    assert models.describe(built("Unet", "resnet18", in_channels=5)).preprocessing is None
    assert len(models.describe(built("Unet", "resnet18", in_channels=1)).preprocessing.mean) == 1
    saved = tmp_path / "config.json"
    saved.write_text(json.dumps({"mean": [0, 51, 102], "std": [255, 255, 51], "input_range": [0, 255]}))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(saved))
    model = built("Unet", "resnet18")
    model._hub_mixin_config["encoder_weights"] = "imagenet"
    told = models.describe(model).preprocessing
    assert told.mean == pytest.approx((0, 0.2, 0.4))
    assert told.std == pytest.approx((1, 1, 0.2))


def test_sizes() -> None:
    assert fitting(10, 10, stride=32) == (32, 32)
    assert max(fitting(5000, 300, stride=32)) == 1024
