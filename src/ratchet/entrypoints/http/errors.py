"""The one map from our errors to HTTP: problem details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ratchet.core.errors import Conflict, NotFound, RatchetError, Rejected, Unavailable

STATUS: dict[type[RatchetError], int] = {
    NotFound: 404,
    Rejected: 422,
    Conflict: 409,
    Unavailable: 503,
}


class Problem(BaseModel):
    """Problem details (RFC 9457); `detail` is a sentence for people."""

    type: str
    title: str
    status: int
    detail: str


_MEANINGS = {
    400: "The request cannot be read.",
    401: "No token, or one that is no good.",
    403: "A good token that may not do this.",
    404: "Something that is named does not exist.",
    409: "Somebody else changed it first: read again.",
    422: "The input breaks a rule; it says which.",
    503: "PostgreSQL or another system does not answer: try again.",
}
_BODY = {"application/problem+json": {"schema": Problem.model_json_schema()}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": meaning, "content": _BODY} for status, meaning in _MEANINGS.items()
}
"""What every call may answer besides its own."""


def problem(status: int, title: str, detail: str) -> JSONResponse:
    # What was wrong may be half a character, and is shown.
    shown = detail.encode(errors="backslashreplace").decode()
    body = {"type": "about:blank", "title": title, "status": status, "detail": shown}
    headers = {"retry-after": "1"} if status == 503 else None
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Answer every error on purpose with its status, and say what was wrong."""

    async def ours(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RatchetError)
        return problem(STATUS[type(error)], type(error).__name__, str(error))

    async def malformed(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        lines = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
        return problem(422, "Rejected", "\n".join(lines))

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        answer = problem(error.status_code, HTTPStatus(error.status_code).phrase, error.detail)
        answer.headers.update(error.headers or {})
        return answer

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RatchetError, ours)
    app.add_exception_handler(RequestValidationError, malformed)
