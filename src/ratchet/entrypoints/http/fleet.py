"""The fleet over HTTP: pools, who claims their slots, and what each project may take."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, Field, StringConstraints

from ratchet.core.access import Permission
from ratchet.core.fleet.claims import (
    LEAST,
    SLOTS_MAX,
    USD_MAX,
    WEIGHT_MAX,
    FleetPlan,
    Pool,
    Share,
)
from ratchet.entrypoints.http.auth import Auth, permit
from ratchet.operations.fleet import apply_fleet
from ratchet.wiring import Parts

NAMES_MAX = 1_000
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]


class PoolBody(BaseModel):
    spot: int | None = Field(None, ge=0, le=SLOTS_MAX, description="null: no limit")
    on_demand: int | None = Field(None, ge=0, le=SLOTS_MAX, description="null: no limit")


class ShareBody(BaseModel):
    weight: float = Field(1.0, ge=LEAST, le=WEIGHT_MAX)
    usd_per_month: float | None = Field(None, ge=LEAST, le=USD_MAX, description="null: no limit")


class FleetBody(BaseModel):
    pools: dict[Name, PoolBody] = Field(min_length=1, max_length=NAMES_MAX)
    projects: dict[Name, ShareBody] = Field(default_factory=dict, max_length=NAMES_MAX)
    who: str = ""


def router(parts: Parts, auth: Auth) -> APIRouter:
    api = APIRouter(tags=["fleet"])

    @api.get("/fleet", dependencies=[Depends(auth.needs(Permission.READ))])
    async def fleet() -> dict[str, Any]:
        """Pools with their claims, and projects with what they used in this month (UTC)."""
        return await parts.fleet.store.view()

    @api.put("/fleet", status_code=204, dependencies=[Depends(auth.needs(Permission.SERVE))])
    async def put_fleet(request: Request, body: FleetBody) -> None:
        """Replace all pools and shares."""
        caller = permit(request, Permission.SERVE, None, body.who)
        if caller.project is not None:
            raise HTTPException(
                403,
                f"{caller.name} belongs to project {caller.project}; the fleet is shared with "
                "others, and is set with the token of the state directory",
            )
        plan = FleetPlan(
            tuple(Pool(name=name, **pool.model_dump()) for name, pool in body.pools.items()),
            {project: Share(**share.model_dump()) for project, share in body.projects.items()},
        )
        await apply_fleet(plan, caller, parts.fleet)

    return api
