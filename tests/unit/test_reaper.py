"""Who is dead: silence, or a process that is gone from this machine."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.durable.reaper import SILENCE, Executor, is_dead, reap, this_executor

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ALIVE = Executor(id="a", host="here", pid=10, pid_started="77", heartbeat_at=NOW)


def test_a_process_that_runs_and_beats_lives() -> None:
    assert not is_dead(ALIVE, "here", NOW, {10: "77"}.get)


def test_a_process_gone_from_this_machine_is_dead_at_once() -> None:
    assert is_dead(ALIVE, "here", NOW, nothing)


def test_another_process_under_the_same_number_does_not_count() -> None:
    assert is_dead(ALIVE, "here", NOW, {10: "78"}.get)


def test_elsewhere_only_silence_tells() -> None:
    away = replace(ALIVE, host="there")

    assert not is_dead(away, "here", NOW + SILENCE, nothing)
    assert is_dead(away, "here", NOW + SILENCE + timedelta(seconds=1), nothing)


def nothing(_: int) -> str | None:
    """A machine without processes."""
    return None


@dataclass
class Rows:
    """The table of processes, in memory."""

    executors: dict[str, Executor] = field(default_factory=dict)
    reaped: list[str] = field(default_factory=list)

    async def beat(self, executor: Executor, now: datetime) -> None:
        self.executors[executor.id] = executor

    async def others(self, executor_id: str) -> list[Executor]:
        return [e for e in self.executors.values() if e.id not in (executor_id, *self.reaped)]

    async def mark_reaped(self, executor_id: str, now: datetime) -> None:
        self.reaped.append(executor_id)


@dataclass
class Flows:
    """Flows by owner; each call recovers one, as a first pass that skips the rest would."""

    left: dict[str, int]

    async def recover(self, executor_ids: list[str]) -> int:
        [owner] = executor_ids
        if self.left.get(owner, 0) == 0:
            return 0
        self.left[owner] -= 1
        return 1


def test_the_reaper_goes_on_until_nothing_of_the_dead_is_left() -> None:
    me = this_executor("me", os.getpid(), NOW)
    dead = replace(me, id="dead", pid=2**22 + 5, pid_started="1")
    rows, flows = Rows({"dead": dead}), Flows({"dead": 3})

    recovered = asyncio.run(reap(me, rows, flows, NOW))

    assert recovered == 3
    assert rows.reaped == ["dead"]
    assert rows.executors["me"].heartbeat_at == NOW


def test_the_living_are_left_alone() -> None:
    me = this_executor("me", os.getpid(), NOW)
    twin = replace(me, id="twin")
    flows = Flows({"twin": 1})

    assert asyncio.run(reap(me, Rows({"twin": twin}), flows, NOW)) == 0
    assert flows.left == {"twin": 1}


def test_a_machine_without_proc_is_unlike_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: False)

    assert this_executor("me", os.getpid(), NOW).host == "unknown"
