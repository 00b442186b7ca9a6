"""What gateways see and what is measured of it, over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from ratchet.core.access import Permission
from ratchet.entrypoints.http.auth import Auth, permit
from ratchet.operations import release as operations
from ratchet.ports import Metric
from ratchet.wiring import Parts

METRICS_MAX = 1_000


class MetricBody(BaseModel):
    request_id: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")
    name: str = Field(pattern="^[a-z][a-z0-9_]{0,62}$")
    value: float = Field(allow_inf_nan=False)


class MetricsBody(BaseModel):
    project: str = Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")
    metrics: list[MetricBody] = Field(min_length=1, max_length=METRICS_MAX)


def router(parts: Parts, auth: Auth) -> APIRouter:
    api = APIRouter(tags=["traffic"])

    @api.post("/metrics", dependencies=[Depends(auth.needs(Permission.SERVE))])
    async def push(request: Request, body: MetricsBody) -> dict[str, int]:
        """What your own systems measured of answers, by `x-request-id`: values of the guards under
        `release.metrics`.  Each once by answer and name; answers how many were new."""
        permit(request, Permission.SERVE, body.project)
        metrics = [Metric(each.request_id, each.name, each.value) for each in body.metrics]
        new = await operations.push(body.project, metrics, parts.metrics, parts.runs.clock)
        return {"new": new}

    @api.get("/weights")
    async def weights(project: str, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Any:
        return await parts.views.weight_changes(project, limit)

    @api.get("/traffic")
    async def traffic(project: str, since: datetime) -> list[dict[str, Any]]:
        return await parts.views.traffic(project, since)

    @api.get("/gateways")
    async def gateways() -> list[dict[str, Any]]:
        return await parts.views.gateways()

    return api
