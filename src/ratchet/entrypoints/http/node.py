"""What the programs beside us ask: the agent of a gateway, and the supervisor of a machine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from ratchet.core.artifact import VersionId
from ratchet.core.run import AttemptId, AttemptState
from ratchet.entrypoints import snapshots
from ratchet.kit.digest import digest_json
from ratchet.ports import EngineReport, GatewayReport, Settlement
from ratchet.wiring import Parts

WAIT_SECONDS_MAX = 20.0
ANSWERS_MAX = 5_000


class AppliedBody(BaseModel):
    gateway: str
    revision: int
    route_revision: int
    rejected: str = ""
    at: datetime


class EngineBody(BaseModel):
    state: str
    port: int | None = None
    because: str = ""
    restarts: int = 0


class AnswerBody(BaseModel):
    """A line of an engine's journal."""

    request_id: str = Field(min_length=1, max_length=200)
    version: str
    key_id: str = ""
    prompt_tokens: int = Field(ge=0, lt=2**31)
    completion_tokens: int = Field(ge=0, lt=2**31)
    at: datetime


class AnswersBody(BaseModel):
    answers: list[AnswerBody] = Field(max_length=ANSWERS_MAX)


class EndedBody(BaseModel):
    how: Literal["lost", "preempted", "out_of_memory", "timed_out", "failed"]
    because: str


def router(parts: Parts) -> APIRouter:
    api = APIRouter(tags=["node"])

    @api.get("/gateway/snapshot")
    async def snapshot(
        request: Request,
        after: int = -1,
        wait: Annotated[float, Query(ge=0, le=WAIT_SECONDS_MAX)] = 0.0,
        gateway: Annotated[str, Query(max_length=100)] = "",
    ) -> dict[str, Any]:
        """The snapshot; waits for one newer than `after` for up to `wait` seconds.

        A `gateway` that says its name is counted, and gets its part of the limits.
        """
        if gateway:
            await parts.gateway.seen(gateway, parts.runs.clock.now())
        current = await parts.gateway.snapshot(parts.runs.clock.now())
        if current.revision <= after and wait > 0:
            await _while_connected(request, parts.gateway.wait(after, wait))
            current = await parts.gateway.snapshot(parts.runs.clock.now())
        return snapshots.to_json(current)

    @api.post("/gateway/applied", status_code=204)
    async def applied(body: AppliedBody) -> None:
        await parts.gateway.applied(GatewayReport(**body.model_dump()))

    @api.get("/node/work")
    async def work(
        request: Request,
        after: Annotated[str, Query(max_length=100)] = "",
        wait: Annotated[float, Query(ge=0, le=WAIT_SECONDS_MAX)] = 0.0,
    ) -> dict[str, Any]:
        """Engines that should run here, and attempts that want a worker; waits for up to `wait`
        seconds while the digest is `after`.
        """
        heard = parts.bell.count
        current = await _work(parts)
        if current["digest"] == after and wait > 0:
            await _while_connected(request, parts.bell.wait(heard, wait))
            current = await _work(parts)
        return current

    @api.post("/node/engines/{version}", status_code=204)
    async def engine(version: str, body: EngineBody) -> None:
        report = EngineReport(**body.model_dump())
        await parts.engines.report(VersionId(version), report, parts.runs.clock.now())

    @api.post("/node/answers")
    async def answers(body: AnswersBody) -> dict[str, int]:
        """Settle what engines answered, each once by its request; answers how many were new."""
        told = [
            Settlement(
                request_id=answer.request_id,
                version=VersionId(answer.version),
                key_id=answer.key_id,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                answered_at=answer.at,
            )
            for answer in body.answers
        ]
        now = parts.runs.clock.now()
        return {"new": await parts.ledger.ledger.settle(told, "engine", now)}

    @api.post("/node/attempts/{attempt_id}/ended", status_code=204)
    async def ended(attempt_id: str, body: EndedBody) -> None:
        """An attempt whose worker did not tell its end itself."""
        run_id = await parts.attempts.end(
            AttemptId(attempt_id),
            AttemptState(body.how),
            None,
            body.because,
            parts.runs.clock.now(),
        )
        if run_id is not None:
            await parts.durable.wake(run_id)

    return api


async def _work(parts: Parts) -> dict[str, Any]:
    engines = await parts.engines.listing()
    attempts = await parts.attempts.live()
    work = {
        "engines": [
            {
                "version": e.version,
                "wanted": e.wanted,
                "kind": e.kind,
                "served_name": e.served_name,
                "base": e.base,
                "adapter_uri": e.adapter_uri,
                "drill": None
                if e.drill is None
                else {
                    "error_rate": e.drill.error_rate,
                    "delay_seconds": e.drill.delay_seconds,
                    "delay_share": e.drill.delay_share,
                },
                "state": e.state,
                "port": e.port,
            }
            for e in engines
        ],
        "attempts": [
            {
                "id": a.id,
                "run": a.run_id,
                "stage": a.stage.value,
                "state": a.state.value,
                "place": a.place.to_json(),
            }
            for a in attempts
        ],
    }
    return {**work, "digest": digest_json(work)}


async def _while_connected(request: Request, work: Coroutine[Any, Any, None]) -> None:
    """Do the work until the client goes: nobody is kept waiting by a poll that nobody hears."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_gone(request))
    await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if not working.done():
        working.cancel()
        return
    await working


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
