"""Keys over HTTP: create, list, rotate, revoke; and the keys that sign them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from ratchet.core.access import ANY_MODEL, Key, KeyId, Permission, Role, Scope
from ratchet.entrypoints.http.auth import Auth, permit
from ratchet.operations import access as operations
from ratchet.operations.access import Wish
from ratchet.wiring import Parts

LIVES_SECONDS_MAX = 10 * 365 * 86400.0


class KeyBody(BaseModel):
    project: str
    name: str = Field(min_length=1, max_length=200)
    principal: str = Field("", max_length=200, description="who answers for it; default the name")
    scopes: list[Scope] = Field(default_factory=lambda: [Scope.ANSWERS, Scope.MODELS], min_length=1)
    models: list[str] = Field(default_factory=lambda: [ANY_MODEL], min_length=1, max_length=100)
    tier: str = Field("standard", pattern="^[a-z0-9-]{1,40}$")
    team: str = Field("", max_length=200, description="whose budget it uses besides its own")
    role: Role | None = None
    lives_seconds: float | None = Field(None, gt=0, le=LIVES_SECONDS_MAX)
    who: str = ""


class WhyBody(BaseModel):
    why: str = Field(min_length=1)
    who: str = ""


class WhoBody(BaseModel):
    who: str = ""


class SigningBody(WhyBody):
    revoke: bool = Field(False, description="take back every key that the old pair signed")


def router(parts: Parts, auth: Auth) -> APIRouter:
    api = APIRouter(tags=["keys"], dependencies=[Depends(auth.needs(Permission.KEYS))])

    @api.post("/keys", status_code=201)
    async def create(request: Request, body: KeyBody) -> dict[str, Any]:
        """A new key.  The answer is the only place where the token ever stands."""
        caller = permit(request, Permission.KEYS, body.project, body.who)
        wish = Wish(
            project=body.project,
            name=body.name,
            principal=body.principal or body.name,
            scopes=body.scopes,
            models=body.models,
            tier=body.tier,
            team=body.team,
            role=body.role,
            lives=None if body.lives_seconds is None else timedelta(seconds=body.lives_seconds),
        )
        return _shown_once(*await operations.create_key(wish, caller, parts.access))

    @api.get("/keys")
    async def keys(
        request: Request, project: str, limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> list[dict[str, Any]]:
        permit(request, Permission.KEYS, project)
        return await parts.views.keys(project, limit)

    @api.post("/keys/{key_id}/rotate", status_code=201)
    async def rotate(request: Request, key_id: str, body: WhoBody) -> dict[str, Any]:
        """A second key like this one; the first stays valid until it is revoked."""
        known = await parts.access.store.get(KeyId(key_id))
        caller = permit(request, Permission.KEYS, known.project, body.who)
        return _shown_once(*await operations.rotate_key(KeyId(key_id), caller, parts.access))

    @api.post("/keys/{key_id}/revoke")
    async def revoke(request: Request, key_id: str, body: WhyBody) -> dict[str, Any]:
        known = await parts.access.store.get(KeyId(key_id))
        caller = permit(request, Permission.KEYS, known.project, body.who)
        key = await operations.revoke_key(KeyId(key_id), body.why, caller, parts.access)
        return {"id": key.id, "name": key.name}

    @api.post("/signing-keys/rotate", status_code=201)
    async def rotate_signing(request: Request, body: SigningBody) -> dict[str, Any]:
        # It touches every project's keys, so a caller of one project may not.
        caller = permit(request, Permission.KEYS, "*", body.who)
        id_, revoked = await operations.rotate_signing_key(
            body.why, caller, parts.access, revoke=body.revoke
        )
        return {"id": id_, "revoked": revoked}

    return api


def _shown_once(key: Key, token: str) -> dict[str, Any]:
    return {
        "id": key.id,
        "key": token,
        "name": key.name,
        "project": key.project,
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
    }
