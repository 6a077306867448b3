"""What can be asked over HTTP; every answer is the explorer's."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse, ServerSentEvent

from hookmap import __version__
from hookmap._progress import Track
from hookmap.app.jobs import Job, Jobs, Lane, Reply, Work
from hookmap.app.problems import Refused, response_to
from hookmap.app.safety import StrictRequest, check_pixels
from hookmap.errors import ImageError
from hookmap.explorer.answering import Explorer
from hookmap.explorer.questions import (
    QUESTIONS,
    About,
    Erase,
    Export,
    JobAbout,
    ModelAbout,
    PictureAbout,
    Question,
    View,
)
from hookmap.explorer.view import page_of, questions_in
from hookmap.explorer.wire import as_json, packed

REFERENCE = "#/components/schemas/{model}"
JSON = "application/json"
SAFETENSORS = "application/vnd.safetensors"
FOREVER = "private, max-age=31536000, immutable"
_AT_ONCE = 4
"""Pictures that are received, and decoded, at the same time: each may take a lot of memory."""

Wait: TypeAlias = Annotated[float, Query(ge=0, le=300, allow_inf_nan=False, description="Seconds for an answer.")]
Longer: TypeAlias = Annotated[int, Query(ge=16, le=4096, description="The longer side, at most, in pixels.")]


def _job_of(id: str, request: Request) -> Job:
    job: Job = request.app.jobs.find(id)
    return job


Found: TypeAlias = Annotated[Job, Depends(_job_of)]


class StrictRoute(APIRoute):
    """A route that reads requests strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly


def routes(explorer: Explorer, jobs: Jobs, photos: int = 0) -> APIRouter:
    """The routes that ask the explorer.

    Args:
        explorer: that answers, one question at a time, and shows pictures meanwhile.
        jobs: the queue of its questions.
        photos: how many were opened that methods can be compared on.
    """
    router = APIRouter(route_class=StrictRoute, responses={"4XX": PROBLEM})
    models, samples = explorer.models(), explorer.samples()
    about = About(__version__, explorer.device, photos)
    receiving, decoding = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_AT_ONCE)

    async def decoded(do: Callable[..., Any], *given: Any) -> Any:
        """Beside the worker, whose answers may take long."""
        async with decoding:
            return await run_in_threadpool(do, *given)

    def asking(kind: type[Question]) -> Callable[..., Coroutine[Any, Any, Response]]:
        async def ask(question: Any, request: Request, wait: Wait = 30.0) -> Response:
            key = await run_in_threadpool(explorer.key, question)

            def work(track: Track) -> Reply:
                return Reply(packed(explorer.answer(question, track)), SAFETENSORS)

            return await answered(jobs, request, key, work, wait)

        ask.__annotations__["question"] = kind
        return ask

    for name, (kind, told) in QUESTIONS.items():
        router.add_api_route(
            f"/{name}",
            asking(kind),
            name=name,
            methods=["POST"],
            summary=(kind.__doc__ or "").splitlines()[0],
            response_class=Response,
            responses={200: answer_of(told), 202: {"model": JobAbout}},
        )

    @router.get("/about")
    async def get_about() -> About:
        """What is asked."""
        return about

    @router.get("/models")
    async def get_models() -> list[ModelAbout]:
        """The models that can be asked."""
        return list(models)

    @router.get("/samples")
    async def get_samples() -> list[PictureAbout]:
        """Pictures to begin with."""
        return list(samples)

    @router.post("/pictures", openapi_extra={"requestBody": {"required": True, "content": {"image/*": {}}}})
    async def add_picture(request: Request, name: Annotated[str, Query(max_length=255)] = "picture") -> PictureAbout:
        """Open a picture: the body is its file."""
        async with receiving:
            data = await request.body()
            await run_in_threadpool(check_pixels, data)
            opened: PictureAbout = await decoded(explorer.add, data, name)
            return opened

    @router.get("/pictures/{id}", response_class=Response, responses={200: {"content": {"image/*": {}}}})
    async def get_picture(id: str, longer: Longer = 2048) -> Response:
        """A picture as it is shown."""
        try:
            data, media = await decoded(explorer.shown, id, longer)
        except ImageError as error:
            raise Refused("absent", str(error)) from None
        return Response(data, headers={"cache-control": FOREVER}, media_type=media)

    @router.post("/erased")
    async def erase(asked: Erase) -> PictureAbout:
        """A picture without a region, as a new picture."""
        erased: PictureAbout = await decoded(explorer.erase, asked)
        return erased

    @router.post(
        "/export",
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}}, 202: {"model": JobAbout}},
    )
    async def export(
        asked: Export, request: Request, form: Literal["png", "svg", "pdf", "npz"] = "png", wait: Wait = 30.0
    ) -> Response:
        """A heatmap as a file."""
        key = await run_in_threadpool(explorer.key, asked.question)
        drawn = repr((key, form, asked.look))

        def work(track: Track) -> Reply:
            return Reply(*explorer.export(asked.question, form, asked.look))

        return await answered(jobs, request, hashlib.sha256(drawn.encode()).hexdigest(), work, wait)

    @router.post(
        "/view",
        response_class=Response,
        responses={200: {"content": {"text/html": {}}}, 202: {"model": JobAbout}},
    )
    async def save_view(asked: View, request: Request, wait: Wait = 30.0) -> Response:
        """What is on the screen as one page that needs no server."""

        def work(track: Track) -> Reply:
            return Reply(page_of(explorer, asked, track).encode(), "text/html", "view.html")

        keys = await run_in_threadpool(lambda: [explorer.key(question) for question in questions_in(asked)])
        return await answered(
            jobs, request, hashlib.sha256(f"{keys} {as_json(asked)}".encode()).hexdigest(), work, wait
        )

    @router.get("/answers/{key}", response_class=Response, responses={200: {"content": {SAFETENSORS: {}}}})
    async def get_answer(key: str) -> Response:
        """An answer that was given, if it is still kept."""
        if (reply := jobs.answers.get(key)) is None:
            raise Refused("absent", "this answer isn't kept any more; ask again")
        return _sent(key, reply)

    @router.get("/jobs/{id}")
    async def get_job(job: Found) -> JobAbout:
        """How a question stands."""
        jobs.promise(job)
        return job.about

    @router.delete("/jobs/{id}")
    async def cancel_job(job: Found) -> JobAbout:
        """Cancel a question, for all who asked it."""
        jobs.cancel(job)
        return job.about

    @router.get("/jobs/{id}/events", response_class=EventSourceResponse)
    async def follow_job(job: Found, last_event_id: Annotated[int, Header(ge=0)] = 0) -> AsyncIterator[ServerSentEvent]:
        """How a question stands, from now on; each event says all, so whoever comes back is told the newest."""
        with jobs.listening(job):
            try:
                while True:
                    await job.after(last_event_id)
                    last_event_id, ended = job.number, job.ended  # more may happen while this is sent
                    yield ServerSentEvent(raw_data=as_json(job.about), id=str(last_event_id))
                    if ended:
                        return
            finally:
                jobs.promise(job)

    return router


PROBLEM = {
    "description": "What is wrong, in a sentence.",
    "content": {JSON: {"schema": {"$ref": REFERENCE.format(model="Problem")}}},
}


def answer_of(told: type) -> dict[str, Any]:
    """What OpenAPI says of an answer."""
    schema = {"$ref": REFERENCE.format(model=told.__name__)}
    return {
        "description": "Arrays by name, as safetensors; the schema is that of the JSON in their metadata's `answer`.",
        "headers": {"X-Answer": {"description": "The answer's key.", "schema": {"type": "string"}}},
        "content": {SAFETENSORS: {"schema": schema}},
    }


async def answered(jobs: Jobs, request: Request, key: str, work: Work, wait: float, lane: Lane = "now") -> Response:
    """What a job answers, or after so many seconds how it stands.

    Raises:
        Refused: if it can't be asked now, or was cancelled.
    """
    reply = jobs.answers.get(key)
    if reply is None:
        job = jobs.ask(key, work, lane)
        with jobs.listening(job):
            if not await _gone_before(job, request, wait):
                jobs.promise(job)
            if not job.ended:
                return Response(as_json(job.about), 202, {"location": f"/api/jobs/{job.about.id}"}, JSON)
        if job.about.problem is not None:
            return response_to(job.about.problem)
        reply = jobs.answers.get(key)
    if reply is None:
        raise Refused("cancelled", "the question was cancelled; ask again")
    return _sent(key, reply)


def _sent(key: str, reply: Reply) -> Response:
    headers = {"x-answer": key, "cache-control": FOREVER}
    if reply.name is not None:
        headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(reply.name, safe='')}"
    return Response(reply.data, 200, headers, reply.media)


async def _gone_before(job: Job, request: Request, seconds: float) -> bool:
    """Wait for a job to end, but not longer; whether the client went away first."""
    ended, gone = tasks = asyncio.ensure_future(job.end()), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return gone.done() and not ended.done()
    finally:
        for task in tasks:
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
