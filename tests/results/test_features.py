"""Feature maps: names, statistics, selections, pictures and TensorBoard."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import hookmap as hm
from hookmap.images.loading import load
from hookmap.results.features import LayerMaps
from pictures import REPOSITORY


@pytest.fixture(scope="module")
def vgg() -> hm.FeatureMaps:
    torch.manual_seed(0)
    model = torchvision.models.vgg16_bn(num_classes=10)
    lens = hm.Lens(model, preprocessing=hm.Preprocessing(size=(64, 64), resize=64))
    return lens.features(REPOSITORY / "examples/photos/cat.jpg", layers="conv")


def test_every_conv_under_its_own_name_in_order(vgg: hm.FeatureMaps) -> None:
    convs = [n for n, m in torchvision.models.vgg16_bn(weights=None).named_modules() if isinstance(m, nn.Conv2d)]
    assert list(vgg) == convs
    assert len(convs) == 13
    assert vgg["features.40"].shape == "512x4x4"
    with pytest.raises(hm.LayerError, match="no feature maps of 'features.1'"):
        _ = vgg["features.1"]


def test_the_maps_are_those_of_the_network(cat: Path) -> None:
    model = torchvision.models.vgg11(weights=None).eval()
    x = torch.randn(2, 3, 64, 64)
    maps = hm.Lens(model).features(x, layers=["features.3", "features.4"])
    expected = model.features[:4](x)
    assert torch.equal(maps["features.3"].maps, expected)  # not overwritten by the in-place ReLU that follows
    assert torch.equal(maps["features.4"].maps, expected.relu())


def test_a_layer_that_runs_twice_appears_twice() -> None:
    model = torchvision.models.resnet18(weights=None)
    maps = hm.Lens(model).features(torch.randn(1, 3, 64, 64), layers="layer1.0.relu")
    assert list(maps) == ["layer1.0.relu", "layer1.0.relu#2"]


def test_tensorboard_reads_one_image_per_layer(vgg: hm.FeatureMaps, tmp_path: Path) -> None:
    vgg.to_tensorboard(tmp_path)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()["images"]
    assert [t for t in tags if t.startswith("features/")] == [f"features/{name}" for name in vgg]
    assert "photo/cat" in tags
    assert any(t.startswith("heatmap/cat") for t in tags)
    first = Image.open(io.BytesIO(events.Images("features/features.0")[0].encoded_image_string))
    assert first.size == (8 * 114 - 2, 8 * 114 - 2)  # 64 tiles of 112 with gaps of 2
    photo = np.asarray(Image.open(io.BytesIO(events.Images("photo/cat")[0].encoded_image_string)))
    assert np.array_equal(photo, vgg.pictures[0].pixels)
    assert "statistics/features.0/sparsity" in events.Tags()["scalars"]


def test_saving_a_folder(vgg: hm.FeatureMaps, tmp_path: Path) -> None:
    paths = vgg.save(tmp_path / "maps")
    assert len(paths) == 13 + 3
    for path in paths:
        with Image.open(path) as image:
            assert image.width > 100
    assert (tmp_path / "maps" / "overview.png").exists()
    (tmp_path / "file").touch()
    with pytest.raises(hm.HookmapError, match="is a file"):
        vgg.save(tmp_path / "file")


def layer(maps: torch.Tensor, gradient: torch.Tensor | None = None) -> LayerMaps:
    return LayerMaps("conv", "Conv2d", maps, "NCHW", gradient)


def test_statistics_in_closed_form() -> None:
    maps = torch.zeros(2, 3, 2, 2)
    maps[0, 0] = torch.tensor([[1.0, -3.0], [0.0, 2.0]])
    maps[1, 2, 0, 0] = float("nan")
    maps[1, 2, 0, 1] = float("inf")
    s = layer(maps).statistics()
    assert (s.minimum, s.maximum, s.mean) == (-3, 2, 0)
    assert s.std == pytest.approx((14 / 22) ** 0.5)
    assert s.sparsity == pytest.approx(19 / 24)
    assert (s.dead, s.nan, s.infinite) == ((1,), 1, 1)


def test_selecting_channels() -> None:
    maps = torch.zeros(1, 4, 1, 2)
    maps[0, :, 0] = torch.tensor([[5.0, 5.0], [0.0, 3.0], [-9.0, 9.0], [0.0, 1.0]])
    gradient = torch.zeros_like(maps)
    gradient[0, 3] = -1
    some = layer(maps, gradient)
    assert some.select("mean", top=2) == [0, 1]
    assert some.select("variance", top=2) == [2, 1]
    assert some.select("gradient", top=1) == [3]
    assert some.select("influence", top=2) == [3, 0]
    assert some.select([1, -1]) == [1, 3]
    assert some.select() == [0, 1, 2, 3]
    with pytest.raises(hm.LayerError, match="channels 0 to 3; 4 doesn't exist"):
        some.select(4)
    with pytest.raises(hm.LayerError, match="needs gradients"):
        layer(maps).select("gradient")


def test_influence_is_what_muting_a_channel_does_to_the_score(lens: hm.Lens, cat: Path) -> None:
    maps = lens.features(cat, layers="bn2", target=281)["bn2"]
    assert maps.gradient is not None
    told = (maps.maps * maps.gradient)[0].sum((1, 2))
    strongest = maps.select("influence", top=2)
    score = lens.explain(cat, 281)[0].score
    for channel in (*strongest, maps.select("influence", top=1280)[-1]):  # only pooling and a linear head follow
        with lens.muted("bn2", [channel]):
            assert score - lens.explain(cat, 281)[0].score == pytest.approx(float(told[channel]), abs=1e-4)


def test_gradients_on_request(lens: hm.Lens, cat: Path) -> None:
    maps = lens.features(cat, layers="blocks.6", target="predicted")["blocks.6"]
    with hm.capture(lens.model, "blocks.6") as seen:
        x = lens.preprocessing(load(cat))[0][None]
        seen.differentiate(lens.model(x).max(1).values)
    assert torch.allclose(maps.gradient, seen["blocks.6"].gradient, atol=1e-7)


def test_vectors_are_single_cells(lens: hm.Lens, cat: Path) -> None:
    logits = lens.features(cat, layers="classifier")["classifier"]
    assert logits.select("mean", top=1) == [lens.predict(cat)[0][0].index]
    assert logits.grid(channels="mean", top=4, tile=20).size == (42, 42)


def test_pca_equals_numpys_svd() -> None:
    maps = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    rows = maps.movedim(1, -1).reshape(-1, 6).numpy()
    _, _, v = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    projected = (rows - rows.mean(0)) @ v[:3].T
    mine = layer(maps).reduce("pca").reshape(-1, 3).numpy()
    for k in range(3):
        expected = (projected[:, k] - projected[:, k].min()) / np.ptp(projected[:, k])
        assert min(abs(mine[:, k] - expected).max(), abs(1 - mine[:, k] - expected).max()) < 1e-5


def test_grid_places_tiles_and_scales() -> None:
    maps = torch.tensor([0.0, 1.0, 2.0, 4.0]).view(1, 4, 1, 1).expand(1, 4, 2, 2).clone()
    maps[0, :, 0, 0] = 0
    shared = np.asarray(layer(maps).grid(tile=10, colormap="gray", scale="shared", numbers=False))
    assert shared.shape == (22, 22, 3)
    assert shared[9, 9, 0] == 0
    assert shared[9, 21, 0] == pytest.approx(255 / 4, abs=1)
    assert shared[21, 9, 0] == pytest.approx(255 / 2, abs=1)
    assert shared[21, 21, 0] == 255
    assert (shared[10:12] == 255).all()
    each = np.asarray(layer(maps).grid(tile=10, colormap="gray", numbers=False))
    assert each[21, 9, 0] == each[9, 21, 0] == 255


def test_only_what_can_be_read_is_taken_from_a_pattern() -> None:
    model = torchvision.models.swin_t(weights=None)
    x = torch.randn(1, 3, 224, 224)
    maps = hm.Lens(model).features(x, layers="features.1.**")
    assert "features.1.0.norm1" in maps
    assert maps["features.1.0.norm1"].maps.shape == (1, 96, 56, 56)


def test_bounds_of_a_statistics_table(vgg: hm.FeatureMaps) -> None:
    text = str(vgg)
    assert text.count("Conv2d") == 13
    assert "data:image/png;base64,iVBOR" in vgg._repr_html_()
