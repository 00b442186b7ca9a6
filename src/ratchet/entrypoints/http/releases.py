"""Releases and what people may do to them, over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse
from pydantic import Field

from ratchet.adapters.specfile.reader import parse_spec
from ratchet.core.access import Permission
from ratchet.core.errors import NotFound
from ratchet.core.rollout import ReleaseId, Signal
from ratchet.entrypoints.http.auth import Auth, permit
from ratchet.entrypoints.http.runs import SpecBody, WhyBody
from ratchet.operations import release as operations
from ratchet.wiring import Parts


class ExtendBody(WhyBody):
    bad_answers: float = Field(0.0, ge=0.0, le=1e9, description="added to the harm budget")
    seconds: float = Field(0.0, ge=0.0, le=366 * 86_400.0, description="added to max_duration")


VERBS = {
    "promote": Signal.PROMOTE,
    "rollback": Signal.ABORT,
    "pause": Signal.PAUSE,
    "resume": Signal.RESUME,
}


def router(parts: Parts, auth: Auth) -> APIRouter:
    api = APIRouter(tags=["releases"])

    @api.get("/releases")
    async def releases(limit: Annotated[int, Query(ge=1, le=200)] = 20) -> list[dict[str, Any]]:
        return await parts.views.releases(limit)

    @api.get("/releases/{release_id}")
    async def release(release_id: str) -> dict[str, Any]:
        return await parts.views.release(release_id)

    @api.get("/releases/{release_id}/replay")
    async def replay(release_id: str) -> list[dict[str, Any]]:
        """Every verdict computed again from the units on record; `differences` names the numbers
        that are not the same, bit for bit."""
        return [
            {
                "signal": each.recorded.signal,
                "weight_percent": each.recorded.weight_percent,
                "because": each.recorded.because,
                "numbers": each.numbers,
                "differences": each.differences,
            }
            for each in await operations.replayed(ReleaseId(release_id), parts.release)
        ]

    @api.get("/releases/{release_id}/report", response_class=PlainTextResponse)
    async def report(release_id: str) -> PlainTextResponse:
        """The release as a page of Markdown: guards, ledger, what it means."""
        page = await operations.report(ReleaseId(release_id), parts.release)
        return PlainTextResponse(page, media_type="text/markdown; charset=utf-8")

    @api.post("/releases/{release_id}/otherwise")
    async def otherwise(release_id: str, body: SpecBody) -> dict[str, Any]:
        """What the release plan of another spec would have decided on the same units."""
        plan = parse_spec(body.spec, Path(body.path)).release
        found = await operations.decided_otherwise(ReleaseId(release_id), plan, parts.release)
        return asdict(found)

    @api.post(
        "/releases/{release_id}/extend",
        dependencies=[Depends(auth.needs(Permission.RELEASE))],
    )
    async def extend(request: Request, release_id: str, body: ExtendBody) -> dict[str, Any]:
        """More harm budget or time; a release that was held for want of it goes on."""
        project = (await parts.views.release(release_id))["project"]
        caller = permit(request, Permission.RELEASE, project, body.who)
        more = operations.More(body.bad_answers, body.seconds)
        await operations.extend(
            ReleaseId(release_id), more, caller.name, body.why, parts.release, parts.durable
        )
        return await parts.views.release(release_id)

    @api.post(
        "/releases/{release_id}/{verb}",
        dependencies=[Depends(auth.needs(Permission.RELEASE))],
    )
    async def act(request: Request, release_id: str, verb: str, body: WhyBody) -> dict[str, Any]:
        if verb not in VERBS:
            raise NotFound(f"a release cannot {verb}; known are {', '.join(VERBS)}")
        project = (await parts.views.release(release_id))["project"]
        caller = permit(request, Permission.RELEASE, project, body.who)
        await operations.act(
            ReleaseId(release_id), VERBS[verb], caller.name, body.why, parts.release, parts.durable
        )
        return await parts.views.release(release_id)

    return api
