"""A hundred thousand steps of runs, prunes, pins and crashes: nothing that is kept is lost."""

from __future__ import annotations

import os

import pytest

from tests.pruning import one_world

pytestmark = pytest.mark.deep

STEPS = int(os.environ.get("RATCHET_PRUNE_STEPS", "100000"))
WORLDS = 10


@pytest.mark.parametrize("seed", range(100, 100 + WORLDS))
def test_no_order_of_steps_loses_what_is_kept(
    database_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = one_world(database_url, seed, STEPS // WORLDS, monkeypatch)

    print(
        f"{world.steps.taken} steps, {world.numbers} runs, {world.prunes} prunes, "
        f"{world.steps.crashes} crashes, {world.removed} removed, {world.checked} files looked at"
    )
    assert world.removed > STEPS // WORLDS // 100
