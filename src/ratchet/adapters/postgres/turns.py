"""Turns and feedback in PostgreSQL: tables by project and day."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from ratchet.adapters.postgres.pool import Connection, Database, Row, fetch, keep_all
from ratchet.core.artifact import VersionId
from ratchet.core.captured import Answered, Opinion
from ratchet.core.spec import LearnedTurns
from ratchet.core.turns import Feedback, Turn
from ratchet.ports import Erased, Event

TABLES = ("turns", "feedback")


class PostgresTurns:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, turns: Sequence[Turn], now: datetime) -> int:
        rows = [_turn(each) for each in turns]
        return len(await keep_all(rows, lambda some: self._add("turns", some, now)))

    async def add_feedback(self, said: Sequence[Feedback], now: datetime) -> int:
        rows = [_feedback(each) for each in said]
        return len(await keep_all(rows, lambda some: self._add("feedback", some, now)))

    async def _add(self, table: str, rows: Sequence[Row], now: datetime) -> set[str]:
        async with self._db.transaction() as tx:
            await _make_days(tx, table, rows)
            await fetch(tx, "lock_turns")
            values = {table: json.dumps(list(rows)), "now": now}
            return {row["id"] for row in await fetch(tx, f"add_{table}", **values)}

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
            await fetch(tx, "erase_tenant", project=project, name=subject)
        versions = sorted({turn["version_id"] for turn in turns})
        return Erased(
            turns=len(turns),
            feedback=len(said),
            conversations=len(named),
            versions=tuple(VersionId(version) for version in versions),
        )

    async def answered(self, project: str, plan: LearnedTurns, now: datetime) -> list[Answered]:
        rows = await self._db.all(
            "answered_turns",
            project=project,
            since=now - timedelta(seconds=plan.since_seconds),
            keys=list(plan.keys),
            limit=plan.rows_max,
        )
        return [
            Answered(
                request_id=row["request_id"],
                conversation=row["conversation"],
                messages=row["messages"],
                answer=row["answer"],
                opinions=[Opinion(**said) for said in row["opinions"]],
            )
            for row in rows
        ]

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


async def _make_days(tx: Connection, table: str, rows: Sequence[Row]) -> None:
    days = {(str(row["project"]), str(row["at"])[:10]) for row in rows}
    await fetch(
        tx,
        "make_days",
        parent=table,
        projects=[project for project, _ in sorted(days)],
        days=[date.fromisoformat(day) for _, day in sorted(days)],
    )


def _turn(turn: Turn) -> Row:
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


def _feedback(said: Feedback) -> Row:
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
