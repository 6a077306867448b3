"""Every kind of image that people have, and every kind that can't be read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hookmap as hm
from hookmap.images.loading import load, load_all
from pictures import bomb

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_paths_bytes_files_and_pil_agree(tmp_path: Path) -> None:
    path = saved(Image.fromarray(RGB), tmp_path / "a photo.png")
    for given in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), Image.open(path)):
        assert np.array_equal(load(given).pixels, RGB)
    assert (load(path).name, load(path).path, load(path).height, load(path).width) == ("a photo", path, 20, 30)


@pytest.mark.parametrize(
    "array",
    [
        RGB,
        RGB.transpose(2, 0, 1),
        RGB.astype(np.float32) / 255,
        RGB.astype(np.float64) / 255,
        RGB.astype(np.uint16) * 257,
    ],
    ids=["HWC", "CHW", "float32", "float64", "uint16"],
)
def test_arrays(array: np.ndarray) -> None:
    assert np.array_equal(load(array).pixels, RGB)


def test_tensors_greys_and_masks() -> None:
    assert np.array_equal(load(torch.from_numpy(RGB).permute(2, 0, 1)).pixels, RGB)
    grey = RGB[..., 0]
    for array in (grey, grey[..., None], grey[None]):
        assert np.array_equal(load(array).pixels, np.stack([grey] * 3, -1))
    assert set(np.unique(load(grey > 128).pixels)) == {0, 255}


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    path = saved(Image.fromarray(RGB), tmp_path / "turned.png", exif=exif)
    assert np.array_equal(load(path).pixels, np.rot90(RGB, -1))


def test_transparency_becomes_white(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, np.zeros((20, 30), np.uint8)])
    rgba[:, 15:, 3] = 255
    for given in (rgba, Image.fromarray(rgba), saved(Image.fromarray(rgba), tmp_path / "a.png")):
        pixels = load(given).pixels
        assert (pixels[:, :15] == 255).all()
        assert np.array_equal(pixels[:, 15:], RGB[:, 15:])
    palette = Image.fromarray((RGB[..., 0] > 128).astype(np.uint8), "L").convert("P")
    path = saved(palette, tmp_path / "p.png", transparency=0)
    assert (load(path).pixels[RGB[..., 0] <= 128] == 255).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA"])
def test_modes_become_what_a_viewer_shows(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(load(image).pixels, expected)


def test_16_bit_is_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 600, dtype=np.uint16).reshape(20, 30)
    path = saved(Image.fromarray(deep), tmp_path / "deep.png")
    pixels = load(path).pixels[..., 0]
    assert abs(pixels.astype(float) - deep / 257).max() <= 0.51
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (30, 20), c) for c in ("red", "blue")]
    path = saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (load(path).pixels == [255, 0, 0]).all()


def test_lists_and_batches(tmp_path: Path) -> None:
    path = saved(Image.fromarray(RGB), tmp_path / "x.png")
    assert [p.name for p in load_all([RGB, path, RGB])] == ["image 0", "x", "image 2"]
    assert len(load_all(np.stack([RGB] * 4))) == 4
    assert len(load_all(p for p in [path, path])) == 2
    with pytest.raises(hm.ImageError, match="empty list"):
        load_all([])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"hello, I am a text file", "isn't an image in a format that Pillow reads"),
        (b"", "isn't an image"),
        (bomb(), "decompression bombs do"),
    ],
    ids=["text", "empty", "bomb"],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(hm.ImageError, match=sentence):
        load(path)


def test_a_truncated_jpeg(tmp_path: Path) -> None:
    path = saved(Image.fromarray(RGB).resize((400, 300)), tmp_path / "x.jpg")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(hm.ImageError, match="damaged"):
        load(path)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (np.zeros((1, 1, 3), np.uint8), "1x1 pixels, too small"),
        (np.full((9, 9, 3), np.nan), "NaN"),
        (np.full((9, 9, 3), 200.0), "divide by 255"),
        (np.zeros((9, 9, 5), np.uint8), r"expected \(H, W\)"),
        (np.zeros((9, 9), np.int64), "expected uint8"),
        (torch.zeros(3, 9, 9), "floating-point tensor"),
        ("https://example.org/dog.jpg", "doesn't download"),
        ("/nowhere/dog.jpg", "can't be read"),
        ("/", "is a folder"),
        (3.5, "was given as float"),
    ],
)
def test_what_cannot_be_an_image_is_said(given: object, sentence: str) -> None:
    with pytest.raises(hm.ImageError, match=sentence):
        load(given)
