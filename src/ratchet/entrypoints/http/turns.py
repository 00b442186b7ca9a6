"""Turns, feedback and erasure over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from ratchet.core.access import Permission
from ratchet.core.errors import NotFound
from ratchet.entrypoints.http.auth import Auth, permit
from ratchet.operations.turns import erase
from ratchet.wiring import Parts

SEQUENCE_MAX = 2**63 - 1


class EraseBody(BaseModel):
    project: str
    subject: str = Field(min_length=1, max_length=200, description="as requests or keys name them")
    why: str = Field(min_length=1, max_length=1000)
    who: str = ""


def router(parts: Parts, auth: Auth) -> APIRouter:
    api = APIRouter(tags=["turns"])

    @api.get("/turns", dependencies=[Depends(auth.needs(Permission.TURNS))])
    async def turns(
        request: Request,
        project: str,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        before: Annotated[int | None, Query(ge=0, le=SEQUENCE_MAX)] = None,
        only_said: bool = False,
    ) -> list[dict[str, Any]]:
        """The newest first, with what was said of them; `before` is the `sequence` to go on from.

        `only_said`: those with feedback.
        """
        permit(request, Permission.TURNS, project)
        return await parts.views.turns(project, limit, before=before, only_said=only_said)

    @api.get("/turns/{request_id}", dependencies=[Depends(auth.needs(Permission.TURNS))])
    async def turn(request: Request, request_id: str, project: str) -> dict[str, Any]:
        permit(request, Permission.TURNS, project)
        found = await parts.views.turns(project, 1, request_id=request_id)
        if not found:
            raise NotFound(f"no turn of request {request_id} in project {project}")
        return found[0]

    @api.get("/capture", dependencies=[Depends(auth.needs(Permission.READ))])
    async def capture(request: Request, project: str) -> dict[str, Any]:
        """Of the last day: answers that were sampled, kept and lost; and what is stored."""
        permit(request, Permission.READ, project)
        return await parts.views.capture(project, parts.turns.clock.now())

    @api.post("/erasures", dependencies=[Depends(auth.needs(Permission.ERASE))])
    async def erase_subject(request: Request, body: EraseBody) -> dict[str, Any]:
        """Remove a person's turns and what was said of them; answers what was removed."""
        caller = permit(request, Permission.ERASE, body.project, body.who)
        erased = await erase(body.project, body.subject, body.why, caller, parts.turns)
        return {
            "turns": erased.turns,
            "feedback": erased.feedback,
            "conversations": erased.conversations,
            "versions": list(erased.versions),
        }

    return api
