"""A run in FiftyOne, looked at through its own API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hookmap as hm
from detectors import Bright, Squares
from pictures import PHOTOS

fo = pytest.importorskip("fiftyone", reason="pip install 'hookmap[fiftyone]' (best in an environment of its own)")


@pytest.fixture
def named() -> Iterator[str]:
    name = "hookmap-test"
    if fo.dataset_exists(name):
        fo.delete_dataset(name)
    yield name
    if fo.dataset_exists(name):
        fo.delete_dataset(name)


def test_samples_have_heatmaps_predictions_and_columns(tmp_path: Path, named: str) -> None:
    paths = [PHOTOS / "coffee.jpg", PHOTOS / "cat.jpg"]
    run = hm.run([str(path) for path in paths], out=tmp_path / "run")
    dataset = run.to_fiftyone(named)
    assert fo.load_dataset(named) is dataset
    assert len(dataset) == run.table["id"].nunique()
    for sample in dataset:
        (row,) = run.table.index[run.table["id"] == sample.item]
        told = run.table.loc[row]
        assert sample.filepath == told["path"]
        assert (sample.prediction.label, sample.prediction.confidence) == (told["prediction"], told["probability"])
        assert (sample.height, sample.width) == (told["height"], told["width"])
        assert sample.heatmap.method == told["method"]
        assert sample.heatmap.target_score == told["target_score"]
        # As large as the picture in shape, and what hookmap itself lays onto the picture.
        full = run.heatmap(int(row)).numpy()
        small = sample.heatmap.map
        assert small.shape[0] / small.shape[1] == pytest.approx(full.shape[0] / full.shape[1], rel=0.02)
        rows = ((np.arange(small.shape[0]) + 0.5) * full.shape[0] / small.shape[0]).astype(int)
        columns = ((np.arange(small.shape[1]) + 0.5) * full.shape[1] / small.shape[1]).astype(int)
        assert np.abs(full[np.ix_(rows, columns)] - small).max() <= 0.03 * full.max()
        assert sample.heatmap.range == [0, pytest.approx(small.max())]
    with pytest.raises(hm.DataError, match=f"FiftyOne has a data set '{named}' already"):
        run.to_fiftyone(named)


def test_several_methods_have_fields_of_their_own(tmp_path: Path, named: str) -> None:
    run = hm.run(
        [str(PHOTOS / "coffee.jpg")], out=tmp_path / "run", target=["espresso", "cup"], method=["gradcam", "hirescam"]
    )
    (sample,) = run.to_fiftyone(named)
    fields = {name for name, value in sample.iter_fields() if isinstance(value, fo.Heatmap)}
    assert fields == {f"heatmap_{m}_{t}" for m in ("gradcam", "hirescam") for t in ("espresso", "cup")}


def test_detections_and_pictures_that_are_no_files(tmp_path: Path, named: str) -> None:
    plain = hm.Preprocessing(size=(64, 64), resize=None, mean=(0.0,) * 3, std=(1.0,) * 3)
    lens = hm.Lens(Squares(Bright()), preprocessing=plain, labels=["red", "green"])
    pixels = np.full((64, 64, 3), 90, np.uint8)
    pixels[16:32, 16:32], pixels[40:56, 32:48] = (255, 0, 0), (0, 255, 0)
    run = hm.run([pixels], lens, tmp_path / "run")
    (sample,) = run.to_fiftyone(named)
    assert Path(sample.filepath).is_file()
    assert Path(sample.filepath).is_relative_to(tmp_path)
    found = {(one.label, tuple(np.round(one.bounding_box, 4))) for one in sample.detections.detections}
    expected = {
        (one.label, tuple(np.round([l / 64, t / 64, (r - l) / 64, (b - t) / 64], 4)))
        for one in lens.predict(pixels)[0]
        for l, t, r, b in [one.box or (0, 0, 0, 0)]  # noqa: E741
    }
    assert found == expected
    assert sample.heatmap.map.max() > 0


def test_a_failure_leaves_no_data_set(tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = hm.run([str(PHOTOS / "coffee.jpg")], out=tmp_path / "run")

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hookmap.runs.fiftyone._sample", broken)
    with pytest.raises(KeyboardInterrupt):
        run.to_fiftyone(named)
    assert not fo.dataset_exists(named)
