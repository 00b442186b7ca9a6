"""Releases, their evidence and verdicts, in PostgreSQL.

A decision and all its consequences commit in one transaction: the release, the verdict, the
weights, the baseline and which engines should run.  What carries them out (agents, supervisor)
follows the stored state, so there is nothing to send twice and nothing to lose.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.codec import (
    evidence_from_json,
    evidence_to_json,
    plan_from_json,
    plan_to_json,
)
from ratchet.adapters.postgres.pool import Connection, Database, Row, fetch
from ratchet.core.analysis import Evidence, Unit, describe
from ratchet.core.artifact import RunId, VersionId
from ratchet.core.errors import Conflict, NotFound, Rejected
from ratchet.core.replay import AtWeight, Recorded
from ratchet.core.rollout import (
    Command,
    Decision,
    MakeBaseline,
    Release,
    ReleaseId,
    RetireEngine,
    SetCanaryWeight,
    Stage,
)
from ratchet.core.routing import arms_for
from ratchet.ports import Act, History, StoredRelease

# Requests in flight on an arm that was just emptied get this long to end.
DRAIN_SECONDS = 30.0
UNITS_PER_READ_MAX = 5_000
REFERENCE_UNITS = 500


class PostgresReleases:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, stored: StoredRelease, now: datetime) -> ReleaseId:
        release = stored.release
        drill = stored.plan.drill
        async with self._db.transaction() as tx:
            await fetch(
                tx,
                "add_release",
                id=release.id,
                run_id=stored.run_id,
                project=release.project,
                candidate=release.candidate,
                baseline=release.baseline,
                stage=release.stage.value,
                plan=Jsonb(plan_to_json(stored.plan)),
                evidence=Jsonb(evidence_to_json(stored.evidence)),
                because=stored.because,
                ramp_weight=release.ramp_weight,
                now=now,
            )
            row = (await fetch(tx, "release_of_run", run_id=stored.run_id))[0]
            if row["id"] == release.id and release.stage is Stage.STARTING:
                await fetch(
                    tx,
                    "want_engine",
                    version_id=release.candidate,
                    project=release.project,
                    drill=None
                    if drill is None
                    else Jsonb(
                        {"error_rate": drill.error_rate, "delay_seconds": drill.delay_seconds}
                    ),
                    now=now,
                )
        return ReleaseId(row["id"])

    async def get(self, release_id: ReleaseId) -> StoredRelease:
        row = await self._db.one("get_release", id=release_id)
        if row is None:
            raise NotFound(f"release {release_id} is not known here")
        return _release(row)

    async def live(self) -> list[StoredRelease]:
        return [_release(row) for row in await self._db.all("live_releases")]

    async def commit(
        self, before: Release, decision: Decision, evidence: Evidence, act: Act, now: datetime
    ) -> None:
        after = decision.release
        async with self._db.transaction() as tx:
            saved = await fetch(
                tx,
                "commit_release",
                id=after.id,
                stage=after.stage.value,
                notch=after.notch,
                ramp_weight=after.ramp_weight,
                version=after.version,
                evidence=Jsonb(evidence_to_json(evidence)),
                because=act.because,
                now=now,
            )
            if not saved:
                raise Conflict(f"release {after.id} moved on from version {before.version}")
            await fetch(
                tx,
                "add_verdict",
                release_id=after.id,
                version=after.version,
                signal=act.signal,
                from_stage=before.stage.value,
                to_stage=after.stage.value,
                weight_percent=after.weight_percent,
                because=act.because,
                numbers=Jsonb(act.numbers),
                who=act.who,
                now=now,
            )
            stored = _release((await fetch(tx, "get_release", id=after.id))[0])
            for command in decision.commands:
                await _carry_out(tx, stored, command, act.because, now)
            await fetch(tx, "notify_gateway", project=after.project)

    async def save_evidence(
        self, stored: StoredRelease, evidence: Evidence, because: str, now: datetime
    ) -> None:
        release = stored.release
        async with self._db.transaction() as tx:
            saved = await fetch(
                tx,
                "save_evidence",
                id=release.id,
                version=release.version,
                evidence=Jsonb(evidence_to_json(evidence)),
                because=because,
                now=now,
            )
            if not saved:
                raise Conflict(f"release {release.id} moved on from version {release.version}")
            if evidence.watermark != stored.evidence.watermark:
                await fetch(
                    tx,
                    "add_evidence_point",
                    release_id=release.id,
                    weight=release.weight_percent,
                    numbers=Jsonb(describe(evidence)),
                    now=now,
                )

    async def units(self, release: Release, watermark: int) -> list[Unit]:
        gateway = await self._db.one("get_gateway")
        if gateway is None:
            return []
        return await self._units(release, gateway["route_revision"], watermark)

    async def history(self, release_id: ReleaseId) -> History:
        row = await self._db.one("get_release", id=release_id)
        if row is None:
            raise NotFound(f"release {release_id} is not known here")
        if row["begun"] is None:
            raise Rejected(f"release {release_id} is from before replays: its beginning is unknown")
        stored = _release(row)
        verdicts = await self._db.all("list_verdicts", release_id=release_id)
        weights = await self._db.all(
            "weights_of_release",
            project=stored.release.project,
            candidate=stored.release.candidate,
            after=row["begun_revision"],
            # A later release may have the same candidate.
            limit=_weights_in(verdicts),
        )
        parts = []
        for each in weights:
            units: list[Unit] = []
            while more := await self._units(
                stored.release, each["route_revision"], units[-1].sequence if units else 0
            ):
                units += more
            parts.append(AtWeight(each["weight"], units))
        return History(
            plan=stored.plan,
            begun=evidence_from_json(row["begun"]),
            weights=tuple(parts),
            verdicts=tuple(
                Recorded(
                    signal=v["signal"],
                    weight_percent=v["weight_percent"],
                    because=v["because"],
                    # A jsonb number without a fraction, however large, comes back as an int.
                    numbers={name: float(value) for name, value in v["numbers"].items()},
                )
                for v in verdicts
            ),
        )

    async def _units(self, release: Release, revision: int, watermark: int) -> list[Unit]:
        rows = await self._db.all(
            "units",
            project=release.project,
            route_revision=revision,
            watermark=watermark,
            limit=UNITS_PER_READ_MAX,
        )
        return [
            Unit(
                sequence=row["sequence"],
                is_canary=row["version_id"] == release.candidate,
                failed=row["failed"],
                duration_ms=row["duration_ms"],
            )
            for row in rows
            if row["version_id"] in (release.candidate, release.baseline)
        ]

    async def baseline_durations_ms(self, version: VersionId) -> list[float]:
        rows = await self._db.all("recent_durations", version_id=version, limit=REFERENCE_UNITS)
        return [row["duration_ms"] for row in rows]

    async def seconds_since_record(self, project: str, now: datetime) -> float:
        row = await self._db.one("newest_record", project=project)
        if row is None or row["at"] is None:
            return math.inf
        return float((now - row["at"]).total_seconds())

    async def seconds_since_verdict(self, release: ReleaseId, now: datetime) -> float:
        row = await self._db.one("newest_verdict", release_id=release)
        if row is None or row["at"] is None:
            return math.inf
        return float((now - row["at"]).total_seconds())


async def _carry_out(
    tx: Connection, stored: StoredRelease, command: Command, because: str, now: datetime
) -> None:
    release = stored.release
    match command:
        case SetCanaryWeight(weight):
            arms = Jsonb(
                [
                    {"version": arm.version, "weight": arm.weight}
                    for arm in arms_for(release.candidate, release.baseline, weight)
                ]
            )
            row = (await fetch(tx, "set_arms", project=release.project, arms=arms))[0]
            await fetch(
                tx,
                "add_weight_change",
                project=release.project,
                route_revision=row["route_revision"],
                arms=arms,
                because=because,
            )
        case MakeBaseline(version):
            await fetch(tx, "set_baseline", project=release.project, version=version)
        case RetireEngine(version, after_holdback):
            seconds = stored.plan.holdback_seconds if after_holdback else 0.0
            stop_after = now + timedelta(seconds=max(seconds, DRAIN_SECONDS))
            await fetch(tx, "retire_engine", version_id=version, stop_after=stop_after)


def _weights_in(verdicts: Sequence[Row]) -> int:
    """How many weights a release had with both arms serving."""
    weights = [0.0, *(verdict["weight_percent"] for verdict in verdicts)]
    return sum(old != new and 0 < new < 100 for old, new in itertools.pairwise(weights))


def _release(row: Row) -> StoredRelease:
    plan = plan_from_json(row["plan"])
    return StoredRelease(
        release=Release(
            id=ReleaseId(row["id"]),
            project=row["project"],
            candidate=VersionId(row["candidate"]),
            baseline=VersionId(row["baseline"]),
            notches_percent=plan.notches_percent,
            stage=Stage(row["stage"]),
            notch=row["notch"],
            ramp_weight=row["ramp_weight"],
            version=row["version"],
        ),
        plan=plan,
        evidence=evidence_from_json(row["evidence"]),
        run_id=RunId(row["run_id"]),
        because=row["because"],
    )
