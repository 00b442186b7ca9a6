"""The one map from our errors to HTTP: problem details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ratchet.core.errors import Conflict, NotFound, RatchetError, Rejected, Unavailable

STATUS: dict[type[RatchetError], int] = {
    NotFound: 404,
    Rejected: 422,
    Conflict: 409,
    Unavailable: 503,
}


def problem(status: int, title: str, detail: str) -> JSONResponse:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
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
