"""Projects, runs and versions over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, Field

from ratchet.adapters.specfile.reader import parse_spec
from ratchet.core.access import Permission
from ratchet.core.artifact import RunId
from ratchet.entrypoints.http.auth import Auth, permit
from ratchet.kit.ids import new_id
from ratchet.operations import runs as operations
from ratchet.operations.material import inspect
from ratchet.wiring import Parts

Limit = Annotated[int, Query(ge=1, le=200)]


class SpecBody(BaseModel):
    """A spec file as text, and where its relative paths start."""

    spec: str
    path: str = Field(
        pattern=r"^/[^\x00]*$", description="absolute path of the spec file on the server's machine"
    )


class RunBody(SpecBody):
    kind: str = Field("person", pattern="^(person|merge|api|schedule|drift|feedback)$")
    who: str = "unknown"
    why: str = ""
    commit: str = ""


class WhyBody(BaseModel):
    who: str = "unknown"
    why: str = Field(min_length=1)


def router(parts: Parts, auth: Auth) -> APIRouter:
    api = APIRouter(tags=["runs"])
    may_serve = [Depends(auth.needs(Permission.SERVE))]
    may_run = [Depends(auth.needs(Permission.RUN))]
    may_audit = [Depends(auth.needs(Permission.AUDIT))]

    @api.post("/projects", dependencies=may_serve)
    async def apply(request: Request, body: SpecBody) -> dict[str, Any]:
        path = Path(body.path)
        spec = parse_spec(body.spec, path)
        caller = permit(request, Permission.SERVE, spec.project)
        project = await operations.apply(spec, caller.name, parts.runs, path)
        return {"name": project.name, "baseline": project.baseline}

    @api.get("/projects")
    async def projects() -> list[dict[str, Any]]:
        return await parts.views.projects()

    @api.post("/runs", status_code=201, dependencies=may_run)
    async def start(
        request: Request, body: RunBody, idempotency_key: Annotated[str, Header()] = ""
    ) -> dict[str, Any]:
        path = Path(body.path)
        spec = parse_spec(body.spec, path)
        caller = permit(request, Permission.RUN, spec.project, body.who)
        trigger = {**body.model_dump(include={"kind", "why", "commit"}), "who": caller.name}
        key = idempotency_key or new_id("key")
        run_id = await operations.request_run(
            spec, path.parent, trigger, key, parts.runs, spec_file=path
        )
        return {"id": run_id}

    @api.post("/runs/check", dependencies=may_run)
    async def check(request: Request, body: SpecBody) -> dict[str, Any]:
        """What would stop a run of this spec, without starting one."""
        path = Path(body.path)
        spec = parse_spec(body.spec, path)
        permit(request, Permission.RUN, spec.project)
        return asdict(await inspect(spec, path.parent, parts.material))

    @api.get("/runs")
    async def runs(project: str | None = None, limit: Limit = 20) -> list[dict[str, Any]]:
        return await parts.views.runs(project, limit)

    @api.get("/runs/{run_id}")
    async def run(run_id: str) -> dict[str, Any]:
        return await parts.views.run(run_id)

    @api.post("/runs/{run_id}/cancel", dependencies=may_run)
    async def cancel(request: Request, run_id: str, body: WhyBody) -> dict[str, Any]:
        project = (await parts.views.run(run_id))["project"]
        caller = permit(request, Permission.RUN, project, body.who)
        await operations.cancel_run(RunId(run_id), caller.name, body.why, parts.runs, parts.durable)
        return await parts.views.run(run_id)

    @api.get("/compute")
    async def compute(project: str, limit: Limit = 12) -> list[dict[str, Any]]:
        """What the workers of runs took and cost, by month, the newest first."""
        return await parts.views.compute(project, parts.runs.clock.now(), limit)

    @api.get("/versions")
    async def versions(project: str, limit: Limit = 20) -> list[dict[str, Any]]:
        return await parts.views.versions(project, limit)

    @api.get("/versions/{version_id}")
    async def version(version_id: str) -> dict[str, Any]:
        return await parts.views.version(version_id)

    @api.get("/audit", dependencies=may_audit)
    async def audit(limit: Limit = 50) -> list[dict[str, Any]]:
        return await parts.views.audit(limit)

    return api
