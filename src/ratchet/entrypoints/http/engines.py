"""Engines: those of this stack, and those that somebody else runs for it elsewhere."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from ratchet.core.access import Caller, Permission
from ratchet.core.artifact import VersionId
from ratchet.core.routing import Endpoint
from ratchet.entrypoints.http.auth import Auth, permit
from ratchet.wiring import Parts


class PlaceBody(BaseModel):
    """An engine that serves this version under the project's model name."""

    host: IPv4Address = Field(description="an address; gateways look no names up")
    port: int = Field(ge=1, le=65535)
    region: str = Field("", pattern="^[a-z0-9-]{0,40}$")
    who: str = ""

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(str(self.host), self.port, self.region)


def router(parts: Parts, auth: Auth) -> APIRouter:
    api = APIRouter(tags=["engines"])
    may_serve = [Depends(auth.needs(Permission.SERVE))]

    @api.get("/engines")
    async def engines() -> list[dict[str, Any]]:
        return await parts.views.engines()

    @api.get("/engines/places")
    async def places() -> list[dict[str, Any]]:
        """Engines elsewhere, as they were told."""
        return await parts.views.places()

    @api.put("/engines/{version}/places", status_code=204, dependencies=may_serve)
    async def add(request: Request, version: str, body: PlaceBody) -> None:
        """Route to an engine elsewhere, too.  Gateways check it, and take their own region's
        engines first."""
        caller = await _caller(request, version, body)
        now = parts.runs.clock.now()
        await parts.engines.put_place(VersionId(version), body.endpoint, caller.name, now)
        at = f"{body.host}:{body.port} {body.region}".strip()
        await parts.runs.audit.add(caller.name, "add engine", version, "", at, "", now)

    @api.post("/engines/{version}/places/drop", status_code=204, dependencies=may_serve)
    async def drop(request: Request, version: str, body: PlaceBody) -> None:
        caller = await _caller(request, version, body)
        await parts.engines.drop_place(VersionId(version), body.endpoint)
        at = f"{body.host}:{body.port}"
        now = parts.runs.clock.now()
        await parts.runs.audit.add(caller.name, "drop engine", version, at, "", "", now)

    async def _caller(request: Request, version: str, body: PlaceBody) -> Caller:
        project = await parts.engines.project_of(VersionId(version))
        return permit(request, Permission.SERVE, project, body.who)

    return api
