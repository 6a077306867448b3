"""Whatever holds images is found, listed and read as the libraries that made it do."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
import torchvision
import webdataset
from braceexpand import braceexpand
from hypothesis import given as for_all
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from PIL import Image
from pycocotools import mask as peer
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, random_split

import datasets
from hookmap.datasets.sources import Item, LabelledBox, Source, Stream, source
from hookmap.datasets.sources.files import braces
from hookmap.datasets.sources.masks import fill, from_runs
from hookmap.errors import DataError, ImageError
from hookmap.images.loading import load
from pictures import REPOSITORY

PHOTOS = REPOSITORY / "examples" / "photos"
RED = Image.new("RGB", (12, 8), "red")


def small(color: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 8), color).save(file, "PNG")
    return file.getvalue()


def put(path: Path, color: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small(color))
    return path


def items(some: Source) -> list[Item]:
    return list(some) if isinstance(some, Stream) else [some.item(number) for number in range(len(some.ids or ()))]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An ``ImageFolder`` tree with names as people have them."""
    root = tmp_path / "my photos [2020]"
    # The last two are é as one character and as e with an accent.
    for name in (
        "cat/a b.jpg",
        "cat/deep/c.JPG",
        "犬/照片.jpg",
        "犬/%41 #1?.jpeg",
        "tiger cat/\xe9.jpg",
        "tiger cat/e\u0301.jpg",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PHOTOS / "cat.jpg", path)
    (root / "cat" / "notes.txt").write_text("not an image")
    return root


# --- folders


def test_an_image_folder_is_what_torchvision_reads(tree: Path) -> None:
    peer = torchvision.datasets.ImageFolder(str(tree))
    mine = source(tree)
    assert mine.classes == peer.classes
    expected = [(os.path.relpath(path, tree), peer.classes[index]) for path, index in peer.samples]
    assert sorted((item.id, item.label) for item in items(mine)) == sorted(expected)
    assert [item.label for item in items(mine)] == [label for _, label in expected]  # the classes' order
    assert all(item.path == str(tree / item.id) and load(item.image).width > 100 for item in items(mine))
    assert mine.description == {"kind": "image folder", "from": str(tree), "images": 6}
    assert mine.notes == []


def test_hidden_files_and_what_is_no_image_are_left_out(tree: Path) -> None:
    (tree / "cat" / "._a b.jpg").write_bytes(b"what a Mac leaves behind")
    (tree / "cat" / "features.h5").write_bytes(b"Pillow knows of it and can't read it")
    put(tree / ".thumbnails" / "t.png")
    mine = source(f"{tree}/")
    assert len(mine.ids) == 6
    assert not any("._" in id or ".thumb" in id or id.endswith(".txt") for id in mine.ids)


def test_labels_only_where_all_images_lie_in_several_folders(tree: Path) -> None:
    assert source(tree, label=False).classes is None
    assert {item.label for item in items(source(tree, label=False))} == {None}
    assert {item.label for item in items(source(tree / "cat"))} == {None}  # one image, one subfolder
    put(tree / "cover.png")
    assert source(tree).classes is None
    one = put(tree.parent / "one" / "batch" / "x.png").parent.parent
    assert source(one).classes is None


def test_linked_folders_are_read_once_under_their_own_names(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root / "z" / "one.png")
    put(tmp_path / "elsewhere" / "two.png")
    (root / "a link to z").symlink_to(root / "z")  # sorts before z
    (root / "z" / "up").symlink_to(root)
    (root / "z" / "further up").symlink_to(tmp_path)
    (root / "z" / "self").symlink_to("self")
    (root / "outside").symlink_to(tmp_path / "elsewhere")
    (root / "z" / "outside too").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root / "z")
    mine = source(root)
    assert mine.ids == ["outside/two.png", "z/one.png"]
    (note,) = mine.notes
    assert note.startswith("5 links lead to folders read already: ")
    assert "a link to z" in note


def test_what_cannot_be_read_is_told_or_becomes_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    put(root / "good.png")
    put(root / "locked" / "x.png")
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "circle.png").symlink_to("circle.png")
    os.mkfifo(root / "pipe.png")
    (root / "a folder.png").mkdir()
    scandir = os.scandir

    def locked(path: str) -> Any:  # root may read what chmod forbids
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    mine = source(root)
    assert mine.ids == ["circle.png", "gone.png", "good.png"]
    assert mine.notes == ["1 folder can't be read: locked"]
    for item in items(mine)[:2]:
        with pytest.raises(ImageError, match=f"{item.id} can't be read"):
            load(item.image)
    with pytest.raises(DataError, match="holds no images; 1 folder can't be read"):
        source(root / "locked")


def test_names_that_are_not_utf8_are_read_and_can_be_written(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    names = [b"caf\xe9.png", b"caf\\xe9.png", b"a\nb.png"]
    for name in names:
        with open(os.path.join(root, name), "wb") as file:
            file.write(small())
    mine = source(tmp_path)
    assert mine.ids == [r"a\nb.png", "caf\\xe9.png", "caf\\xe9.png#2"]
    for item in items(mine):
        assert load(item.image).width == 12
        json.dumps([item.id, item.path]).encode()
        print(item.id, item.path)
    (tmp_path / "list.txt").write_bytes(b"\n".join(names[:2]))
    assert [load(item.image).width for item in items(source(tmp_path / "list.txt"))] == [12, 12]


# --- patterns and lists


@pytest.mark.parametrize("shape", ["*/*.jpg", "**/*.jp*g", "**", "*/**/*.JPG", "cat/**/*", "[ct]*/?.jpg", "**/deep/**"])
def test_patterns_fit_what_glob_says(tree: Path, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import glob

    images = {
        path
        for path in glob.glob(f"{glob.escape(str(tree))}/{shape}", recursive=True)
        if path[-2:] in ("pg", "eg", "PG")
    }
    images = {path for path in images if os.path.isfile(path)}
    assert images
    monkeypatch.chdir(tree)
    mine = source(shape)
    assert {item.path for item in items(mine)} == images
    escaped = source(f"{glob.escape(str(tree))}/{shape}")
    assert {item.path for item in items(escaped)} == images
    assert [load(item.image).width for item in items(escaped)[:1]] == [load(PHOTOS / "cat.jpg").width]


def test_a_pattern_ends_where_links_run_in_circles(tmp_path: Path) -> None:
    put(tmp_path / "a" / "one.png")
    for name in ("x", "y", "z"):
        (tmp_path / "a" / name).symlink_to(tmp_path)
    assert source(f"{tmp_path}/**/*.png").ids == ["a/one.png"]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "photos" / "one.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("~/photos", "~/photos/*.png", "~/photos/one.png", ["~/photos/one.png", "~/photos/one.png"]):
        assert [item.path for item in items(source(given))] == [str(tmp_path / "photos" / "one.png")]


def test_lists_of_paths_folders_and_patterns(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    mine = source(["cat/a b.jpg", "./cat/a b.jpg", Path("犬"), "tiger cat/*.jpg", "cat/../cat/a b.jpg", "missing.png"])
    assert mine.ids[0] == "cat/a b.jpg"
    assert mine.ids[-1] == "missing.png"  # an error when it is read
    assert set(mine.ids[1:3]) == {"犬/照片.jpg", "犬/%41 #1?.jpeg"}
    assert len(mine.ids) == 6
    assert mine.notes == ["2 paths came again and are run once"]
    outside = source([tree / "cat" / "a b.jpg", PHOTOS / "cat.jpg"])
    assert not any(".." in id or id.startswith("/") for id in outside.ids)
    assert all(item.path.endswith(item.id) for item in items(outside))
    assert source("cat/a b.jpg").ids == ["cat/a b.jpg"]


def test_a_text_file_of_paths(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "list.txt").write_text("cat/a b.jpg\r\n\n犬/照片.jpg\n", encoding="utf-8-sig")
    assert source(tree / "list.txt").ids == ["cat/a b.jpg", "犬/照片.jpg"]
    elsewhere = shutil.move(tree / "list.txt", tree.parent)
    assert [os.path.exists(item.path) for item in items(source(elsewhere, root=tree))] == [True, True]
    monkeypatch.chdir(tree)
    assert [os.path.exists(item.path) for item in items(source(elsewhere))] == [True, True]


@pytest.mark.parametrize("text", ["s-{000..012}.tar", "{a,b}-{8..11}", "x{3..1}y", "plain", "{x}", "{a,}"])
def test_braces_are_a_shells(text: str) -> None:
    assert braces(text) == list(braceexpand(text))


# --- tables


def write(path: Path, rows: list[list[Any]], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.mark.parametrize(
    ("name", "head", "delimiter", "encoding"),
    [
        ("t.csv", ["path", "label"], ",", "utf-8"),
        ("t.csv", ["Image Path", "Category"], ";", "utf-8-sig"),
        ("t.tsv", ["file_name", "class"], "\t", "utf-8"),
        ("t.CSV", None, ",", "utf-8"),
    ],
)
def test_csv(tree: Path, name: str, head: list[str] | None, delimiter: str, encoding: str) -> None:
    rows = [["cat/a b.jpg", "cat, tabby"], ["犬/照片.jpg", "犬"], ["cat/a b.jpg", "cat, tabby"], ["", ""]]
    mine = source(write(tree / name, ([head] if head else []) + rows, delimiter, encoding))
    assert [(item.id, item.label) for item in items(mine)] == [("cat/a b.jpg", "cat, tabby"), ("犬/照片.jpg", "犬")]
    assert all(load(item.image) for item in items(mine))
    assert mine.notes == ["1 path came again and is run once"]


def test_columns_that_cannot_be_told_are_named(tree: Path) -> None:
    path = write(tree / "t.csv", [["wo", "was", "label"], ["cat/a b.jpg", "3", "x"], ["cat/deep/c.JPG", "-1", "y"]])
    mine = source(path, image="wo", label="was")
    assert [(item.id, item.label) for item in items(mine)] == [("cat/a b.jpg", 3), ("cat/deep/c.JPG", -1)]
    assert [item.label for item in items(source(path, image="wo"))] == ["x", "y"]
    assert [item.label for item in items(source(path, image="wo", label=False))] == [None, None]
    with pytest.raises(DataError, match="has the columns wo, was, label, none of them named as paths"):
        source(path)
    with pytest.raises(DataError, match="'where' was named, but there are only wo, was, label"):
        source(path, image="where")


def test_spaces_after_separators_are_no_part_of_paths(tree: Path) -> None:
    (tree / "t.csv").write_text('label, path\ncat, "cat/a b.jpg"\n')
    assert [(item.id, item.label) for item in items(source(tree / "t.csv"))] == [("cat/a b.jpg", "cat")]


def test_several_labels_of_one_path_are_none(tree: Path) -> None:
    path = write(tree / "t.csv", [["path", "label"], ["cat/a b.jpg", "cat"], ["cat/a b.jpg", "dog"]])
    mine = source(path)
    assert [item.label for item in items(mine)] == [None]
    assert mine.notes[1:] == ["1 path has several labels and is run without one"]


TABLE: dict[str, list[Any]] = {
    "path": ["cat/a b.jpg", "cat/a b.jpg", "犬/照片.jpg", "cat/deep/c.JPG"],
    "label": ["cat", "cat", "犬", None],
    "xmin": [1.0, 5, 0, None],
    "ymin": [2.0, 6, 0, None],
    "xmax": [3.5, 7, 9, None],
    "ymax": [4.0, 8, 9, None],
    "mask": ["m.png", "m.png", None, None],
}


@pytest.mark.parametrize("kind", ["csv", "parquet", "pandas", "polars"])
def test_boxes_and_masks_in_tables(tree: Path, kind: str) -> None:
    mask = np.zeros((8, 12), np.uint8)
    mask[2:5, 3:9] = 255
    Image.fromarray(mask).save(tree / "m.png")
    given: Any = pd.DataFrame(TABLE) if kind == "pandas" else pl.DataFrame(TABLE)
    if kind in ("csv", "parquet"):
        frame, given = pd.DataFrame(TABLE), tree / f"t.{kind}"
        frame.to_csv(given, index=False) if kind == "csv" else frame.to_parquet(given)
    first, second, third = items(source(given, root=tree))
    assert list(first.boxes) == [LabelledBox(1, 2, 3.5, 4, "cat"), LabelledBox(5, 6, 7, 8, "cat")]
    assert (first.label, second.label, third.label) == ("cat", "犬", None)
    assert list(second.boxes) == [LabelledBox(0, 0, 9, 9, "犬")]
    assert list(third.boxes) == []
    assert first.mask is not None
    assert first.mask.dtype == bool
    assert np.array_equal(first.mask, mask > 0)
    assert second.mask is None


def test_parquet_with_the_pictures_in_it(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    made = datasets.Dataset.from_dict({"image": [RED, RED], "label": [1, 0]}, features=features)
    made.to_parquet(tmp_path / "hf.parquet")
    pd.DataFrame({"image": [small("blue")], "label": [7]}).to_parquet(tmp_path / "bytes.parquet")
    mine = source(tmp_path / "hf.parquet")
    assert mine.classes == ["cat", "dog"]
    assert [(item.label, load(item.image).pixels[0, 0].tolist()) for item in items(mine)] == [
        (1, [255, 0, 0]),
        (0, [255, 0, 0]),
    ]
    (item,) = items(source(tmp_path / "bytes.parquet"))
    assert (item.label, load(item.image).pixels[0, 0].tolist()) == (7, [0, 0, 255])


# --- COCO


def inner(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Without the pixels at its edge, inside and outside: False there."""
    same = np.ones_like(mask)
    for axis in (0, 1):
        for step in (-1, 1):
            same &= np.roll(mask, step, axis) == mask
    return same


@for_all(st.lists(st.tuples(st.floats(-5, 60), st.floats(-5, 50)), min_size=3, max_size=9))
def test_polygons_hold_the_pixels_whose_centres_lie_inside(corners: list[tuple[float, float]]) -> None:
    corners = [(round(x, 2), round(y, 2) + 0.003) for x, y in corners]  # no corner as high as a centre
    ys, xs = np.mgrid[:40, :50] + 0.5
    centres = np.stack([xs.ravel(), ys.ravel()], 1)
    # Even-odd by a second way: how often the ray to the left of a centre crosses an edge.
    crossed = np.zeros(len(centres), int)
    on_an_edge = np.zeros(len(centres), bool)
    for (x, y), (u, v) in zip(corners, corners[1:] + corners[:1], strict=True):
        between = (y > centres[:, 1]) != (v > centres[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            at = x + (centres[:, 1] - y) * (u - x) / (v - y)
        crossed += between & (at < centres[:, 0])
        on_an_edge |= between & (abs(at - centres[:, 0]) < 1e-6)
    mine = fill([c for corner in corners for c in corner], 40, 50)
    assert np.array_equal(mine.ravel()[~on_an_edge], crossed[~on_an_edge] % 2 == 1)


def test_polygons_agree_with_pycocotools_and_matplotlib() -> None:
    turns = np.linspace(0, 2 * np.pi, 9)[:-1]
    star = np.stack([32 + np.cos(turns) * np.tile([28, 12], 4), 24 + np.sin(turns) * np.tile([22, 9], 4)], 1)
    polygon = star.ravel().tolist()
    mine = fill(polygon, 48, 64)
    theirs = peer.decode(peer.merge(peer.frPyObjects([polygon], 48, 64))).astype(bool)
    assert np.array_equal(mine[inner(theirs)], theirs[inner(theirs)])
    assert (mine & theirs).sum() / (mine | theirs).sum() > 0.95
    ys, xs = np.mgrid[:48, :64] + 0.5
    assert np.array_equal(mine.ravel(), Outline(star).contains_points(np.stack([xs.ravel(), ys.ravel()], 1)))


@for_all(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_run_lengths_are_pycocotools(height: int, width: int, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    mask = np.kron(random.random((height, width)) < share, np.ones((1 + seed % 70, 1))).astype(bool)[: height * 9]
    text = peer.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    for runs in (text, text.decode()):
        assert np.array_equal(from_runs(runs, *mask.shape), mask)
    columns = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], columns, [not columns[-1]]])))
    lengths = np.diff(np.concatenate([[0], edges])).tolist()
    assert np.array_equal(from_runs(lengths, *mask.shape), mask)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """As COCO is laid out: annotations/instances_val2017.json and val2017/."""
    for name in ("a.png", "b.png", "空.png"):
        put(tmp_path / "val2017" / name)
    block = np.zeros((8, 12), np.uint8, order="F")
    block[5:8, 6:12] = 1
    packed = {"size": [8, 12], "counts": peer.encode(block)["counts"].decode()}
    annotations = [
        {
            "image_id": 7,
            "category_id": 90,
            "bbox": [1, 2, 3, 4],
            "segmentation": [[1, 2, 4, 2, 4, 6, 1, 6]],
            "iscrowd": 0,
        },
        {"image_id": 7, "category_id": 90, "bbox": [6, 5, 6, 3], "segmentation": packed, "iscrowd": 1},
        {"image_id": 3, "category_id": 1, "bbox": [0, 0, 2, 2.5]},
        {
            "image_id": 3,
            "category_id": 90,
            "bbox": [1, 1, 2, 2],
            "segmentation": {"size": [8, 12], "counts": [0, 8, 88]},
        },
        {"image_id": 4444, "category_id": 1, "bbox": [1, 1, 2, 2]},
    ]
    data = {
        "images": [{"id": n, "file_name": name} for n, name in ((7, "a.png"), (3, "b.png"), (5, "空.png"))],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "annotations": annotations,
    }
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(data))
    return path


def test_coco(coco: Path) -> None:
    mine = source(coco)
    assert mine.ids == ["a.png", "b.png", "空.png"]
    assert mine.classes == ["person", "toothbrush"]
    assert mine.notes == ["1 annotation belongs to an image that the file doesn't list"]
    first, second, third = items(mine)
    assert list(first.boxes) == [LabelledBox(1, 2, 4, 6, "toothbrush")]
    assert first.label == "toothbrush"
    expected = np.zeros((8, 12), bool)
    expected[2:6, 1:4] = True
    expected[5:8, 6:12] = True
    assert np.array_equal(first.mask, expected)
    assert list(second.boxes) == [LabelledBox(0, 0, 2, 2.5, "person"), LabelledBox(1, 1, 3, 3, "toothbrush")]
    assert second.label is None
    assert np.array_equal(second.mask, np.arange(12)[None].repeat(8, 0) == 0)
    assert (third.label, third.boxes, third.mask) == (None, [], None)
    assert {item.label for item in items(source(coco, label=False))} == {None}
    assert load(third.image).width == 12


def test_masks_of_coco_are_those_of_pycocotools(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    data = json.loads(coco.read_text())
    data["images"] = [{**image, "height": 8, "width": 12} for image in data["images"]]
    data["annotations"] = [{**a, "id": n, "area": 1, "iscrowd": 0} for n, a in enumerate(data["annotations"], 1)]
    coco.write_text(json.dumps(data))
    api = COCO(str(coco))
    (first, second, _) = items(source(coco))
    for item, number in ((first, 7), (second, 3)):
        annotations = [a for a in api.loadAnns(api.getAnnIds(number)) if "segmentation" in a]
        assert np.array_equal(item.mask, np.any([api.annToMask(a) for a in annotations], axis=0))


@pytest.mark.parametrize("place", [".", "images", "val2017", "../val2017", "../images", "../images/val2017"])
def test_the_pictures_of_coco_are_found(coco: Path, place: str) -> None:
    pictures = coco.parent.parent / "val2017"
    elsewhere = coco.parent.parent / "elsewhere"
    pictures.rename(elsewhere)
    with pytest.raises(DataError, match=r"instances_val2017\.json, as a\.png, aren't in .*pass their folder as root"):
        source(coco)
    assert load(items(source(coco, root=elsewhere))[0].image).width == 12
    target = coco.parent / place
    target.mkdir(parents=True, exist_ok=True)
    for picture in elsewhere.iterdir():
        picture.rename(target / picture.name)
    assert load(items(source(coco))[0].image).width == 12


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "isn't JSON"),
        ("[1]", "holds a list; expected a COCO file"),
        ('{"shapes": []}', "an object with shapes"),
        ('{"images": []}', "lists no images"),
        ('{"images": [{"id": 1}]}', "without 'file_name'"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=sentence):
        source(tmp_path / "x.json")


# --- tars


def tar(path: Path, files: dict[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


SHARD = {
    "__meta__/x.png": b"",
    "a b/0001.png": small("red"),
    "a b/0001.cls": b"3",
    "0002.JPG": (PHOTOS / "cat.jpg").read_bytes(),
    "0002.json": b'{"label": "cat"}',
    "0003.cls": b"1",
    "./犬.seg.png": small("blue"),
    "./犬.png": small("green"),
    "./犬.txt": "シバ".encode(),
    ".hidden.png": b"",
    "../../etc/0004.png": small(),
}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's
def test_a_tar_holds_the_samples_of_the_webdataset_library(tmp_path: Path) -> None:
    path = tar(tmp_path / "my shard.tar", SHARD)
    mine = items(source(path))
    theirs = [sample for sample in webdataset.WebDataset(str(path), shardshuffle=False) if sample["__key__"] != "0003"]
    assert [item.id for item in mine] == [sample["__key__"].removeprefix("./") for sample in theirs]
    for item, sample in zip(mine, theirs, strict=True):
        assert item.image == sample.get("png", sample.get("jpg"))
        assert load(item.image).width >= 12
    assert [item.label for item in mine] == [3, "cat", "シバ", None]
    assert [path.name for path in tmp_path.iterdir()] == ["my shard.tar"]  # nothing was unpacked
    assert "1 sample holds several pictures" in source(path).notes[0]
    (item,) = items(source(path, image="seg.png", label="txt"))
    assert (item.image, item.label) == (small("blue"), "シバ")
    assert [item.label for item in items(source(path, label=False))] == [None] * 4


def test_shards(tmp_path: Path) -> None:
    for number in range(3):
        tar(tmp_path / f"s-{number:03d}.tar", {f"{i}.png": small() for i in range(2)})
    expected = [f"s-{number:03d}/{i}" for number in range(3) for i in range(2)]
    listed = [tmp_path / f"s-{number:03d}.tar" for number in range(3)]
    for given in (f"{tmp_path}/s-{{000..002}}.tar", f"{tmp_path}/s-*.tar", listed, [*listed, listed[0]]):
        mine = source(given)
        assert mine.ids == expected
        assert all(load(item.image).width == 12 for item in items(mine))
    assert mine.notes == ["1 tar came again and is run once"]
    assert source(listed[0]).ids == ["0", "1"]
    with pytest.raises(DataError, match=r"s-003\.tar can't be read \(No such file"):
        source(f"{tmp_path}/s-{{000..003}}.tar")


def test_tars_that_are_not_whole(tmp_path: Path) -> None:
    path = tar(tmp_path / "s.tar", {f"{i}.png": small() for i in range(5)})
    whole = path.read_bytes()
    path.write_bytes(whole[: 512 * 7 + 20])
    mine = source(path)
    assert mine.ids == ["0", "1", "2"]
    assert "breaks off after 3 samples" in mine.notes[0]
    (tmp_path / "no.tar").write_text("not a tar" * 200)
    with pytest.raises(DataError, match="isn't a tar"):
        source(tmp_path / "no.tar")
    for name in ("z.tar.gz", "z.tar"):
        (tmp_path / name).write_bytes(gzip.compress(whole))
        with pytest.raises(DataError, match="is compressed"):
            source(tmp_path / name)
    twice = source(tar(tmp_path / "u.tar", {"a.PNG": small(), "a.CLS": b"5", "./a.png": small("blue")}))
    assert [(item.id, item.label) for item in items(twice)] == [("a", 5), ("a#2", None)]
    with pytest.raises(DataError, match=r"holds only \.txt"):
        source(tar(tmp_path / "t.tar", {"a.txt": b"x"}))


# --- Hugging Face


@pytest.fixture
def faces() -> datasets.Dataset:
    features = datasets.Features(
        {"id": datasets.Value("int32"), "mask": datasets.Image(), "image": datasets.Image()}
        | {"label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    blue = Image.new("RGB", (12, 8), "blue")
    data = {"id": [5, 6, 7], "mask": [blue] * 3, "image": [RED] * 3, "label": [1, 0, -1]}
    return datasets.Dataset.from_dict(data, features=features)


def test_hugging_face(faces: datasets.Dataset) -> None:
    mine = source(faces)
    assert list(mine.ids) == ["0", "1", "2"]
    assert mine.classes == ["cat", "dog"]
    assert [item.label for item in items(mine)] == [1, 0, None]
    assert all(load(item.image).pixels[0, 0].tolist() == [255, 0, 0] for item in items(mine))
    assert load(items(source(faces, image="mask"))[0].image).pixels[0, 0].tolist() == [0, 0, 255]
    assert [item.label for item in items(source(faces, label="id"))] == [5, 6, 7]
    assert [item.label for item in items(source(faces, label=False))] == [None] * 3
    undecoded = faces.cast_column("image", datasets.Image(decode=False))
    assert load(items(source(undecoded))[0].image).width == 12
    assert load(items(source(faces.with_format("torch")))[0].image).width == 12


def test_hugging_face_streams(faces: datasets.Dataset) -> None:
    mine = source(faces.to_iterable_dataset())
    assert isinstance(mine, Stream)
    assert mine.ids is None
    assert [(item.id, item.label, load(item.image).width) for item in mine] == [
        ("0", 1, 12),
        ("1", 0, 12),
        ("2", None, 12),
    ]
    assert len(list(mine)) == 3  # from the start again
    assert mine.classes == ["cat", "dog"]
    with pytest.raises(DataError, match="a stream is only read from its start"):
        mine.item(0)


def test_transforms_of_hugging_face_data_sets_run(faces: datasets.Dataset) -> None:
    ready = faces.with_transform(
        lambda some: {"pixel_values": [torch.ones(3, 4, 4)] * len(some["label"]), "labels": some["label"]}
    )
    first = source(ready).item(0)
    assert torch.equal(first.image, torch.ones(3, 4, 4))
    assert first.label == 1


def test_objects_of_hugging_face_data_sets() -> None:
    objects = {"bbox": datasets.Sequence(datasets.Sequence(datasets.Value("float32")))}
    objects["category"] = datasets.Sequence(datasets.ClassLabel(names=["glove", "mask"]))
    features = datasets.Features({"image": datasets.Image(), "objects": objects})
    some = {"bbox": [[1, 2, 3, 4], [5, 5, 1, 1]], "category": [1, 0]}
    data = datasets.Dataset.from_dict(
        {"image": [RED, RED], "objects": [some, {"bbox": [], "category": []}]}, features=features
    )
    mine = source(data)
    assert mine.classes == ["glove", "mask"]
    first, second = items(mine)
    assert list(first.boxes) == [LabelledBox(1, 2, 4, 6, 1), LabelledBox(5, 5, 6, 6, 0)]
    assert (first.label, second.boxes) == (None, [])


def test_splits_and_data_sets_without_images_are_refused(faces: datasets.Dataset) -> None:
    with pytest.raises(DataError, match=r"several splits came: 'val', 'train'; pass one of them, as in data\['val'\]"):
        source(datasets.DatasetDict({"val": faces, "train": faces}))
    with pytest.raises(DataError, match="has id, label, none of them images"):
        source(faces.remove_columns(["image", "mask"]))


# --- PyTorch


class Photos(Dataset):
    """Samples in a form of one's own."""

    def __init__(self, form: Any, length: int = 5) -> None:
        self.form, self.length = form, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Any:
        if number == 3:
            raise OSError("broken sample")
        return self.form(number)


class Endless(Dataset):
    def __getitem__(self, number: int) -> Any:
        return RED


class Flow(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        for number in range(3):
            yield torch.full((3, 8, 8), float(number)), number


def alone(number: int) -> Any:
    return Image.new("RGB", (10 + number, 8))


def pair(number: int) -> Any:
    return alone(number), number


def triple(number: int) -> Any:
    return alone(number), torch.tensor(number), "more"


def keyed(number: int) -> Any:
    return {"pixel_values": alone(number), "labels": np.int64(number), "id": 9}


@pytest.mark.parametrize("form", [alone, pair, triple, keyed])
def test_data_sets(form: Any) -> None:
    mine = source(Photos(form))
    assert list(mine.ids) == ["0", "1", "2", "3", "4"]
    item = mine.item(2)
    assert load(item.image).width == 12
    assert item.label == (None if form is alone else 2)
    with pytest.raises(OSError, match="broken sample"):
        mine.item(3)
    with pytest.raises(DataError, match="a Endless came, which has no length"):
        source(Endless())
    if form is not alone:
        assert source(Photos(form), label=False).item(2).label is None


def test_detection_targets() -> None:
    target = {"boxes": torch.tensor([[1.0, 2, 3, 4], [0, 0, 8, 8]]), "labels": torch.tensor([5, 5])}
    target["masks"] = torch.eye(8, dtype=torch.uint8)[None].repeat(2, 1, 1)
    target["masks"][1, 0, 7] = 1
    coco = [{"bbox": [1, 2, 2, 2], "category_id": 5}, {"bbox": [0, 0, 8, 8], "category_id": 5}]
    for form in ((RED, target), (RED, coco), {"image": RED, **target}, {"image": RED, "target": target}):
        item = source([form]).item(0)
        assert list(item.boxes) == [LabelledBox(1, 2, 3, 4, 5), LabelledBox(0, 0, 8, 8, 5)]
        assert item.label == 5
    assert np.array_equal(source([(RED, target)]).item(0).mask, target["masks"].any(0).numpy())


def test_image_folders_of_torchvision(tree: Path) -> None:
    data = torchvision.datasets.ImageFolder(str(tree))
    mine = source(data)
    assert mine.classes == data.classes
    assert mine.ids == [os.path.relpath(path, tree) for path, _ in data.samples]
    assert [(item.path, item.label, item.image) for item in items(mine)] == [(p, i, p) for p, i in data.samples]
    data.transform = torchvision.transforms.Compose(
        [torchvision.transforms.Resize((16, 16)), torchvision.transforms.ToTensor()]
    )
    changed = source(data)
    assert changed.ids == mine.ids
    assert torch.equal(changed.item(1).image, data[1][0])
    assert changed.item(1).label == data[1][1]

    class Twice(torchvision.datasets.ImageFolder):
        def __getitem__(self, index: int) -> Any:
            image, label = super().__getitem__(index)
            return image.resize((20, 10)), label

    assert load(source(Twice(str(tree))).item(0).image).width == 20


def test_subsets(tree: Path) -> None:
    data = torchvision.datasets.ImageFolder(str(tree))
    whole = source(data)
    mine = source(Subset(data, [4, 0, 4]))
    assert mine.ids == [whole.ids[4], whole.ids[0], f"{whole.ids[4]}#2"]
    assert [item.id for item in items(mine)] == mine.ids
    assert [item.path for item in items(mine)] == [data.samples[i][0] for i in (4, 0, 4)]
    first, second = random_split(data, [4, 2], torch.Generator().manual_seed(0))
    assert sorted([*source(first).ids, *source(Subset(second, [1])).ids, *source(Subset(second, [0])).ids]) == sorted(
        whole.ids
    )


def test_loaders_go_through_their_data_set() -> None:
    data = Photos(pair)
    plain = source(DataLoader(data, batch_size=2, num_workers=1))
    assert list(plain.ids) == ["0", "1", "2", "3", "4"]
    assert not plain.notes
    assert (plain.description["batch_size"], plain.description["num_workers"]) == (2, 1)
    shuffled = source(DataLoader(data, shuffle=True, collate_fn=lambda batch: batch))
    assert list(shuffled.ids) == ["0", "1", "2", "3", "4"]
    assert shuffled.notes[0].startswith("left aside of the DataLoader: shuffling, collate_fn; hookmap makes its own")
    split = source(DataLoader(data, sampler=SubsetRandomSampler([4, 1])))
    assert split.ids == ["1", "4"]
    stream = source(DataLoader(Flow(), batch_size=2))
    assert isinstance(stream, Stream)
    assert [(item.id, item.label, item.image.mean().item()) for item in stream] == [
        ("0", 0, 0),
        ("1", 1, 1),
        ("2", 2, 2),
    ]
    assert stream.description["batch_size"] == 2


def test_a_stream_goes_on_after_a_broken_sample() -> None:
    stream = iter(source(sample for sample in [RED, {"no": "image"}, (), RED]))
    assert next(stream).id == "0"
    for _ in range(2):
        with pytest.raises(DataError):
            next(stream)
    assert [item.id for item in stream] == ["3"]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's
def test_streams_of_the_webdataset_library(tmp_path: Path) -> None:
    files = {f"{n}.{kind}": data for n in "ab" for kind, data in (("cls", b"4"), ("png", small()))}
    plain = webdataset.WebDataset(str(tar(tmp_path / "s.tar", files)), shardshuffle=False)
    for given in (plain, plain.decode("pil").to_tuple("png", "cls")):
        mine = source(given)
        assert isinstance(mine, Stream)
        assert [(item.id, item.label, load(item.image).width) for item in mine] == [("0", 4, 12), ("1", 4, 12)]


def test_lists_batches_and_single_images() -> None:
    array = np.zeros((8, 12, 3), np.uint8)
    for given in ([RED, array, small(), torch.zeros(3, 8, 12, dtype=torch.uint8)], np.stack([array] * 4)):
        mine = source(given)
        assert list(mine.ids) == ["0", "1", "2", "3"]
        assert [load(item.image).width for item in items(mine)] == [12] * 4
    batch = torch.randn(4, 3, 8, 8)
    assert all(torch.equal(item.image, batch[n]) for n, item in enumerate(items(source(batch))))
    for one in (RED, array, small(), torch.zeros(3, 8, 12)):
        assert list(source(one).ids) == ["0"]
    assert torch.equal(source(batch[0]).item(0).image, batch[0])
    stream = source((image, 3) for image in [RED, RED])
    assert isinstance(stream, Stream)
    assert [(item.id, item.label) for item in stream] == [("0", 3), ("1", 3)]
    assert list(source([PHOTOS / "cat.jpg", RED]).ids) == ["0", "1"]
    assert source([PHOTOS / "cat.jpg", RED]).item(0).path == str(PHOTOS / "cat.jpg")


# --- all of them


@pytest.fixture
def every(tree: Path, coco: Path, faces: datasets.Dataset) -> list[Source]:
    write(tree / "t.csv", [["path", "label"], ["cat/a b.jpg", "cat"]])
    given = [tree, f"{tree.parent}/*/cat/*.jpg", tree / "t.csv", coco, tar(tree / "s.tar", SHARD), faces]
    given += [Photos(keyed, 3), [RED, RED], torch.zeros(2, 3, 8, 8), Subset(Photos(pair, 3), [1, 2])]
    given += [torchvision.datasets.ImageFolder(str(tree)), DataLoader(Photos(pair, 3))]
    return [source(one) for one in given]


def told(item: Item) -> Any:
    mask = None if item.mask is None else item.mask.tolist()
    size = (
        item.image.shape
        if isinstance(item.image, torch.Tensor) and item.image.is_floating_point()
        else load(item.image).pixels.shape
    )
    return item.id, item.path, item.label, list(item.boxes), mask, tuple(size)


class Reading(Dataset):
    def __init__(self, some: Source) -> None:
        self.source = some

    def __len__(self) -> int:
        return len(self.source.ids or ())

    def __getitem__(self, number: int) -> Any:
        return told(self.source.item(number))


def first_of(batch: list[Any]) -> Any:
    return batch[0]


def test_workers_read_the_same_items(every: list[Source]) -> None:
    for mine in every:
        expected = [told(item) for item in items(mine)]
        assert expected
        assert [told(item) for item in items(pickle.loads(pickle.dumps(mine)))] == expected
        assert [one[0] for one in expected] == list(mine.ids)
        assert len(set(mine.ids)) == len(mine.ids)
        assert mine.description["images"] == len(expected)
        json.dumps(mine.description).encode()
    for mine in (every[0], every[3], every[4], every[5]):
        loader = DataLoader(Reading(mine), num_workers=2, collate_fn=first_of)
        assert list(loader) == [told(item) for item in items(mine)]


def test_large_lists_are_light(tmp_path: Path) -> None:
    names = [f"class {n % 100}/{n:08d}.jpg" for n in range(100_000)]
    (tmp_path / "list.txt").write_text("\n".join(names))
    mine = source(tmp_path / "list.txt")
    assert mine.ids == names
    assert len(pickle.dumps(mine)) < 100_000 * (2 * len(names[0]) + len(str(tmp_path)) + 20)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("nowhere", "nowhere isn't there; pass a folder"),
        ("nowhere/*.jpg", "fits no images; check the pattern"),
        ("https://x.org/a.tar", "hookmap doesn't download"),
        ([], "a list without samples came"),
        (Photos(pair, 0), "a Photos without samples came"),
        (Subset(Photos(pair), []), "an empty subset came"),
        (3, "a data set was given as int; expected a folder"),
        ({"a": 1}, "given as dict; expected"),
        (None, "given as NoneType"),
    ],
)
def test_everything_else_is_refused(given: Any, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=sentence):
        source(given)


def test_empty_folders_and_files_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images; pass a folder"):
        source(tmp_path)
    for name in ("a.tar", "b.tar", "c.md"):
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"holds no images, but 2 \.tar, 1 \.md; pass"):
        source(tmp_path)
    for name in ("t.csv", "t.txt"):
        (tmp_path / name).write_text("")
        with pytest.raises(DataError, match=f"{name}"):
            source(tmp_path / name)
    (tmp_path / "t.parquet").write_text("no")
    with pytest.raises(DataError, match="can't be read as Parquet"):
        source(tmp_path / "t.parquet")


def test_samples_without_an_image_say_what_they_have() -> None:
    with pytest.raises(DataError, match="a sample has a, b, none of them named as images are; pass its key as image"):
        source([{"a": RED, "b": 1}]).item(0)
    assert source([{"a": RED, "b": 1}], image="a", label="b").item(0).label == 1
