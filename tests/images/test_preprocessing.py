"""Inputs equal the libraries' own; maps come back to where the picture was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from skimage import data
from timm.data import create_transform, resolve_data_config
from torch.nn import functional as F
from torchvision.transforms import v2

import hookmap as hm
from hookmap.images.loading import Picture, load
from hookmap.images.preprocessing import Preprocessing

PHOTOS = [
    data.chelsea(),
    np.rot90(data.coffee()).copy(),
    data.chelsea()[:101, :333].copy(),
    data.chelsea()[:100, :150].copy(),
]


@pytest.mark.parametrize(
    "name",
    ["tf_efficientnet_lite0", "resnet50.a1_in1k", "vit_base_patch16_224.augreg_in21k", "inception_v3.tv_in1k",
     "convnext_base.fb_in22k_ft_in1k_384"],
)  # fmt: skip
def test_equals_timm(name: str) -> None:
    config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    theirs, mine = create_transform(**config, is_training=False), Preprocessing.from_timm(config)
    for photo in PHOTOS:
        assert torch.equal(theirs(Image.fromarray(photo)), mine(load(photo))[0])


@pytest.mark.parametrize("name", ["ResNet50", "EfficientNet_B0", "ViT_B_16", "Inception_V3", "Swin_T"])
def test_equals_torchvision(name: str) -> None:
    theirs = torchvision.models.get_weight(f"{name}_Weights.DEFAULT").transforms()
    mine = Preprocessing.from_transform(theirs)
    for photo in PHOTOS:
        assert torch.equal(theirs(Image.fromarray(photo)), mine(load(photo))[0])


def test_equals_a_compose_and_refuses_what_it_cannot_read() -> None:
    steps = [
        v2.Resize((96, 128)),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.2] * 3),
    ]
    theirs = torchvision.transforms.Compose(
        [torchvision.transforms.Resize(80), torchvision.transforms.CenterCrop(64), torchvision.transforms.ToTensor()]
    )
    photo = PHOTOS[0]
    assert torch.equal(theirs(Image.fromarray(photo)), Preprocessing.from_transform(theirs)(load(photo))[0])
    assert torch.allclose(
        v2.Compose(steps)(Image.fromarray(photo)),
        Preprocessing.from_transform(v2.Compose(steps))(load(photo))[0],
        atol=1e-6,
    )
    with pytest.raises(hm.HookmapError, match="step RandomRotation can't be read"):
        Preprocessing.from_transform(v2.Compose([v2.RandomRotation(10)]))


def test_greyscale_and_undo() -> None:
    grey = Preprocessing(size=(28, 28), resize=(28, 28), mean=(0.1307,), std=(0.3081,))
    x, _ = grey(load(PHOTOS[0]))
    assert x.shape == (1, 28, 28)
    plain = Preprocessing(size=(300, 451), resize=None)
    x, _ = plain(load(PHOTOS[0]))
    assert np.array_equal(plain.undo(x), PHOTOS[0])
    with pytest.raises(hm.HookmapError, match="3 means and 1 stds"):
        Preprocessing(std=(1.0,))


KINDS = {
    "crop": Preprocessing(size=(128, 128), resize=146),
    "crop to oblong": Preprocessing(size=(96, 160), resize=170),
    "squash": Preprocessing(size=(128, 128), resize=(128, 128)),
    "letterbox": Preprocessing(size=(128, 128), resize="letterbox", fill=114),
    "pad": Preprocessing(size=(512, 640), resize=None),
    "as it is": Preprocessing(size=(1, 1), resize=None, any_size=True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(300, 420), (420, 300)])
@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_a_bright_square_comes_back_to_its_place(kind: str, size: tuple[int, int], kernel: str) -> None:
    photo = np.zeros((*size, 3), np.uint8)
    top, left = size[0] // 2 - 50, size[1] // 2 + 10
    photo[top : top + 40, left : left + 40] = 255
    x, geometry = KINDS[kind](load(photo))
    background = x.amin()
    if kind in ("letterbox", "pad"):
        background = x[0, x.shape[1] // 2, x.shape[2] // 2 - 30]
    bright = (x.mean(0) > x.mean(0).amax() * 0.5 + background * 0.5).float()
    grid = F.adaptive_avg_pool2d(bright[None], (x.shape[1] // 4, x.shape[2] // 4))[0]
    back = geometry.lay_back(grid, kernel).clamp(min=0)
    assert back.shape == size
    ys, xs = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    centre = float((back * ys).sum() / back.sum()), float((back * xs).sum() / back.sum())
    assert centre == pytest.approx((top + 20, left + 20), abs=2.5)


def test_laying_back_equals_interpolate_where_nothing_is_cut() -> None:
    maps = torch.randn(2, 3, 7, 9)
    whole = hm.Geometry((70, 45), (224, 224), (224 / 70, 224 / 45))
    assert torch.allclose(
        whole.lay_back(maps), F.interpolate(maps, (70, 45), mode="bilinear", align_corners=False), atol=1e-5
    )


def test_pixels_outside_the_crop_are_zero_and_points_travel_both_ways() -> None:
    x, geometry = KINDS["crop"](load(PHOTOS[0]))
    laid = geometry.lay_back(torch.ones(4, 4))
    left, top, right, bottom = geometry.seen
    assert laid.sum() == pytest.approx((bottom - top) * (right - left), rel=0.02)
    assert laid[150, 225] == 1
    assert laid[0, 0] == laid[-1, -1] == 0
    corners = torch.tensor([[left, top], [right, bottom]])
    assert torch.allclose(geometry.to_input(corners), torch.tensor([[0.0, 0.0], [128.0, 128.0]]), atol=1e-3)
    assert torch.allclose(geometry.to_original(geometry.to_input(corners)), corners, atol=1e-3)
    assert x.shape == (3, 128, 128)


# ---------------------------------------------------------------- what of the picture is seen


@pytest.mark.parametrize("fit", ["crop", "whole", "stretch"])
def test_what_is_seen_is_what_was_asked_for(coffee: Path, fit: str) -> None:
    """Each part's input is what Pillow gives for it, and the geometry says which part of the picture that is."""
    chosen = hm.Lens("efficientnet_lite0", device="cpu", fit=fit)
    picture = load(coffee)
    x, geometry = chosen.preprocessing(picture)
    image = Image.fromarray(picture.pixels)
    size = {"crop": (384, 256), "whole": (384, 256), "stretch": (224, 224)}[fit]
    resized = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32)
    wanted = resized[16:240, 80:304] if fit == "crop" else resized
    assert torch.allclose(x, torch.from_numpy((wanted / 255 - 0.5) / 0.5).permute(2, 0, 1), atol=1e-6)
    corners = geometry.to_input(torch.tensor([[0.0, 0.0], [600.0, 400.0]])).tolist()
    inside = corners[0] == [0, 0] and corners[1] == [x.shape[2], x.shape[1]]
    assert inside == (fit != "crop")
    heatmap = chosen.explain(coffee)[0]
    assert heatmap.raw.shape[1] * 32 == x.shape[2]


def test_sides_of_a_whole_input_are_multiples_of_a_patch() -> None:
    steps = hm.Preprocessing(size=(224, 224), resize=256).fitted("whole", 14)
    x, geometry = steps(Picture(np.zeros((300, 451, 3), np.uint8)))
    assert x.shape[1:] == (252, 378)
    assert geometry.input == (252, 378)


def test_a_model_of_one_input_size_refuses_a_whole_picture(coffee: Path) -> None:
    net = timm.create_model("vit_tiny_patch16_224", num_classes=3).eval()
    with pytest.raises(hm.ModelError, match="take fit='stretch' if it takes one size only"):
        hm.Lens(net, fit="whole").explain(coffee)
    assert hm.Lens(net, fit="stretch").explain(coffee)[0].geometry.input == (224, 224)
    with pytest.raises(hm.HookmapError, match="fit is 'fill'; expected one of crop, whole, stretch"):
        hm.Lens(net, fit="fill")  # type: ignore[arg-type]
    with pytest.raises(hm.ModelError, match="which isn't known; pass preprocessing="):
        hm.Lens(torch.nn.Conv2d(3, 3, 3), fit="whole")
