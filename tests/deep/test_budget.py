"""A run that has no more money stops with what it did, and another goes on from there."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import Stack

pytestmark = pytest.mark.deep

# Two cents a second: a run that would take minutes has some seconds.
PRICE = 72.0
RICH = f"usd_per_hour: {PRICE}"


def test_a_run_stops_at_its_budget_and_the_next_goes_on_from_there(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"machines": {"big": {"on_demand": PRICE}}}))
    stack = Stack(tmp_path, env={"RATCHET_PRICES": str(prices)})
    stack.prepare()
    for name, price, budget in (("poor", "machine: big", 0.5), ("rich", RICH, 50.0)):
        spec = stack.spec(name, train="good.jsonl", epochs=40, checkpoint_every=5)
        money = f"train: {{{price}, budget_usd: {budget}, "
        spec.write_text(spec.read_text().replace("train: {", money, 1).replace("0.8}", "1.1}"))
    stack.start()
    try:
        poor = stack.end_of(stack.start_run("poor"), 200)
        rich = stack.end_of(stack.start_run("rich"), 400)
        [month] = stack.client().get("/compute", project="colours")
    finally:
        stack.stop()

    assert poor["state"] == "failed"
    [check] = [stage for stage in poor["stages"] if stage["name"] == "check"]
    assert "train.machine: big: 72 USD an hour" in check["detail"]["notes"]
    assert poor["because"].startswith("train.budget_usd: 0.5 USD are used up")
    [stopped] = attempts(poor)
    assert stopped["state"] == "preempted"
    step = int(stopped["because"].split("after step ")[1].split()[0])
    assert spent(poor) <= 0.5 + 2 * PRICE / 3600 * 2, "over by two looks at most"
    assert rich["state"] == "gated", rich["because"]
    [went_on] = attempts(rich)
    assert went_on["progress"]["resumed_from"] == step > 0
    assert month["runs"] == 2
    assert month["usd"] == pytest.approx(month["seconds"] / 3600 * PRICE)


def attempts(run: dict[str, Any]) -> list[dict[str, Any]]:
    [train] = [stage for stage in run["stages"] if stage["name"] == "train"]
    found: list[dict[str, Any]] = train["attempts"]
    return found


def spent(run: dict[str, Any]) -> float:
    return sum(
        (
            datetime.fromisoformat(each["ended_at"]) - datetime.fromisoformat(each["started_at"])
        ).total_seconds()
        / 3600
        * PRICE
        for each in attempts(run)
    )
