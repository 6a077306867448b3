"""The application: what can be asked, the page, and who may ask."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from hookmap import __version__, pages
from hookmap.app.jobs import Jobs
from hookmap.app.neighbour_routes import neighbour_routes
from hookmap.app.neighbours import NearestPatches
from hookmap.app.problems import response_of
from hookmap.app.routes import REFERENCE, routes
from hookmap.app.run_routes import run_routes
from hookmap.app.runs import BrowsedRun
from hookmap.app.safety import Access, Guard
from hookmap.app.verdict_routes import verdict_routes
from hookmap.app.verdicts import Comparisons
from hookmap.explorer.answering import Explorer
from hookmap.explorer.questions import QUESTIONS, Neighbours, RunMap

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class App(FastAPI):
    """The application.

    Args:
        explorer: that answers.
        access: who may ask; by default whoever is at this machine.
        runs: that can be browsed, by their ids.
        photos: that methods can be compared on.
    """

    def __init__(
        self,
        explorer: Explorer,
        access: Access | None = None,
        runs: Mapping[str, BrowsedRun] | None = None,
        photos: Sequence[Path] = (),
    ) -> None:
        super().__init__(
            title="hookmap",
            version=__version__,
            description="Asks vision models about pictures. Arrays come as safetensors.",
            docs_url=None,
            redoc_url=None,
            openapi_url="/api/openapi.json",
            redirect_slashes=False,
            lifespan=_working,
            generate_unique_id_function=lambda route: route.name,
            exception_handlers={HTTPException: _told, RequestValidationError: _told},
        )
        self.jobs = Jobs()
        self.runs = runs or {}
        self.include_router(routes(explorer, self.jobs, len(photos)), prefix="/api")
        self.include_router(run_routes(explorer), prefix="/api")
        self.include_router(verdict_routes(Comparisons(explorer, photos), self.jobs), prefix="/api")
        self.include_router(neighbour_routes(NearestPatches(explorer, self.runs), self.jobs), prefix="/api")
        for path, send in _page().items():
            self.add_route(path, send, include_in_schema=False)
        self.add_middleware(Guard, access=access or Access())

    def openapi(self) -> dict[str, Any]:
        """The schema, with what the answers say in their metadata; all that is told is told whole."""
        schema = super().openapi()
        components = schema["components"]["schemas"]
        _, shared = TypeAdapter.json_schemas(
            [
                (told, "serialization", TypeAdapter(told))
                for told in (*(told for _, told in QUESTIONS.values()), RunMap, Neighbours)
            ],
            ref_template=REFERENCE,
        )
        components |= shared["$defs"]
        for component in components.values():
            if component.get("additionalProperties") is not False:
                component["required"] = list(component["properties"])
        return schema


@asynccontextmanager
async def _working(app: App) -> AsyncIterator[None]:
    worker = asyncio.create_task(app.jobs.run())
    yield
    worker.cancel()
    await asyncio.wait([worker])


async def _told(request: Request, error: Exception) -> Response:
    return response_of(error)


def _page() -> dict[str, Endpoint]:
    """What is sent of the interface, by path: nothing else of the disk can be asked for."""
    folder = pages.BUILT / "app"
    files = {f"/{file.relative_to(folder).as_posix()}": file for file in sorted(folder.rglob("*")) if file.is_file()}
    if "/index.html" in files:
        files["/"] = files.pop("/index.html")
    kinds = mimetypes.MimeTypes()
    return {path: _sending(file.read_bytes(), kinds.guess_type(file.name)[0]) for path, file in files.items()}


def _sending(data: bytes, media: str | None) -> Endpoint:
    async def send(request: Request) -> Response:
        return Response(data, media_type=media)

    return send
