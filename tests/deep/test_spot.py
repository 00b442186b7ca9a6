"""A training on spot capacity that comes and goes: taken away, in time, and the same."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.e2e.stack import Stack

pytestmark = pytest.mark.deep

# A probe of ten minutes in five seconds.
SPEED = 120.0
DEADLINE_SECONDS = 600.0
PRICES = "usd_per_hour: 3.0, spot_usd_per_hour: 1.0"
# Up for half a minute, away for ten seconds; sometimes for longer.
ZONE = ([1] * 6 + [0] * 2) * 3 + [1] * 8 + [0] * 4


def test_a_run_that_is_taken_away_five_times_is_in_time_and_the_same(tmp_path: Path) -> None:
    trace = tmp_path / "zone-a.json"
    trace.write_text(json.dumps({"metadata": {"gap_seconds": 600}, "data": ZONE * 40}))
    played = {
        "RATCHET_SPOT_TRACES": str(trace),
        "RATCHET_SPOT_SPEED": str(SPEED),
        "RATCHET_SPOT_NOTICE_SECONDS": "2",
    }
    stack = Stack(tmp_path, env=played)
    stack.prepare()
    for name, place in (
        ("steady", PRICES),
        ("spot", f"{PRICES}, capacity: spot, deadline: {DEADLINE_SECONDS:.0f}s"),
    ):
        spec = stack.spec(name, train="good.jsonl", epochs=45, checkpoint_every=5)
        text = spec.read_text().replace("train: {", f"train: {{{place}, ", 1)
        spec.write_text(text.replace("0.8}", "1.1}"))
    stack.start()
    try:
        steady = stack.end_of(stack.start_run("steady"), 400)
        spot = stack.end_of(stack.start_run("spot"), 900)
        page = httpx.get(
            f"http://127.0.0.1:{stack.ports.http}/runs/{spot['id']}", timeout=20.0
        ).text
    finally:
        stack.stop()

    assert steady["state"] == spot["state"] == "gated", (steady["because"], spot["because"])
    train = stage(spot)
    states = [attempt["state"] for attempt in train["attempts"]]
    took = (moment(train["ended_at"]) - moment(train["started_at"])).total_seconds()
    usd, instead = cost(spot), cost(steady)
    print(f"{states}, {took:.0f} s, {usd:.4f} USD; on demand {instead:.4f} USD")
    for choice in spot["placements"]:
        print(choice["at"][11:19], choice["action"], choice["zone"], choice["because"])
    assert states.count("preempted") + states.count("lost") >= 5
    assert states[-1] == "succeeded"
    assert took <= DEADLINE_SECONDS
    assert train["detail"]["adapter_digest"] == stage(steady)["detail"]["adapter_digest"]
    assert {choice["action"] for choice in spot["placements"]} >= {"spot", "wait"}
    assert page.count('<rect class="strip spot"') >= 5


def stage(run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in run["stages"] if each["name"] == "train")
    return found


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def cost(run: dict[str, Any]) -> float:
    hours = [
        (moment(each["ended_at"]) - moment(each["started_at"])).total_seconds() / 3600
        for each in stage(run)["attempts"]
        if each["started_at"]
    ]
    prices = [each["usd_per_hour"] for each in stage(run)["attempts"] if each["started_at"]]
    return float(sum(hour * price for hour, price in zip(hours, prices, strict=True)))
