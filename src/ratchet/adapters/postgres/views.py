"""What people see: rows joined for pages, commands and reports.  Read only, plain JSON values."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from ratchet.adapters.postgres.codec import plan_from_json, triggers_from_json, triggers_to_json
from ratchet.adapters.postgres.evidence import evidence_from_json
from ratchet.adapters.postgres.pool import Database, Row
from ratchet.adapters.postgres.shadow import pairs_of
from ratchet.core.errors import NotFound
from ratchet.core.findings import as_data, findings, segment_findings
from ratchet.core.run import StageName
from ratchet.core.shadow import shadowed
from ratchet.core.triggers import next_time

View = dict[str, Any]
LIST_MAX = 200
# Columns of a release that only the judge reads.
JUDGES_OWN = ("evidence", "begun", "report")
# A turn that has not come by then is taken for lost; it may still come.
SETTLED_SECONDS = 60


class PostgresViews:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def projects(self) -> list[View]:
        return [_plain(row) for row in await self._db.all("list_projects")]

    async def costs(self) -> dict[str, float]:
        """US dollars that each version's answers cost, since ever."""
        rows = await self._db.all("cost_by_version")
        return {row["version_id"]: float(row["cost_usd"]) for row in rows}

    async def turns(
        self,
        project: str,
        limit: int,
        *,
        before: int | None = None,
        request_id: str | None = None,
        only_said: bool = False,
    ) -> list[View]:
        rows = await self._db.all(
            "list_turns",
            project=project,
            limit=min(limit, LIST_MAX),
            before=before,
            request_id=request_id,
            only_said=only_said,
        )
        return [_plain(row) for row in rows]

    async def capture(self, project: str, now: datetime) -> View:
        """Of the last day: sampled answers, and how many became turns; and what is stored."""
        counted = await self._db.one(
            "capture_counts",
            project=project,
            since=now - timedelta(days=1),
            settled_before=now - timedelta(seconds=SETTLED_SECONDS),
            now=now,
        )
        stored = await self._db.one("stored_turns", project=project)
        assert counted is not None
        assert stored is not None
        return _plain({**counted, **stored})

    async def triggers(self, project: str, limit: int, now: datetime) -> View:
        """What a project waits for, and what became of what was heard."""
        row = await self._db.one("get_project", name=project)
        if row is None:
            raise NotFound(f"project {project} is not known here")
        triggers = triggers_from_json(row["triggers"])
        marks = await self._db.all("trigger_marks_of", project=project)
        schedule = triggers.schedule
        deliveries = await self._db.all("list_deliveries", project=project, limit=limit)
        return {
            "triggers": triggers_to_json(triggers),
            "next_schedule": schedule and next_time(schedule, now).isoformat(),
            "last": {mark["name"]: _plain(mark) for mark in marks},
            "heard": [_plain(each) for each in deliveries],
        }

    async def runs(self, project: str | None, limit: int) -> list[View]:
        rows = await self._db.all("list_runs", project=project, limit=min(limit, LIST_MAX))
        return [_plain(row) for row in rows]

    async def run(self, run_id: str) -> View:
        row = await self._db.one("get_run", id=run_id)
        if row is None:
            raise NotFound(f"run {run_id} is not known here")
        view = _plain(row)
        order = [stage.value for stage in StageName]
        stages = [_plain(stage) for stage in await self._db.all("list_stages", run_id=run_id)]
        view["stages"] = sorted(stages, key=lambda stage: order.index(stage["name"]))
        attempts = [_plain(row) for row in await self._db.all("list_attempts", run_id=run_id)]
        for stage in view["stages"]:
            stage["attempts"] = [each for each in attempts if each["stage"] == stage["name"]]
            if stage["attempts"]:
                stage["attempt"] = stage["attempts"][-1]
        placements = await self._db.all("list_placements", run_id=run_id)
        view["placements"] = [_plain(placement) for placement in placements]
        view["loss"] = [
            [point["step"], point["loss"]]
            for point in await self._db.all("list_loss_points", run_id=run_id)
        ]
        release = await self._db.one("release_of_run", run_id=run_id)
        view["release_id"] = None if release is None else release["id"]
        version = await self._db.one("version_of_run", run_id=run_id)
        view["version_id"] = None if version is None else version["id"]
        return view

    async def compute(self, project: str, now: datetime, limit: int) -> list[View]:
        """What workers took and cost, by month, the newest first."""
        return await self._db.all(
            "compute_by_month", project=project, now=now, limit=min(limit, LIST_MAX)
        )

    async def workers(self, now: datetime) -> list[View]:
        """How many attempts there were, what they took and cost, by capacity and state."""
        return await self._db.all("compute_by_capacity", now=now)

    async def versions(self, project: str, limit: int) -> list[View]:
        rows = await self._db.all("list_versions", project=project, limit=min(limit, LIST_MAX))
        return [_plain(row) for row in rows]

    async def version(self, version_id: str) -> View:
        row = await self._db.one("get_version", id=version_id)
        if row is None:
            raise NotFound(f"version {version_id} is not known here")
        return _plain(row)

    async def releases(self, limit: int) -> list[View]:
        rows = await self._db.all("list_releases", limit=min(limit, LIST_MAX))
        return [_plain({k: v for k, v in row.items() if k not in JUDGES_OWN}) for row in rows]

    async def release(self, release_id: str) -> View:
        row = await self._db.one("get_release", id=release_id)
        if row is None:
            raise NotFound(f"release {release_id} is not known here")
        view = _plain({k: v for k, v in row.items() if k not in JUDGES_OWN})
        view["verdicts"] = [
            _plain(verdict)
            for verdict in await self._db.all("list_verdicts", release_id=release_id)
        ]
        view["points"] = [
            _plain(point)
            for point in await self._db.all("list_evidence_points", release_id=release_id)
        ]
        plan = plan_from_json(row["plan"])
        evidence = evidence_from_json(row["evidence"], plan)
        view["guards"] = [as_data(finding) for finding in findings(evidence)]
        view["segments"] = [as_data(finding) for finding in segment_findings(evidence)]
        view["shadow"] = await self._shadow(release_id) if plan.shadow else None
        view["notices"] = [
            _plain(notice) for notice in await self._db.all("list_notices", release_id=release_id)
        ]
        view["traffic"] = await self.traffic(row["project"], row["created_at"])
        return view

    async def _shadow(self, release_id: str) -> View:
        rows = await self._db.all("shadow_pairs", release_id=release_id, correction=False)
        seen = shadowed(pairs_of(rows))
        checks = [{**asdict(check), "e": math.exp(check.log_harm)} for check in seen.checks]
        return {"compared": seen.compared, "silent": seen.silent, "left": seen.left,
                "checks": checks}  # fmt: skip

    async def traffic(self, project: str, since: datetime) -> list[View]:
        rows = await self._db.all("traffic_by_version", project=project, since=since)
        return [_plain(row) for row in rows]

    async def weight_changes(self, project: str, limit: int) -> list[View]:
        rows = await self._db.all("list_weight_changes", project=project, limit=limit)
        return [_plain(row) for row in rows]

    async def engines(self) -> list[View]:
        return [_plain(row) for row in await self._db.all("list_engines")]

    async def places(self) -> list[View]:
        return [_plain(row) for row in await self._db.all("list_places")]

    async def gateways(self) -> list[View]:
        return [_plain(row) for row in await self._db.all("list_gateway_reports")]

    async def keys(self, project: str, limit: int) -> list[View]:
        rows = await self._db.all("list_keys", project=project, limit=min(limit, LIST_MAX))
        return [_plain(row) for row in rows]

    async def usage(self, project: str, since: datetime, limit: int) -> list[View]:
        day = since.astimezone(UTC).date()
        rows = await self._db.all(
            "usage_by_key", project=project, since=day, limit=min(limit, LIST_MAX)
        )
        seen = {
            (row["day"], row["key_id"]): row
            for row in await self._db.all("untold_by_key", project=project, since=since)
        }
        none = {"failed": 0, "untold": 0}
        return [
            _plain(row) | {name: seen.get((row["day"], row["key_id"]), none)[name] for name in none}
            for row in rows
        ]

    async def budgets(self, project: str, now: datetime) -> list[View]:
        today = now.astimezone(UTC).date()
        rows = await self._db.all("budgets_spent", today=today, project=project)
        return [_plain(row) for row in rows]

    async def project_of_budget(self, budget_id: str) -> str:
        row = await self._db.one("get_budget", id=budget_id)
        if row is None:
            raise NotFound(f"budget {budget_id} is not known here")
        return str(row["project"])

    async def prices(self, project: str) -> list[View]:
        return [_plain(row) for row in await self._db.all("list_prices", project=project)]

    async def audit(self, limit: int) -> list[View]:
        return [_plain(row) for row in await self._db.all("list_audit", limit=limit)]


def _plain(row: Row) -> View:
    return {key: _text(value) for key, value in row.items()}


def _text(value: Any) -> Any:
    if isinstance(value, Decimal):
        # As text: a float would not be the amount.
        return f"{value.normalize():f}"
    return value.isoformat() if isinstance(value, date) else value
