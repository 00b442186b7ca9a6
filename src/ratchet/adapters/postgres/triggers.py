"""Triggers: what was heard, where each has come to, and whom to tell, in PostgreSQL."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.codec import triggers_from_json
from ratchet.adapters.postgres.pool import Database
from ratchet.core.artifact import RunId
from ratchet.core.triggers import Push, Standing
from ratchet.ports import Delivery, Heard, Untold, Watched


class PostgresTriggers:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def watched(self) -> list[Watched]:
        return [
            Watched(
                project=row["name"],
                triggers=triggers_from_json(row["triggers"]),
                spec_file=Path(row["spec_file"]) if row["spec_file"] else None,
            )
            for row in await self._db.all("watched_projects")
        ]

    async def hear(self, delivery: Delivery) -> bool:
        found = await self._db.all(
            "hear_delivery",
            project=delivery.project,
            after=delivery.push.after,
            push=Jsonb(asdict(delivery.push)),
            source=delivery.source,
            now=delivery.heard_at,
        )
        return bool(found)

    async def waiting(self) -> list[Delivery]:
        return [
            Delivery(
                project=row["project"],
                push=Push(**row["push"]),
                source=row["source"],
                heard_at=row["heard_at"],
            )
            for row in await self._db.all("waiting_deliveries")
        ]

    async def settle(
        self, delivery: Delivery, heard: Heard, because: str, run_id: RunId | None, now: datetime
    ) -> None:
        await self._db.run(
            "settle_delivery",
            project=delivery.project,
            after=delivery.push.after,
            state=heard.value,
            because=because,
            run_id=run_id,
            now=now,
        )

    async def mark(self, project: str, name: str) -> tuple[datetime, str] | None:
        row = await self._db.one("trigger_mark", project=project, name=name)
        return None if row is None else (row["at"], row["word"])

    async def put_mark(self, project: str, name: str, at: datetime, word: str) -> None:
        await self._db.run("put_trigger_mark", project=project, name=name, at=at, word=word)

    async def run_of(self, project: str, key: str) -> RunId | None:
        row = await self._db.one("run_of_key", project=project, key=key)
        return None if row is None else RunId(row["id"])

    async def standing(self, project: str) -> list[Standing]:
        return [
            Standing(row["id"], row["kind"], row["is_queued"], row["is_released"])
            for row in await self._db.all("standing_runs", project=project)
        ]

    async def feedback_since_run(self, project: str) -> tuple[int, str]:
        row = await self._db.one("feedback_since_run", project=project)
        if row is None or not row["run_id"]:
            row = {**(await self._db.one("all_feedback", project=project) or {}), "run_id": ""}
        return int(row["new"]), str(row["run_id"])

    async def live_sources(self) -> list[Path]:
        return [Path(row["source_dir"]) for row in await self._db.all("live_sources")]

    async def untold(self, since: datetime) -> list[Untold]:
        return [
            Untold(
                project=row["project"],
                run_id=None if row["run_id"] is None else RunId(row["run_id"]),
                triggers=triggers_from_json(row["triggers"]),
                commit=row["commit"],
                state=row["state"],
                because=row["because"],
            )
            for row in await self._db.all("untold_commits", since=since)
        ]

    async def told(self, untold: Untold) -> None:
        if untold.run_id is None:
            await self._db.run("delivery_told", project=untold.project, after=untold.commit)
        else:
            await self._db.run("run_told", id=untold.run_id, state=untold.state)
