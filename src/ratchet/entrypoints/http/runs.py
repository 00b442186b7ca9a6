"""Projects, runs and versions over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, params
from pydantic import BaseModel, Field

from ratchet.adapters.specfile import parse_spec
from ratchet.core.artifact import RunId
from ratchet.kit.ids import new_id
from ratchet.operations import runs as operations
from ratchet.wiring import Parts

Limit = Annotated[int, Query(ge=1, le=200)]


class SpecBody(BaseModel):
    """A spec file as text, and where its relative paths start."""

    spec: str
    path: str = Field(description="absolute path of the spec file on the server's machine")


class RunBody(SpecBody):
    kind: str = Field("person", pattern="^(person|merge|api|schedule|drift)$")
    who: str = "unknown"
    why: str = ""
    commit: str = ""


class WhyBody(BaseModel):
    who: str = "unknown"
    why: str = Field(min_length=1)


def router(parts: Parts, allowed: list[params.Depends]) -> APIRouter:
    api = APIRouter(tags=["runs"])

    @api.post("/projects", dependencies=allowed)
    async def apply(body: SpecBody) -> dict[str, Any]:
        project = await operations.apply(parse_spec(body.spec, Path(body.path)), parts.runs)
        return {"name": project.name, "baseline": project.baseline}

    @api.get("/projects")
    async def projects() -> list[dict[str, Any]]:
        return await parts.views.projects()

    @api.post("/runs", status_code=201, dependencies=allowed)
    async def start(
        body: RunBody, idempotency_key: Annotated[str, Header()] = ""
    ) -> dict[str, Any]:
        path = Path(body.path)
        trigger = body.model_dump(include={"kind", "who", "why", "commit"})
        key = idempotency_key or new_id("key")
        run_id = await operations.request_run(
            parse_spec(body.spec, path), path.parent, trigger, key, parts.runs
        )
        return {"id": run_id}

    @api.get("/runs")
    async def runs(project: str | None = None, limit: Limit = 20) -> list[dict[str, Any]]:
        return await parts.views.runs(project, limit)

    @api.get("/runs/{run_id}")
    async def run(run_id: str) -> dict[str, Any]:
        return await parts.views.run(run_id)

    @api.post("/runs/{run_id}/cancel", dependencies=allowed)
    async def cancel(run_id: str, body: WhyBody) -> dict[str, Any]:
        await operations.cancel_run(RunId(run_id), body.who, body.why, parts.runs, parts.durable)
        return await parts.views.run(run_id)

    @api.get("/versions")
    async def versions(project: str, limit: Limit = 20) -> list[dict[str, Any]]:
        return await parts.views.versions(project, limit)

    @api.get("/versions/{version_id}")
    async def version(version_id: str) -> dict[str, Any]:
        return await parts.views.version(version_id)

    @api.get("/audit")
    async def audit(limit: Limit = 50) -> list[dict[str, Any]]:
        return await parts.views.audit(limit)

    return api
