"""Items of evaluations over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from ratchet.core.artifact import RunId
from ratchet.operations.evaluations import Compared, compared, counted
from ratchet.wiring import Parts


def router(parts: Parts) -> APIRouter:
    api = APIRouter(tags=["evaluations"])

    @api.get("/runs/{run_id}/items")
    async def items(
        run_id: str,
        only: Literal["won", "lost", "tied"] | None = None,
        suite: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> dict[str, Any]:
        """What candidate and baseline answered to each item of the suites."""
        found = await compared(RunId(run_id), parts.evaluations)
        chosen = [
            item for item in found if only in (None, item.became) and suite in (None, item.suite)
        ]
        return {"counts": counted(found), "items": [_item(each) for each in chosen[:limit]]}

    return api


def _item(item: Compared) -> dict[str, Any]:
    return {
        "suite": item.suite,
        "key": item.candidate.key,
        "became": item.became,
        "expected": item.candidate.expected,
        "baseline": {"answer": item.baseline.answer, "score": item.baseline.score},
        "candidate": {"answer": item.candidate.answer, "score": item.candidate.score},
        "row": item.row,
    }
