"""Projects, runs, stages, attempts and what workers say, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.codec import spec_from_json, spec_to_json, triggers_to_json
from ratchet.adapters.postgres.pool import Database, Row, fetch
from ratchet.core.artifact import RunId, Version, VersionId
from ratchet.core.errors import Conflict, NotFound, Rejected
from ratchet.core.place import Place
from ratchet.core.routing import WEIGHT_TOTAL
from ratchet.core.run import (
    AttemptId,
    AttemptOutcome,
    AttemptState,
    RunState,
    StageName,
    StageState,
    check_run_move,
)
from ratchet.core.serving import from_json, to_json
from ratchet.core.spec import Spec
from ratchet.kit.ids import new_id
from ratchet.ports import Json, LiveAttempt, Project, Run, StageRecord, Wish


class PostgresProjects:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def put(self, spec: Spec, now: datetime) -> Project:
        others = [row["name"] for row in await self._db.all("list_projects")]
        if others and spec.project not in others:
            raise Rejected(
                f"this gateway serves project {others[0]!r}; a second project ({spec.project!r}) "
                "on one gateway is not built yet: start another stack with its own --state-dir"
            )
        known = await self._db.one("get_project", name=spec.project)
        if known and known["base"] != spec.base.source and known["baseline_version"]:
            # Adapters of one base are compared with each other; a new base is a new project.
            raise Rejected(
                f"project {spec.project!r} is built on {known['base']}, the file says "
                f"{spec.base.source}: use another project name for another base"
            )
        async with self._db.transaction() as tx:
            await fetch(
                tx,
                "put_project",
                name=spec.project,
                served_name=spec.served_name,
                base=spec.base.source,
                engine=spec.engine.value,
                serving=Jsonb(to_json(spec.serving)),
                triggers=Jsonb(triggers_to_json(spec.triggers)),
                retention=Jsonb(asdict(spec.retention)),
                now=now,
            )
            if known and (from_json(known["serving"]), known["served_name"]) != (
                spec.serving,
                spec.served_name,
            ):
                await fetch(tx, "bump_gateway", project=spec.project)
                await fetch(tx, "notify_gateway", project=spec.project)
        return await self.get(spec.project)

    async def put_spec_file(self, name: str, path: Path) -> None:
        await self._db.run("put_spec_file", name=name, spec_file=str(path))

    async def get(self, name: str) -> Project:
        known = await self.find(name)
        if known is None:
            raise NotFound(f"project {name!r} is not known here")
        return known

    async def find(self, name: str) -> Project | None:
        row = await self._db.one("get_project", name=name)
        return None if row is None else _project(row)

    async def listing(self) -> list[Project]:
        return [_project(row) for row in await self._db.all("list_projects")]

    async def first_baseline(self, version: Version, now: datetime) -> None:
        arms = Jsonb([{"version": version.id, "weight": WEIGHT_TOTAL}])
        async with self._db.transaction() as tx:
            row = (await fetch(tx, "get_project", name=version.project))[0]
            if row["baseline_version"] is not None:
                return
            await fetch(tx, "add_version", **version_row(version), now=now)
            await fetch(tx, "set_baseline", project=version.project, version=version.id)
            await fetch(tx, "put_gateway", project=version.project, arms=arms)
            await fetch(
                tx, "want_engine", version_id=version.id, project=version.project, drill=None,
                now=now,
            )  # fmt: skip
            await fetch(tx, "notify_gateway", project=version.project)


def version_row(version: Version) -> dict[str, object]:
    return {
        "id": version.id,
        "project": version.project,
        "base": version.base,
        "adapter_uri": version.adapter_uri,
        "adapter_digest": version.adapter_digest,
        "dataset_id": version.dataset_id,
        "recipe": Jsonb(version.recipe),
        "report": Jsonb(version.report),
        "run_id": version.run_id,
    }


def _project(row: Row) -> Project:
    return Project(
        name=row["name"],
        served_name=row["served_name"],
        base=row["base"],
        baseline=row["baseline_version"],
        serving=from_json(row["serving"]),
    )


class PostgresRuns:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(
        self,
        run: Run,
        key: str,
        now: datetime,
        not_before: datetime | None = None,
        supersedes: Sequence[str] = (),
    ) -> RunId:
        async with self._db.transaction() as tx:
            added = await fetch(
                tx,
                "add_run",
                id=run.id,
                project=run.spec.project,
                trigger=Jsonb(run.trigger),
                spec=Jsonb(spec_to_json(run.spec)),
                source_dir=str(run.source_dir),
                key=key,
                now=now,
                not_before=not_before,
            )
            if not added:
                known = await fetch(tx, "run_of_key", project=run.spec.project, key=key)
                return RunId(known[0]["id"])
            names = [stage.value for stage in StageName]
            await fetch(tx, "add_stages", run_id=run.id, names=names)
            because = f"superseded by {run.id}, which was asked for later"
            await fetch(tx, "supersede_runs", ids=list(supersedes), because=because, now=now)
        return run.id

    async def get(self, run_id: RunId) -> Run:
        row = await self._db.one("get_run", id=run_id)
        if row is None:
            raise NotFound(f"run {run_id} is not known here")
        return Run(
            id=RunId(row["id"]),
            state=RunState(row["state"]),
            spec=spec_from_json(row["spec"]),
            source_dir=Path(row["source_dir"]),
            trigger=row["trigger"],
            because=row["because"],
        )

    async def start_next(self, now: datetime) -> list[RunId]:
        await self._db.all("start_next_run", now=now)
        return [RunId(row["id"]) for row in await self._db.all("active_runs")]

    async def put_place(self, run_id: RunId, place: Place) -> None:
        await self._db.run("put_place_of_run", id=run_id, place=Jsonb(place.to_json()))

    async def move(
        self, run_id: RunId, current: RunState, wanted: RunState, because: str, now: datetime
    ) -> None:
        check_run_move(current, wanted)
        moved = await self._db.all(
            "move_run",
            id=run_id,
            from_state=current.value,
            to_state=wanted.value,
            because=because,
            ends=wanted.is_end,
            now=now,
        )
        if not moved:
            raise Conflict(f"run {run_id} is no longer {current.value}")


class PostgresStages:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def begin(self, run_id: RunId, stage: StageName, now: datetime) -> None:
        await self._db.run("begin_stage", run_id=run_id, name=stage.value, now=now)

    async def end(
        self,
        run_id: RunId,
        stage: StageName,
        state: StageState,
        detail: Json,
        because: str,
        now: datetime,
    ) -> None:
        await self._db.run(
            "end_stage",
            run_id=run_id,
            name=stage.value,
            state=state.value,
            detail=Jsonb(detail),
            because=because,
            now=now,
        )

    async def stop_open(
        self, run_id: RunId, state: StageState, because: str, now: datetime
    ) -> None:
        await self._db.run(
            "stop_open_stages", run_id=run_id, state=state.value, because=because, now=now
        )

    async def get(self, run_id: RunId, stage: StageName) -> StageRecord:
        rows = await self._db.all("list_stages", run_id=run_id)
        row = next((row for row in rows if row["name"] == stage.value), None)
        if row is None:
            raise NotFound(f"run {run_id} has no stage {stage.value}")
        return StageRecord(StageState(row["state"]), row["detail"], row["because"])


class PostgresAttempts:
    """Both sides of an attempt: the flow that wants it and the worker that lives it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def last(self, run_id: RunId, stage: StageName) -> AttemptOutcome | None:
        row = await self._last(run_id, stage)
        if row is None:
            return None
        return AttemptOutcome(
            row["number"], AttemptState(row["state"]), row["because"], row["in_place"]
        )

    async def _last(self, run_id: RunId, stage: StageName) -> Row | None:
        return await self._db.one("last_attempt", run_id=run_id, stage=stage.value)

    async def add(
        self, run_id: RunId, stage: StageName, number: int, assignment: Json, now: datetime
    ) -> None:
        await self._db.run(
            "add_attempt",
            id=new_id("att"),
            run_id=run_id,
            stage=stage.value,
            number=number,
            assignment=Jsonb(assignment),
            now=now,
        )

    async def result(self, run_id: RunId, stage: StageName) -> Json:
        row = await self._last(run_id, stage)
        if row is None or row["state"] != AttemptState.SUCCEEDED.value:
            raise NotFound(f"run {run_id} has no finished {stage.value}")
        result: Json = row["result"]
        return result

    async def end(
        self,
        attempt_id: AttemptId,
        state: AttemptState,
        result: Json | None,
        because: str,
        now: datetime,
    ) -> RunId | None:
        row = await self._db.one(
            "end_attempt",
            id=attempt_id,
            state=state.value,
            result=None if result is None else Jsonb(result),
            because=because,
            now=now,
        )
        return None if row is None else RunId(row["run_id"])

    async def cancel(self, run_id: RunId, because: str, now: datetime) -> None:
        await self._db.run("cancel_attempts", run_id=run_id, because=because, now=now)

    async def claim(self, attempt_id: AttemptId, now: datetime) -> Json:
        row = await self._db.one("claim_attempt", id=attempt_id, now=now)
        if row is None:
            raise Conflict(f"attempt {attempt_id} has ended or never was")
        assignment: Json = row["assignment"]
        return assignment

    async def heartbeat(
        self,
        attempt_id: AttemptId,
        progress: Json,
        losses: Sequence[tuple[int, float]],
        now: datetime,
    ) -> Wish:
        async with self._db.transaction() as tx:
            alive = await fetch(
                tx, "heartbeat_attempt", id=attempt_id, progress=Jsonb(progress), now=now
            )
            if not alive:
                return Wish.STOP
            if losses:
                run_id = (await fetch(tx, "get_attempt", id=attempt_id))[0]["run_id"]
                for step, loss in losses:
                    await fetch(tx, "add_loss_point", run_id=run_id, step=step, loss=loss)
        return Wish.GO_ON if alive[0]["stop_at"] is None else Wish.SAVE_AND_LEAVE

    async def spent_usd(self, run_id: RunId, now: datetime) -> float:
        row = await self._db.one("attempt_costs", run_id=run_id, now=now)
        return 0.0 if row is None else float(row["usd"])

    async def ask_to_leave(self, attempt_id: AttemptId, now: datetime) -> datetime:
        row = await self._db.one("ask_to_leave", id=attempt_id, now=now)
        if row is None:
            raise NotFound(f"attempt {attempt_id} is not known here")
        asked: datetime = row["stop_at"]
        return asked

    async def withdraw(self, attempt_id: AttemptId, because: str, now: datetime) -> bool:
        found = await self._db.one("withdraw_attempt", id=attempt_id, because=because, now=now)
        return found is not None

    async def tokens_per_second(self, project: str) -> float | None:
        row = await self._db.one("training_speed", project=project)
        return None if row is None else float(row["speed"])

    async def live(self) -> list[LiveAttempt]:
        return [
            LiveAttempt(
                id=AttemptId(row["id"]),
                run_id=RunId(row["run_id"]),
                stage=StageName(row["stage"]),
                state=AttemptState(row["state"]),
                heartbeat_at=row["heartbeat_at"],
                place=Place.from_json(row["place"]),
            )
            for row in await self._db.all("live_attempts")
        ]


class PostgresAudit:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(
        self, who: str, what: str, subject: str, old: str, new: str, because: str, now: datetime
    ) -> None:
        await self._db.run(
            "add_audit",
            who=who,
            what=what,
            subject=subject,
            old=old,
            new=new,
            because=because,
            now=now,
        )


def version_of_row(row: Row) -> Version:
    return Version(
        id=VersionId(row["id"]),
        project=row["project"],
        base=row["base"],
        adapter_uri=row["adapter_uri"],
        adapter_digest=row["adapter_digest"],
        dataset_id=row["dataset_id"],
        recipe=row["recipe"],
        report=row["report"],
        run_id=None if row["run_id"] is None else RunId(row["run_id"]),
    )
