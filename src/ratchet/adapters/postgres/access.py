"""Keys and signing keys, in PostgreSQL.  What changes who may come in reaches gateways at once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.pool import Connection, Database, Row, fetch
from ratchet.core.access import Key, KeyId, Role, Scope, SigningKeyId
from ratchet.core.errors import Conflict, NotFound
from ratchet.ports import SigningKey


class PostgresAccess:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def signing_key(self) -> SigningKey | None:
        row = await self._db.one("current_signing_key")
        if row is None:
            return None
        return SigningKey(SigningKeyId(row["id"]), row["public"], bytes(row["sealed"]))

    async def add_signing_key(self, key: SigningKey, now: datetime) -> None:
        async with self._db.transaction() as tx:
            added = await fetch(
                tx, "add_signing_key", id=key.id, public=Jsonb(key.public), sealed=key.sealed,
                now=now,
            )  # fmt: skip
            if added:
                await _tell_gateways(tx)

    async def replace_signing_key(
        self, old: SigningKeyId, new: SigningKey, now: datetime, *, revoke_because: str | None
    ) -> int:
        async with self._db.transaction() as tx:
            if not await fetch(tx, "retire_signing_key", id=old, now=now):
                raise Conflict(f"signing key {old} was replaced by somebody else")
            await fetch(
                tx, "add_signing_key", id=new.id, public=Jsonb(new.public), sealed=new.sealed,
                now=now,
            )  # fmt: skip
            revoked: list[Row] = []
            if revoke_because is not None:
                revoked = await fetch(
                    tx, "revoke_keys_of", signing_key=old, because=revoke_because, now=now
                )
            await _tell_gateways(tx)
        return len(revoked)

    async def trusted(self, now: datetime) -> list[Mapping[str, str]]:
        return [row["public"] for row in await self._db.all("trusted_signing_keys", now=now)]

    async def add(self, key: Key, hint: str, created_by: str) -> None:
        async with self._db.transaction() as tx:
            await fetch(
                tx,
                "add_key",
                id=key.id,
                project=key.project,
                name=key.name,
                principal=key.principal,
                scopes=sorted(scope.value for scope in key.scopes),
                models=list(key.models),
                tier=key.tier,
                team=key.team,
                role=None if key.role is None else key.role.value,
                hint=hint,
                signing_key=key.signing_key,
                created_by=created_by,
                expires_at=key.expires_at,
                now=key.created_at,
            )
            if await fetch(tx, "exhausted_keys", project=key.project, now=key.created_at):
                # A new key of an exhausted team is exhausted, too.
                await _tell_gateways(tx)

    async def get(self, key_id: KeyId) -> Key:
        row = await self._db.one("get_key", id=key_id)
        if row is None:
            raise NotFound(f"key {key_id} is not known here")
        return _key(row)

    async def revoke(self, key_id: KeyId, because: str, now: datetime) -> bool:
        async with self._db.transaction() as tx:
            revoked = await fetch(tx, "revoke_key", id=key_id, because=because, now=now)
            if revoked:
                await _tell_gateways(tx)
        return bool(revoked)

    async def is_revoked(self, key_id: KeyId) -> bool:
        row = await self._db.one("is_revoked", id=key_id)
        # A key that we never made is no better than one that was taken back.
        return row is None or bool(row["revoked"])


async def _tell_gateways(tx: Connection) -> None:
    for row in await fetch(tx, "get_gateway"):
        await fetch(tx, "bump_gateway", project=row["project"])
        await fetch(tx, "notify_gateway", project=row["project"])


def _key(row: Row) -> Key:
    return Key(
        id=KeyId(row["id"]),
        project=row["project"],
        name=row["name"],
        principal=row["principal"],
        scopes=frozenset(Scope(scope) for scope in row["scopes"]),
        models=tuple(row["models"]),
        tier=row["tier"],
        team=row["team"],
        role=None if row["role"] is None else Role(row["role"]),
        signing_key=SigningKeyId(row["signing_key"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )
