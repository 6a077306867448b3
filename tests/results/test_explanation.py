"""An explanation keeps its axes: image, target, layer and method."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import hookmap as hm
from detectors import scene, squares
from tiny import unread


@pytest.fixture(scope="module")
def all_axes(lens: hm.Lens, cat: Path, coffee: Path) -> hm.Explanation:
    with unread():
        return lens.explain([cat, coffee], ["tabby", 967], ["blocks.5", "bn2"], ["gradcam", "layercam", "edges"])


def test_each_axis_has_its_names_in_order(all_axes: hm.Explanation) -> None:
    assert all_axes.images == ["cat", "coffee"]
    assert all_axes.targets == ["tabby, tabby cat", "espresso"]
    assert all_axes.layers == ["blocks.5", "bn2", "input"]
    assert all_axes.methods == ["gradcam", "layercam", "edges"]
    assert len(all_axes) == 2 * 2 * (2 * 2 + 1)


def test_a_part_along_an_axis_is_an_explanation_of_that_alone(all_axes: hm.Explanation) -> None:
    by_image = all_axes.along("image")
    assert [part.images for part in by_image] == [["cat"], ["coffee"]]
    assert [heatmap for part in by_image for heatmap in part] == list(all_axes)
    assert [part.methods for part in all_axes.along("method")] == [["gradcam"], ["layercam"], ["edges"]]
    with pytest.raises(hm.HookmapError, match="axis is 'row'; expected one of image, target, layer, method"):
        all_axes.along("row")  # type: ignore[arg-type]


def test_names_and_numbers_select_along_their_axis_only(all_axes: hm.Explanation) -> None:
    (heatmap,) = all_axes.select(image="coffee", target="tabby", layer="bn2", method="layercam")
    (same,) = all_axes.select(image=1, target=0, layer=1, method=1)
    assert heatmap is same
    assert (heatmap.picture.name, heatmap.index, heatmap.layer, heatmap.method.name) == (
        "coffee",
        281,
        "bn2",
        "layercam",
    )
    assert all_axes.select(image=-1).images == ["coffee"]
    with pytest.raises(KeyError, match=r"layer='coffee'; there are blocks\.5, bn2, input"):
        all_axes.select(layer="coffee")


def test_the_table_has_a_row_for_each_heatmap(all_axes: hm.Explanation) -> None:
    table = all_axes.table
    assert len(table) == len(all_axes)
    assert table["score"].tolist() == [heatmap.score for heatmap in all_axes]
    assert table.groupby("image")["target"].nunique().to_dict() == {"cat": 2, "coffee": 2}


def test_two_images_of_one_name_stay_apart(lens: hm.Lens, cat: Path, tmp_path: Path) -> None:
    twin = tmp_path / "cat.jpg"
    twin.write_bytes((cat.parent / "coffee.jpg").read_bytes())
    explanation = lens.explain([cat, twin])
    assert [part[0].target for part in explanation.along("image")] == ["tiger cat", "espresso"]


def test_images_may_have_different_numbers_of_detections() -> None:
    lens, pictures = (
        squares(),
        [scene((0, 8, 24), (1, 40, 64)), scene((1, 8, 8)), scene((0, 8, 8), (0, 40, 40), (1, 8, 72))],
    )
    explanation = lens.explain(pictures)
    assert [len(part) for part in explanation.along("image")] == [2, 1, 3]
    parts = explanation.along("image")
    for part, picture in zip(parts, pictures, strict=True):
        predicted = lens.predict(picture)[0]
        assert [heatmap.number for heatmap in part] == list(range(len(predicted)))
        assert [heatmap.position.target for heatmap in part] == list(range(len(predicted)))
    assert sum(map(len, parts)) == len(explanation)


@pytest.mark.filterwarnings("ignore:.* left out. :hookmap.HookmapWarning")
@pytest.mark.filterwarnings("ignore:the heatmap of:hookmap.HookmapWarning")
@pytest.mark.parametrize("method", ["all", None])
def test_an_explanation_is_pickled(lens: hm.Lens, cat: Path, method: str | None) -> None:
    explanation = lens.explain(cat, layer="bn2", method=method, budget=4)
    copy = pickle.loads(pickle.dumps(explanation))
    assert all(torch.equal(one.raw, other.raw) for one, other in zip(explanation, copy, strict=True))
    assert [heatmap.method.name for heatmap in copy] == [heatmap.method.name for heatmap in explanation]
    assert np.array_equal(copy[0].picture.pixels, explanation[0].picture.pixels)


def test_functions_of_the_users_are_lost_in_a_pickle_and_it_is_said_when_they_are_needed(
    lens: hm.Lens, cat: Path
) -> None:
    def mine(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return (activation * gradient.abs()).sum(1)

    explanation = lens.explain(cat, target=lambda output: output[:, 3], method=mine)
    copy = pickle.loads(pickle.dumps(explanation))[0]
    assert copy.method.name == "mine"
    assert torch.equal(copy.map, explanation[0].map)
    with pytest.raises(hm.HookmapError, match="was your function 'mine'|was your function '<lambda>'"):
        lens.again(copy)


# ---------------------------------------------------------------- images that fail


def test_a_bad_image_does_not_stop_the_others(lens: hm.Lens, cat: Path, coffee: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(cat.read_bytes()[:2000])
    images = [cat, broken, tmp_path / "missing.png", coffee]
    explanation = lens.explain(images, on_error="skip", batch_size=2)
    assert explanation.images == ["cat", "coffee"]
    assert [heatmap.position.image for heatmap in explanation] == [0, 3]
    assert list(explanation.errors) == ["broken", "missing"]
    assert all(isinstance(error, hm.ImageError) for error in explanation.errors.values())
    with pytest.raises(hm.ImageError, match=r"broken\.jpg is damaged"):
        lens.explain(images)
    with pytest.raises(hm.HookmapError, match="on_error is 'ignore'; expected one of raise, skip"):
        lens.explain(cat, on_error="ignore")  # type: ignore[arg-type]


def test_an_image_that_has_not_what_is_asked_for_is_skipped_alone() -> None:
    pictures = [scene((0, 8, 24)), scene(), scene((1, 8, 8)), scene((0, 8, 8), (0, 40, 40))]
    explanation = squares().explain(pictures, "red", on_error="skip")
    assert [heatmap.position.image for heatmap in explanation] == [0, 3, 3]
    assert [*explanation.errors] == ["image 1", "image 2"]
    assert all(isinstance(error, hm.TargetError) for error in explanation.errors.values())


def test_what_is_wrong_with_the_question_is_raised_though_images_are_skipped(lens: hm.Lens, cat: Path) -> None:
    with pytest.raises(hm.LayerError):
        lens.explain(cat, layer="nowhere", on_error="skip")
    with pytest.raises(hm.HookmapError, match="there's no method|no method"):
        lens.explain(cat, method="gradcamm", on_error="skip")


def test_results_come_as_they_are_made_and_pictures_are_decoded_batch_by_batch(lens: hm.Lens, cat: Path) -> None:
    asked: list[int] = []

    def paths() -> object:
        for number in range(7):
            asked.append(number)
            yield cat

    stream = lens.stream(paths(), batch_size=2)
    first = next(stream)
    assert len(first) == 1
    assert len(asked) <= 3  # the third tells that the batch is full
    assert len([first, *stream]) == len(asked) == 7


@pytest.mark.parametrize("ending", ["jpg", "npz", "pdf"])
def test_a_photo_is_not_written_over_by_its_heatmaps(lens: hm.Lens, cat: Path, tmp_path: Path, ending: str) -> None:
    photo = tmp_path / f"cat.{ending}"
    photo.write_bytes(cat.read_bytes())
    for saved in (explanation := lens.explain(photo, ["tabby", "lynx"])), explanation[0]:
        with pytest.raises(hm.HookmapError, match="would be written over"):
            saved.save(photo)
    assert photo.read_bytes() == cat.read_bytes()


def test_a_check_is_of_one_heatmap(lens: hm.Lens, cat: Path) -> None:
    with pytest.raises(hm.HookmapError, match="Explanation came; check takes one heatmap"):
        lens.check(lens.explain(cat))  # type: ignore[arg-type]
