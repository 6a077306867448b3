"""Detections go to supervision and come back as targets."""

from __future__ import annotations

import numpy as np
import pytest

import hookmap as hm
from detectors import Bright, Squares

sv = pytest.importorskip("supervision", reason="pip install 'hookmap[supervision]'")


@pytest.fixture
def lens() -> hm.Lens:
    plain = hm.Preprocessing(size=(64, 64), resize=None, mean=(0.0,) * 3, std=(1.0,) * 3)
    return hm.Lens(Squares(Bright()), preprocessing=plain, labels=["red", "green"])


@pytest.fixture
def photo() -> np.ndarray:
    pixels = np.full((64, 64, 3), 90, np.uint8)
    pixels[16:32, 16:32], pixels[40:56, 32:48] = (255, 0, 0), (0, 255, 0)
    return pixels


def test_there_and_back(lens: hm.Lens, photo: np.ndarray) -> None:
    (found,) = lens.predict(photo)
    assert len(found) >= 2
    theirs = hm.to_supervision(found)
    assert isinstance(theirs, sv.Detections)
    assert theirs.data["class_name"].tolist() == [one.label for one in found]
    assert np.allclose(theirs.xyxy, [one.box for one in found])
    assert np.allclose(theirs.confidence, [one.probability for one in found])
    assert theirs.class_id.tolist() == [one.index for one in found]
    assert len(theirs[theirs.class_id == 0]) == sum(one.label == "red" for one in found)

    every, again = lens.explain(photo), lens.explain(photo, theirs)
    assert [h.target for h in again] == [h.target for h in every]
    for one, other in zip(every, again, strict=True):
        assert other.box == pytest.approx(one.box)
        assert (one.raw - other.raw).abs().max() <= 1e-5 * one.raw.abs().max()
    assert np.allclose(every.to_supervision().xyxy, theirs.xyxy)


def test_some_of_them_among_other_targets(lens: hm.Lens, photo: np.ndarray) -> None:
    theirs = hm.to_supervision(lens.predict(photo)[0])
    green = theirs[theirs.data["class_name"] == "green"]
    explained = lens.explain(photo, [green, hm.Detection(0)])
    assert [h.target for h in explained] == ["green"] * len(green) + [lens.predict(photo)[0][0].label]


def test_boxes_of_another_models_classes(lens: hm.Lens, photo: np.ndarray) -> None:
    one = sv.Detections(
        xyxy=np.array([[17.0, 15.0, 33.0, 31.0]]), class_id=np.array([7]), data={"class_name": np.array(["bus"])}
    )
    assert [h.target for h in lens.explain(photo, one)] == ["red"]


def test_what_is_no_detection_is_said(lens: hm.Lens, photo: np.ndarray) -> None:
    with pytest.raises(hm.TargetError, match="Detections without boxes came"):
        lens.explain(photo, sv.Detections.empty())
    with pytest.raises(hm.HookmapError, match="'cat' has no box"):
        hm.to_supervision([hm.Prediction(0, "cat", 1.0, 0.5)])
    with pytest.raises(hm.HookmapError, match="holds 2 images"):
        lens.explain([photo, photo]).to_supervision()
    assert len(hm.to_supervision([])) == 0
