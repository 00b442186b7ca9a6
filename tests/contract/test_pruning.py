"""Nothing that is needed goes, and what nobody needs does, whoever crashes when."""

from __future__ import annotations

import pytest

from ratchet.adapters.postgres.pool import Database
from ratchet.operations import artifacts
from tests.pruning import World, live, orphans, settle
from tests.stored import with_database

STEPS = 1_500


@pytest.mark.parametrize("seed", [1, 2])
def test_runs_prunes_pins_and_crashes_lose_nothing_that_is_kept(
    database_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "BORN_SECONDS", 10.0)
    worlds = []

    async def scenario(database: Database) -> None:
        world = World(database, seed)
        worlds.append(world)
        await live(world, steps=STEPS)
        await settle(world)
        assert await orphans(world) == set()

    with_database(database_url, scenario)

    [world] = worlds
    assert world.removed > 20, "it was a test of nothing"
    assert world.steps.crashes > 5
    assert world.checked > 100
