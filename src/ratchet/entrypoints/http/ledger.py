"""Usage, prices and budgets over HTTP."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from ratchet.core.access import Permission
from ratchet.core.ledger import Budget, Period, Price, SubjectKind, Unit
from ratchet.entrypoints.http.access import WhyBody
from ratchet.entrypoints.http.auth import Auth, permit
from ratchet.operations import ledger as operations
from ratchet.wiring import Parts

AMOUNT_MAX = Decimal(10) ** 12


class BudgetBody(BaseModel):
    project: str
    kind: SubjectKind
    subject: str = Field("", max_length=200, description="id of the key, or name of the team")
    period: Period
    unit: Unit
    amount: Decimal = Field(gt=0, le=AMOUNT_MAX, max_digits=18, decimal_places=6)
    who: str = ""


class PriceBody(BaseModel):
    project: str
    version: str = Field("", max_length=200, description="empty: all without a price of their own")
    prompt_usd: Decimal = Field(ge=0, le=10**6, decimal_places=8, description="a million tokens")
    completion_usd: Decimal = Field(ge=0, le=10**6, decimal_places=8)
    who: str = ""


def router(parts: Parts, auth: Auth) -> APIRouter:
    api = APIRouter(tags=["ledger"], dependencies=[Depends(auth.needs(Permission.KEYS))])

    @api.get("/usage")
    async def usage(
        request: Request,
        project: str,
        since: datetime,
        limit: Annotated[int, Query(ge=1, le=200)] = 200,
    ) -> list[dict[str, Any]]:
        """Requests, tokens and cost of each key and day (UTC), the newest day first."""
        permit(request, Permission.KEYS, project)
        return await parts.views.usage(project, since, limit)

    @api.get("/budgets")
    async def budgets(request: Request, project: str) -> list[dict[str, Any]]:
        """Every budget and what its present period has used."""
        permit(request, Permission.KEYS, project)
        return await parts.views.budgets(project, parts.ledger.clock.now())

    @api.put("/budgets")
    async def put_budget(request: Request, body: BudgetBody) -> dict[str, Any]:
        """Set a budget; by subject, period and unit, so that saying it twice sets it once."""
        caller = permit(request, Permission.KEYS, body.project, body.who)
        budget = Budget(**body.model_dump(exclude={"who"}))
        return {"id": await operations.set_budget(budget, caller, parts.ledger)}

    @api.post("/budgets/{budget_id}/drop", status_code=204)
    async def drop_budget(request: Request, budget_id: str, body: WhyBody) -> None:
        project = await parts.views.project_of_budget(budget_id)
        caller = permit(request, Permission.KEYS, project, body.who)
        await operations.drop_budget(budget_id, body.why, caller, parts.ledger)

    @api.get("/prices")
    async def prices(request: Request, project: str) -> list[dict[str, Any]]:
        permit(request, Permission.KEYS, project)
        return await parts.views.prices(project)

    @api.put("/prices", status_code=204)
    async def put_price(request: Request, body: PriceBody) -> None:
        """What answers cost from now on; what was settled stays as it was."""
        caller = permit(request, Permission.KEYS, body.project, body.who)
        price = Price(body.prompt_usd, body.completion_usd)
        await operations.set_price(body.project, body.version, price, caller, parts.ledger)

    return api
