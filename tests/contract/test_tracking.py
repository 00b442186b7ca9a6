"""What a tracker missed while it was away is told when it is back, once."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.registry import PostgresRegistry
from ratchet.adapters.postgres.runs import PostgresRuns, PostgresStages
from ratchet.core.artifact import RunId, Version
from ratchet.core.errors import Unavailable
from ratchet.core.run import StageName, StageState
from ratchet.kit.clock import ManualClock
from ratchet.operations.tracking import TrackingParts, catch_up
from ratchet.ports import Run
from tests.stored import NOW, a_live_release, with_database


class Tracker:
    """A fake that is away until it is told to be there; the real one is in tests/deep."""

    def __init__(self) -> None:
        self.away = True
        self.told: list[tuple[str, list[tuple[int, float]]]] = []

    async def mirror(self, version: Version, run: Run, losses: Sequence[tuple[int, float]]) -> str:
        if self.away:
            raise Unavailable("connection refused")
        self.told.append((version.id, list(losses)))
        return "http://tracker/1"


def test_what_was_missed_is_told_once(database_url: str) -> None:
    tracker = Tracker()

    async def scenario(database: Database) -> None:
        await a_live_release(database)
        stages, run = PostgresStages(database), RunId("run_1")
        await stages.begin(run, StageName.TRAIN, NOW)
        detail = {"losses": [[1, 0.5]]}
        await stages.end(run, StageName.TRAIN, StageState.DONE, detail, "", NOW)
        registry = PostgresRegistry(database)
        parts = TrackingParts(PostgresRuns(database), stages, registry, tracker, ManualClock(NOW))

        assert await catch_up(parts) == 0
        [waiting] = await registry.not_mirrored(9)
        tracker.away = False
        assert await catch_up(parts) == 1
        assert await catch_up(parts) == 0
        assert tracker.told == [(waiting.id, [(1, 0.5)])]

    with_database(database_url, scenario)
