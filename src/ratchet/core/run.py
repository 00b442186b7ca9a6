"""A run: one retraining from spec to verdict, its stages, attempts and legal moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NewType

from ratchet.core.errors import Rejected

AttemptId = NewType("AttemptId", str)

# Attempts of one stage that got no further than the ones before.  Machines may be taken away again
# and again while the work goes on; so many deaths at one place are a fault that repeats.
ATTEMPTS_MAX = 20


class RunState(Enum):
    """Where a run stands.  All but the first two are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    PROMOTED = "promoted"
    GATED = "gated"
    ROLLED_BACK = "rolled_back"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"

    @property
    def is_end(self) -> bool:
        return self not in (RunState.QUEUED, RunState.RUNNING)


class StageName(Enum):
    """The stages of a run, in their order."""

    CHECK = "check"
    FREEZE = "freeze"
    TRAIN = "train"
    EVALUATE = "evaluate"
    GATE = "gate"
    REGISTER = "register"
    RELEASE = "release"


class StageState(Enum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


class AttemptState(Enum):
    """One life of one stage on one machine."""

    WANTED = "wanted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    """The worker was gone without a word."""
    PREEMPTED = "preempted"
    """The machine was wanted back, and the worker had time to save."""
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        return self not in (AttemptState.WANTED, AttemptState.RUNNING)


_RUN_MOVES: Mapping[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.CANCELLED, RunState.SUPERSEDED}),
    RunState.RUNNING: frozenset(
        {
            RunState.PROMOTED,
            RunState.GATED,
            RunState.ROLLED_BACK,
            RunState.UNCHANGED,
            RunState.FAILED,
            RunState.CANCELLED,
        }
    ),
}


def check_run_move(current: RunState, wanted: RunState) -> None:
    """Raises `Rejected` if a run in `current` may not become `wanted`."""
    if wanted not in _RUN_MOVES.get(current, frozenset()):
        raise Rejected(f"run is {current.value}: cannot become {wanted.value}")


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """How the last attempt of a stage stands, as the flow needs to know it."""

    number: int
    state: AttemptState
    because: str
    in_place: int = 1
    """Attempts since the first that began where the furthest one began."""


def next_attempt(last: AttemptOutcome | None) -> int | None:
    """The number of the attempt to start, or None when the last one is alive or did it.

    A lost or preempted attempt is tried again from its checkpoint; a failed one is not, because the
    same input fails the same way, nor one that is too large for the machine.  Raises `Rejected`
    with the reason when the stage cannot go on.
    """
    if last is None:
        return 1
    if last.state in (AttemptState.WANTED, AttemptState.RUNNING, AttemptState.SUCCEEDED):
        return None
    if last.state not in (AttemptState.LOST, AttemptState.PREEMPTED):
        raise Rejected(last.because)
    if last.in_place < ATTEMPTS_MAX:
        return last.number + 1
    raise Rejected(f"lost {last.in_place} workers at one place, the last one: {last.because}")
