"""Samples of counters that are read elsewhere, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.pool import Database, Row
from ratchet.core.errors import Conflict, NotFound
from ratchet.core.rollout import Release, ReleaseId
from ratchet.core.scrapes import Counters, Sample
from ratchet.ports import Position

SAMPLES_PER_READ_MAX = 1_000


class PostgresSamples:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def position(self, release: Release) -> Position:
        row = await self._db.one("position_of_release", project=release.project)
        if row is None:
            raise NotFound(f"project {release.project} is not routed")
        return Position(row["route_revision"], row["newest_unit"])

    async def add(
        self,
        release: Release,
        begun: Position,
        counters: Mapping[str, tuple[Counters, Counters]],
        now: datetime,
    ) -> None:
        value = {name: [[c.all, c.bad] for c in arms] for name, arms in counters.items()}
        added = await self._db.one(
            "add_sample",
            release_id=release.id,
            project=release.project,
            route_revision=begun.route_revision,
            candidate=release.candidate,
            newest_unit=begun.newest_unit,
            counters=Jsonb(value),
            now=now,
        )
        if added is None:
            raise Conflict(f"release {release.id}: the weights moved")

    async def after(self, release_id: ReleaseId, watermark: int) -> list[Sample]:
        rows = await self._db.all(
            "samples", release_id=release_id, watermark=watermark, limit=SAMPLES_PER_READ_MAX
        )
        return [sample_of(row) for row in rows]


def sample_of(row: Row) -> Sample:
    return Sample(
        sequence=row["sequence"],
        revision=row["route_revision"],
        weight=row["weight"],
        newest_unit=row["newest_unit"],
        counters={
            name: (Counters(*map(float, canary)), Counters(*map(float, baseline)))
            for name, (canary, baseline) in row["counters"].items()
        },
    )
