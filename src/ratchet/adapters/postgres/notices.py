"""Notices that wait to be sent, in PostgreSQL."""

from __future__ import annotations

from datetime import datetime

from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.codec import channel_from_json, channel_to_json
from ratchet.adapters.postgres.pool import Connection, Database, Row, fetch
from ratchet.core.notices import Notice, is_told
from ratchet.core.rollout import JUDGE, Release, Signal, Stage
from ratchet.core.spec import ReleasePlan
from ratchet.ports import DueNotice

CLAIMED_MAX = 20


class PostgresNotices:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def claim(self, now: datetime) -> list[DueNotice]:
        found = []
        for row in await self._db.all("claim_notices", now=now, limit=CLAIMED_MAX):
            which = {"release_id": row["release_id"], "version": row["version"]}
            verdict = await self._db.one("noticed", **which)
            assert verdict is not None, "a notice refers to its verdict"
            notice = _notice(row, verdict)
            found.append(DueNotice(notice, channel_from_json(row["channel"]), row["attempts"]))
        return found

    async def sent(self, notice: Notice, now: datetime) -> None:
        await self._db.all("notice_sent", **_key(notice.id), now=now)

    async def failed(self, notice: Notice, problem: str, again_at: datetime | None) -> None:
        await self._db.all("notice_failed", **_key(notice.id), problem=problem, due_at=again_at)


async def write_down(
    tx: Connection, release: Release, before: Stage, plan: ReleasePlan, now: datetime
) -> None:
    """With the verdict, in its transaction."""
    for place, channel in enumerate(plan.notify):
        if is_told(channel, before, release.stage):
            value = Jsonb(channel_to_json(channel))
            await fetch(
                tx, "add_notice", release_id=release.id, version=release.version, place=place,
                channel=value, now=now,
            )  # fmt: skip


def _notice(row: Row, verdict: Row) -> Notice:
    return Notice(
        id=f"{row['release_id']}.{row['version']}.{row['place']}",
        project=verdict["project"],
        release_id=row["release_id"],
        run_id=verdict["run_id"],
        candidate=verdict["candidate"],
        from_stage=Stage(verdict["from_stage"]),
        to_stage=Stage(verdict["to_stage"]),
        weight_percent=float(verdict["weight_percent"]),
        # A pause of the judge's is a question, too (`release.approval`).
        asks=verdict["signal"] == Signal.ASK.value
        or (verdict["signal"] == Signal.PAUSE.value and verdict["who"] == JUDGE),
        because=verdict["because"],
        who=verdict["who"],
        at=verdict["at"],
    )


def _key(id_: str) -> dict[str, object]:
    release_id, version, place = id_.rsplit(".", 2)
    return {"release_id": release_id, "version": int(version), "place": int(place)}
