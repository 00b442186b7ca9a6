"""A hundred thousand steps of runs, prunes, pins and crashes: nothing that is kept is lost."""

from __future__ import annotations

import os

import pytest

from ratchet.adapters.postgres.pool import Database
from ratchet.operations import artifacts
from tests.pruning import World, live, orphans, settle
from tests.stored import with_database

pytestmark = pytest.mark.deep

STEPS = int(os.environ.get("RATCHET_PRUNE_STEPS", "100000"))
WORLDS = 10


@pytest.mark.parametrize("seed", range(100, 100 + WORLDS))
def test_no_order_of_steps_loses_what_is_kept(
    database_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "BORN_SECONDS", 10.0)
    worlds = []

    async def scenario(database: Database) -> None:
        world = World(database, seed)
        worlds.append(world)
        await live(world, STEPS // WORLDS)
        await settle(world)
        assert await orphans(world) == set()

    with_database(database_url, scenario)

    [world] = worlds
    print(
        f"{world.steps.taken} steps, {world.numbers} runs, {world.prunes} prunes, "
        f"{world.steps.crashes} crashes, {world.removed} removed, {world.checked} files looked at"
    )
    assert world.removed > STEPS // WORLDS // 100
