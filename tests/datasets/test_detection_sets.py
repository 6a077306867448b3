"""YOLO's and VOC's data sets are read as the libraries that made them do."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import hookmap as hm
from hookmap.datasets.sources import Item, Source, source
from hookmap.images.loading import load


def items(found: Source) -> list[Item]:
    assert found.ids is not None
    return [found.item(number) for number in range(len(found.ids))]


def save(path: Path, size: tuple[int, int] = (100, 80), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path, **options)  # type: ignore[arg-type]
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# ---------------------------------------------------------------- YOLO


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Two classes; a picture with two boxes, one with an outline, one with nothing, one for training."""
    root = tmp_path / "set"
    for name in ("val/a.jpg", "val/b.jpg", "val/c.jpg", "train/d.jpg"):
        save(root / "images" / name)
    write(root / "labels/val/a.txt", "0 0.5 0.5 0.2 0.5\n\n1 0.1 0.25 0.2 0.5\n")
    write(root / "labels/val/b.txt", "1 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6\n")
    write(root / "labels/train/d.txt", "0 0.5 0.5 1 1\n")
    write(root / "data.yaml", yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["cat", "dog"]}))
    return root


def test_yolo(yolo: Path) -> None:
    found = source(yolo / "data.yaml")
    first, second, third = items(found)
    assert found.ids == ["a.jpg", "b.jpg", "c.jpg"]
    assert found.classes == ["cat", "dog"]
    assert [tuple(box) for box in first.boxes] == [
        (*map(pytest.approx, (40, 20, 60, 60)), "cat"),
        (*map(pytest.approx, (0, 0, 20, 40)), "dog"),
    ]
    assert (first.label, second.label, third.label) == (None, "dog", None)
    assert first.mask is None
    assert third.boxes == ()
    (box,) = second.boxes
    assert box[:4] == pytest.approx((10, 8, 50, 48))
    expected = np.zeros((80, 100), bool)
    expected[8:48, 10:50] = True
    assert np.array_equal(second.mask, expected)
    assert found.notes == ["these are the pictures of val; for those of train pass their folder"]
    assert {item.label for item in items(source(yolo / "data.yaml", label=False))} == {None}
    assert items(pickle.loads(pickle.dumps(found)))[1].label == "dog"


def test_yolo_as_ultralytics_reads_it(yolo: Path) -> None:
    """Boxes and classes of the library's own loader."""
    peer = pytest.importorskip("ultralytics.data.utils")
    theirs = peer.verify_image_label(
        (str(yolo / "images/val/a.jpg"), str(yolo / "labels/val/a.txt"), "", False, 2, 0, 0, False)
    )
    classes, shares = theirs[1][:, 0], theirs[1][:, 1:]
    mine = items(source(yolo))[0]
    assert peer.img2label_paths([str(yolo / "images/val/a.jpg")]) == [str(yolo / "labels/val/a.txt")]
    for box, kind, (x, y, w, h) in zip(mine.boxes, classes, shares, strict=True):
        assert box.label == ["cat", "dog"][int(kind)]
        assert box[:4] == pytest.approx(
            ((x - w / 2) * 100, (y - h / 2) * 80, (x + w / 2) * 100, (y + h / 2) * 80), abs=1e-4
        )


@pytest.mark.parametrize("given", ["", "data.yaml", "images/val"])
def test_yolo_by_its_folders(yolo: Path, given: str) -> None:
    assert [item.label for item in items(source(yolo / given))] == [None, "dog", None]
    assert [item.label for item in items(source(yolo / "images/train"))] == ["cat"]


@pytest.mark.parametrize(
    "about",
    [
        {"path": ".", "val": ["images/val"], "names": {0: "cat", 1: "dog"}},
        {"val": "../images/val", "names": ["cat", "dog"], "nc": 2},  # as Roboflow writes it
        {"path": "/nowhere/at/all", "val": "images/val", "names": ["cat", "dog"]},
        {"val": "val.txt", "names": ["cat", "dog"]},
    ],
)
def test_the_forms_of_data_yaml(yolo: Path, about: dict[str, object]) -> None:
    write(yolo / "data.yaml", yaml.safe_dump(about))
    write(yolo / "val.txt", "images/val/a.jpg\n./images/val/b.jpg\nimages/val/c.jpg\n")
    found = source(yolo)
    assert [item.label for item in items(found)] == [None, "dog", None]
    assert ("isn't there, so its own folder is taken" in " ".join(found.notes)) == (
        "path" in about and about["path"] != "."
    )


def test_pictures_outside_of_the_set_are_said(yolo: Path, tmp_path: Path) -> None:
    save(tmp_path / "other/x.jpg")
    write(yolo / "data.yaml", yaml.safe_dump({"val": ["images/val", str(tmp_path / "other")], "names": ["cat", "dog"]}))
    (note,) = source(yolo).notes
    assert note.startswith("1 picture lies outside of the data set's folder, as ")


def test_a_phones_picture_is_upright(yolo: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    path = save(yolo / "images/val/e.jpg", (100, 80), exif=turned)
    write(yolo / "labels/val/e.txt", "0 0.5 0.25 1 0.5\n")
    (box,) = items(source(yolo))[3].boxes
    assert load(path).pixels.shape[:2] == (100, 80)
    assert box[:4] == pytest.approx((0, 0, 80, 50))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("cat 0.5 0.5 0.1 0.1", r"a\.txt, line 1: 'cat 0.5 0.5 0.1 0.1' aren't numbers"),
        ("0 50 40 20 10", "aren't shares of the picture"),
        ("0 0.5 0.5", "3 numbers came; expected class x y w h"),
        ("0.5 0.5 0.5 0.1 0.1", "5 numbers came"),
        ("0 nan 0.5 0.1 0.1", "aren't shares"),
    ],
)
def test_lines_that_are_not_yolos(yolo: Path, line: str, sentence: str) -> None:
    write(yolo / "labels/val/a.txt", line)
    with pytest.raises(hm.DataError, match=sentence):
        source(yolo).item(0)


def test_key_points_end_where_the_box_does(yolo: Path) -> None:
    write(yolo / "data.yaml", yaml.safe_dump({"val": "images/val", "names": ["cat"], "kpt_shape": [2, 3]}))
    write(yolo / "labels/val/a.txt", "0 0.5 0.5 0.2 0.5 0.4 0.4 2 0.6 0.6 2")
    first = source(yolo).item(0)
    assert first.boxes[0][:4] == pytest.approx((40, 20, 60, 60))
    assert first.mask is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds nothing; expected YOLO's data.yaml"),
        ("a: [1", "isn't YAML"),
        ("- 1", "holds list"),
        ("names: [a]", "names no pictures"),
        ("val: images/val\nnames: cat", "expected a list of names"),
        ("val: nowhere\nnames: [a]", "aren't in .*; pass the data set's folder as root"),
        ("val: !!python/object/apply:os.system ['true']", "isn't YAML"),
        ("val: {a: 1}", "expected a folder, or several"),
    ],
)
def test_what_is_no_data_yaml(yolo: Path, text: str, sentence: str) -> None:
    with pytest.raises(hm.DataError, match=sentence):
        source(write(yolo / "data.yaml", text))


def test_other_folders_of_images_stay_folders(tmp_path: Path) -> None:
    save(tmp_path / "images/cat/a.jpg")
    save(tmp_path / "images/dog/b.jpg")
    assert source(tmp_path / "images").description["kind"] == "image folder"


# ---------------------------------------------------------------- VOC

OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("2007_000001", "2007_000002", "2007_000003"):
        save(root / f"JPEGImages/{name}.jpg")
    objects = OBJECT.format("cat", 11, 21, 60, 80) + OBJECT.format("cat", 1, 1, 100, 40)
    write(root / "Annotations/2007_000001.xml", f"<annotation><folder>VOC</folder>{objects}</annotation>")
    write(root / "Annotations/2007_000002.xml", f"<annotation>{OBJECT.format('dog', 1, 1, 5, 5)}</annotation>")
    write(root / "ImageSets/Main/train.txt", "2007_000003\n")
    write(root / "ImageSets/Main/val.txt", "2007_000001\n2007_000002\n")
    write(root / "ImageSets/Main/cat_val.txt", "2007_000001  1\n2007_000002 -1\n")
    mask = Image.new("P", (100, 80))
    mask.putpalette([*range(256)] * 3)
    mask.paste(8, (10, 20, 60, 80))
    mask.paste(255, (10, 20, 60, 22))
    (root / "SegmentationClass").mkdir()
    mask.save(root / "SegmentationClass/2007_000001.png")
    return root


def test_voc_as_torchvision_reads_it(voc: Path) -> None:
    from torchvision.datasets import VOCDetection

    found = source(voc)
    theirs = VOCDetection(str(voc.parent.parent), year="2012", image_set="val")
    assert len(theirs) == len(found.ids or ()) == 2
    for item, (picture, target) in zip(items(found), theirs, strict=True):
        assert load(item.image).pixels.shape[:2] == picture.size[::-1]
        objects = target["annotation"]["object"]
        assert [box.label for box in item.boxes] == [one["name"] for one in objects]
        for box, one in zip(item.boxes, objects, strict=True):
            left, top, right, bottom = (int(one["bndbox"][edge]) for edge in ("xmin", "ymin", "xmax", "ymax"))
            # Both edges are pixels of the object there, counted from 1.
            assert box[:4] == (left - 1, top - 1, right, bottom)
    first, second = items(found)
    assert (first.label, second.label) == ("cat", "dog")
    expected = np.zeros((80, 100), bool)
    expected[22:80, 10:60] = True
    assert np.array_equal(first.mask, expected)
    assert second.mask is None
    assert found.notes == ["these are the pictures of val.txt; for others pass train.txt of ImageSets/Main"]


def test_voc_by_its_parts(voc: Path) -> None:
    assert source(voc.parent).ids == source(voc).ids == ["2007_000001.jpg", "2007_000002.jpg"]
    assert source(voc / "ImageSets/Main/train.txt").ids == ["2007_000003.jpg"]
    assert source(voc / "ImageSets/Main/cat_val.txt").ids == ["2007_000001.jpg"]
    assert source(voc / "ImageSets/Main/train.txt").item(0).boxes == []
    assert {item.label for item in items(source(voc, label=False))} == {None}
    (voc.parent / "VOC2007/JPEGImages").mkdir(parents=True)
    (voc.parent / "VOC2007/Annotations").mkdir()
    with pytest.raises(hm.DataError, match="holds VOC2007, VOC2012; pass one of them"):
        source(voc.parent)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("<annotation><object>", "isn't XML"),
        ("", "isn't XML"),
        ("<annotation><object><name>a</name></object></annotation>", "no name or bndbox"),
        (f"<annotation>{OBJECT.format('a', 'x', 1, 2, 3)}</annotation>", "an object that isn't VOC's"),
        (
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>',
            "declares a document type",
        ),
        (
            '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>',
            "declares a document type",
        ),
    ],
)
def test_annotations_that_are_not_vocs(voc: Path, text: str, sentence: str) -> None:
    write(voc / "Annotations/2007_000001.xml", text)
    with pytest.raises(hm.DataError, match=sentence):
        source(voc).item(0)


def test_a_split_names_pictures_of_the_folder_alone(voc: Path, tmp_path: Path) -> None:
    save(tmp_path / "secret.jpg")
    write(voc / "ImageSets/Main/val.txt", "../../../secret\n2007_000001\n")
    found = source(voc)
    assert found.ids == ["2007_000001.jpg"]
    assert any("1 picture of the list" in note and "secret" in note for note in found.notes)
    write(voc / "ImageSets/Main/val.txt", "nothing\n")
    with pytest.raises(hm.DataError, match="none of the 1 picture of .*val.txt is in"):
        source(voc)


@pytest.mark.filterwarnings("ignore:the labels cat, dog aren't classes:hookmap.HookmapWarning")
def test_a_run_knows_true_classes_and_boxes(yolo: Path, tmp_path: Path) -> None:
    with pytest.warns(hm.HookmapWarning, match="these are the pictures of val; for those of train"):
        run = hm.run(yolo, hm.Lens(), out=tmp_path / "out")
    table = run.table
    assert len(table) == 3
    assert list(table["label"].fillna("")) == ["", "dog", ""]
