"""What can be asked of runs over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from hookmap.app.problems import Refused
from hookmap.app.routes import JSON, PROBLEM, SAFETENSORS, StrictRoute, answer_of
from hookmap.app.runs import BrowsedRun, Filter, Selection
from hookmap.app.safety import PICTURE_BYTES, check_pixels
from hookmap.explorer.answering import Explorer
from hookmap.explorer.questions import PictureAbout, RunAbout, RunMap, RunRows, ValueCount
from hookmap.explorer.wire import as_json, packed

MOST = 200
"""Rows that are sent at once."""


def _run_of(id: str, request: Request) -> BrowsedRun:
    runs: Mapping[str, BrowsedRun] = request.app.runs
    if id not in runs:
        raise Refused("absent", f"there's no run {id!r} here; hookmap serve --run FOLDER names runs")
    return runs[id]


Found: TypeAlias = Annotated[BrowsedRun, Depends(_run_of)]
Number: TypeAlias = Annotated[int, Path(ge=0, le=2**53)]
Value: TypeAlias = Annotated[str | None, Query(max_length=1000)]


def run_routes(explorer: Explorer) -> APIRouter:
    """The routes that ask runs.

    Args:
        explorer: that opens their pictures.
    """
    router = APIRouter(prefix="/runs", route_class=StrictRoute, responses={"4XX": PROBLEM})

    @router.get("")
    def get_runs(request: Request) -> list[RunAbout]:
        """The runs that can be browsed."""
        return [run.about for run in request.app.runs.values()]

    @router.get("/{id}/rows", response_model=RunRows)
    def get_rows(
        run: Found,
        label: Value = None,
        prediction: Value = None,
        target: Value = None,
        method: Value = None,
        layer: Value = None,
        correct: bool | None = None,
        text: Annotated[str, Query(max_length=1000, description="In the image's id.")] = "",
        sort: Annotated[str | None, Query(description="A column of numbers.")] = None,
        descending: bool = False,
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=0, le=MOST)] = MOST,
    ) -> Response:
        """A page of the rows that fit."""
        wanted: dict[Filter, str | bool | None] = {
            "label": label,
            "prediction": prediction,
            "target": target,
            "method": method,
            "layer": layer,
            "correct": correct,
        }
        equal = tuple((name, value) for name, value in wanted.items() if value is not None)
        rows = run.rows(Selection(equal, text, sort, descending), offset, limit)
        return Response(as_json(rows), media_type=JSON)

    @router.get("/{id}/values")
    def get_values(run: Found, column: Filter) -> list[ValueCount]:
        """What a column holds, the most frequent first."""
        return run.values(column)

    @router.get("/{id}/pictures/{row}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
    def get_small_picture(run: Found, row: Number) -> Response:
        """The small picture of a row."""
        return Response(run.picture(row), media_type="image/jpeg")

    @router.get("/{id}/maps/{row}", response_class=Response, responses={200: answer_of(RunMap)})
    def get_map(run: Found, row: Number) -> Response:
        """The heatmap of a row."""
        return Response(packed(run.map(row)), media_type=SAFETENSORS)

    @router.post("/{id}/open/{row}")
    def open_row(run: Found, row: Number) -> PictureAbout:
        """Open the picture of a row, from the file that the run read."""
        file = run.file(row)
        if file.stat().st_size > PICTURE_BYTES:
            raise Refused("large", f"its file is larger than {PICTURE_BYTES // 2**20} MiB")
        data = file.read_bytes()
        check_pixels(data)
        return explorer.add(data, file.name)

    return router
