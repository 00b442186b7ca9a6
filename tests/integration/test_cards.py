"""One training in several processes, here on cores: nothing but the speed tells it from one."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ratchet.kit.processes import StopNotice
from ratchet.train import cards
from ratchet.train.command import Lost
from ratchet.train.job import Job, Preempted, Trained
from ratchet.train.methods import method_of
from tests import tiny

RECIPE = {**tiny.RECIPE, "method": "sft"}
# Names of cards that are not there: the processes use cores.
TWO = ["0", "1"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("cards")
    tiny.write_rows(folder / "train.jsonl", 48, seed=1)
    lines = (folder / "train.jsonl").read_text().splitlines()
    return Job(
        base=tiny.build(folder / "model"),
        start=None,
        rows=[json.loads(line) for line in lines],
        recipe=RECIPE,
        work=folder / "work",
        report=lambda *_: None,
        stop=StopNotice(),
    )


@pytest.fixture(scope="module")
def alone(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return method_of(job)(replace(job, work=tmp_path_factory.mktemp("alone")))


def below(pid: int) -> set[int]:
    """Processes that a process has started, and those that they have."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(each) for each in found}.union(*(below(int(each)) for each in found))


def ranks() -> list[int]:
    """The processes that train, the first one first."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in below(os.getpid())}
    return sorted(p for p, line in lines.items() if b"train.rank" in line and b"leash" not in line)


def test_two_processes_train_what_one_trains(job: Job, alone: Trained, tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    trained = cards.train(
        replace(job, work=tmp_path, report=lambda _, losses: seen.extend(losses)), TWO
    )

    assert dict(seen) == pytest.approx(dict(alone.losses), rel=2e-3)
    assert dict(trained.losses) == dict(seen)
    assert trained.steps == alone.steps == 12
    assert trained.tokens == alone.tokens
    assert (trained.adapter / "adapter_model.safetensors").exists()
    assert not ranks()


@pytest.mark.deep
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_preferences_are_learned_by_two(job: Job, tmp_path: Path, method: str) -> None:
    rows = [
        {**row, "rejected": "green"} if method == "dpo" else {**row, "label": number % 3 > 0}
        for number, row in enumerate(job.rows[:16])
    ]
    recipe = {**RECIPE, "method": method, "learning_rate": 1e-3}
    both = replace(job, rows=rows, recipe=recipe)

    one = method_of(both)(replace(both, work=tmp_path / "one"))
    (tmp_path / "two").mkdir()
    two = cards.train(replace(both, work=tmp_path / "two"), TWO)

    assert dict(two.losses) == pytest.approx(dict(one.losses), rel=2e-2)


def test_as_many_cards_as_share_a_batch_evenly() -> None:
    def used(method: str, *sizes: int) -> list[int]:
        return [cards.count(4, {"method": method, "batch_size": size}) for size in sizes]

    assert used("sft", 16, 6, 5, 2, 1) == [4, 3, 1, 2, 1]
    assert used("kto", 16, 6, 4, 2) == [4, 3, 2, 1]


def test_what_broke_one_process_is_told_before_what_that_did_to_the_others(job: Job) -> None:
    lines: cards.Lines = queue.Queue()
    lines.put((1, json.dumps({"ratchet": {"out_of_memory": "CUDA out of memory"}})))

    with pytest.raises(MemoryError, match="CUDA out of memory"):
        cards.take({"lost": "connection closed by peer"}, lines, job)


def test_all_stop_after_the_same_step_and_one_alone_goes_on(
    job: Job, alone: Trained, tmp_path: Path
) -> None:
    stop = StopNotice()
    saved: list[Path] = []

    def report(_: dict[str, Any], losses: list[tuple[int, float]]) -> None:
        stop.given |= bool(losses) and losses[0][0] >= 6

    with pytest.raises(Preempted, match="after step"):
        cards.train(replace(job, work=tmp_path, report=report, stop=stop, saved=saved.append), TWO)
    reached: list[int] = []
    rest = method_of(job)(
        replace(job, work=tmp_path, report=lambda told, _: reached.append(told["step"]))
    )

    assert saved[-1].name == f"checkpoint-{reached[0]}"
    assert 6 <= reached[0] < 12
    assert dict(rest.losses) == pytest.approx(dict(alone.losses), rel=2e-3)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.deep), 1])
def test_one_that_is_killed_takes_the_others_along(job: Job, tmp_path: Path, victim: int) -> None:
    def report(_: dict[str, Any], losses: list[tuple[int, float]]) -> None:
        if losses and losses[0][0] == 6:
            os.kill(ranks()[victim], signal.SIGKILL)

    with pytest.raises(Lost):
        cards.train(replace(job, work=tmp_path, report=report), TWO)

    assert not ranks()


ALONE = """
import json, sys
from pathlib import Path
from ratchet.kit.processes import StopNotice
from ratchet.train import cards
from ratchet.train.job import Job

base, work, rows, recipe = sys.argv[1:]
job = Job(base=Path(base), start=None, rows=json.loads(rows), recipe=json.loads(recipe),
          work=Path(work), report=lambda _, losses: print(losses, flush=True), stop=StopNotice())
cards.train(job, ["0", "1"])
"""


def test_a_worker_that_is_killed_takes_all_of_them_along(job: Job, tmp_path: Path) -> None:
    said = [str(job.base), str(tmp_path), json.dumps(list(job.rows)), json.dumps(RECIPE)]
    worker = subprocess.Popen([sys.executable, "-c", ALONE, *said], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert any(line.startswith(b"[(") for line in worker.stdout), "it trains"
    at_work = below(worker.pid)
    worker.kill()
    worker.wait()

    until = time.monotonic() + 10.0
    while any(Path(f"/proc/{pid}").exists() for pid in at_work):
        assert time.monotonic() < until, "somebody is left"
        time.sleep(0.1)
    assert len(at_work) >= 4
