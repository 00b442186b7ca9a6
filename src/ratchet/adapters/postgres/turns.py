"""Turns and feedback in PostgreSQL: tables by project and day."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import TypeVar

import structlog

from ratchet.adapters.postgres.pool import Connection, Database, fetch
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Rejected
from ratchet.core.turns import Feedback, Turn
from ratchet.ports import Erased, Event

log = structlog.get_logger()

TABLES = ("turns", "feedback")
_Kept = TypeVar("_Kept", Turn, Feedback)


class PostgresTurns:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, turns: Sequence[Turn], now: datetime) -> int:
        return await self._add("turns", turns, _turn, now)

    async def add_feedback(self, said: Sequence[Feedback], now: datetime) -> int:
        return await self._add("feedback", said, _feedback, now)

    async def _add(
        self,
        table: str,
        kept: Sequence[_Kept],
        row: Callable[[_Kept], dict[str, object]],
        now: datetime,
    ) -> int:
        if not kept:
            return 0
        rows = [row(each) for each in kept]
        try:
            return await self._insert(table, rows, now)
        except Rejected as error:
            if len(kept) == 1:
                # It would come again for ever, and hold up all that follow it.
                log.error("cannot_be_kept", table=table, because=str(error)[:200])
                return 0
        return sum([await self._add(table, [each], row, now) for each in kept])

    async def _insert(self, table: str, rows: list[dict[str, object]], now: datetime) -> int:
        async with self._db.transaction() as tx:
            await _make_days(tx, table, rows)
            await fetch(tx, "lock_turns")
            found = await fetch(tx, f"add_{table}", now=now, **{table: json.dumps(rows)})
        return len(found)

    async def erase(self, project: str, subject: str, digest: str, now: datetime) -> Erased:
        async with self._db.transaction() as tx:
            await fetch(tx, "lock_turns")
            await fetch(tx, "put_erasure", project=project, subject=digest, now=now)
            turns = await fetch(tx, "erase_turns", project=project, subject=digest)
            said = await fetch(
                tx,
                "erase_feedback",
                project=project,
                subject=digest,
                request_ids=[turn["request_id"] for turn in turns],
            )
            named = await fetch(tx, "erase_conversations", project=project, name=subject)
        versions = sorted({turn["version_id"] for turn in turns})
        return Erased(
            turns=len(turns),
            feedback=len(said),
            conversations=len(named),
            versions=tuple(VersionId(version) for version in versions),
        )

    async def drop_before(self, project: str, first_day: date) -> list[str]:
        dropped: list[str] = []
        for table in TABLES:
            rows = await self._db.all(
                "drop_old_days", parent=table, project=project, first_day=first_day
            )
            dropped += [row["dropped"] for row in rows]
        return dropped

    async def after(self, follower: str, limit: int) -> list[Event]:
        async with self._db.transaction() as tx:
            known = await fetch(tx, "follower", name=follower)
            place = known[0]["sequence"] if known else 0
            rows = await fetch(tx, "follow", after=place, limit=limit)
        return [Event(row["sequence"], row["kind"], row["id"], row["event"]) for row in rows]

    async def move(self, follower: str, sequence: int, now: datetime) -> None:
        await self._db.all("move_follower", name=follower, sequence=sequence, now=now)


async def _make_days(tx: Connection, table: str, rows: Sequence[dict[str, object]]) -> None:
    days = {(str(row["project"]), str(row["at"])[:10]) for row in rows}
    await fetch(
        tx,
        "make_days",
        parent=table,
        projects=[project for project, _ in sorted(days)],
        days=[date.fromisoformat(day) for _, day in sorted(days)],
    )


def _turn(turn: Turn) -> dict[str, object]:
    return {
        "project": turn.project,
        "request_id": turn.request_id,
        "version": turn.version,
        "conversation": turn.conversation,
        "key_id": turn.key_id,
        "subjects": turn.subjects,
        "messages": turn.messages,
        "answer": turn.answer,
        "parameters": turn.parameters,
        "finish_reason": turn.finish_reason,
        "scrubbed": turn.scrubbed,
        "sample": turn.sample,
        "at": turn.started_at.astimezone(UTC).isoformat(),
    }


def _feedback(said: Feedback) -> dict[str, object]:
    return {
        "project": said.project,
        "id": said.id,
        "request_id": said.request_id,
        "conversation": said.conversation,
        "key_id": said.key_id,
        "subjects": said.subjects,
        "score": said.score,
        "thumbs": said.thumbs,
        "correction": said.correction,
        "comment": said.comment,
        "at": said.received_at.astimezone(UTC).isoformat(),
    }
