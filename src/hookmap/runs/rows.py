"""From answers to the tables of a part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from hookmap.images.geometry import Geometry
from hookmap.metrics.summary import Measures, measured
from hookmap.results.heatmap import Heatmap
from hookmap.runs.job import ImageResult
from hookmap.runs.store import INDEX, MAPS, PICTURES
from hookmap.targets.objects import overlap

if TYPE_CHECKING:
    import pyarrow as pa

Values = TypeVar("Values", Tensor, np.ndarray[Any, Any])


class Column(NamedTuple):
    """A column of the index.

    Attributes:
        kind: its type in Arrow.
        group: what it is about, as a person reads it.
        unit: ``"share"`` (0..1), ``"pixels"`` of the picture, ``"number"`` (of a class, a heatmap), or nothing.
    """

    kind: str
    group: str
    unit: Literal["share", "pixels", "number", ""] = ""


_TEXT, _WHOLE, _REAL = "string", "int32", "float32"
_SIDES = ("left", "top", "right", "bottom")
_IMAGE, _PREDICTION, _TARGET, _PLACE, _MAP = "Image", "Prediction", "Target", "Where the heat lies", "Map"
_CHECK = "How far to believe it"
_SHARES = {"half_area", "border", "corner", "in_box", "box_share", "in_mask", "mask_share"}
COLUMNS = {
    "id": Column(_TEXT, _IMAGE),
    "path": Column(_TEXT, _IMAGE),
    "height": Column(_WHOLE, _IMAGE, "pixels"),
    "width": Column(_WHOLE, _IMAGE, "pixels"),
    "label": Column(_TEXT, _IMAGE),
    "label_index": Column(_WHOLE, _IMAGE, "number"),
    "prediction": Column(_TEXT, _PREDICTION),
    "prediction_index": Column(_WHOLE, _PREDICTION, "number"),
    "probability": Column(_REAL, _PREDICTION, "share"),
    "correct": Column("bool", _PREDICTION),
    "heatmap": Column(_WHOLE, _MAP, "number"),
    "asked": Column(_TEXT, _TARGET),
    "target": Column(_TEXT, _TARGET),
    "target_index": Column(_WHOLE, _TARGET, "number"),
    "target_score": Column(_REAL, _TARGET),
    "target_probability": Column(_REAL, _TARGET, "share"),
    "where": Column(_TEXT, _TARGET),
    "method": Column(_TEXT, _MAP),
    "layer": Column(_TEXT, _MAP),
    **{f"box_{side}": Column(_REAL, _MAP, "pixels") for side in _SIDES},
    "truth": Column(_TEXT, _IMAGE),
    "iou": Column(_REAL, _TARGET, "share"),
    "map_least": Column(_REAL, _MAP),
    "map_most": Column(_REAL, _MAP),
    "map_mean": Column(_REAL, _MAP),
    "evidence": Column(_TEXT, _MAP),
    "caution": Column(_TEXT, _MAP),
    "check": Column(_TEXT, _CHECK),
    "check_percentile": Column(_REAL, _CHECK),
    "check_kept": Column(_REAL, _CHECK),
    "check_stability": Column(_REAL, _CHECK),
    **{
        name: Column(_REAL, _PLACE, "share" if name in _SHARES else "pixels" if name[-2:] in ("_x", "_y") else "")
        for name in Measures.__dataclass_fields__
    },
    **{f"grid_{side}": Column(_REAL, _MAP, "pixels") for side in _SIDES},
    "map_scale": Column(_REAL, _MAP),
    "part": Column(_TEXT, _MAP),
    "error": Column(_TEXT, _MAP),
}
"""Of the index. ``grid_*`` is the rectangle that the map spans, in pixels of the picture; the signed map is
``map * map_scale``, ``part`` says which of its values are shown: positive, negative or signed, and ``evidence`` whether
they show any: none, faint, even (the same everywhere) or some; ``caution`` is what the method says against trusting
it, and ``check*`` how far it can be believed, where that was measured: see :class:`hookmap.results.check.Check`."""


def tables(results: Sequence[ImageResult]) -> dict[str, pa.Table]:
    """The tables of a part: its index, maps and pictures."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    maps: list[np.ndarray[Any, Any]] = []
    for result in results:
        for row, values in _rows(result):
            rows.append(row)
            maps.append(values)
    index = pa.Table.from_pylist(
        rows, schema=pa.schema([(name, _type(column.kind)) for name, column in COLUMNS.items()])
    )
    ends = np.cumsum([0, *(values.size for values in maps)], dtype=np.int32)
    flat = np.concatenate([values.reshape(-1) for values in maps]) if maps else np.empty(0, np.float16)
    drawn = pa.table(
        {
            "id": index["id"],
            "heatmap": index["heatmap"],
            "shape": pa.array([values.shape for values in maps], pa.list_(pa.int16())),
            "map": pa.ListArray.from_arrays(pa.array(ends), pa.array(flat, pa.float16())),
        }
    )
    shown = [result.sample for result in results if result.sample.thumbnail]
    pictures = pa.table(
        {
            "id": pa.array([sample.id for sample in shown], pa.string()),
            "jpeg": pa.array([sample.thumbnail for sample in shown], pa.binary()),
        }
    )
    return {INDEX: index, MAPS: drawn, PICTURES: pictures}


def _type(kind: str) -> pa.DataType:
    import pyarrow as pa

    return pa.bool_() if kind == "bool" else pa.type_for_alias(kind)


def _rows(result: ImageResult) -> Iterator[tuple[dict[str, Any], np.ndarray[Any, Any]]]:
    """One row and map per heatmap; one without a map where there are none."""
    sample, best = result.sample, result.predicted
    image: dict[str, Any] = {
        "id": sample.id,
        "path": sample.path,
        "label": result.label,
        "label_index": result.truth,
        "heatmap": 0,
        "error": result.error or None,
    }
    if sample.geometry is not None:
        image["height"], image["width"] = sample.geometry.original
    if best is not None:
        image |= {"prediction": best.target, "prediction_index": best.index, "probability": best.probability}
        image["correct"] = None if result.truth is None else best.index == result.truth
    if not result.heatmaps:
        yield image, np.empty((0, 0), np.float16)
    for number, (asked, heatmap) in enumerate(result.heatmaps):
        raw = heatmap.raw.detach().float().cpu()
        scale = float(raw.abs().amax()) if raw.numel() else 0.0
        kept = (raw / scale if scale > 0 else raw).numpy().astype(np.float16)
        yield image | {"heatmap": number, "asked": asked, "map_scale": scale} | _described(result, heatmap), kept


def _described(result: ImageResult, heatmap: Heatmap) -> dict[str, Any]:
    """What a row says of its heatmap."""
    sample, values = result.sample, heatmap.values.float().cpu()
    row: dict[str, Any] = {
        "target": heatmap.target,
        "target_index": heatmap.index,
        "target_score": heatmap.score,
        "target_probability": heatmap.probability,
        "where": heatmap.where or None,
        "method": heatmap.method.name,
        "layer": heatmap.layer,
        "map_least": float(values.amin()),
        "map_most": float(values.amax()),
        "map_mean": float(values.mean()),
        "evidence": heatmap.evidence,
        "caution": heatmap.caution or None,
        "part": heatmap.look.part,
    }
    if heatmap.check is not None:
        row |= heatmap.check.row
    known = [box[:4] for box in sample.boxes if box.label in (None, result.label, result.sample.label)] or [
        box[:4] for box in sample.boxes
    ]
    boxes = known if heatmap.box is None else [heatmap.box]
    if heatmap.box is not None and sample.boxes:
        shared = overlap(torch.tensor(heatmap.box), torch.tensor([box[:4] for box in sample.boxes])).tolist()
        row["iou"] = max(shared)
        if row["iou"] > 0:
            label = sample.boxes[shared.index(row["iou"])].label
            row["truth"] = None if label is None else str(label)
    if boxes:
        sides = zip((min, min, max, max), zip(*boxes, strict=True), strict=True)
        row |= {f"box_{side}": outermost(ends) for side, (outermost, ends) in zip(_SIDES, sides, strict=True)}
    row |= vars(measured(flattened(values), heatmap.geometry, boxes, sample.mask))
    return row | _spanned(heatmap.geometry)


def _spanned(geometry: Geometry) -> dict[str, float]:
    """The rectangle of the picture that the grid spans."""
    return {f"grid_{name}": side for name, side in zip(_SIDES, geometry.span, strict=True)}


def geometry_of(row: Any) -> Geometry:
    """From the picture of a row of the index to its map's grid, in shares of the grid."""
    across, down = 1 / (row["grid_right"] - row["grid_left"]), 1 / (row["grid_bottom"] - row["grid_top"])
    size = int(row["height"]), int(row["width"])
    return Geometry(size, (1.0, 1.0), (down, across), (-row["grid_top"] * down, -row["grid_left"] * across))


def unpacked(kept: np.ndarray[Any, Any], scale: Any) -> np.ndarray[Any, Any]:
    """Signed maps in the method's own units, float32, from what is kept of them; a scale each, or one for all."""
    values: np.ndarray[Any, Any] = np.nan_to_num(np.float32(scale)) * kept.astype(np.float32)
    return values


def flattened(values: Values) -> Values:
    """A map as a picture, ``(h, w)``: of a clip ``(t, h, w)`` the sum over time, of a series ``(L,)`` one row."""
    flat: Values = all_flattened(values[None])[0]
    return flat


def all_flattened(values: Values) -> Values:
    """:func:`flattened` of maps of one shape, ``(n, h, w)``."""
    flat: Values = values.sum(1) if values.ndim == 4 else values[:, None] if values.ndim == 2 else values
    return flat
