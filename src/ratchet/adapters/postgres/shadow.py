"""Replayed prompts, what came of them, and what judges said, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.pool import Database, Row
from ratchet.core.rollout import Release, ReleaseId
from ratchet.core.shadow import Outcome, Pair, Preference
from ratchet.ports import Prompt


class PostgresShadow:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def next_prompts(self, release: Release, limit: int) -> list[Prompt]:
        rows = await self._db.all(
            "next_pairs", release_id=release.id, project=release.project, limit=limit
        )
        return [_prompt(row) for row in rows]

    async def put(self, release_id: ReleaseId, prompt: Prompt, pair: Pair) -> None:
        outcomes = {name: outcome.value for name, outcome in pair.outcomes.items()}
        await self._db.all(
            "put_pair",
            release_id=release_id,
            position=prompt.position,
            correction=prompt.correction is not None,
            outcomes=Jsonb(outcomes),
            silence=pair.silence,
        )

    async def pairs(self, release_id: ReleaseId) -> list[Pair | None]:
        return await self._pairs(release_id, of_people=False)

    async def corrections(self, release_id: ReleaseId) -> list[Pair | None]:
        return await self._pairs(release_id, of_people=True)

    async def _pairs(self, release_id: ReleaseId, *, of_people: bool) -> list[Pair | None]:
        rows = await self._db.all("shadow_pairs", release_id=release_id, correction=of_people)
        return pairs_of(rows)

    async def put_problem(self, release_id: ReleaseId, problem: str) -> None:
        await self._db.all("put_problem", release_id=release_id, problem=problem)

    async def preference(self, digest: str) -> Preference | None:
        row = await self._db.one("preference", digest=digest)
        return None if row is None else Preference(row["said"])

    async def put_preference(self, digest: str, said: Preference, now: datetime) -> None:
        await self._db.all("put_preference", digest=digest, said=said.value, now=now)


def pairs_of(rows: Sequence[Row]) -> list[Pair | None]:
    return [
        None
        if row["outcomes"] is None
        else Pair({name: Outcome(said) for name, said in row["outcomes"].items()}, row["silence"])
        for row in rows
    ]


def _prompt(row: Row) -> Prompt:
    is_gone = row["answer"] is None or (row["correction"] and row["corrected"] is None)
    return Prompt(
        position=row["position"],
        request_id=row["request_id"],
        messages=() if is_gone else tuple(row["messages"]),
        answer={} if is_gone else row["answer"],
        parameters={} if is_gone else row["parameters"],
        correction=(row["corrected"] or "") if row["correction"] else None,
    )
