"""Nothing that is needed goes, and what nobody needs does, whoever crashes when."""

from __future__ import annotations

import pytest

from tests.pruning import one_world


@pytest.mark.parametrize("seed", [1, 2])
def test_runs_prunes_pins_and_crashes_lose_nothing_that_is_kept(
    database_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = one_world(database_url, seed, 1_500, monkeypatch)

    assert world.removed > 20, "it was a test of nothing"
    assert world.steps.crashes > 5
    assert world.checked > 100
