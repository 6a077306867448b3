"""What of a picture is like one place of it: patch similarity, and components of patches as colours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hookmap as hm
from hookmap.attribution.similarity import PatchBank
from networks import convnet, noise
from tiny import close

SIDE, CELL = 96, 8
PLACES = {"one": (8, 16), "two": (56, 48)}  # top, left of two equal patches of texture, 32 pixels wide


def vit(**more: Any) -> nn.Module:
    import timm

    torch.manual_seed(0)
    known = {"img_size": SIDE, "patch_size": CELL, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 0}
    model = timm.create_model("vit_tiny_patch16_224", **{**known, **more})
    # What a patch shows counts for more than where it is, as in trained models.
    nn.init.normal_(model.patch_embed.proj.weight, std=0.2)
    return model.eval()


def textured(seed: int = 0, places: dict[str, tuple[int, int]] = PLACES) -> np.ndarray:
    """Noise with one texture in some places."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(100, 140, (SIDE, SIDE, 3)).astype(np.uint8)
    y, x = np.mgrid[0:32, 0:32]
    stripes = np.where((x + y) % 8 < 4, 250, 10).astype(np.uint8)
    for top, left in places.values():
        pixels[top : top + 32, left : left + 32] = np.stack([stripes, stripes // 2, 255 - stripes], -1)
    return pixels


def inside(places: dict[str, tuple[int, int]] = PLACES) -> Tensor:
    """Which cells hold the texture."""
    cells = torch.zeros(SIDE // CELL, SIDE // CELL, dtype=torch.bool)
    for top, left in places.values():
        cells[top // CELL : (top + 32) // CELL, left // CELL : (left + 32) // CELL] = True
    return cells


def lens_of(model: nn.Module, **known: Any) -> hm.Lens:
    return hm.Lens(model, preprocessing=hm.Preprocessing((SIDE, SIDE), None, (0.5,) * 3, (0.5,) * 3), **known)


def test_the_cosine_of_every_patch_with_the_clicked_one() -> None:
    model, picture = vit(), textured()
    lens = lens_of(model)
    found = lens.similar_patches(picture, (20.5, 33.0), centred=False)[0]
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255 * 2 - 1
    with torch.no_grad():
        tokens = model.forward_features(x)[0, 1:]
    clicked = tokens[4 * 12 + 2]  # row 33 // 8, column 20.5 // 8
    lengths = tokens.norm(dim=1) * clicked.norm()
    assert close(found.raw, (tokens @ clicked / lengths).reshape(12, 12), 1e-5)
    assert float(found.raw[4, 2]) == pytest.approx(1, abs=1e-5)
    assert (found.layer, found.target, found.box) == ("norm", "like image at x 20.5 y 33", (16, 32, 24, 40))
    mean = tokens.mean(0)
    centred = F.cosine_similarity(tokens - mean, (clicked - mean)[None]).reshape(12, 12)
    assert close(lens.similar_patches(picture, (20.5, 33.0))[0].raw, centred, 1e-5)


def test_equal_textures_are_most_alike() -> None:
    lens = lens_of(vit())
    heatmap = lens.similar_patches(textured(), (30, 22))[0]
    within, elsewhere = heatmap.raw[inside()], heatmap.raw[~inside()]
    assert within.min() > elsewhere.max()
    assert elsewhere.mean() < 0 < within.mean()
    assert heatmap.map.shape == (SIDE, SIDE)


def test_a_point_in_one_picture_is_found_in_others() -> None:
    lens = lens_of(vit())
    elsewhere = {"there": (24, 56)}
    found = lens.similar_patches([textured(), textured(1, elsewhere), textured(2, {})], (30, 22), batch_size=2)
    assert len(found) == 3
    assert found[1].raw[inside(elsewhere)].min() > found[1].raw[~inside(elsewhere)].max()
    assert found[2].score < 0.6 < 0.9 < found[1].score  # nothing of it is there
    assert [h.box is None for h in found] == [False, True, True]
    assert {h.target for h in found} == {"like image 0 at x 30 y 22"}
    assert found.overlay().size[0] > found[0].overlay().size[0]  # a sheet of the three


def test_similar_is_red_and_unlike_blue() -> None:
    """On one scale for all pictures, so that what is only a little alike is pale."""
    one, _, none = lens_of(vit()).similar_patches([textured(), textured(1), textured(2, {})], (30, 22))

    def warmth(heatmap: hm.Heatmap) -> np.ndarray:
        """Red minus blue, at each pixel of the photo."""
        drawn = np.asarray(heatmap.overlay(size=4 * SIDE, opacity=1.0), dtype=float)[2::4, 2::4]
        return drawn[..., 0] - drawn[..., 2]

    warm, values, heat = warmth(one), one.numpy(), np.ones((SIDE, SIDE), dtype=bool)
    heat[14:26, 22:34] = False  # the clicked patch is outlined
    heat[88:, 64:] = False  # what the colours mean
    assert warm[(values > 0.5) & heat].min() > 0 > warm[(values < -0.3) & heat].max()
    assert warmth(none)[heat].max() < warm[heat].max()


def test_a_convolutional_layer_and_a_cropped_picture() -> None:
    """The point is one of the picture's pixels, whatever the preprocessing cut off."""
    lens = hm.Lens(convnet(), preprocessing=hm.Preprocessing((48, 48), 48, (0.5,) * 3, (0.5,) * 3))
    wide = np.tile(textured()[:, :48], (1, 4, 1))  # 96x192, of which the model sees the middle 96x96
    found = lens.similar_patches(wide, (50.0, 2.0), layer="conv1")[0]
    assert found.raw.shape == (24, 24)
    assert int(found.raw.argmax()) == 0  # 50 lies 2 pixels right of where the crop begins
    assert found.map[:, :47].abs().max() == 0
    with pytest.raises(hm.TargetError, match=r"point \(20, 2\) lies outside .* x from 48 to 144, y from 0 to 96"):
        lens.similar_patches(wide, (20, 2))
    with pytest.raises(hm.LayerError, match="is about one layer"):
        lens.similar_patches(wide, (50, 2), layer=["conv1", "conv2"])


def test_a_clip_of_frames_has_no_rows_and_columns() -> None:
    with pytest.raises(hm.LayerError, match=r"'conv1' holds a grid of NCTHW .* needs rows and columns"):
        hm.Lens(convnet(rank=3)).similar_patches(noise(1, 3, 8, 24, 32), (3, 3), layer="conv1")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"])
def test_components_of_patches_tell_textures_apart(name: str) -> None:
    """PCA of tokens as colours, of transformers with and without registers."""
    import timm

    torch.manual_seed(0)
    known = {"img_size": SIDE, "patch_size": CELL, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 0}
    model = timm.create_model(name, **known).eval()
    nn.init.normal_(model.patch_embed.proj.weight, std=0.2)
    lens = lens_of(model)
    found = lens.concepts([textured(), textured(1, {"there": (24, 56)})], layer="norm", concepts=3, method="pca")
    assert [tuple(m.shape) for m in found.memberships] == [(3, 12, 12)] * 2
    first = found.memberships[0][0]
    within, elsewhere = first[inside()], first[~inside()]
    apart = (within.mean() - elsewhere.mean()).abs()
    assert apart > 2 * (within.std() + elsewhere.std())
    assert (found.memberships[1][0][inside({"there": (24, 56)})].mean() - within.mean()).abs() < apart / 3
    assert found.overlay(0).size == (4 * SIDE, 4 * SIDE)  # drawn at a size for people


def test_a_bank_finds_in_each_picture_what_similar_patches_shows_strongest() -> None:
    lens, point = lens_of(vit()), (20.5, 33.0)
    asked, others = textured(), {str(seed): textured(seed, {"one": (8 * seed, 40)}) for seed in (1, 2, 3)}
    bank = PatchBank(lens.engine, "norm")
    for key, pixels in [*others.items(), ("unasked", noise(1, 3, SIDE, SIDE)[0].byte())]:
        bank.add(key, pixels)
    found = bank.nearest(asked, point, [*others], top=3)
    maps = lens.similar_patches([asked, *others.values()], point, "norm")[1:]
    truth = dict(zip(others, maps, strict=True))
    assert [one.key for one in found] == sorted(truth, key=lambda key: -truth[key].score)
    for one in found:
        raw = truth[one.key].raw
        row, column = divmod(int(raw.argmax()), raw.shape[1])
        assert one.box == (column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL)
        assert one.similarity == pytest.approx(float(raw.max()), abs=1e-5)
        left, top, *_ = one.box
        assert 0 <= left - 40 < 32  # the same texture
        assert 0 <= top - 8 * int(one.key) < 32
    assert len(bank.nearest(asked, point, [*others], top=1)) == 1


def test_a_bank_has_room_for_so_many_pictures() -> None:
    lens = lens_of(vit())
    each = 32 * (SIDE // CELL) ** 2 * 4
    bank = PatchBank(lens.engine, "norm", room=3 * each)
    added = 0
    while not bank.full:
        bank.add(str(added), textured(added))
        added += 1
    assert added == 3
    assert "2" in bank


def test_a_bank_refuses_what_has_no_rows_and_columns() -> None:
    lens = lens_of(vit())
    bank = PatchBank(lens.engine, "norm")
    bank.add("one", textured())
    with pytest.raises(hm.TargetError, match="outside"):
        bank.nearest(textured(), (SIDE + 1, 3), ["one"], 1)
    with pytest.raises(hm.LayerError):
        PatchBank(lens.engine, "nowhere").add("one", textured())
