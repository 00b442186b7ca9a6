"""Ten thousand random fleets: no more than there is, nobody late without need, within budgets;
and two stacks of this machine that share it."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ratchet.core.placement.replay import HOUR
from tests.deep.test_spot import Watch, stage
from tests.e2e.stack import Stack, ask
from tests.fleets import TICK, play, play_looks

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
    found += play_looks(seed)
    return [f"seed {seed}: {fault}" for fault in found]


def test_ten_thousand_random_fleets() -> None:
    with ProcessPoolExecutor() as pool:
        found = [
            fault for many in pool.map(faults_of, range(FLEETS), chunksize=50) for fault in many
        ]

    assert found == []


# What is asked to leave saves first; the next starts once it is gone.
LEAVES_SECONDS = 0.5


def in_pool(stack: Stack, name: str, pool: str, **values: int) -> None:
    """A spec whose gate stops it: what comes after training is no matter here."""
    spec = stack.spec(name, train="good.jsonl", **values)
    text = spec.read_text().replace("train: {", f"train: {{{pool}, ", 1)
    spec.write_text(text.replace("0.8}", "1.1}"))


def trained(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    return list(stage(stack.client().get(f"/runs/{run_id}")).get("attempts", []))


def test_a_more_urgent_project_has_the_other_leave_and_go_on_where_it_was(tmp_path: Path) -> None:
    """Two stacks with a PostgreSQL, a server and workers each; the fleet is the first's."""
    low, high = Stack(tmp_path / "low"), Stack(tmp_path / "high")
    low.prepare()
    high.prepare()
    in_pool(low, "slow", "pool: one", epochs=60, checkpoint_every=5)
    in_pool(high, "urgent", "pool: one, priority: 1")
    low.start()
    try:
        high.up(
            "--project", str(high.root / "project" / "good.yaml"), "--fleet-of", str(low.state.root)
        )
        high.until(lambda: ask(high.gateway).status_code == 200, 60, "baseline answers")
        high.client().put("/fleet", {"pools": {"one": {"on_demand": 1}}})
        with Watch(low, high) as watch:
            slow = low.start_run("slow")
            low.until(
                lambda: any(a["progress"].get("step") for a in trained(low, slow)), 120, "step"
            )
            quick = high.start_run("urgent")
            high.until(lambda: trained(high, quick), 150, "it has the slot")
            low.until(
                lambda: len(low.client().get("/fleet")["pools"][0]["claims"]) == 2, 60, "both"
            )
            shown = low.client().get("/fleet")
            ended = [high.end_of(quick, 600), low.end_of(slow, 600)]
        left = low.client().get("/fleet")
    finally:
        high.stop()
        low.stop()
    for claim in shown["pools"][0]["claims"]:
        print(claim["project"], claim["alive"], claim["because"])
    print(f"two at once for {watch.two_seconds:.1f} s; {left['projects']}")
    assert [run["state"] for run in ended] == ["gated", "gated"], ended
    states = [attempt["state"] for attempt in stage(ended[1])["attempts"]]
    assert states == ["preempted", "succeeded"]
    assert [attempt["state"] for attempt in stage(ended[0])["attempts"]] == ["succeeded"]
    assert watch.two_seconds <= LEAVES_SECONDS
    assert left["pools"][0]["claims"] == [], "slots are given back"
    assert left["projects"][0]["month_slot_seconds"] > 0
