"""Pictures, numbers and animations arrive at each tracker, and what belongs to the user stays as it was."""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

import hookmap as hm
from hookmap.loggers.animation import Animation
from hookmap.loggers.logger import loggers_from
from hookmap.loggers.mlflow import MLflow
from hookmap.loggers.tensorboard import TensorBoard
from hookmap.loggers.wandb import WandB


def picture(level: int) -> Image.Image:
    return Image.fromarray(np.full((20, 30, 3), level, np.uint8))


ANIMATION = Animation([picture(40), picture(120), picture(220)], [100, 100, 900])


def log_all(logger, steps=(0, 100)):
    for step in steps:
        logger.image("heatmaps", picture(60 + step), step)
        logger.scalars({"statistics/layer#2/mean": step / 2, "statistics/layer#2/std": float("nan")}, step)
    logger.animation("animation", ANIMATION, steps[-1])
    logger.close()


def levels(file) -> list[int]:
    """The grey of each frame."""
    found = []
    with Image.open(file) as image:
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            found.append(round(float(np.asarray(image.convert("RGB")).mean())))
    return found


def test_tensorboard_has_it_all(tmp_path):
    log_all(TensorBoard(tmp_path / "run"))
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    shown = events.Images("heatmaps")
    assert [event.step for event in shown] == [0, 100]
    assert [levels(io.BytesIO(event.encoded_image_string)) for event in shown] == [[60], [160]]
    assert (shown[0].width, shown[0].height) == (30, 20)
    assert [event.value for event in events.Scalars("statistics/layer#2/mean")] == [0, 50]
    animation = events.Images("animation")[0].encoded_image_string
    assert animation.startswith(b"GIF89a")
    assert levels(io.BytesIO(animation)) == pytest.approx([40, 120, 220], abs=3)
    assert levels(tmp_path / "run" / "animation.webp") == pytest.approx([40, 120, 220], abs=3)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(hm.HookmapError, match="choose another log folder"):
        TensorBoard(tmp_path / "file").scalars({"a": 1.0}, 0)
    with pytest.raises(hm.HookmapError, match="choose another place"):
        ANIMATION.save(tmp_path / "file" / "animation.webp")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def records_of(content: bytes) -> Iterator[bytes]:
    """An offline run's file is LevelDB's log after 7 bytes: blocks of 32 KiB that hold records or parts of them."""
    whole, at = b"", 7
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The history of an offline run, row by row."""
    (path,) = folder.glob("*.wandb")
    rows = []
    for data in records_of(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


@pytest.fixture
def run(tmp_path):
    with wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True)) as run:
        yield run


def test_wandb_gets_a_row_for_each_step_and_the_users_own_count_stays(run):
    logger = WandB(run)
    for step in range(4):
        if step % 2 == 0:
            logger.image("heatmaps", picture(60), step)
            logger.scalars({"statistics/a/mean": step / 2}, step)
        run.log({"loss": 1.0})
    assert run.step == 4
    run.log({"loss": 2.0}, step=40)
    # The user logs nothing between these two.
    logger.scalars({"statistics/a/mean": 50.0}, 100)
    logger.scalars({"statistics/a/mean": 60.0}, 120)
    logger.animation("animation", ANIMATION, 120)
    logger.close()
    run.log({"loss": 3.0}, step=121)
    folder = Path(run.dir)
    run.finish()
    wandb.teardown()  # waits until the file is written
    rows = rows_of(folder.parent)
    assert [row["loss"] for row in rows if "loss" in row] == [1.0, 1.0, 1.0, 1.0, 2.0, 3.0]
    assert [row["_step"] for row in rows if "loss" in row] == [0, 1, 2, 3, 40, 121]
    means = [(row["hookmap/step"], row["statistics/a/mean"]) for row in rows if "statistics/a/mean" in row]
    assert means == [(0, 0.0), (2, 1.0), (100, 50.0), (120, 60.0)]
    assert rows[0]["heatmaps/_type"] == "image-file"
    assert levels(folder / rows[0]["heatmaps/path"]) == [60]
    animation = next(row["animation/path"] for row in rows if "animation/path" in row)
    assert levels(folder / animation) == pytest.approx([40, 120, 220], abs=3)


def test_wandb_metrics_of_the_user_keep_their_axis(run):
    run.log({"statistics/mine": 1.0})
    WandB(run).scalars({"statistics/a/mean": 1.0, "plain": 2.0}, 0)
    run.log({"statistics/mine": 2.0})
    folder = Path(run.dir)
    run.finish()
    wandb.teardown()
    (path,) = folder.parent.glob("*.wandb")
    records = [wandb_internal_pb2.Record.FromString(data) for data in records_of(path.read_bytes())]
    metrics = [one.metric for one in records if one.WhichOneof("record_type") == "metric"]
    assert not [one.glob_name for one in metrics if one.glob_name]
    assert {one.name for one in metrics} == {"hookmap/step", "statistics/a/mean", "plain"}


def test_wandb_without_a_run_says_so():
    with pytest.raises(hm.HookmapError, match="call wandb.init"):
        WandB().scalars({"a": 1.0}, 0)


@pytest.fixture
def store(tmp_path, monkeypatch):
    # The small mlflow package brings no database; its files need to be allowed.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    mlflow.create_experiment("probe", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("probe")
    yield tmp_path
    mlflow.end_run()
    mlflow.set_tracking_uri(uri)


@pytest.mark.parametrize("given", [True, False])
def test_mlflow_has_it_all(store, given):
    with mlflow.start_run() as run:
        log_all(MLflow(run) if given else MLflow())
        assert mlflow.active_run().info.run_id == run.info.run_id
    client = mlflow.MlflowClient()
    history = client.get_metric_history(run.info.run_id, "statistics/layer_2/mean")
    assert [(point.step, point.value) for point in history] == [(0, 0.0), (100, 50.0)]
    images = sorted((store / "artifacts").rglob("heatmaps*.png"), key=lambda path: int(path.name.split("+")[2]))
    assert [levels(path) for path in images] == [[60], [160]]
    (animation,) = (store / "artifacts").rglob("animation.webp")
    assert levels(animation) == pytest.approx([40, 120, 220], abs=3)


def test_mlflow_without_a_run_says_so(store):
    with pytest.raises(hm.HookmapError, match="call mlflow.start_run"):
        MLflow().scalars({"a": 1.0}, 0)


@pytest.mark.parametrize(("name", "logger"), [("wandb", WandB), ("mlflow", MLflow)])
def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch, name, logger):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(hm.HookmapError, match=rf"pip install 'hookmap\[{name}\]'"):
        logger().image("a", picture(0), 0)


def test_where_to_is_understood(tmp_path):
    kinds = [type(logger) for logger in loggers_from([str(tmp_path), WandB(), [MLflow(), TensorBoard(tmp_path)]])]
    assert kinds == [TensorBoard, WandB, MLflow, TensorBoard]
    with pytest.raises(hm.HookmapError, match="to= is a int"):
        loggers_from(3)
    assert list(tmp_path.iterdir()) == []
