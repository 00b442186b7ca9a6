"""Hands a dead process's flows to a living one.

Every server process has an id of its own and a row with a heartbeat.  A process is dead when its
heart is silent for longer than any pause of a healthy one, or at once when it ran on this machine
and its process is gone.  Its flows are then recovered here; the call may be repeated, so two
reapers at once do no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

# Far above garbage collection and event-loop stalls: a false alarm repeats a step.
SILENCE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """One server process."""

    id: str
    host: str
    """Machine and boot: a process id means nothing elsewhere or before."""
    pid: int
    pid_started: str
    heartbeat_at: datetime


class ExecutorStore(Protocol):
    async def beat(self, executor: Executor, now: datetime) -> None: ...

    async def others(self, executor_id: str) -> list[Executor]:
        """All processes not yet reaped, but this one."""

    async def mark_reaped(self, executor_id: str, now: datetime) -> None: ...


class Recovers(Protocol):
    async def recover(self, executor_ids: list[str]) -> int: ...


def this_executor(executor_id: str, pid: int, now: datetime) -> Executor:
    return Executor(
        id=executor_id,
        host=_this_host(),
        pid=pid,
        pid_started=_start_of(pid) or "",
        heartbeat_at=now,
    )


def is_dead(
    executor: Executor, host: str, now: datetime, start_of: Callable[[int], str | None]
) -> bool:
    """Whether nobody runs the flows of `executor` any more."""
    if executor.host == host and start_of(executor.pid) != executor.pid_started:
        return True
    return now - executor.heartbeat_at > SILENCE


async def reap(me: Executor, store: ExecutorStore, durable: Recovers, now: datetime) -> int:
    """Beat, then recover the flows of every dead process.  Answers how many flows."""
    await store.beat(replace(me, heartbeat_at=now), now)
    recovered = 0
    for other in await store.others(me.id):
        if not is_dead(other, me.host, now, _start_of):
            continue
        # Loop until nothing is left: a single pass was seen to skip a flow whose restart raised.
        while (count := await durable.recover([other.id])) > 0:
            recovered += count
        await store.mark_reaped(other.id, now)
    return recovered


def _this_host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    name = Path("/proc/sys/kernel/hostname")
    if not boot.exists():
        return "unknown"
    return f"{name.read_text().strip()}/{boot.read_text().strip()}/{_pid_namespace()}"


def _pid_namespace() -> str:
    # Two containers on one machine see other processes under the same number.
    return str(Path("/proc/self/ns/pid").readlink())


def _start_of(pid: int) -> str | None:
    """When the process began, in the kernel's ticks; None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # A zombie runs nothing, however long nobody collects it.
    return None if fields[0] == "Z" else fields[19]
