"""Releases, their evidence and verdicts, in PostgreSQL.

A decision and all its consequences commit in one transaction: the release, the verdict, the
weights, the baseline and which engines should run.  What carries them out (agents, supervisor)
follows the stored state, so there is nothing to send twice and nothing to lose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta

from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.codec import plan_from_json, plan_to_json
from ratchet.adapters.postgres.evidence import (
    evidence_from_json,
    evidence_to_json,
    watermarks,
    watermarks_from,
)
from ratchet.adapters.postgres.notices import write_down
from ratchet.adapters.postgres.pool import Connection, Database, Row, fetch
from ratchet.adapters.postgres.samples import sample_of
from ratchet.adapters.postgres.shadow import pairs_of
from ratchet.adapters.postgres.units import answer_of, kept_unit_of, late_unit_of, unit_of
from ratchet.core.analysis import Recent
from ratchet.core.artifact import RunId, VersionId
from ratchet.core.errors import Conflict, NotFound, Rejected
from ratchet.core.evidence import Unit
from ratchet.core.findings import describe
from ratchet.core.guards import Group
from ratchet.core.late import LateUnit
from ratchet.core.measures import by_guard
from ratchet.core.replay import Recorded
from ratchet.core.report import Entry
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
from ratchet.core.routing import WEIGHT_TOTAL, arms_for
from ratchet.core.segments import Dimension, frequent, is_of
from ratchet.core.spec import ReleasePlan
from ratchet.ports import Act, History, Metric, StoredRelease, Taken

# Requests in flight on an arm that was just emptied get this long to end.
DRAIN_SECONDS = 30.0
UNITS_PER_READ_MAX = 5_000
LATE_PER_READ_MAX = 1_000
REFERENCE_UNITS = 500
SEGMENT_UNITS = 2_000
# Answers that a look at the newest ones sees.
RECENT_CANARY, RECENT_BASELINE = 32, 100
# Of people, by which a judge is measured.
CORRECTIONS = 20
# Of a release, at one in fifteen seconds: half a year.
SAMPLES_MAX = 1_000_000
RATE_SECONDS = 60.0
IN_FLIGHT_SECONDS = 10.0
# Of an engine's room, the rest is for moments that are busier than the average.
ROOM_SHARE = 0.8


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
                    drill=None if drill is None else Jsonb(asdict(drill)),
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

    async def serving(self, project: str) -> VersionId:
        row = await self._db.one("get_project", name=project)
        if row is None or row["baseline_version"] is None:
            raise NotFound(f"project {project} serves nothing")
        return VersionId(row["baseline_version"])

    async def commit(
        self, stored: StoredRelease, decision: Decision, act: Act, taken: Taken, now: datetime
    ) -> None:
        before, after = stored.release, decision.release
        async with self._db.transaction() as tx:
            serving = (await fetch(tx, "lock_project", name=after.project))[0]
            if after.stage is Stage.CANARY and serving["baseline_version"] != after.baseline:
                raise Conflict(f"{serving['baseline_version']} serves now, not {after.baseline}")
            saved = await fetch(
                tx,
                "commit_release",
                id=after.id,
                stage=after.stage.value,
                notch=after.notch,
                ramp_weight=after.ramp_weight,
                asks=after.asks,
                plan=Jsonb(plan_to_json(stored.plan)),
                version=after.version,
                evidence=Jsonb(evidence_to_json(stored.evidence)),
                because=act.because,
                now=now,
            )
            if not saved:
                raise Conflict(f"release {after.id} moved on from version {before.version}")
            await _keep(tx, after.project, taken)
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
                watermarks=Jsonb(watermarks(stored.evidence)),
                who=act.who,
                now=now,
            )
            await write_down(tx, after, before.stage, stored.plan, now)
            if after.stage is Stage.SHADOW and before.stage is Stage.STARTING:
                await _choose_prompts(tx, after, stored.plan)
            for command in decision.commands:
                await _carry_out(tx, after, command, act.because, now)
            await fetch(tx, "notify_gateway", project=after.project)

    async def ledger(self, release_id: ReleaseId) -> list[Entry]:
        return [
            Entry(
                at=row["at"],
                from_stage=row["from_stage"],
                to_stage=row["to_stage"],
                weight_percent=row["weight_percent"],
                because=row["because"],
                who=row["who"],
            )
            for row in await self._db.all("list_verdicts", release_id=release_id)
        ]

    async def without_report(self) -> list[ReleaseId]:
        return [ReleaseId(row["id"]) for row in await self._db.all("without_report")]

    async def put_report(self, release_id: ReleaseId, report: str) -> None:
        await self._db.all("put_report", id=release_id, report=report)

    async def save_evidence(self, stored: StoredRelease, taken: Taken, now: datetime) -> None:
        release = stored.release
        async with self._db.transaction() as tx:
            saved = await fetch(
                tx,
                "save_evidence",
                id=release.id,
                version=release.version,
                evidence=Jsonb(evidence_to_json(stored.evidence)),
                because=stored.because,
                now=now,
            )
            if not saved:
                raise Conflict(f"release {release.id} moved on from version {release.version}")
            await _keep(tx, release.project, taken)
            await fetch(
                tx,
                "add_evidence_point",
                release_id=release.id,
                weight=release.weight_percent,
                numbers=Jsonb(describe(stored.evidence)),
                now=now,
            )

    async def units(self, release: Release, watermark: int, now: datetime) -> list[Unit]:
        rows = await self._units(release, watermark)
        return [unit_of(row, release, now) for row in rows]

    async def late_units(
        self, release: Release, group: Group, watermark: int, now: datetime
    ) -> list[LateUnit]:
        rows = await self._db.all(
            "late_units",
            project=release.project,
            candidate=release.candidate,
            watermark=watermark,
            limit=LATE_PER_READ_MAX,
        )
        return [late_unit_of(row, release, group, now) for row in rows]

    async def push(self, project: str, metrics: Sequence[Metric], now: datetime) -> int:
        told = [{"request_id": m.request_id, "name": m.name, "value": m.value} for m in metrics]
        async with self._db.transaction() as tx:
            new = await fetch(tx, "push_metrics", project=project, metrics=Jsonb(told), now=now)
        return len(new)

    async def newest_unit(self, project: str) -> int:
        row = await self._db.one("newest_unit", project=project)
        return 0 if row is None else int(row["sequence"])

    async def recent(self, stored: StoredRelease) -> Recent:
        release = stored.release
        canary, baseline = [
            await self._db.all(
                "recent_answers",
                version_id=version,
                candidate=release.candidate,
                release_id=release.id,
                limit=limit,
            )
            for version, limit in (
                (release.candidate, RECENT_CANARY),
                (release.baseline, RECENT_BASELINE),
            )
        ]
        in_a_row = next((n for n, row in enumerate(canary) if not row["failed"]), len(canary))
        return Recent(
            canary_failures_in_a_row=in_a_row,
            baseline_units=len(baseline),
            baseline_failed=sum(row["failed"] for row in baseline),
        )

    async def history(self, release_id: ReleaseId) -> History:
        row = await self._db.one("get_release", id=release_id)
        if row is None:
            raise NotFound(f"release {release_id} is not known here")
        if row["begun"] is None or "streams" not in row["begun"]:
            raise Rejected(f"release {release_id} was judged by an older Ratchet, by other rules")
        stored = _release(row)
        begun = evidence_from_json(row["begun"], stored.plan)
        verdicts = [
            _recorded(v) for v in await self._db.all("list_verdicts", release_id=release_id)
        ]
        last = max(
            (
                place
                for verdict in verdicts
                for group, place in verdict.watermarks.items()
                if group is not Group.SCRAPED
            ),
            default=0,
        )
        rows: list[Row] = []
        while more := await self._units(
            stored.release, rows[-1]["sequence"] if rows else begun.watermark
        ):
            rows += more
            if rows[-1]["sequence"] >= last:
                break
        # When it was looked at no longer matters: what was not there then was censored.
        units = [unit_of(row, stored.release, row["assigned_at"]) for row in rows]
        by_group = {Group.FAST: units}
        for group in stored.plan.groups:
            if group not in (Group.FAST, Group.SCRAPED):
                pairs = zip(units, (row[group.value] for row in rows), strict=True)
                by_group[group] = [kept_unit_of(u, kept) for u, kept in pairs if kept is not None]
        samples = await self._db.all(
            "samples", release_id=release_id, watermark=0, limit=SAMPLES_MAX
        )
        shown = await self._db.all("shadow_pairs", release_id=release_id, correction=False)
        return History(
            plan=stored.plan,
            begun=begun,
            units=by_group,
            verdicts=tuple(verdicts),
            pairs=pairs_of(shown),
            samples=[sample_of(row) for row in samples],
        )

    async def _units(self, release: Release, watermark: int) -> list[Row]:
        return await self._db.all(
            "units",
            project=release.project,
            candidate=release.candidate,
            watermark=watermark,
            limit=UNITS_PER_READ_MAX,
        )

    async def baseline_measures(self, version: VersionId) -> Mapping[str, Sequence[float]]:
        rows = await self._db.all("recent_measures", version_id=version, limit=REFERENCE_UNITS)
        return by_guard([answer_of({**row, "failed": False}) for row in rows])

    async def segment_measures(
        self, version: VersionId, dimensions: Sequence[Dimension]
    ) -> Mapping[str, Mapping[str, Sequence[float]]]:
        rows = await self._db.all("recent_measures", version_id=version, limit=SEGMENT_UNITS)
        return {
            segment: by_guard(
                [
                    answer_of({**row, "failed": False})
                    for row in rows
                    if is_of(row["known"], segment)
                ]
            )
            for segment in frequent(dimensions, [row["known"] for row in rows])
        }

    async def answers(self, project: str, since: datetime) -> tuple[int, int]:
        row = await self._db.one("count_answers", project=project, since=since)
        return (0, 0) if row is None else (int(row["answers"]), int(row["failed"]))

    async def requests_per_second(self, project: str, now: datetime) -> float:
        since = now - timedelta(seconds=RATE_SECONDS)
        row = await self._db.one("requests_per_second", project=project, since=since, now=now)
        return 0.0 if row is None else float(row["per_second"])

    async def capacity_share(self, release: Release, now: datetime) -> float:
        since = now - timedelta(seconds=IN_FLIGHT_SECONDS)
        row = await self._db.one(
            "capacity", project=release.project, candidate=release.candidate, since=since, now=now
        )
        if row is None or row["room"] is None or not row["in_flight"] * row["engines"]:
            # None at all is no question of room: the judge sees for how long it is down.
            return math.inf
        return float(ROOM_SHARE * row["engines"] * row["room"] / row["in_flight"])

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


async def _choose_prompts(tx: Connection, release: Release, plan: ReleasePlan) -> None:
    shadow = plan.shadow
    if shadow is None:
        return
    which = {"release_id": release.id, "project": release.project}
    await fetch(tx, "choose_pairs", **which, baseline=release.baseline, pairs=shadow.pairs)
    if shadow.judge is not None:
        await fetch(tx, "choose_corrections", **which, pairs=CORRECTIONS)


async def _keep(tx: Connection, project: str, taken: Taken) -> None:
    if taken.censored:
        await fetch(tx, "censor_units", project=project, sequences=list(taken.censored))
    for group, values in taken.late.items():
        if values:
            rows = [{"sequence": place, "value": dict(value)} for place, value in values.items()]
            await fetch(tx, f"keep_{group.value}", project=project, values=Jsonb(rows))


async def _carry_out(
    tx: Connection, release: Release, command: Command, because: str, now: datetime
) -> None:
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
        case RetireEngine(version):
            stop_after = now + timedelta(seconds=DRAIN_SECONDS)
            await fetch(tx, "retire_engine", version_id=version, stop_after=stop_after)


def _recorded(row: Row) -> Recorded:
    return Recorded(
        signal=row["signal"],
        weight_percent=row["weight_percent"],
        because=row["because"],
        # A jsonb number without a fraction, however large, comes back as an int.
        numbers={name: float(value) for name, value in row["numbers"].items()},
        watermarks=watermarks_from(row["watermarks"]),
    )


def _release(row: Row) -> StoredRelease:
    plan = plan_from_json(row["plan"])
    holdback = round(plan.holdback_share * WEIGHT_TOTAL) if plan.holdback_seconds else 0
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
            holdback_weight=holdback,
            asks=row["asks"],
            has_shadow=plan.shadow is not None,
            version=row["version"],
        ),
        plan=plan,
        evidence=evidence_from_json(row["evidence"], plan),
        run_id=RunId(row["run_id"]),
        because=row["because"],
        entered_at=row["entered_at"],
        problem=row["problem"],
    )
