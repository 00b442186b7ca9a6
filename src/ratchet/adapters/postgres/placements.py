"""What trainings run on, in PostgreSQL."""

from __future__ import annotations

from datetime import datetime

from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.pool import Database
from ratchet.core.artifact import RunId
from ratchet.core.errors import NotFound
from ratchet.core.place import Place
from ratchet.core.placement.plan import Decision
from ratchet.core.run import AttemptId, AttemptState
from ratchet.ports import Training


class PostgresPlacements:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def training(self, run_id: RunId, project: str) -> Training:
        began = await self._db.one("training_began", run_id=run_id)
        if began is None or began["started_at"] is None:
            raise NotFound(f"run {run_id} has not begun to train")
        delay = await self._db.one("start_delay", project=project)
        row = await self._db.one("training_so_far", run_id=run_id)
        known = Training(
            began_at=began["started_at"],
            estimated_seconds=None if began["estimated"] is None else float(began["estimated"]),
            start_seconds=None if delay is None or delay["seconds"] is None else delay["seconds"],
        )
        if row is None:
            return known
        is_alive = not AttemptState(row["state"]).is_end
        return Training(
            began_at=known.began_at,
            estimated_seconds=known.estimated_seconds,
            start_seconds=known.start_seconds,
            attempt=AttemptId(row["id"]) if is_alive else None,
            asked_at=row["created_at"],
            started_at=row["started_at"] if is_alive else None,
            ended_at=row["ended_at"],
            works=row["works"],
            place=Place.from_json(row["place"]) if is_alive else None,
            progress=row["progress"],
        )

    async def add(self, run_id: RunId, decision: Decision, now: datetime) -> None:
        await self._db.run(
            "add_placement",
            run_id=run_id,
            at=now,
            action=decision.action.value,
            zone=decision.zone,
            because=decision.because,
            usd_expected=Jsonb(dict(decision.usd_expected)),
        )
