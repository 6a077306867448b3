"""What can be asked over HTTP of the photos that were opened."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from hookmap._progress import Track
from hookmap.app.jobs import Jobs, Reply
from hookmap.app.routes import JSON, PROBLEM, StrictRoute, Wait, answered
from hookmap.app.verdicts import Comparisons
from hookmap.explorer.questions import Compare, Decided, JobAbout
from hookmap.explorer.wire import as_json

HTML = "text/html"
_LATER: dict[int | str, dict[str, Any]] = {202: {"model": JobAbout}}


def verdict_routes(comparisons: Comparisons, jobs: Jobs) -> APIRouter:
    """The routes that compare methods.

    Args:
        comparisons: that compare.
        jobs: the queue, in which a comparison gives way to questions.
    """
    router = APIRouter(prefix="/verdict", route_class=StrictRoute, responses={"4XX": PROBLEM})

    @router.post("", response_class=Response, responses={200: {"model": Decided}, **_LATER})
    async def decide(asked: Compare, request: Request, wait: Wait = 30.0) -> Response:
        """Which method and layer to take for a model: a job of minutes, that goes on where it was cancelled."""

        def work(track: Track) -> Reply:
            return Reply(as_json(comparisons.decide(asked.model, track)).encode(), JSON)

        key = await run_in_threadpool(comparisons.key, asked.model)
        return await answered(jobs, request, f"verdict-{key}", work, wait, "meanwhile")

    @router.post("/page", response_class=Response, responses={200: {"content": {HTML: {}}}, **_LATER})
    async def get_page(asked: Compare, request: Request, wait: Wait = 30.0) -> Response:
        """What was found as one page that needs no server."""

        def work(track: Track) -> Reply:
            return Reply(comparisons.page(asked.model), HTML, "verdict.html")

        key = await run_in_threadpool(comparisons.key, asked.model)
        return await answered(jobs, request, f"verdict-page-{key}", work, wait)

    return router
