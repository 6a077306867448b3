"""What can be asked over HTTP of patches that are alike in a run's pictures."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from hookmap._progress import Track
from hookmap.app.jobs import Jobs, Reply
from hookmap.app.neighbours import NearestPatches
from hookmap.app.routes import PROBLEM, SAFETENSORS, StrictRoute, Wait, answer_of, answered
from hookmap.explorer.questions import JobAbout, Nearest, Neighbours
from hookmap.explorer.wire import packed


def neighbour_routes(patches: NearestPatches, jobs: Jobs) -> APIRouter:
    """The route that finds patches.

    Args:
        patches: that finds them.
        jobs: the queue, in which a search gives way to questions.
    """
    router = APIRouter(route_class=StrictRoute, responses={"4XX": PROBLEM})

    @router.post("/nearest", response_class=Response, responses={200: answer_of(Neighbours), 202: {"model": JobAbout}})
    async def nearest(question: Nearest, request: Request, wait: Wait = 30.0) -> Response:
        """Which patches of a run's pictures are like one: a job that goes on where it was cancelled."""

        def work(track: Track) -> Reply:
            return Reply(packed(patches.find(question, track)), SAFETENSORS)

        key = await run_in_threadpool(patches.key, question)
        return await answered(jobs, request, key, work, wait, "meanwhile")

    return router
