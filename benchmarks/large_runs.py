"""What a large run costs to look at: its report, and the run browser, on generated runs of the usual parts.

Run: ``python benchmarks/large_runs.py [--rows 2000 20000 200000 1000000] [--folder FOLDER]``. Each measurement has a
process of its own, so that its memory is its own; runs that are in the folder already are taken as they are.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from rich.console import Console
from rich.table import Table

from hookmap.runs.rows import COLUMNS
from hookmap.runs.store import INDEX, MAPS, PICTURES, Store

PHOTOS = Path(__file__).resolve().parents[1] / "examples" / "photos"
PART, CLASSES, GRID = 256, 1000, 7
SIZES = [(375, 500), (500, 375), (333, 500), (500, 333), (500, 500), (240, 320), (768, 1024), (400, 600), (281, 500)]


def generated(folder: Path, rows: int) -> Path:
    """A run of a classifier over so many photos: 1000 classes, three of four right, one row in a thousand an error."""
    draw = np.random.default_rng(0)
    photos = _small_photos(draw)
    folder.mkdir(parents=True)
    store = Store(folder)
    about = {"model": {"name": "generated", "weights": "0" * 64}, "labels": {"count": CLASSES}, "looks": {}}
    about["source"] = {"kind": "generated", "images": rows}
    store.describe({**about, "finished": "2026-01-01T00:00:00+00:00"})
    for part, start in enumerate(range(0, rows, PART)):
        store.commit(part, _part(draw, photos, start, min(PART, rows - start)))
    return folder


def _small_photos(draw: np.random.Generator, count: int = 512) -> list[bytes]:
    whole = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    small = []
    for number in range(count):
        image = whole[number % len(whole)]
        left, top = (int(draw.integers(0, side // 4)) for side in image.size)
        jpeg = io.BytesIO()
        image.crop((left, top, left + image.width * 3 // 4, top + image.height * 3 // 4)).resize((160, 120)).save(
            jpeg, "JPEG", quality=80
        )
        small.append(jpeg.getvalue())
    return small


def _part(draw: np.random.Generator, photos: list[bytes], start: int, count: int) -> dict[str, pa.Table]:
    label = draw.integers(0, CLASSES, count)
    wrong = draw.random(count) < 0.25
    prediction = np.where(wrong, (label + draw.integers(1, 20, count)) % CLASSES, label)
    failed = draw.random(count) < 0.001
    names = np.array([f"class {number}" for number in range(CLASSES)])
    ids = [f"val/class-{one:04d}/{number:08d}.jpg" for number, one in enumerate(label, start)]
    height, width = np.array(SIZES)[draw.integers(0, len(SIZES), count)].T
    side = np.minimum(height, width) * 224 / 256
    at = draw.integers(0, GRID, (2, count)) * 0.4 + draw.integers(0, 3, (2, count))
    y, x = np.mgrid[:GRID, :GRID]
    maps = np.exp(-((y - at[0][:, None, None]) ** 2 + (x - at[1][:, None, None]) ** 2) / 3) - 0.1
    maps = (maps / np.abs(maps).max((1, 2), keepdims=True)).astype(np.float16)
    share = draw.random((6, count)).astype(np.float32)
    values = {
        "id": ids,
        "path": [f"/data/{name}" for name in ids],
        "height": height,
        "width": width,
        "label": names[label],
        "label_index": label,
        "prediction": names[prediction],
        "prediction_index": prediction,
        "probability": share[0],
        "correct": ~wrong,
        "heatmap": np.zeros(count, int),
        "asked": np.full(count, "predicted"),
        "target": names[prediction],
        "target_index": prediction,
        "target_score": 10 * share[0],
        "target_probability": share[0],
        "method": np.full(count, "gradcam"),
        "layer": np.full(count, "layer4"),
        "map_least": np.zeros(count),
        "map_most": share[1],
        "map_mean": share[1] / 3,
        "evidence": np.where(draw.random(count) < 0.01, "none", "some"),
        "peak_x": share[2] * width,
        "peak_y": share[3] * height,
        "centre_x": share[2] * width,
        "centre_y": share[3] * height,
        "entropy": share[4],
        "half_area": share[5] / 2,
        "border": share[2] / 2,
        "corner": share[3] / 4,
        "grid_left": (width - side) / 2,
        "grid_top": (height - side) / 2,
        "grid_right": (width + side) / 2,
        "grid_bottom": (height + side) / 2,
        "map_scale": share[1] + 0.1,
        "part": np.full(count, "positive"),
    }
    of_the_image = {"id", "path", "label", "label_index", "heatmap"}
    columns = {}
    for name, column in COLUMNS.items():
        kind = pa.bool_() if column.kind == "bool" else pa.type_for_alias(column.kind)
        missing = None if name in of_the_image else failed
        columns[name] = pa.array(values[name], kind, mask=missing) if name in values else pa.nulls(count, kind)
    columns["error"] = pa.array(["it isn't a picture" if one else None for one in failed], pa.string())
    there = [[] if gone else one.reshape(-1) for one, gone in zip(maps, failed, strict=True)]
    shapes = [[0, 0] if gone else [GRID, GRID] for gone in failed]
    drawn = {
        "id": columns["id"],
        "heatmap": columns["heatmap"],
        "shape": pa.array(shapes, pa.list_(pa.int16())),
        "map": pa.array(there, pa.list_(pa.float16())),
    }
    shown = [name for name, gone in zip(ids, failed, strict=True) if not gone]
    jpegs = [photos[number] for number in draw.integers(0, len(photos), len(shown))]
    pictures = {"id": pa.array(shown, pa.string()), "jpeg": pa.array(jpegs, pa.binary())}
    return {INDEX: pa.table(columns), MAPS: pa.table(drawn), PICTURES: pa.table(pictures)}


def report(folder: Path) -> list[str]:
    """Time and memory of a report."""
    from hookmap.report import write_report

    start, busy = time.perf_counter(), time.process_time()
    page = write_report(folder, folder.parent / f"{folder.name}-report" / "report.html")
    beside = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
    return [
        f"{time.perf_counter() - start:.0f} s",
        f"{time.process_time() - busy:.0f} s",
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB",
        f"{page.stat().st_size / 1e6:.1f} MB of {beside / 1e6:.0f}",
    ]


def browser(folder: Path) -> list[str]:
    """Times of what is asked of the run browser, from when it is opened."""
    from hookmap.app.runs import BrowsedRun, Selection

    times = [time.perf_counter()]
    run = BrowsedRun("run", folder)
    run.rows(Selection(), 0, 60)
    times.append(time.perf_counter())
    run.values("label")  # waits for what is read ahead
    times.append(time.perf_counter())
    for selection in (
        Selection((("label", "class 7"),)),
        Selection((("prediction", "class 7"), ("method", "gradcam"), ("correct", False))),
        Selection(text="00001", sort="probability"),
        Selection(sort="entropy", descending=True),
    ):
        run.rows(selection, 0, 60)
        times.append(time.perf_counter())
    return [f"{after - before:.2f} s" for before, after in pairwise(times)]


MEASURED = {
    "report": (report, ["wall", "CPU", "peak memory", "page, of all files"]),
    "browser": (browser, ["open", "read ahead", "a filter", "three filters", "search, sorted", "all, sorted"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 20_000, 200_000, 1_000_000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", choices=MEASURED)
    parser.add_argument("--of", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.of is not None:
        print("\t".join(MEASURED[given.only][0](given.of)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name, (_, titles) in MEASURED.items():
            if given.only in (None, name):
                table = Table("rows", *titles, title=f"{name}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
                for rows in given.rows:
                    folder = (given.folder or Path(scratch)) / f"run-{rows}"
                    if not folder.exists():
                        generated(folder, rows)
                    call = [sys.executable, __file__, "--only", name, "--of", str(folder)]
                    told = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
                    table.add_row(f"{rows:,}", *told.strip().split("\t"))
                Console(width=120).print(table)


if __name__ == "__main__":
    main()
