"""kill -9 of the server, workers, Envoy and PostgreSQL at random moments of the story.

The demo's three acts are told while a saboteur kills: in several rounds with a tiny model, and
once by `ratchet demo` itself with the real one.  The outcome must be the same as without: one
promoted, one gated, one rolled back, and no version, release or attempt twice.
`RATCHET_CHAOS_ROUNDS` and `RATCHET_CHAOS_SEED` change the number and the moments.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from functools import partial
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.e2e.stack import Stack, Traffic, ask

pytestmark = pytest.mark.deep

ROUNDS = int(os.environ.get("RATCHET_CHAOS_ROUNDS", "3"))
SEED = int(os.environ.get("RATCHET_CHAOS_SEED", "1"))
KILLS_MIN = 20
TARGETS = {
    "server": ("cli.main server",),
    "worker": ("ratchet.train.main",),
    "envoy": ("/envoy ", "bootstrap.json"),
    "postgres": ("/postgres ", "-D"),
}
PAUSE_SECONDS = (3.0, 9.0)
# The real model needs some ten seconds to load and as long for ten steps of training.
DEMO_PAUSE_SECONDS = (8.0, 20.0)
DEMO_SECONDS_MAX = 2400.0


class Saboteur:
    """Kills something every few seconds, in a thread."""

    def __init__(
        self,
        stack: Stack,
        chance: random.Random,
        pause_seconds: tuple[float, float] = PAUSE_SECONDS,
    ) -> None:
        self._stack, self._chance, self._pause = stack, chance, pause_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.kills: Counter[str] = Counter()

    def __enter__(self) -> Saboteur:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(self._chance.uniform(*self._pause)):
            name = self._chance.choice(list(TARGETS))
            if self._stack.kill(*TARGETS[name]):
                self.kills[name] += 1
                print(f"killed {name}", flush=True)


def test_the_story_ends_the_same_whatever_is_killed(tmp_path: Path) -> None:
    kills: Counter[str] = Counter()
    for round_ in range(ROUNDS):
        kills += _one_round(tmp_path / f"round-{round_}", random.Random(SEED * 1000 + round_))
    print(f"{kills.total()} kills in {ROUNDS} rounds: {dict(kills)}")

    assert kills.total() >= KILLS_MIN
    assert set(kills) == set(TARGETS)


def test_the_demo_ends_the_same_whatever_is_killed(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.launch("demo", "--exit")
    assert stack.process is not None

    with Saboteur(stack, random.Random(SEED), DEMO_PAUSE_SECONDS) as saboteur:
        # Its exit code says that users noticed killed Envoys, which they may.
        stack.process.wait(DEMO_SECONDS_MAX)
    print(f"{saboteur.kills.total()} kills: {dict(saboteur.kills)}")

    stack.up()
    try:
        runs = stack.until(lambda: stack.client().get("/runs"), 60, "the control plane answers")
        assert {run["idempotency_key"]: run["state"] for run in runs} == {
            "demo-good": "promoted",
            "demo-spoiled": "gated",
            "demo-drill": "rolled_back",
        }
        _check_nothing_twice(stack)
    finally:
        stack.stop()
    assert saboteur.kills.total() >= KILLS_MIN


def _one_round(root: Path, chance: random.Random) -> Counter[str]:
    stack = Stack(root)
    root.mkdir()
    stack.prepare()
    stack.start()
    acts = {"good": "promoted", "spoiled": "gated", "drill": "rolled_back"}
    try:
        with Traffic(stack.gateway), Saboteur(stack, chance) as saboteur:
            for name, wanted in acts.items():
                run_id = stack.until(partial(_start, stack, name), 60, f"{name} is asked for")
                run = stack.end_of(run_id, seconds=400)
                assert run["state"] == wanted, (name, run["state"], run["because"])
        stack.until(lambda: ask(stack.gateway).status_code == 200, 60, "the gateway serves")
        _check_nothing_twice(stack)
    finally:
        stack.stop()
    return saboteur.kills


def _start(stack: Stack, name: str) -> str | None:
    """Ask with a key, as often as it takes: it is one run."""
    try:
        return stack.start_run(name, f"chaos-{name}")
    except httpx.HTTPError:
        return None


def _check_nothing_twice(stack: Stack) -> None:
    counts = {
        "runs": "SELECT count(*) FROM runs",
        "versions of runs": "SELECT count(*) FROM versions WHERE run_id IS NOT NULL",
        "releases": "SELECT count(*) FROM releases",
        "attempts done twice": """SELECT count(*) FROM (SELECT 1 FROM attempts
            WHERE state = 'succeeded' GROUP BY run_id, stage HAVING count(*) > 1) AS twice""",
        "weights changed without a verdict": """SELECT count(*) FROM weight_changes AS change
            WHERE NOT EXISTS (SELECT 1 FROM verdicts WHERE verdicts.because = change.because)""",
    }
    with stack.database() as connection:
        found = {name: connection.execute(sql).fetchone() for name, sql in counts.items()}

    assert {name: row[0] for name, row in found.items() if row} == {
        "runs": 3,
        "versions of runs": 2,
        "releases": 2,
        "attempts done twice": 0,
        "weights changed without a verdict": 0,
    }
