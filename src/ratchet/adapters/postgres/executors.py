"""Which server processes live, in PostgreSQL, for the reaper."""

from __future__ import annotations

from datetime import datetime

from ratchet.adapters.postgres.pool import Database
from ratchet.durable.reaper import Executor


class PostgresExecutors:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def beat(self, executor: Executor, now: datetime) -> None:
        await self._db.run(
            "beat_executor",
            id=executor.id,
            host=executor.host,
            pid=executor.pid,
            pid_started=executor.pid_started,
            now=now,
        )

    async def others(self, executor_id: str) -> list[Executor]:
        return [
            Executor(
                id=row["id"],
                host=row["host"],
                pid=row["pid"],
                pid_started=row["pid_started"],
                heartbeat_at=row["heartbeat_at"],
            )
            for row in await self._db.all("silent_executors", id=executor_id)
        ]

    async def mark_reaped(self, executor_id: str, now: datetime) -> None:
        await self._db.run("mark_reaped", id=executor_id, now=now)
