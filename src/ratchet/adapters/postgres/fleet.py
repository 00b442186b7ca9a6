"""Machines that several projects share, in the PostgreSQL that they share.

Whoever looks plans, for all of them, and writes its own answer: one transaction at a time, so that
no slot is given twice, and nobody leads whose death would stop the others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from ratchet.adapters.postgres.pool import Connection, Database, Row, fetch
from ratchet.core.artifact import RunId
from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.fleet.answer import Grant, answer
from ratchet.core.fleet.claims import KINDS, Claim, FleetPlan, Pool, Share, slots_taken
from ratchet.core.place import Capacity

HALF_LIFE_DAYS = 7.0
# A run looks once a minute.  Who is silent for so long is taken for gone; should it come back, its
# worker (which needs no server to go on) keeps its machine, and the pool has one too many for then.
SILENT_SECONDS_MAX = 900.0


class PostgresFleet:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def pool(self, name: str) -> Pool:
        async with self._reading() as tx:
            return await _pool(tx, name)

    async def ask(self, pool: str, claim: Claim, usd_per_hour: float) -> Grant:
        async with self._locked() as tx:
            known = await _pool(tx, pool)
            await fetch(tx, "meter_claim", run_id=claim.run)
            await fetch(tx, "drop_silent_claims", seconds=SILENT_SECONDS_MAX)
            await fetch(
                tx,
                "put_claim",
                run_id=claim.run,
                project=claim.project,
                pool=pool,
                slots=claim.slots,
                priority=claim.priority,
                wants=_value(claim.wants),
                sees_spot=claim.sees_spot,
                alive=_value(claim.alive),
                time_left=claim.time_left_seconds,
                work_left=claim.work_left_seconds,
                delay=claim.delay_seconds,
                may_leave=claim.may_leave,
                usd_per_hour=usd_per_hour,
            )
            told = [_claim(row) for row in await fetch(tx, "list_claims", pool=pool)]
            claims = [each.at_its_look if each.run == claim.run else each for each in told]
            shares = {row["project"]: _share(row) for row in await _shares(tx)}
            grant = answer(claim.run, known, claims, shares)
            answered = {"granted": _value(grant.kind), "because": grant.because}
            await fetch(tx, "answer_claim", run_id=claim.run, **answered)
            return grant

    async def release(self, run_id: RunId) -> None:
        async with self._locked() as tx:
            await fetch(tx, "meter_claim", run_id=run_id)
            await fetch(tx, "drop_claim", run_id=run_id)

    async def put(self, plan: FleetPlan) -> FleetPlan:
        names = [pool.name for pool in plan.pools]
        async with self._locked() as tx:
            before = await _plan(tx)
            claims = await fetch(tx, "list_claims", pool=None)
            used = sorted({row["pool"] for row in claims} - set(names))
            if used:
                raise Rejected(
                    f"pools: {', '.join(used)} is left out and still used by "
                    f"{', '.join(row['run_id'] for row in claims if row['pool'] in used)}: set its "
                    "slots to 0 and wait, or cancel the runs"
                )
            await fetch(tx, "drop_other_pools", names=names)
            for pool in plan.pools:
                slots = {"spot": pool.spot, "on_demand": pool.on_demand}
                await fetch(tx, "put_pool", name=pool.name, **slots)
            await fetch(tx, "drop_shares")
            for project, share in plan.shares.items():
                given = {"weight": share.weight, "usd_per_month": share.usd_per_month}
                await fetch(tx, "put_share", project=project, **given)
        return before

    async def view(self) -> dict[str, Any]:
        async with self._reading() as tx:
            claims = await fetch(tx, "list_claims", pool=None)
            pools = await fetch(tx, "list_pools")
            shares = await _shares(tx)
        return {"pools": [_pool_seen(pool, claims) for pool in pools], "projects": shares}

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[Connection]:
        """Of who decides: one at a time."""
        async with self._reading() as tx:
            await fetch(tx, "lock_fleet")
            yield tx

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Connection]:
        try:
            async with self._db.transaction() as tx:
                yield tx
        except psycopg.errors.UndefinedTable as error:
            raise Unavailable(
                "RATCHET_FLEET_DATABASE_URL: no fleet there yet; the stack that it belongs to has "
                "to run this version of Ratchet once"
            ) from error


async def _pool(tx: Connection, name: str) -> Pool:
    rows = await fetch(tx, "list_pools")
    for row in rows:
        if row["name"] == name:
            return Pool(**row)
    known = ", ".join(row["name"] for row in rows) or "none yet"
    raise Rejected(
        f"train.pool: found {name!r}, known are: {known}. Say what there is with `ratchet fleet "
        "apply fleet.yaml`"
    )


async def _shares(tx: Connection) -> list[Row]:
    return await fetch(tx, "fleet_shares_now", half_life_days=HALF_LIFE_DAYS)


async def _plan(tx: Connection) -> FleetPlan:
    """What is in force."""
    pools = tuple(Pool(**row) for row in await fetch(tx, "list_pools"))
    shares = {row["project"]: _share(row) for row in await _shares(tx)}
    return FleetPlan(pools, shares)


def _claim(row: Row) -> Claim:
    return Claim(
        run=row["run_id"],
        project=row["project"],
        slots=row["slots"],
        priority=row["priority"],
        wants=_kind(row["wants"]),
        sees_spot=row["sees_spot"],
        alive=_kind(row["alive"]),
        granted=_kind(row["granted"]),
        waiting_seconds=row["waiting_seconds"],
        time_left_seconds=row["time_left_seconds"],
        work_left_seconds=row["work_left_seconds"],
        delay_seconds=row["delay_seconds"],
        may_leave=row["may_leave"],
    )


def _share(row: Row) -> Share:
    return Share(
        weight=row["weight"],
        used_slot_seconds=row["used_slot_seconds"],
        usd_spent=row["usd_spent"],
        usd_per_month=row["usd_per_month"],
    )


def _pool_seen(pool: Row, rows: Sequence[Row]) -> dict[str, Any]:
    mine = [row for row in rows if row["pool"] == pool["name"]]
    claims = [_claim(row) for row in mine]
    return {
        **pool,
        "taken": {kind.value: slots_taken(kind, claims) for kind in KINDS},
        "waiting": sum(claim.has_nothing for claim in claims),
        "claims": [_seen(row) for row in mine],
    }


def _seen(row: Row) -> dict[str, Any]:
    names = ("run_id", "project", "slots", "priority", "wants", "alive", "granted", "because")
    seconds = ("waiting_seconds", "time_left_seconds", "work_left_seconds")
    return {name: row[name] for name in names} | {
        name: None if row[name] is None else round(row[name], 1) for name in seconds
    }


def _value(kind: Capacity | None) -> str | None:
    return None if kind is None else kind.value


def _kind(value: str | None) -> Capacity | None:
    return None if value is None else Capacity(value)
