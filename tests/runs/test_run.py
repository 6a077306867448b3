"""Whole data sets: what is written equals what a lens says image by image, whatever happens to the process."""

from __future__ import annotations

import errno
import functools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

import hookmap as hm
from detectors import scene, squares
from hookmap.attribution.engine import Engine
from hookmap.datasets.labels import TrueClasses
from hookmap.images.loading import load
from hookmap.layers.channels import ChannelStatistics
from hookmap.methods.gradient import gradcam
from hookmap.metrics.summary import measured
from hookmap.runs import driver
from hookmap.runs.engines.ray import connected
from hookmap.runs.store import Store

PHOTOS = Path("examples/photos")


class Small(nn.Module):
    """Two convolutions; the classes are red, green and blue."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(True), nn.Conv2d(8, 6, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


def small_lens() -> hm.Lens:
    how = hm.Preprocessing(size=(32, 32), resize="letterbox")
    return hm.Lens(Small(), preprocessing=how, labels=["red", "green", "blue"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """42 pictures of several sizes in three folders that are classes."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for i in range(42):
        place = folder / ["red", "green", "blue"][i % 3] / f"p {i:02d}.png"
        place.parent.mkdir(exist_ok=True)
        pixels = generator.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        pixels[:, :, i % 3] = 255
        Image.fromarray(pixels).resize((40 - i % 7, 30 + i % 5), Image.Resampling.BICUBIC).save(place)
    return folder


def ran(photos: Any, out: Path, lens: hm.Lens | None = None, **how: Any) -> hm.Run:
    settings = {"batch_size": 4, "part_size": 10, "workers": 0, "progress": False} | how
    return hm.run(photos, lens or small_lens(), out, **settings)


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> hm.Run:
    return ran(
        photos,
        tmp_path_factory.mktemp("run") / "r",
        target=["predicted", "label"],
        channels=["features.0", "features.1"],
    )


# ---------------------------------------------------------------- what is written


def test_every_heatmap_is_that_of_the_lens(photos: Path, plain: hm.Run) -> None:
    lens, table = small_lens(), plain.table
    assert len(table) == 84
    assert table["id"].tolist()[:2] == ["blue/p 02.png"] * 2
    assert table["id"].nunique() == 42
    for row, raw, values in zip(table.to_dict("records"), plain.maps(), plain.values(), strict=True):
        target = "predicted" if row["asked"] == "predicted" else Path(row["path"]).parent.name
        alone = lens.explain(row["path"], target)[0]
        assert (row["target"], row["target_index"]) == (alone.target, alone.index)
        assert row["target_score"] == pytest.approx(alone.score, rel=1e-4)
        assert row["target_probability"] == pytest.approx(alone.probability, rel=1e-4)
        torch.testing.assert_close(
            torch.from_numpy(raw), alone.raw, rtol=2e-3, atol=1e-3 * float(alone.raw.abs().max())
        )
        assert values.min() >= 0
        assert (row["label"], row["label_index"]) == (Path(row["path"]).parent.name, lens.labels.index(row["label"]))
        seen = lens.predict(row["path"])[0][0]
        assert (row["prediction"], row["prediction_index"]) == (seen.label, seen.index)
        assert row["correct"] == (seen.label == row["label"])


def test_a_frame_holds_the_map_where_it_lies_on_the_picture(plain: hm.Run) -> None:
    row = plain.explained.index[4]
    heatmap = small_lens().explain(plain.table.loc[row, "path"])[0]
    wanted = heatmap.geometry.displayed((16, 16)).lay_back(heatmap.values)
    (framed,) = plain.framed([row], side=16)
    np.testing.assert_allclose(framed, (wanted / wanted.sum()).numpy(), atol=2e-4)


def test_tables_are_readable_without_hookmap(plain: hm.Run) -> None:
    index = pd.read_parquet(plain.folder / "index.parquet")
    pd.testing.assert_frame_equal(index, plain.table)
    assert pl.read_parquet(plain.folder / "index.parquet/*.parquet")["id"].to_list() == index["id"].tolist()
    maps = pq.read_table(plain.folder / "maps.parquet").to_pandas()
    first = maps["map"][0].astype(np.float32).reshape(maps["shape"][0]) * index["map_scale"][0]
    np.testing.assert_array_equal(first, plain.maps([0])[0])
    about = json.loads((plain.folder / "run.json").read_text())
    assert about["model"]["name"] == "Small"
    assert about["source"]["images"] == 42


@pytest.fixture(scope="module")
def one_by_one(plain: hm.Run) -> list[hm.FeatureMaps]:
    """The feature maps of each picture of the run."""
    lens = small_lens()
    return [lens.features(path, ["features.0", "features.1"]) for path in dict.fromkeys(plain.table["path"])]


@pytest.mark.parametrize("layer", ["features.0", "features.1"])  # the second works in place on the first
def test_channels_are_counted_over_the_whole_set(layer: str, plain: hm.Run, one_by_one: list[hm.FeatureMaps]) -> None:
    maps = torch.cat([found[layer].maps for found in one_by_one])
    whole = ChannelStatistics.of(maps, [*dict.fromkeys(plain.table["id"])], 9)
    found = plain.channels[layer]
    torch.testing.assert_close(found.mean, whole.mean, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.variance, whole.variance, rtol=1e-5, atol=1e-7)
    assert found.inactive.tolist() == whole.inactive.tolist()
    assert found.strongest_images.tolist() == whole.strongest_images.tolist()
    assert found.images == 42


def test_thumbnails_are_the_pictures(plain: hm.Run) -> None:
    shown = plain.thumbnail("red/p 00.png")
    assert shown is not None
    with Image.open(plain.table.set_index("id").loc["red/p 00.png", "path"].iloc[0]) as image:
        assert shown.size == image.size
        assert abs(np.asarray(shown).astype(float) - np.asarray(image)).mean() < 10


# ---------------------------------------------------------------- measures, against closed forms


def test_measures_of_a_uniform_map() -> None:
    found = measured(torch.ones(4, 4), hm.Geometry((96, 96), (4, 4), (1 / 24, 1 / 24)), boxes=[(0, 0, 48, 96)])
    assert found.entropy == pytest.approx(1)
    assert found.half_area == pytest.approx(0.5, abs=1e-3)
    assert found.border == pytest.approx(0.36)
    assert found.corner == pytest.approx(0.04)
    assert (found.centre_x, found.centre_y) == (pytest.approx(48), pytest.approx(48))
    assert found.in_box == pytest.approx(0.5)
    assert found.box_share == pytest.approx(0.5)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (500, 90), (100, 1000)])
def test_measures_do_not_depend_on_the_shape_of_the_picture(height: int, width: int) -> None:
    values = torch.zeros(7, 7)
    values[2, 4] = 1.0
    found = measured(values, hm.Geometry((height, width), (7, 7), (7 / height, 7 / width)))
    square = measured(values, hm.Geometry((224, 224), (7, 7), (1 / 32, 1 / 32)))
    even = measured(torch.ones(7, 7), hm.Geometry((height, width), (7, 7), (7 / height, 7 / width)))
    assert found.entropy == pytest.approx(square.entropy, abs=0.01)
    assert found.half_area == pytest.approx(square.half_area, abs=0.003)
    assert (even.border, even.corner, even.entropy) == (
        pytest.approx(0.36),
        pytest.approx(0.04),
        pytest.approx(1, abs=1e-6),
    )


def test_measures_of_a_small_crop_of_a_large_picture() -> None:
    # The shorter side to 256, then the middle 64 x 64: what lies in the box is the right half of what was seen.
    geometry = hm.Geometry((300, 1000), (64, 64), (256 / 300, 256 / 300), (-96.0, -394.7))
    values = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    box = (500.0, 0.0, 1000.0, 300.0)
    found = measured(values, geometry, boxes=[box])
    whole = geometry.lay_back(values)
    assert found.in_box == pytest.approx(float(whole[:, 500:].sum() / whole.sum()), abs=0.015)
    assert found.box_share == pytest.approx(0.5, abs=0.01)
    energy = (whole / whole.sum()).double()
    entropy = -(energy[energy > 0] * energy[energy > 0].log()).sum() / np.log(
        int((geometry.lay_back(torch.ones(1, 1)) > 0).sum())
    )
    assert found.entropy == pytest.approx(float(entropy), abs=0.01)


def test_measures_of_one_bright_cell_on_a_cropped_picture() -> None:
    values = torch.zeros(8, 8)
    values[6, 1] = 3.0
    # The model sees the middle 400 x 400 of a picture of 400 x 800.
    geometry = hm.Geometry((400, 800), (8, 8), (8 / 400, 8 / 400), (0.0, -4.0))
    mask = np.zeros((400, 800), bool)
    mask[250:400, 200:400] = True
    found = measured(values, geometry, mask=mask)
    assert found.peak_x == pytest.approx(200 + 75, abs=9)
    assert found.peak_y == pytest.approx(325, abs=9)
    assert found.centre_x == pytest.approx(275, abs=2)
    assert found.in_mask == pytest.approx(1, abs=0.02)
    assert found.mask_share == pytest.approx(150 * 200 / 400**2, abs=0.01)
    assert found.half_area is not None
    assert found.half_area < 0.02


def test_a_map_without_evidence_has_no_measures() -> None:
    found = measured(-torch.ones(3, 3), hm.Geometry.identity((3, 3)), boxes=[(0, 0, 1, 1)])
    assert found.peak_x is None
    assert found.in_box is None
    assert found.box_share == pytest.approx(1 / 9, abs=1e-3)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("names", "folders", "count", "label", "index"),
    [
        (["goldfish, Carassius", "tabby, tabby cat", "tiger cat"], None, 3, "Tabby_Cat", 1),
        (["crane", "crane"], None, 2, "crane", None),
        (["a", "b"], ["x", "y"], 2, "y", 1),
        (["a", "b", "c"], ["x", "y"], 3, "y", None),
        (None, ["x", "y"], 2, "y", 1),
        (None, ["x", "y"], 10, "y", None),
        (["food, meal", "plant food"], None, 2, "food", 0),
        (None, None, None, 7, 7),
        (None, None, 3, 7, None),
        (None, None, 3, -1, None),
        (None, None, None, 10**12, None),
        (["tench", "cat"], ["cat", "frog"], 2, 0, 1),
        (["tench", "cat", "dog"], ["cat", "frog"], 3, 1, None),
        (["tench", "cat", "dog"], ["cat", "frog"], 3, 2, None),
    ],
)
def test_labels_become_classes(names: Any, folders: Any, count: int | None, label: Any, index: int | None) -> None:
    assert TrueClasses(names, folders, count).index(label) == index


def test_folders_of_imagenet_are_known(lens: hm.Lens) -> None:
    classes = TrueClasses(lens.labels, ["n01443537", "n02123045"], 1000)
    assert [lens.labels[classes.index(name)] for name in classes.folders] == [
        "goldfish, Carassius auratus",
        "tabby, tabby cat",
    ]


def test_labels_that_are_no_classes_are_said(photos: Path, tmp_path: Path) -> None:
    net = Small()
    net.head = nn.Linear(6, 4)
    lens = hm.Lens(net, preprocessing=small_lens().preprocessing, labels=["one", "two", "three", "four"])
    with pytest.raises(hm.DataError, match="blue, green, red"):
        ran(photos, tmp_path / "a", lens, target="label")
    with pytest.warns(hm.HookmapWarning, match="isn't judged"):
        found = ran(photos, tmp_path / "b", lens)
    assert found.table["correct"].isna().all()


def test_images_without_labels_cannot_be_asked_for_them(photos: Path, tmp_path: Path) -> None:
    """It said "0 heatmaps by nothing at nothing" and left a folder."""
    one = next(photos.rglob("*.*"))
    (tmp_path / "names.csv").write_text(f"path\n{one}\n")
    for data in (one, [one], tmp_path / "names.csv"):
        with pytest.raises(hm.DataError, match="the target is each image's label, and no image has one; pass folders"):
            hm.run(data, out=tmp_path / "run", target="label", workers=0)
        assert not (tmp_path / "run").exists()


def test_boxes_of_several_classes_are_said_where_the_target_is_the_label(photos: Path, tmp_path: Path) -> None:
    """It said "it has no label"."""
    path = next(photos.rglob("*.png"))
    table = tmp_path / "boxes.csv"
    rows = [f"{path},red,0,0,8,8", f"{path},blue,4,4,16,16"]
    table.write_text("\n".join(["path,label,left,top,right,bottom", *rows]))
    found = ran(table, tmp_path / "run", small_lens(), target="label")
    assert found.table["error"].tolist() == [
        "the target is each image's label, and its boxes are of several classes (red, blue); name one of them as the "
        "target"
    ]


# ---------------------------------------------------------------- detectors


def test_a_detector_is_explained_detection_by_detection(tmp_path: Path) -> None:
    scenes = {"two.png": [(0, 8, 8), (1, 40, 72)], "none.png": [], "one wide.png": [(0, 24, 64)]}
    images, annotations = [], []
    for i, (name, things) in enumerate(scenes.items()):
        image = scene(*things, width=128 if "wide" in name else 96)
        Image.fromarray(image).save(tmp_path / name)
        images.append({"id": i, "file_name": name, "height": image.shape[0], "width": image.shape[1]})
        for channel, top, left in things:
            box = {"image_id": i, "category_id": channel + 1, "bbox": [left, top, 16, 16]}
            annotations.append(box | {"id": len(annotations), "segmentation": [], "iscrowd": 0})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    (tmp_path / "coco.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    found = ran(tmp_path / "coco.json", tmp_path / "run", squares(), channels=["blur"])
    rows = found.table.set_index("id")
    assert sorted(found.table["id"]) == ["none.png", "one wide.png", "two.png", "two.png"]
    assert rows.loc["none.png", ["target", "error"]].isna().all()
    assert rows.loc["two.png", "truth"].tolist() == rows.loc["two.png", "target"].tolist()
    assert set(rows.loc["two.png", "target"]) == {"red", "green"}
    np.testing.assert_allclose(
        found.explained["iou"], 12 * 12 / (2 * 256 - 12 * 12), rtol=1e-5
    )  # cells lie half beside
    # The box covers a twenty-fourth of the picture, and holds most of what speaks for its detection.
    assert (found.explained["in_box"] > 0.5).all()
    assert (found.explained["box_share"] < 0.05).all()
    assert rows.loc["one wide.png", "peak_x"] == pytest.approx(72, abs=6)
    assert found.channels["blur"].images == 3
    each = ran(tmp_path / "coco.json", tmp_path / "each", squares(), target=["red", "green"]).explained
    assert sorted(zip(each["id"], each["asked"], strict=True)) == [
        ("one wide.png", "red"),
        ("two.png", "green"),
        ("two.png", "red"),
    ]


# ---------------------------------------------------------------- what goes wrong


def broken(photos: Path, folder: Path) -> Path:
    shutil.copytree(photos, folder)
    (folder / "red" / "p 00.png").write_bytes(b"no image")
    (folder / "green" / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "blue" / "图片 ü.png").write_bytes((folder / "blue" / "p 02.png").read_bytes())
    (folder / "blue" / "loop").symlink_to(folder)
    return folder


@pytest.mark.filterwarnings("ignore:1 link leads to a folder read already:hookmap.HookmapWarning")
def test_a_bad_image_is_a_row_with_its_error(photos: Path, tmp_path: Path) -> None:
    found = ran(broken(photos, tmp_path / "some photos"), tmp_path / "run")
    assert found.table["id"].is_unique
    assert len(found.table) == 44
    assert found.errors["id"].tolist() == ["green/gone.png", "red/p 00.png"]
    assert "isn't an image" in found.errors["error"].iloc[1]
    assert "blue/图片 ü.png" in found.explained["id"].tolist()
    assert len(found.maps()) == 44


def test_a_folder_that_is_no_class_is_rows_with_errors(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "p")
    shutil.copytree(photos / "red", tmp_path / "p" / "zebra")
    with pytest.warns(hm.HookmapWarning, match="zebra"):
        found = ran(tmp_path / "p", tmp_path / "label", target="label")
    assert len(found.explained) == 42
    assert found.errors["error"].str.contains("no class is called 'zebra'").all()
    with pytest.warns(hm.HookmapWarning, match="zebra"):
        found = ran(tmp_path / "p", tmp_path / "both", target=["predicted", "label"])
    assert found.explained["id"].nunique() == 56
    assert not len(found.errors)


class Choosy(Small):
    """Refuses dark pictures."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x.flatten(1).mean(1) < 0.3).any():
            raise KeyError("too dark")
        return super().forward(x)


def test_a_model_that_refuses_an_image_leaves_a_row(photos: Path, tmp_path: Path) -> None:
    plain = small_lens()
    found = ran(photos, tmp_path / "run", hm.Lens(Choosy(), preprocessing=plain.preprocessing, labels=plain.labels))
    assert 0 < len(found.errors) < 42
    assert len(found.table) == 42
    assert found.errors["error"].str.contains("too dark").all()


def test_weights_that_are_not_finite_are_no_result(photos: Path, tmp_path: Path) -> None:
    lens = small_lens()
    with torch.no_grad():
        lens.model.features[0].weight[0] = torch.nan
    with pytest.raises(hm.DataError, match="NaN"):
        ran(photos, tmp_path / "run", lens)


def test_a_half_model_is_given_what_it_takes(photos: Path, tmp_path: Path) -> None:
    plain = small_lens()
    lens = hm.Lens(Small().double(), preprocessing=plain.preprocessing, labels=plain.labels)
    found, wanted = ran(photos, tmp_path / "a", lens), ran(photos, tmp_path / "b", plain)
    assert found.table["prediction"].tolist() == wanted.table["prediction"].tolist()
    np.testing.assert_allclose(found.table["target_score"], wanted.table["target_score"], rtol=1e-4)


@pytest.mark.filterwarnings("ignore:1 link leads to a folder read already:hookmap.HookmapWarning")
def test_strict_ends_at_a_bad_image(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(hm.DataError, match=r"gone\.png can't be explained: .*strict"):
        ran(broken(photos, tmp_path / "p"), tmp_path / "run", strict=True)


def test_a_fault_of_the_question_ends_the_run_at_once(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(hm.LayerError):
        ran(photos, tmp_path / "a", layer="nowhere")
    with pytest.raises(hm.TargetError, match="nobody"):
        ran(photos, tmp_path / "b", target="nobody")
    with pytest.raises(hm.DataError, match="no image of a batch of 4 can be explained: IndexError"):
        ran(photos, tmp_path / "a", target=lambda output: output[:, 7])
    assert len(ran(photos, tmp_path / "a")) == 42  # nothing was done, so nothing stands in the way


def test_a_folder_belongs_to_one_question(photos: Path, tmp_path: Path) -> None:
    ran(photos / "red", tmp_path / "run")
    with pytest.raises(hm.DataError, match="resume"):
        ran(photos / "red", tmp_path / "run")
    with pytest.raises(hm.DataError, match="layercam"):
        ran(photos / "red", tmp_path / "run", method="layercam", resume=True)
    other = small_lens()
    with torch.no_grad():
        other.model.head.bias += 1
    with pytest.raises(hm.DataError, match="model"):
        ran(photos / "red", tmp_path / "run", other, resume=True)
    with pytest.raises(hm.DataError, match="other weights"):
        ran(
            photos / "red",
            tmp_path / "run",
            hm.Lens(Small(), preprocessing=other.preprocessing, precision="bf16", labels=other.labels),
            resume=True,
        )
    with pytest.raises(hm.DataError, match="other data"):
        ran(photos / "blue", tmp_path / "run", resume=True)
    names = [*photos.glob("blue/*"), *photos.glob("red/*")]
    ran(names, tmp_path / "names")
    with pytest.raises(hm.DataError, match="other data"):
        ran([*photos.glob("green/*")], tmp_path / "names", resume=True)
    with pytest.raises(hm.DataError, match="other labels"):
        ran(
            photos / "red",
            tmp_path / "run",
            hm.Lens(Small(), preprocessing=other.preprocessing, labels=["a", "b", "c"]),
            resume=True,
        )
    mine = tmp_path / "mine" / "maps.parquet" / "part-thesis.parquet"
    mine.parent.mkdir(parents=True)
    mine.write_text("do not touch")
    with pytest.raises(hm.DataError, match="other files"):
        ran(photos / "red", tmp_path / "mine")
    assert [*(tmp_path / "mine").rglob("*")] == [mine.parent, mine]
    with pytest.raises(hm.DataError, match=r"no run\.json"):
        hm.open_run(tmp_path / "nothing")


def classes_above(n: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda output: output[:, n]


def test_functions_are_told_apart_by_what_they_hold(photos: Path, tmp_path: Path) -> None:
    ran(photos / "red", tmp_path / "run", target=classes_above(0), method=functools.partial(gradcam))
    again = ran(
        photos / "red", tmp_path / "run", target=classes_above(0), method=functools.partial(gradcam), resume=True
    )
    assert len(again) == 14
    with pytest.raises(hm.DataError, match="target"):
        ran(photos / "red", tmp_path / "run", target=classes_above(1), method=functools.partial(gradcam), resume=True)


def test_a_grown_folder_is_continued(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos / "red", folder)
    assert len(ran(folder, tmp_path / "run")) == 14
    shutil.copy(photos / "blue" / "p 02.png", folder / "a first one.png")
    found = ran(folder, tmp_path / "run", resume=True)
    assert len(found) == 15
    assert found.table["id"].is_unique


def test_a_run_inside_of_its_data_is_not_read_as_data(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "p")
    ran(tmp_path / "p", tmp_path / "p" / "run")
    (tmp_path / "p" / "run" / "figures").mkdir()
    shutil.copy(photos / "red" / "p 00.png", tmp_path / "p" / "run" / "figures")
    assert len(ran(tmp_path / "p", tmp_path / "p" / "run", resume=True)) == 42


def test_a_run_is_read_as_it_was_when_it_was_opened(photos: Path, tmp_path: Path) -> None:
    lens, folder = small_lens(), tmp_path / "p"
    shutil.copytree(photos / "red", folder)
    early = ran(folder, tmp_path / "run", lens)
    shutil.copy(photos / "blue" / "p 02.png", folder / "x.png")
    late = ran(folder, tmp_path / "run", lens, resume=True)
    assert (len(early.maps()), len(late.maps())) == (14, 15)


@pytest.mark.parametrize(
    ("lost", "images"),
    [
        (["maps.parquet/part-000001.parquet"], 10),
        (["index.parquet/part-000001.parquet"], 10),
        (["pictures.parquet/part-000004.parquet"], 2),
        (["index.parquet", "maps.parquet", "pictures.parquet"], 42),
    ],
)
def test_a_run_that_lost_a_part_says_so_and_is_repaired(
    lost: list[str], images: int, photos: Path, tmp_path: Path
) -> None:
    whole, out = ran(photos, tmp_path / "whole"), tmp_path / "run"
    shutil.copytree(whole.folder, out)
    for name in lost:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.warns(hm.HookmapWarning, match=rf"run lost \d parts? \({images} images\) since .*--resume"):
        opened = hm.open_run(out)
    assert opened.table["id"].nunique() == 42 - images
    assert any("--resume" in sentence for sentence in opened.summary())
    with pytest.warns(hm.HookmapWarning, match=rf"had lost \d parts? \({images} images\), which are run again"):
        repaired = ran(photos, out, resume=True)
    same(repaired, whole)
    assert repaired.summary() == [sentence.replace("whole", "run") for sentence in whole.summary()]


def test_a_file_whose_bytes_changed_is_no_part_of_a_run(photos: Path, tmp_path: Path) -> None:
    whole = ran(photos, tmp_path / "whole")
    shutil.copytree(whole.folder, tmp_path / "run")
    path = tmp_path / "run" / "maps.parquet" / "part-000002.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4  # one bit
    path.write_bytes(data)
    with pytest.raises(hm.DataError, match=r"is damaged .*--resume"):
        hm.open_run(tmp_path / "run").maps()
    with pytest.warns(hm.HookmapWarning, match=r"1 part \(10 images\)"):
        same(ran(photos, tmp_path / "run", resume=True), whole)


def test_an_interrupted_run_says_how_far_it_came_and_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, calls = driver.Job.__call__, []

    def interrupted(self: Any, *given: Any) -> Any:
        calls.append(given)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return job(self, *given)

    monkeypatch.setattr(driver.Job, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ran(photos, tmp_path / "run")
    assert "20 of 42 images are done" in hm.open_run(tmp_path / "run").summary()[-1]
    monkeypatch.undo()
    same(ran(photos, tmp_path / "run", resume=True), ran(photos, tmp_path / "other"))
    assert "images are done" not in hm.open_run(tmp_path / "run").summary()[-1]


def test_what_describes_a_run_must_be_readable(photos: Path, tmp_path: Path) -> None:
    ran(photos / "red", tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("[1]")
    with pytest.raises(hm.DataError, match="can't be read"):
        hm.open_run(tmp_path / "run")


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_fails_before_anything_is_done_leaves_nothing(there: bool, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    if there:
        out.mkdir(parents=True)
    with pytest.raises(hm.DataError, match="no image of a batch"):
        ran(photos, out, target=lambda output: output[:, 7])
    with pytest.raises(hm.LayerError):
        ran(photos, out, layer="nowhere")
    assert [*tmp_path.rglob("*")] == ([out.parent, out] if there else [])


class RedAnywhere(nn.Module):
    """Its classes: how red a picture is, how little, and nothing; at a layer whose map is the red itself."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 1)
        self.head = nn.Linear(2, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.features.weight[0, 0] = 1.0
            self.head.weight[:, 0] = torch.tensor([1.0, -1.0, 0.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).relu().mean((2, 3)))


def test_maps_without_evidence_are_counted_and_said(tmp_path: Path) -> None:
    x = torch.zeros(6, 3, 8, 8)
    x[:2, 0, 2:4, 2:4] = 1.0
    x[2:4, 0] = 1.0
    found = ran(x, tmp_path / "run", hm.Lens(RedAnywhere()), target=[0, 1, 2], layer="features")
    kinds = found.table.groupby("asked")["evidence"].agg(list)
    assert kinds["0"] == ["some", "some", "even", "even", "none", "none"]
    assert kinds["1"] == kinds["2"] == ["none"] * 6
    (sentence,) = [line for line in found.summary() if "no evidence" in line]
    assert sentence.startswith("16 of 18 heatmaps show no evidence for their target (14 nothing above zero, 2 the same")


def test_the_default_layer_is_chosen_once_and_kept_when_a_run_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, looked = tmp_path / "p", []
    shutil.copytree(photos / "red", folder)
    look = Engine._chosen
    monkeypatch.setattr(Engine, "_chosen", lambda self, x: looked.append(x.shape) or look(self, x))
    first = ran(folder, tmp_path / "run")
    assert len(looked) == 1
    assert first.about["chosen"]["choice"]["layers"] == [*first.table["layer"].unique()]
    assert [first.about["chosen"]["choice"]["method"]] == [*first.table["method"].unique()]
    shutil.copy(photos / "blue" / "p 02.png", folder / "x.png")
    about = json.loads((first.folder / "run.json").read_text())
    about["chosen"]["choice"]["layers"] = ["features.0"]  # as if it had been chosen otherwise then
    (first.folder / "run.json").write_text(json.dumps(about))
    again = ran(folder, tmp_path / "run", resume=True)
    assert len(looked) == 1
    assert again.table.set_index("id").loc["x.png", "layer"] == "features.0"


def test_a_model_with_an_expanded_buffer_can_be_run(photos: Path, tmp_path: Path) -> None:
    net = Small()
    net.register_buffer("scale", torch.tensor(1.0).expand(1))
    net.register_buffer("strided", torch.ones(1, 3).expand(4, 3))
    lens = hm.Lens(net, preprocessing=small_lens().preprocessing, labels=["red", "green", "blue"])
    assert len(ran(photos / "red", tmp_path / "run", lens).explained) == 14


def same(one: hm.Run, other: hm.Run) -> None:
    """Two runs hold the same, whatever the order of their parts."""
    tables = [run.table.sort_values(["id", "heatmap"]) for run in (one, other)]
    pd.testing.assert_frame_equal(*(table.reset_index(drop=True) for table in tables), check_exact=True)
    for a, b in zip(*(run.maps(table.index) for run, table in zip((one, other), tables, strict=True)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.thumbnails == other.thumbnails
    assert one.channels.keys() == other.channels.keys()
    for layer, channels in one.channels.items():
        assert torch.equal(channels.strongest, other.channels[layer].strongest)
        torch.testing.assert_close(channels.mean, other.channels[layer].mean, rtol=1e-12, atol=0)


def killed(work: Callable[[], object], after: float) -> bool:
    """Run something in a process that is killed after so many seconds; whether it was."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(after)
    alive = process.is_alive()
    if alive:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    else:
        assert process.exitcode == 0
    return alive


def test_twenty_kills_lose_nothing_and_repeat_nothing(photos: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"part_size": 2, "batch_size": 2, "channels": ["features.1"]}
    start = time.perf_counter()
    whole = ran(photos, tmp_path / "whole", **how)
    takes = time.perf_counter() - start
    chance, kills = random.Random(0), 0
    out = tmp_path / "run"
    # So short that it is killed while it works: most of the time before a part is done.
    while kills < 20 or not out.exists():
        assert kills < 200
        if killed(lambda: ran(photos, out, resume=out.exists(), **how), chance.uniform(0.05, 0.25) * takes):
            kills += 1
        else:
            shutil.rmtree(out)  # it came to its end too early: once more from the start
    found = ran(photos, out, resume=True, **how)
    assert found.table["id"].is_unique
    same(found, whole)
    assert not [path for path in out.rglob("*") if path.name.startswith(".") and path.name != ".lock"]


def test_one_process_writes_at_a_time(photos: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    with store.locked(), pytest.raises(hm.DataError, match="another process"), Store(tmp_path / "run").locked():
        pass


def test_a_full_disk_leaves_a_run_that_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = [], pq.write_table

    def until_it_is_full(table: Any, place: Any, **how: Any) -> None:
        written.append(place)
        if len(written) > 7:
            Path(place).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, place, **how)

    monkeypatch.setattr(pq, "write_table", until_it_is_full)
    with pytest.raises(hm.DataError, match=r"is full.*--resume"):
        ran(photos, tmp_path / "run")
    monkeypatch.undo()
    assert len(hm.open_run(tmp_path / "run")) == 20
    found = ran(photos, tmp_path / "run", resume=True)
    same(found, ran(photos, tmp_path / "other"))


# ---------------------------------------------------------------- where it comes from and where it runs


def test_workers_and_streams_give_the_same(photos: Path, plain: hm.Run, tmp_path: Path) -> None:
    how: dict[str, Any] = {"target": ["predicted", "label"], "channels": ["features.0", "features.1"]}
    same(ran(photos, tmp_path / "workers", workers=2, **how), plain)


class Brittle(torch.utils.data.IterableDataset[Any]):
    """Pictures, one after the other, of which one can't be had."""

    def __iter__(self) -> Any:
        return map(self._picture, range(9))

    def _picture(self, number: int) -> Any:
        if number == 4:
            raise OSError("the tape is torn")
        return np.full((32, 32, 3), number * 20, np.uint8)


def test_a_stream_goes_on_after_a_bad_sample_and_after_an_end(tmp_path: Path) -> None:
    found = ran(Brittle(), tmp_path / "run")
    assert sorted(found.explained["id"]) == [str(i) for i in range(8)]
    assert found.errors["error"].tolist() == ["OSError: the tape is torn"]
    assert len(ran(Brittle(), tmp_path / "run", resume=True)) == 9


class InPlace(Small):
    """Works in place on its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.mul_(2).add_(1))


def test_a_model_may_work_in_place_on_its_input(photos: Path, tmp_path: Path) -> None:
    plain = small_lens()
    lens = hm.Lens(InPlace(), preprocessing=plain.preprocessing, labels=plain.labels)
    table = ran(photos / "red", tmp_path / "run", lens).table
    for path, score in zip(table["path"], table["target_score"], strict=True):
        x = plain.preprocessing(load(path))[0][None]
        with torch.no_grad():
            assert score == pytest.approx(float(lens.model(x.clone()).max()), rel=1e-4)


def test_a_run_does_not_draw_from_the_callers_random_numbers(photos: Path, tmp_path: Path) -> None:
    lens, before = small_lens(), torch.get_rng_state()
    ran(photos / "red", tmp_path / "run", lens, workers=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_tensors_and_data_sets_of_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 32, 32)
    data = torch.utils.data.TensorDataset(x, torch.tensor([0, 1, 2, 0, 1, 2]))
    found = ran(data, tmp_path / "run", target=["predicted", "label"])
    assert found.table["label"].tolist()[::2] == ["red", "green", "blue"] * 2
    wanted = small_lens().explain(x, hm.PerImage([0, 1, 2, 0, 1, 2])).raw
    got = torch.stack([torch.from_numpy(m) for m in found.maps(range(1, 12, 2))])
    torch.testing.assert_close(got, wanted, rtol=2e-3, atol=1e-4)
    assert found.thumbnail(found.table["id"][0]) is not None


def test_a_model_leaves_as_it_came(photos: Path, tmp_path: Path) -> None:
    lens = small_lens()
    lens.model.train()
    before = {name: value.clone() for name, value in lens.model.state_dict().items()}
    ran(photos / "red", tmp_path / "run", lens, channels=True)
    assert lens.model.training
    assert all(torch.equal(value, before[name]) for name, value in lens.model.state_dict().items())
    assert not any(module._forward_hooks for module in lens.model.modules())


class Dying(Small):
    """Dies once, if it isn't at home."""

    def __init__(self, at_home: int, marker: Path) -> None:
        super().__init__()
        self.at_home, self.marker = at_home, marker

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.getpid() != self.at_home and len(x) > 1 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


@pytest.mark.filterwarnings("ignore")
def test_ray_gives_the_same_bit_for_bit_also_when_a_worker_dies(photos: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"target": ["predicted", "label"], "channels": ["features.1"]}
    plain = small_lens()
    lens = hm.Lens(Dying(os.getpid(), tmp_path / "dead"), preprocessing=plain.preprocessing, labels=plain.labels)
    local = ran(photos, tmp_path / "local", lens, **how)
    with connected():
        with pytest.raises(hm.DataError, match="can't be explained"):
            ran(broken(photos, tmp_path / "p"), tmp_path / "strict", plain, engine="ray", workers=1, strict=True)
        found = ran(photos, tmp_path / "ray", lens, engine="ray", workers=1, **how)
    assert (tmp_path / "dead").exists()
    same(found, local)
    for part in tmp_path.glob("local/*.parquet/*.parquet"):
        other = tmp_path / "ray" / part.parent.name / part.name
        assert str(pq.read_table(part).to_pylist()) == str(pq.read_table(other).to_pylist())  # NaN is NaN


class Telling(Small):
    """Takes its time, and notes on which node of a cluster it ran."""

    def __init__(self, notes: Path) -> None:
        super().__init__()
        self.notes = notes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import ray

        if ray.is_initialized():
            (self.notes / ray.get_runtime_context().get_node_id()).touch()
            time.sleep(0.2)
        return super().forward(x)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_node_midway_gives_the_same_bit_for_bit(photos: Path, tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    notes = tmp_path / "notes"
    notes.mkdir()
    how: dict[str, Any] = {
        "target": ["predicted", "label"],
        "channels": ["features.1"],
        "batch_size": 2,
        "part_size": 4,
    }
    lens = hm.Lens(Telling(notes), preprocessing=small_lens().preprocessing, labels=["red", "green", "blue"])
    local = ran(photos, tmp_path / "local", lens, **how)
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    killed = []

    def kill_one_that_worked() -> None:
        """Once a part is written, so that there's still much to do."""
        while not (tmp_path / "ray" / "index.parquet" / "part-000000.parquet").exists() or not killed:
            time.sleep(0.05)
            there = {other.node_id: other for other in cluster.worker_nodes if (notes / other.node_id).exists()}
            if there and any((tmp_path / "ray" / "index.parquet").glob("*")):
                name, other = next(iter(there.items()))
                cluster.remove_node(other, allow_graceful=False)
                killed.append(name)

    try:
        for _ in range(2):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        ray.init(address=cluster.address, runtime_env={"env_vars": paths}, log_to_driver=False)
        killer = threading.Thread(target=kill_one_that_worked, daemon=True)
        killer.start()
        found = ran(photos, tmp_path / "ray", lens, engine="ray", workers=1, **how)
        killer.join(1)
        assert [entry["Alive"] for entry in ray.nodes()].count(False) == len(killed) == 1
    finally:
        ray.shutdown()
        cluster.shutdown()
    same(found, local)
    assert found.table.equals(local.table)  # the parts too are the same, in their order
