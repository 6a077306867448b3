"""Pictures far larger than the input, explained tile by tile."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hookmap as hm
from hookmap.attribution.tiles import Tiling, gaussian

SIDE = 64


class RedFinder(nn.Module):
    """Class 1 is red, class 0 is grey; keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.look.weight.copy_(torch.tensor([[0.3, 0.3, 0.3], [1.0, -0.5, -0.5]])[..., None, None])
        self.shrink = nn.AvgPool2d(8)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(2) * 10)
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (3, SIDE, SIDE)
        self.batches.append(len(x))
        return self.head(self.shrink(self.look(x).relu()).mean((2, 3)))


def lens_of(model: nn.Module) -> hm.Lens:
    plain = hm.Preprocessing(size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3)
    return hm.Lens(model, preprocessing=plain, labels=["grey", "red"])


def photo(height: int, width: int, *, left: int, top: int, side: int = 60) -> np.ndarray:
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[top : top + side, left : left + side] = (255, 0, 0)
    return pixels


@pytest.mark.parametrize("where", [(2200, 1500), (2940, 1940), (0, 0), (1000, 37)])
def test_a_small_thing_in_a_large_picture_is_found(where: tuple[int, int]) -> None:
    left, top = where
    model = RedFinder()
    (heatmap,) = lens_of(model).explain_in_tiles(photo(2000, 3000, left=left, top=top), "red", layer="look", tile=250)
    heat = heatmap.map
    assert heat.shape == (2000, 3000)
    inside = heat[top : top + 60, left : left + 60].sum() / heat.sum()
    assert inside > 0.9
    row, column = divmod(int(heat.argmax()), 3000)
    assert top <= row < top + 60
    assert left <= column < left + 60
    assert heatmap.target == "red"
    assert max(model.batches) <= 16


def test_memory_does_not_grow_with_the_picture() -> None:
    seen = {}
    for height, width in ((300, 300), (600, 900)):
        model = RedFinder()
        (heatmap,) = lens_of(model).explain_in_tiles(
            photo(height, width, left=9, top=9), 1, layer="shrink", batch_size=4
        )
        seen[height] = model.batches
        assert heatmap.raw.shape == (round(height / 8), round(width / 8))
    assert max(seen[300]) == max(seen[600]) == 4
    assert len(seen[600]) > 4 * len(seen[300]) / 2


@pytest.mark.filterwarnings("ignore:the heatmap of .* is zero everywhere:hookmap.HookmapWarning")
def test_one_tile_that_covers_all_is_the_plain_call() -> None:
    for pixels in (photo(SIDE, SIDE, left=5, top=20, side=20), photo(200, 200, left=50, top=90)):
        lens = lens_of(RedFinder())
        asked = ["predicted", "red", hm.Contrast("red", "grey"), hm.Probability("red")]
        how = {"layer": ["look", "shrink"], "method": ["gradcam", "layercam"]}
        plain = lens.explain(pixels, asked, **how)
        tiled = lens.explain_in_tiles(pixels, asked, tile=200, **how)
        assert len(plain) == len(tiled) == 16
        for one, other in zip(plain, tiled, strict=True):
            assert torch.allclose(one.raw, other.raw, atol=1e-6)
            assert torch.allclose(one.map, other.map, atol=1e-6)
            assert (one.target, one.layer, one.method.name) == (other.target, other.layer, other.method.name)
            assert one.score == pytest.approx(other.score, abs=1e-5)


def test_the_class_is_one_for_all_tiles() -> None:
    """Few tiles see red; over all of them the picture is grey."""
    lens, pixels = lens_of(RedFinder()), photo(400, 400, left=300, top=300)
    (heatmap,) = lens.explain_in_tiles(pixels, layer="shrink")
    assert heatmap.target == "grey"
    assert 0.5 < heatmap.probability < 1
    assert heatmap.where == f"{12 * 12} tiles"


def test_a_uniform_picture_has_a_uniform_map() -> None:
    """Blending leaves no seams."""
    pixels = np.full((333, 517, 3), 90, np.uint8)
    for tile, overlap in ((None, 0.5), (100, 0.25), ((70, 90), 0)):
        raw = lens_of(RedFinder()).explain_in_tiles(pixels, 0, layer="shrink", tile=tile, overlap=overlap).raw
        assert torch.allclose(raw, raw.mean().expand_as(raw), rtol=1e-4)


def test_tiles_fill_the_picture_and_share_a_grid() -> None:
    tiling = Tiling.over((2000, 3000), (224, 224), (7, 7), 0.5)
    boxes = [tiling.box(start) for start in tiling]
    assert len(boxes) == len(tiling)
    assert (min(b[0] for b in boxes), min(b[1] for b in boxes)) == (0, 0)
    assert max(b[2] for b in boxes) == pytest.approx(3000)
    assert max(b[3] for b in boxes) == pytest.approx(2000)
    assert all(abs(b[2] - b[0] - 224) < 4 for b in boxes)
    columns = sorted({b[0] for b in boxes})
    assert max(b - a for a, b in pairwise(columns)) <= 4.001 * 3000 / tiling.cells[1]


def test_only_the_whole_map_is_warned_of_when_blank() -> None:
    """Most tiles hold nothing of a small thing, which is no news; a picture that holds nothing of it is."""
    lens = lens_of(RedFinder())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lens.explain_in_tiles(photo(200, 300, left=200, top=100), "red", layer="look")
    with pytest.warns(hm.HookmapWarning, match="the heatmap of 'red' on 'image' by gradcam is zero everywhere") as said:
        lens.explain_in_tiles(np.full((200, 300, 3), 90, np.uint8), "red", layer="look")
    assert len(said) == 1
    assert said[0].filename == __file__


def test_what_tiles_cannot_be_asked(lens: hm.Lens, cat: Path) -> None:
    with pytest.raises(hm.TargetError, match="no target for tiles"):
        lens.explain_in_tiles(cat, hm.Point(3, 4))
    with pytest.raises(hm.HookmapError, match="overlap is 1"):
        lens.explain_in_tiles(cat, overlap=1)
    with pytest.raises(hm.ImageError, match="tiles are cut from pictures"):
        lens.explain_in_tiles(torch.rand(1, 3, 300, 300))


def test_a_picture_that_cannot_be_explained_in_tiles_does_not_stop_the_others(lens: hm.Lens, cat: Path) -> None:
    images = [cat.with_name("gone.jpg"), cat]
    with pytest.raises(hm.ImageError, match="gone"):
        lens.explain_in_tiles(images, 281)
    found = lens.explain_in_tiles(images, 281, on_error="skip")
    assert ([h.position.image for h in found], [*found.errors]) == ([1], ["gone"])
    places = lens.explain_in_tiles(cat, hm.Point(3, 4), on_error="skip")
    assert "is no target for tiles" in str(places.errors["cat"])
    with pytest.raises(hm.HookmapError, match="on_error is 'no'"):
        lens.explain_in_tiles(cat, on_error="no")


def test_a_real_photo(lens: hm.Lens, coffee: Path) -> None:
    (heatmap,) = lens.explain_in_tiles(coffee, "espresso", tile=300)
    assert heatmap.map.shape == (400, 600)
    assert heatmap.map[80:205, 205:380].mean() > 2 * heatmap.map.mean()


def test_tiles_that_predict_another_class_than_the_whole_picture_say_so() -> None:
    """Six of sixteen tiles are red: by mean probability grey wins, by the mean of the colours red."""
    picture = photo(256, 256, left=0, top=0, side=0)
    picture[:128, :192] = (255, 0, 0)
    lens = lens_of(RedFinder())
    assert lens.predict(picture)[0][0].label == "red"
    with pytest.warns(hm.HookmapWarning, match="tiles together show 'grey'.*seen as a whole shows 'red'"):
        (heatmap,) = lens.explain_in_tiles(picture, tile=64, overlap=0)
    assert heatmap.target == "grey"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lens.explain_in_tiles(picture[:128, :192], tile=64, overlap=0)
        lens.explain_in_tiles(picture, "red", tile=64, overlap=0)


# ---------------------------------------------------------------- volumes


class BlobFinder(nn.Module):
    """Class 1 is bright, class 0 is not; cells of 4 voxels see only themselves. Takes volumes of 16 voxels a side."""

    def __init__(self, side: int = 16) -> None:
        super().__init__()
        self.side = side
        self.cells = nn.Conv3d(1, 4, 4, 4)
        with torch.no_grad():
            weight = torch.rand(4, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0)) / 64
            self.cells.weight.copy_(weight)
            self.cells.bias.fill_(-0.1)
        self.head = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-1.0] * 4, [1.0, 2.0, 0.5, 1.0]]))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (1, self.side, self.side, self.side)
        return self.head(self.cells(x).relu().mean((2, 3, 4)))


def test_a_volume_in_tiles_equals_the_volume_at_once() -> None:
    # Cells see only themselves, so a window's border matters nowhere; at once the mean is over more cells.
    volume = torch.rand(1, 40, 40, 40, generator=torch.Generator().manual_seed(1))
    (tiled,) = hm.Lens(BlobFinder()).explain_in_tiles(volume, 1, "cells", "hirescam", tile=16)
    (whole,) = hm.Lens(BlobFinder(40)).explain(volume[None], 1, "cells", "hirescam")
    assert tiled.raw.shape == whole.raw.shape == (10, 10, 10)
    expected = whole.raw * (10**3 / 4**3)
    assert torch.allclose(tiled.raw, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))


@pytest.mark.parametrize("size", [(40, 33, 50), (16, 16, 16), (7, 30, 16)])
def test_volumes_of_any_size(size: tuple[int, int, int]) -> None:
    volume = torch.zeros(1, *size)
    at = tuple(slice(side - 6, side - 2) for side in size)
    volume[0][at] = 3.0
    (heatmap,) = hm.Lens(BlobFinder()).explain_in_tiles(volume, 1, tile=16)
    heat = heatmap.map
    assert heat.shape[1:] == size[1:]
    step, row, column = (int(i) for i in np.unravel_index(int(heat.argmax()), heat.shape))
    assert size[1] - 8 <= row < size[1]
    assert size[2] - 8 <= column < size[2]
    assert size[0] - 8 <= (step + 0.5) * 4 < size[0] + 4
    assert heatmap.overlay().size[0] > 0


def test_windows_overlap_and_are_weighted_as_nnunet_does() -> None:
    # nnU-Net: a step of half a window, as many as needed, evenly spread; a Gaussian of sigma = an eighth of a window.
    from scipy.ndimage import gaussian_filter

    tiling = Tiling.over((40, 256), (16, 96), (16, 96), 0.5)
    assert tiling.starts == ((0, 8, 16, 24), (0, 40, 80, 120, 160))
    for cells in (17, 33):
        spike = np.zeros(cells)
        spike[cells // 2] = 1
        theirs = gaussian_filter(spike, cells / 8, mode="constant", truncate=8)
        assert np.allclose(gaussian(cells).numpy(), theirs / theirs.max(), atol=1e-6)


def test_the_class_of_a_volume_is_that_of_all_its_windows() -> None:
    volume = torch.zeros(1, 32, 32, 32)
    volume[0, :4, :4, :4] = 1.0
    (heatmap,) = hm.Lens(BlobFinder(), labels=["dark", "bright"]).explain_in_tiles(volume, tile=16)
    assert heatmap.target in ("dark", "bright")
    assert heatmap.where == "27 tiles"


def test_what_no_volume_can_be_asked() -> None:
    lens, volume = hm.Lens(BlobFinder()), torch.zeros(1, 32, 32, 32)
    with pytest.raises(hm.HookmapError, match=r"pass tile= the size \(d, h, w\)"):
        lens.explain_in_tiles(volume, 1)
    with pytest.raises(hm.HookmapError, match=r"tile is \(16, 16\); expected \(d, h, w\)"):
        lens.explain_in_tiles(volume, 1, tile=(16, 16))
    with pytest.raises(hm.TargetError, match="no target for tiles"):
        lens.explain_in_tiles(volume, hm.Point(3, 3), tile=16)
