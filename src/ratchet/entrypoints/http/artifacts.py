"""What is in the object store, why it is kept, and its end, over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from ratchet.core.access import GRANTS, Permission
from ratchet.core.retention import Artifact
from ratchet.entrypoints.http.auth import Auth, permit
from ratchet.operations.artifacts import Pruning, look, pin, prune, unpin, why
from ratchet.wiring import Parts

Limit = Annotated[int, Query(ge=1, le=10_000)]


class PruneBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    grace_seconds: float | None = Field(None, ge=0, le=365 * 86400)
    """Of new tombstones; the most careful project's by default."""


class PinBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    project: str = Field(max_length=100)
    subject: str = Field(max_length=300)
    why: str = Field(min_length=1, max_length=2_000)
    legal: bool = False
    """Only an admin sets one, and takes it away."""


def router(parts: Parts, auth: Auth) -> APIRouter:
    api = APIRouter(tags=["artifacts"])

    @api.get("/artifacts", dependencies=[Depends(auth.needs(Permission.READ))])
    async def listing(request: Request, limit: Limit = 1_000) -> dict[str, Any]:
        """Everything there is with its reasons, and what a prune would do; changes nothing."""
        permit(request, Permission.READ, None)
        artifacts, _, found = await look(parts.artifacts)
        return {
            "artifacts": [
                {**_shown(each), "because": found.kept.get(each.uri, [])}
                for each in artifacts[:limit]
            ],
            "count": len(artifacts),
            "bytes": _by_kind(artifacts),
            **_pruning(found, limit),
        }

    @api.post("/artifacts/prune", dependencies=[Depends(auth.needs(Permission.PRUNE))])
    async def prune_(request: Request, body: PruneBody) -> dict[str, Any]:
        """Tombstones on what nothing keeps, and the end of what lay under one for its grace."""
        by = permit(request, Permission.PRUNE, None)
        found = await prune(parts.artifacts, by.name, body.grace_seconds)
        return {
            **_pruning(found, 1_000),
            "removed": list(found.removed[:1_000]),
            "removed_count": len(found.removed),
            "bytes_removed": found.bytes_removed,
        }

    @api.get("/artifacts/why", dependencies=[Depends(auth.needs(Permission.READ))])
    async def why_(request: Request, project: str, subject: str) -> dict[str, list[str]]:
        """What keeps the artifacts of a version, a dataset or a run, or one artifact."""
        permit(request, Permission.READ, project)
        return await why(project, subject, parts.artifacts)

    @api.get("/artifacts/pins", dependencies=[Depends(auth.needs(Permission.READ))])
    async def pins(request: Request, project: str) -> list[dict[str, Any]]:
        permit(request, Permission.READ, project)
        found = await parts.artifacts.book.pins()
        return [asdict(each) for each in found if each.project == project]

    @api.post(
        "/artifacts/pins", status_code=201, dependencies=[Depends(auth.needs(Permission.PRUNE))]
    )
    async def pin_(request: Request, body: PinBody) -> dict[str, list[str]]:
        """Keep a version, a dataset, a run or an artifact, whatever the rules say."""
        by = permit(request, Permission.PRUNE, body.project)
        if body.legal and Permission.ERASE not in GRANTS[by.role]:
            raise HTTPException(403, "a legal hold is an admin's")
        kept = await pin(body.project, body.subject, body.why, body.legal, by, parts.artifacts)
        return {"kept": kept}

    @api.delete(
        "/artifacts/pins", status_code=204, dependencies=[Depends(auth.needs(Permission.PRUNE))]
    )
    async def unpin_(request: Request, project: str, subject: str) -> None:
        by = permit(request, Permission.PRUNE, project)
        await unpin(project, subject, by, parts.artifacts)

    return api


def _pruning(found: Pruning, limit: int) -> dict[str, Any]:
    return {
        "unneeded": [_shown(each) for each in found.unneeded[:limit]],
        "unneeded_count": len(found.unneeded),
        "unneeded_bytes": sum(each.bytes for each in found.unneeded),
        "buried": [_shown(each) for each in found.buried[:limit]],
        "buried_count": len(found.buried),
        "buried_bytes": sum(each.bytes for each in found.buried),
    }


def _shown(artifact: Artifact) -> dict[str, Any]:
    return {**asdict(artifact), "state": artifact.state.value}


def _by_kind(artifacts: list[Artifact]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for artifact in artifacts:
        sizes[artifact.kind] = sizes.get(artifact.kind, 0) + artifact.bytes
    return sizes
