"""What gateways and engines are told and what they report, in PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.codec import plan_from_json
from ratchet.adapters.postgres.ledger import settle
from ratchet.adapters.postgres.pool import (
    STATEMENTS,
    Connection,
    Database,
    Row,
    fetch,
    keep_all,
    wait_for_notice,
)
from ratchet.core.access import Admission, KeyId
from ratchet.core.artifact import VersionId
from ratchet.core.errors import NotFound, Unavailable
from ratchet.core.rollout import Stage
from ratchet.core.routing import Arm, Endpoint, GatewaySnapshot
from ratchet.core.serving import Access, from_json
from ratchet.core.spec import Drill
from ratchet.ports import (
    AccessRecord,
    Assignment,
    EngineReport,
    GatewayReport,
    Settlement,
    WantedEngine,
)

# Restarts after which an engine that never became ready is given up.
START_FAILURES_MAX = 3
# A gateway asks for news every five seconds.
GATEWAY_SILENT_SECONDS = 12.0


class PostgresGateway:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def snapshot(self, now: datetime) -> GatewaySnapshot:
        async with self._db.transaction() as tx:
            await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            rows = await fetch(tx, "get_gateway")
            if not rows:
                raise NotFound("no project is served yet")
            row = rows[0]
            engines = await fetch(tx, "list_engines")
            places = await fetch(tx, "list_places")
            live = await fetch(tx, "live_releases")
            project = (await fetch(tx, "get_project", name=row["project"]))[0]
            admission = await _admission(tx, project, now)
        arms = tuple(Arm(VersionId(arm["version"]), arm["weight"]) for arm in row["arms"])
        endpoints: dict[VersionId, Sequence[Endpoint]] = {arm.version: () for arm in arms}
        for engine in engines:
            if engine["version_id"] in endpoints and engine["port"] and engine["state"] == "ready":
                endpoints[VersionId(engine["version_id"])] = (
                    Endpoint("127.0.0.1", engine["port"]),
                )
        for place in places:
            if (version := VersionId(place["version_id"])) in endpoints:
                there = Endpoint(place["host"], place["port"], place["region"])
                endpoints[version] = (*endpoints[version], there)
        return GatewaySnapshot(
            revision=row["revision"],
            route_revision=row["route_revision"],
            arms=arms,
            endpoints=endpoints,
            fallback=_stays(live[0]) if live else None,
            blind_hold_seconds=plan_from_json(live[0]["plan"]).blind_hold_seconds if live else 0.0,
            admission=admission,
            serving=from_json(project["serving"]),
            gateways=row["gateways"],
        )

    async def wait(self, revision: int, seconds: float) -> None:
        # Listening starts before the look, so that a change in between is not missed.
        listening = asyncio.create_task(wait_for_notice(self._db.url, "gateway", seconds))
        try:
            await asyncio.sleep(0.02)
            row = await self._db.one("get_gateway")
            if row is not None and row["revision"] > revision:
                return
            await listening
        except psycopg.OperationalError as error:
            raise Unavailable(f"PostgreSQL does not answer: {error}") from error
        finally:
            listening.cancel()

    async def seen(self, gateway: str, now: datetime) -> None:
        await self._db.all("see_gateway", gateway=gateway, now=now)

    async def count(self, now: datetime) -> int | None:
        async with self._db.transaction() as tx:
            since = now - timedelta(seconds=GATEWAY_SILENT_SECONDS)
            rows = await fetch(tx, "count_gateways", since=since)
            for row in rows:
                await fetch(tx, "notify_gateway", project=row["project"])
        return rows[0]["gateways"] if rows else None

    async def applied(self, report: GatewayReport) -> None:
        async with self._db.transaction() as tx:
            await fetch(
                tx,
                "report_gateway",
                gateway=report.gateway,
                revision=report.revision,
                rejected=report.rejected,
                now=report.at,
            )
            if not report.rejected:
                await fetch(
                    tx, "mark_applied", route_revision=report.route_revision, applied_at=report.at
                )

    async def arms(self, project: str) -> tuple[Arm, ...]:
        row = await self._db.one("get_gateway")
        if row is None or row["project"] != project:
            return ()
        return tuple(Arm(VersionId(arm["version"]), arm["weight"]) for arm in row["arms"])


def _stays(release: Row) -> VersionId:
    """What everybody gets when the release is given up unseen."""
    is_promoted = release["stage"] == Stage.HOLDBACK.value
    return VersionId(release["candidate" if is_promoted else "baseline"])


async def _admission(tx: Connection, known: dict[str, Any], now: datetime) -> Admission:
    project = known["name"]
    trusted = await fetch(tx, "trusted_signing_keys", now=now)
    revoked = await fetch(tx, "revoked_keys", project=project, now=now)
    exhausted = await fetch(tx, "exhausted_keys", project=project, now=now)
    return Admission(
        is_open=from_json(known["serving"]).access is Access.OPEN,
        project=project,
        served_name=known["served_name"],
        jwks=tuple(row["public"] for row in trusted),
        revoked=tuple(KeyId(row["id"]) for row in revoked),
        exhausted=tuple(KeyId(row["id"]) for row in exhausted),
    )


class PostgresEngines:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def _row(self, version: VersionId) -> dict[str, object] | None:
        rows = await self._db.all("list_engines")
        return next((row for row in rows if row["version_id"] == version), None)

    async def down_seconds(self, version: VersionId, now: datetime) -> float | None:
        row = await self._row(version)
        if row is None or row["state"] in ("stopped", "starting"):
            return None
        since = row["since"]
        assert isinstance(since, datetime)
        return 0.0 if row["state"] == "ready" else (now - since).total_seconds()

    async def place_of(self, version: VersionId) -> Endpoint | None:
        row = await self._row(version)
        if row is not None and row["state"] == "ready" and isinstance(row["port"], int):
            return Endpoint("127.0.0.1", row["port"])
        places = [p for p in await self._db.all("list_places") if p["version_id"] == version]
        return Endpoint(places[0]["host"], places[0]["port"]) if places else None

    async def failure(self, version: VersionId) -> str | None:
        row = await self._row(version)
        if row is None or row["state"] == "ready":
            return None
        restarts = row["restarts"]
        assert isinstance(restarts, int)
        if restarts < START_FAILURES_MAX:
            return None
        return f"engine failed {restarts} times: {row['because']}"

    async def stop_retired(self, now: datetime) -> None:
        await self._db.all("stop_retired_engines", now=now)

    async def listing(self) -> list[WantedEngine]:
        return [
            WantedEngine(
                version=VersionId(row["version_id"]),
                wanted=row["wanted"],
                kind=row["kind"],
                served_name=row["served_name"],
                base=row["base"],
                adapter_uri=row["adapter_uri"],
                drill=None if row["drill"] is None else Drill(**row["drill"]),
                state=row["state"],
                port=row["port"],
            )
            for row in await self._db.all("list_engines")
        ]

    async def put_place(self, version: VersionId, place: Endpoint, by: str, now: datetime) -> None:
        async with self._db.transaction() as tx:
            project = await _project_of(tx, version)
            await fetch(
                tx, "put_place", version_id=version, host=place.host, port=place.port,
                region=place.region, added_by=by, now=now,
            )  # fmt: skip
            await fetch(tx, "bump_gateway", project=project)
            await fetch(tx, "notify_gateway", project=project)

    async def drop_place(self, version: VersionId, place: Endpoint) -> None:
        async with self._db.transaction() as tx:
            project = await _project_of(tx, version)
            if not await fetch(
                tx, "drop_place", version_id=version, host=place.host, port=place.port
            ):
                raise NotFound(f"no engine of {version} is known at {place.host}:{place.port}")
            await fetch(tx, "bump_gateway", project=project)
            await fetch(tx, "notify_gateway", project=project)

    async def project_of(self, version: VersionId) -> str:
        async with self._db.transaction() as tx:
            return await _project_of(tx, version)

    async def report(self, version: VersionId, report: EngineReport, now: datetime) -> None:
        async with self._db.transaction() as tx:
            rows = await fetch(
                tx,
                "report_engine",
                version_id=version,
                state=report.state,
                port=report.port,
                because=report.because,
                restarts=report.restarts,
                now=now,
            )
            if rows:
                await fetch(tx, "bump_gateway", project=rows[0]["project"])
                await fetch(tx, "notify_gateway", project=rows[0]["project"])


async def _project_of(tx: Connection, version: VersionId) -> str:
    rows = await fetch(tx, "project_of_version", version_id=version)
    if not rows:
        raise NotFound(f"version {version} is not known here")
    return str(rows[0]["project"])


class PostgresRecords:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def assigned(self, given: Sequence[Assignment], now: datetime) -> None:
        async with self._db.transaction() as tx:
            gateway = await fetch(tx, "get_gateway")
            if gateway and given:
                await fetch(tx, "lock_records")
                await _add_units(tx, str(gateway[0]["project"]), given, now)

    async def add(self, records: Sequence[AccessRecord], now: datetime) -> set[str]:
        return await keep_all(records, lambda some: self._add(some, now))

    async def _add(self, records: Sequence[AccessRecord], now: datetime) -> set[str]:
        async with self._db.transaction() as tx:
            gateway = await fetch(tx, "get_gateway")
            if not gateway:
                return set()
            await fetch(tx, "lock_records")
            async with tx.pipeline():
                cursors = [
                    await tx.execute(STATEMENTS["add_record"], _parameters(r, gateway[0], now))
                    for r in records
                ]
            new = {r.request_id for r, c in zip(records, cursors, strict=True) if c.rowcount}
            # What no engine was ever asked for had no assignment of its own.
            given = [_assignment(r) for r in records if r.is_on_trial and r.request_id in new]
            await _add_units(tx, str(gateway[0]["project"]), given, now)
            told = [settlement for r in records if (settlement := _settlement(r)) is not None]
            await settle(tx, str(gateway[0]["project"]), told, "gateway", now)
        return new


async def _add_units(
    tx: Connection, project: str, given: Sequence[Assignment], now: datetime
) -> None:
    await fetch(
        tx,
        "add_units",
        project=project,
        request_ids=[each.request_id for each in given],
        versions=[each.version for each in given],
        revisions=[each.route_revision for each in given],
        conversations=[each.conversation for each in given],
        known=[json.dumps(dict(each.known)) for each in given],
        now=now,
    )


def _assignment(record: AccessRecord) -> Assignment:
    return Assignment(
        record.request_id,
        record.version,
        record.route_revision,
        record.conversation,
        record.known,
    )


def _settlement(record: AccessRecord) -> Settlement | None:
    """What a record is charged by; None when its answer told no usage."""
    if record.prompt_tokens is None or record.completion_tokens is None:
        return None
    return Settlement(
        request_id=record.request_id,
        version=record.version,
        key_id=record.key_id,
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        answered_at=record.started_at + timedelta(milliseconds=record.duration_ms),
    )


def _parameters(
    record: AccessRecord, gateway: dict[str, object], now: datetime
) -> dict[str, object]:
    return {
        "request_id": record.request_id,
        "project": gateway["project"],
        "version_id": record.version,
        "routed": record.routed,
        "route_revision": record.route_revision,
        "conversation": record.conversation,
        "key_id": record.key_id,
        "status": record.status,
        "failed": record.failed,
        "attempts": record.attempts,
        "first_byte_ms": record.first_byte_ms,
        "duration_ms": record.duration_ms,
        "overhead_ms": record.overhead_ms,
        "flags": record.flags,
        "bytes_sent": record.bytes_sent,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "sampled": record.sampled,
        "known": Jsonb(dict(record.known)),
        "started_at": record.started_at,
        "received_at": now,
    }
