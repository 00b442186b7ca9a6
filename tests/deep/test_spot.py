"""A training on spot capacity that comes and goes: taken away, in time, and the same."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter, defaultdict
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


KILLS = 20
KILL_PAUSE_SECONDS = (8.0, 20.0)
NOTICE_SECONDS = 2.0


def prepared(root: Path) -> Stack:
    """A stack on played capacity, with one training on a machine that stays and one on spot."""
    trace = root / "zone-a.json"
    trace.write_text(json.dumps({"metadata": {"gap_seconds": 600}, "data": ZONE * 40}))
    played = {
        "RATCHET_SPOT_TRACES": str(trace),
        "RATCHET_SPOT_SPEED": str(SPEED),
        "RATCHET_SPOT_NOTICE_SECONDS": f"{NOTICE_SECONDS:g}",
    }
    stack = Stack(root, env=played)
    stack.prepare()
    for name, place in (
        ("steady", PRICES),
        ("spot", f"{PRICES}, capacity: spot, deadline: {DEADLINE_SECONDS:.0f}s"),
    ):
        spec = stack.spec(name, train="good.jsonl", epochs=60, checkpoint_every=5)
        text = spec.read_text().replace("train: {", f"train: {{{place}, ", 1)
        spec.write_text(text.replace("0.8}", "1.1}"))
    return stack


def test_a_run_that_is_taken_away_five_times_is_in_time_and_the_same(tmp_path: Path) -> None:
    stack = prepared(tmp_path)
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


class Watch:
    """Looks at the workers' processes as the machine shows them, in a thread."""

    def __init__(self, *stacks: Stack) -> None:
        self._stacks, self._stop = stacks, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.alive_seconds: defaultdict[str, float] = defaultdict(float)
        """By attempt."""
        self.two_seconds = 0.0
        """The longest time in which two were at work at once."""

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        before, two_since = time.monotonic(), None
        while not self._stop.wait(0.2):
            now = time.monotonic()
            pids = [pid for stack in self._stacks for pid in stack.pids("ratchet.train.main")]
            attempts = set(filter(None, map(_attempt, pids)))
            for attempt in attempts:
                self.alive_seconds[attempt] += now - before
            two_since = (two_since or now) if len(attempts) > 1 else None
            if two_since is not None:
                self.two_seconds = max(self.two_seconds, now - two_since)
            before = now


def _attempt(pid: int) -> str | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return None
    return words[words.index("--attempt") + 1] if "--attempt" in words else None


def test_a_planner_that_is_killed_places_nothing_twice_and_forgets_nothing(tmp_path: Path) -> None:
    """The planner is the run's flow in the server; PostgreSQL is what it remembers by."""
    stack, chance = prepared(tmp_path), random.Random(3)
    kills: Counter[str] = Counter()
    stack.start()
    try:
        with Watch(stack) as watch:
            run_id = stack.start_run("spot")
            while kills.total() < KILLS:
                time.sleep(chance.uniform(*KILL_PAUSE_SECONDS))
                part = chance.choice(["server", "server", "server", "postgres"])
                words = {"server": ["cli.main server"], "postgres": ["/postgres ", "-D"]}[part]
                kills[part] += bool(stack.kill(*words))
            ended = stack.end_of(run_id, 900)
        left = stack.pids("ratchet.train.main")
        steady = stack.end_of(stack.start_run("steady"), 400)
    finally:
        stack.stop()

    attempts = [each for each in stage(ended)["attempts"] if each["started_at"]]
    states = [each["state"] for each in attempts]
    alive = sum(watch.alive_seconds.values())
    metered = sum(seconds_of(each) for each in attempts)
    print(f"{dict(kills)}, {states}, {metered:.1f} s on the meter, {alive:.1f} s of processes")
    print(f"two at once for {watch.two_seconds:.1f} s at most; {cost(ended):.4f} USD")
    assert ended["state"] == steady["state"] == "gated", (ended["because"], steady["because"])
    assert states[-1] == "succeeded"
    assert stage(ended)["detail"]["adapter_digest"] == stage(steady)["detail"]["adapter_digest"]
    assert left == [], "no orphan"
    # One that was asked to leave may still be saving when the next one starts.
    assert watch.two_seconds <= NOTICE_SECONDS + 3.0
    numbers = [each["number"] for each in attempts]
    assert sorted(set(numbers)) == numbers, "each attempt was started once"


def stage(run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in run["stages"] if each["name"] == "train")
    return found


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def seconds_of(attempt: dict[str, Any]) -> float:
    return (moment(attempt["ended_at"]) - moment(attempt["started_at"])).total_seconds()


def cost(run: dict[str, Any]) -> float:
    return sum(
        seconds_of(each) / 3600 * float(each["usd_per_hour"])
        for each in stage(run)["attempts"]
        if each["started_at"]
    )
