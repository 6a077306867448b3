"""Which images come in and where results go: nothing of the user's is lost, and a command that fails leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import hookmap as hm


@pytest.fixture
def photos(cat: Path, coffee: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    shutil.copy(cat, folder / "cat.jpg")
    shutil.copy(coffee, folder / "more" / "coffee.jpg")
    (folder / "notes.txt").write_text("no image")
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "cat.jpg", "-o", "cat.jpg"],
        ["explain", "cat.jpg", "-o", "link.jpg"],
        ["explain", "cat.jpg", "cat_gradcam.png", "-o", "."],
        ["explain", "cat.jpg", "cat_hirescam.png", "--method", "hirescam"],
        ["explain", "cat.jpg", "cat_layercam_1.png", "-t", "1", "-t", "2", "--each", "--method", "layercam"],
        ["explain", "."],
        ["concepts", "cat.jpg", "-o", "cat.jpg"],
        ["concepts", "cat.jpg", "cat_gradcam.png", "-o", "cat_gradcam.png"],
        ["features", "photo.png", "-o", "."],
    ],
)
def test_no_image_is_written_over(hookmap, cat: Path, tmp_path: Path, arguments: list[str]) -> None:
    for name in ("cat.jpg", "cat_gradcam.png", "cat_hirescam.png", "photo.png", "cat_layercam_1.png"):
        shutil.copy(cat, tmp_path / name)
    os.link(tmp_path / "cat.jpg", tmp_path / "link.jpg")
    before = _files(tmp_path)
    result = hookmap(*arguments)
    assert result.code == 1
    assert "would be written over" in result.err
    assert result.err.count("\n") == 1
    assert _files(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["explain", "{cat}", "{coffee}", "-o", "maps.pdf"], "one file, and 2 images came; pass a folder: maps.pdf/"),
        (["explain", "{cat}", "{coffee}", "-o", "maps.v1"], "pass a folder: maps.v1/"),
        (["explain", "{cat}", "-o", "cat.xyz"], "ends in none of .png"),
        (["explain", "{cat}", "-o", "new/deep/cat.png", "--colormap", "infernal"], "did you mean inferno"),
        (["explain", "nowhere.jpg", "-o", "new/"], "can't be read"),
        (["explain", "empty"], "holds no images"),
        (["explain", "*.webp"], "fits no images"),
        (["features", "{cat}", "-o", "f.png"], "is a file; feature maps are written as a folder"),
        (["features", "{cat}", "-o", "f", "--channels", "0,99999"], "99999 doesn't exist"),
        (["features", "{cat}", "-o", "f", "--channels", "first"], "expected all, mean, variance, or numbers"),
        (["concepts", "{cat}", "-o", "cat.xyz"], "ends in none of .png"),
    ],
)
def test_what_fails_leaves_nothing(
    hookmap, cat: Path, coffee: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    result = hookmap(*(a.format(cat=cat, coffee=coffee) for a in arguments))
    assert result.code == 1
    assert sentence in result.err
    assert result.err.startswith("hookmap: ")
    assert result.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_a_folder_may_have_a_dot_in_its_name(hookmap, cat: Path, tmp_path: Path) -> None:
    assert hookmap("explain", cat, "-o", "maps.v1/").code == 0
    assert hookmap("explain", cat, "-o", "maps.v1", "--method", "hirescam").code == 0
    assert sorted(p.name for p in (tmp_path / "maps.v1").iterdir()) == ["cat_gradcam.png", "cat_hirescam.png"]


def test_folders_and_quoted_patterns_are_explained(hookmap, photos: Path, tmp_path: Path) -> None:
    for given, folder in (("photos", "a"), ("photos/**/*.jpg", "b")):
        result = hookmap("explain", given, "-o", folder)
        assert (result.code, result.err) == (0, "")
        assert sorted(_files(tmp_path / folder)) == ["cat_gradcam.png", "coffee_gradcam.png"]


def test_all_maps_of_all_images_in_one_file(hookmap, photos: Path, tmp_path: Path, lens: hm.Lens) -> None:
    (photos / "broken.jpg").write_bytes((photos / "cat.jpg").read_bytes()[:3000])
    result = hookmap("explain", "photos", "--top", 2, "-o", "maps.npz", "--json")
    assert result.code == 1
    saved = hm.load(tmp_path / "maps.npz")
    assert saved.images == ["cat", "coffee"]
    assert list(saved.errors) == ["broken"]
    assert [len(part) for part in saved.along("image")] == [2, 2]
    document = json.loads(result.out)
    assert [row["index"] for row in document["heatmaps"]] == [heatmap.index for heatmap in saved]
    assert [row["image"] for row in document["errors"]] == ["photos/broken.jpg"]
    first = lens.explain(photos / "cat.jpg", [h.index for h in saved.along("image")[0]])
    assert torch.equal(saved[0].raw, first[0].raw)


def test_names_of_files_dont_steer_the_terminal(hookmap, cat: Path, tmp_path: Path) -> None:
    name = "a\x1b[31m\x07\nb.jpg"
    shutil.copy(cat, tmp_path / name)
    (tmp_path / "c\x1b]0;x.jpg").write_text("no image")
    result = hookmap("explain", name, "c\x1b]0;x.jpg", "-o", "maps")
    assert result.code == 1
    assert "\x1b" not in result.out + result.err
    assert result.out.count("\n") == result.err.count("\n") == 1
    assert r"a\x1b[31m\x07\nb" in result.out
