"""What is told when something can't be done: always a Problem, and how HTTP calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as AnyHTTPException

from hookmap._devices import out_of_memory
from hookmap.errors import HookmapError, first_line
from hookmap.explorer.questions import Problem
from hookmap.explorer.wire import as_json

STATUS = {
    "token": 401,
    "forbidden": 403,
    "absent": 404,
    "method": 405,
    "cancelled": 409,
    "large": 413,
    "question": 422,
    "busy": 429,
    "internal": 500,
}
"""By the kind of a problem; all others are about the question too."""


class Refused(HTTPException):
    """A request that isn't answered.

    Args:
        kind: of the problem.
        sentence: that says what is wrong and what to do.
    """

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(STATUS.get(kind, 422), sentence, {"Retry-After": "1"} if kind == "busy" else None)
        self.kind = kind


def problem_of(error: Exception) -> Problem:
    """What is told of an error, wherever it comes from."""
    if isinstance(error, Refused):
        return Problem(error.detail, error.kind)
    if isinstance(error, AnyHTTPException):
        return Problem(error.detail, {404: "absent", 405: "method"}.get(error.status_code, "question"))
    if isinstance(error, RequestValidationError):
        return Problem(_said(error.errors()), "question")
    if isinstance(error, HookmapError):
        return Problem(str(error), type(error).__name__.removesuffix("Error").lower().replace("hookmap", "question"))
    if out_of_memory(error):
        return Problem("out of memory; ask for less at once, or with a smaller budget", "memory")
    return Problem(f"something went wrong in hookmap: {type(error).__name__}: {first_line(error)}", "internal")


def response_of(error: Exception) -> Response:
    """An error as it is sent."""
    problem = problem_of(error)
    return response_to(problem, getattr(error, "headers", None))


def response_to(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """A problem as it is sent."""
    return Response(as_json(problem), STATUS.get(problem.kind, 422), headers, "application/json")


def _said(errors: Sequence[Any]) -> str:
    """The first thing that is wrong with a question, and where."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    return f"{place or 'the question'}: {first['msg'][:1].lower()}{first['msg'][1:]}"
