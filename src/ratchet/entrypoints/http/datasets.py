"""Dataset versions over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from ratchet.core.access import Permission
from ratchet.core.dataset import Difference
from ratchet.entrypoints.http.auth import Auth, permit
from ratchet.operations.datasets import compare
from ratchet.wiring import Parts

Limit = Annotated[int, Query(ge=1, le=200)]


def router(parts: Parts, auth: Auth) -> APIRouter:
    api = APIRouter(tags=["datasets"])
    datasets = parts.datasets.datasets

    @api.get("/datasets", dependencies=[Depends(auth.needs(Permission.READ))])
    async def listing(request: Request, project: str, limit: Limit = 20) -> list[dict[str, Any]]:
        """The newest first."""
        permit(request, Permission.READ, project)
        return [asdict(each) for each in await datasets.listing(project, limit)]

    @api.get("/datasets/{dataset_id}", dependencies=[Depends(auth.needs(Permission.READ))])
    async def dataset(request: Request, dataset_id: str) -> dict[str, Any]:
        found = await datasets.get(dataset_id)
        permit(request, Permission.READ, found.project)
        return asdict(found)

    @api.get(
        "/datasets/{before}/diff/{after}", dependencies=[Depends(auth.needs(Permission.TURNS))]
    )
    async def diff(request: Request, before: str, after: str, limit: Limit = 20) -> dict[str, Any]:
        """How two dataset versions differ, row by row, with the first of each kind."""
        for each in (before, after):
            permit(request, Permission.TURNS, (await datasets.get(each)).project)
        return _shown(await compare(before, after, parts.datasets), limit)

    return api


def _shown(found: Difference, limit: int) -> dict[str, Any]:
    return {
        "kept": found.kept,
        "counts": {
            "added": len(found.added),
            "removed": len(found.removed),
            "changed": len(found.changed),
        },
        "added": [row.to_json() for row in found.added[:limit]],
        "removed": [row.to_json() for row in found.removed[:limit]],
        "changed": [
            {"before": old.to_json(), "after": new.to_json()} for old, new in found.changed[:limit]
        ],
    }
