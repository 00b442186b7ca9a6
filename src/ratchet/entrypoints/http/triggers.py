"""Webhooks, and what became of what triggers a run."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from ratchet.adapters.webhooks import (
    github_is_genuine,
    gitlab_is_genuine,
    push_of,
    repositories_of,
)
from ratchet.core.access import Permission
from ratchet.core.errors import Rejected
from ratchet.entrypoints.http.auth import Auth, permit
from ratchet.operations.triggers import hear, watched_by
from ratchet.settings import environment
from ratchet.wiring import Parts

# GitHub cuts its own at 25 MB.
BODY_BYTES_MAX = 25 * 1024 * 1024


def router(parts: Parts, auth: Auth) -> APIRouter:
    api = APIRouter(tags=["triggers"])

    @api.post("/hooks/github", status_code=202)
    async def github(request: Request, response: Response) -> dict[str, str]:
        """A webhook of GitHub, by its signature; content type application/json."""
        return await take(request, response, "github")

    @api.post("/hooks/gitlab", status_code=202)
    async def gitlab(request: Request, response: Response) -> dict[str, str]:
        """A webhook of GitLab, by its secret token."""
        return await take(request, response, "gitlab")

    async def take(request: Request, response: Response, source: str) -> dict[str, str]:
        body = await _body(request)
        watched = await watched_by(repositories_of(body), parts.triggers.store)
        merge = watched.triggers.merge
        assert merge is not None
        secret = environment().get(merge.secret_variable) if merge.secret_variable else None
        if not secret:
            raise HTTPException(403, "no secret is set: triggers.merge.secret and its variable")
        headers = request.headers
        is_genuine = (
            github_is_genuine(headers, body, secret)
            if source == "github"
            else gitlab_is_genuine(headers, secret)
        )
        if not is_genuine:
            raise HTTPException(401, "the webhook is not signed with our secret")
        push = push_of(headers, body)
        if push is None:
            response.status_code = 200
            return {"became": "left: no branch moved"}
        return {"became": await hear(watched, push, source, parts.triggers)}

    @api.get("/triggers", dependencies=[Depends(auth.needs(Permission.READ))])
    async def triggers(
        request: Request, project: str, limit: Annotated[int, Query(ge=1, le=200)] = 20
    ) -> dict[str, Any]:
        """A project's triggers: what each waits for, and what became of what was heard."""
        permit(request, Permission.READ, project)
        return await parts.views.triggers(project, limit, parts.runs.clock.now())

    return api


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > BODY_BYTES_MAX:
            raise Rejected(f"webhook: more than {BODY_BYTES_MAX} bytes")
    return bytes(content)
