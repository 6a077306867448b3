"""Every kind of image that people have, and every kind that can't be read."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
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
        ("", "an empty path came"),
        ("https://example.org/dog.jpg", "doesn't download"),
        ("/nowhere/dog.jpg", "can't be read"),
        ("/", "is a folder"),
        (3.5, "was given as float"),
    ],
)
def test_what_cannot_be_an_image_is_said(given: object, sentence: str) -> None:
    with pytest.raises(hm.ImageError, match=sentence):
        load(given)


# ---------------------------------------------------------------- what is no picture


def test_only_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would wait for ever
    cases = {
        str(tmp_path / "pipe.jpg"): "is a pipe or a device; save the image as a file",
        "/dev/zero": "is a pipe or a device",
        "a\0b.jpg": r"^a\\x00b.jpg can't be read \(embedded null byte\); check the path",
        "~nobody-of-this-name/a.jpg": r"can't be read \(.*\); check the path",
    }
    for path, sentence in cases.items():
        with pytest.raises(hm.ImageError, match=sentence):
            load(path)


def test_a_closed_picture_or_file_is_said(cat: Path) -> None:
    picture, file = Image.open(cat), cat.open("rb")
    picture.close()
    file.close()
    for given in (picture, file):
        with pytest.raises(hm.ImageError, match=r"closed.*; open it again"):
            load(given)
    with pytest.raises(hm.ImageError, match=r"holds str; open it in binary mode"):
        load(io.StringIO("text"))


def test_tensors_of_other_layouts() -> None:
    values = torch.arange(3 * 8 * 8, dtype=torch.uint8).reshape(3, 8, 8)
    assert np.array_equal(load(values.to_sparse()).pixels, load(values).pixels)
    with pytest.raises(hm.ImageError, match="on the meta device came as an image; it has a shape and no values"):
        load(values.to("meta"))
    with pytest.raises(hm.ImageError, match="on the meta device"):
        hm.Lens(torch.nn.Conv2d(3, 4, 3)).explain(torch.empty(1, 3, 8, 8, device="meta"))


def _mutated(encoded: bytes, count: int, within: slice) -> Iterator[bytes]:
    random = np.random.RandomState(0)
    for _ in range(count):
        changed = bytearray(encoded)
        for _ in range(random.randint(1, 6)):
            changed[within.start + random.randint(within.stop - within.start)] = random.randint(256)
        yield bytes(changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["AVIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_damaged_bytes_are_a_picture_or_a_sentence(form: str) -> None:
    file = io.BytesIO()
    pixels = np.random.RandomState(0).randint(0, 255, (48, 48, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, form)
    encoded = file.getvalue()
    for damaged in _mutated(encoded, 300, slice(0, len(encoded))):
        with contextlib.suppress(hm.ImageError):
            load(damaged)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_orientation_costs_no_picture(cat: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.open(cat).resize((48, 40)).save(file, "JPEG", exif=exif)
    encoded = file.getvalue()
    assert (load(encoded).height, load(encoded).width) == (48, 40)
    start = encoded.index(b"Exif") + 6
    for damaged in _mutated(encoded, 300, slice(start, start + 26)):
        picture = load(damaged)
        assert {picture.height, picture.width} == {48, 40}
