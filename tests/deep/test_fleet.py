"""Ten thousand random fleets: no more than there is, nobody late without need, within budgets."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import pytest

from ratchet.core.placement.replay import HOUR
from tests.fleets import TICK, play

pytestmark = pytest.mark.deep

FLEETS = 10_000


def faults_of(seed: int) -> list[str]:
    kind = seed % 3
    played = play(seed, ample=kind == 1, budget=kind == 2)
    found = list(played.watched.faults)
    if kind == 1:
        found += [f"{name} is late" for name in played.late]
    if played.budget_usd is not None:
        mine = [arrival for arrival in played.arrivals if arrival.project == "project-0"]
        a_look = sum(arrival.slots for arrival in mine) * 3.0 * TICK / HOUR
        spent = played.fleet.shares["project-0"].usd_spent
        if spent > played.budget_usd + a_look:
            found.append(f"{spent} USD of {played.budget_usd}")
    return [f"seed {seed}: {fault}" for fault in found]


def test_ten_thousand_random_fleets() -> None:
    with ProcessPoolExecutor() as pool:
        found = [
            fault for many in pool.map(faults_of, range(FLEETS), chunksize=50) for fault in many
        ]

    assert found == []
