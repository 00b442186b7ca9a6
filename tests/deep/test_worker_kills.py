"""A worker killed fifty times, each time on a machine that has nothing of the last one's."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from ratchet.engine.weights import quiet
from tests import killable, tiny

pytestmark = pytest.mark.deep

KILLS = 50
EVERY_STEPS = 4
ROWS, BATCH = 1_600, 4
RECIPE: dict[str, Any] = {
    "lora": {"rank": 8, "alpha": 16},
    "epochs": 1.0,
    "learning_rate": 1e-3,
    "batch_size": BATCH,
    "max_length_tokens": 64,
    "seed": 3,
    "checkpoint_every_steps": EVERY_STEPS,
}


def test_fifty_machines_are_lost_and_nothing_but_one_interval_each(tmp_path: Path) -> None:
    quiet()
    base, data = tiny.build(tmp_path / "model"), tmp_path / "train.jsonl"
    tiny.write_rows(data, ROWS, seed=1)
    whole = killable.start(base, data, tmp_path / "whole" / "train-1", RECIPE, pause_seconds=0)
    undisturbed = _steps(whole.communicate(timeout=600)[0])
    chance = random.Random(5)
    objects = f"file://{tmp_path}/objects"
    losses: dict[int, float] = {}
    repeated, kills, life = [], 0, 0
    while max(losses, default=0) < ROWS // BATCH:
        life += 1
        work = tmp_path / f"machine-{life}" / "train-1"
        process = killable.start(base, data, work, RECIPE, pause_seconds=0.05, objects=objects)
        assert process.stdout is not None
        before = max(losses, default=0)
        lives = chance.randint(EVERY_STEPS + 2, 2 * EVERY_STEPS + 2)
        for line in process.stdout:
            word, _, rest = line.partition(" ")
            if word == "from" and life > 1:
                repeated.append(before - int(rest))
            if word.isdigit():
                losses[int(word)] = float(rest)
                lives -= 1
            if lives == 0 and kills < KILLS:
                kills += 1
                process.send_signal(signal.SIGKILL)
                break
        process.wait(timeout=60)

    print(f"{kills} kills, {life} machines, repeated at most {max(repeated)} steps a kill")
    assert kills == KILLS
    # A checkpoint that was on its way when the machine went is one interval more.
    assert max(repeated) <= 2 * EVERY_STEPS
    assert sum(repeated) / len(repeated) <= EVERY_STEPS
    assert losses == pytest.approx(undisturbed, rel=1e-6)
    kept = list((tmp_path / "objects" / "checkpoints").iterdir())
    assert len(kept) <= 2


def _steps(said: str) -> dict[int, float]:
    words = [line.split() for line in said.splitlines()]
    return {int(w[0]): float(w[1]) for w in words if w and w[0].isdigit()}
