"""A run: one retraining from spec to verdict, its stages, attempts and legal moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NewType

from ratchet.core.errors import Rejected

AttemptId = NewType("AttemptId", str)

# Attempts of one stage.  Machines may be taken away again and again; this many deaths are no bad
# luck but a fault that repeats.
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


def next_attempt(last: AttemptOutcome | None) -> int | None:
    """The number of the attempt to start, or None when the last one is alive or did it.

    A lost attempt is tried again from its checkpoint; a failed one is not, because the same
    input fails the same way.  Raises `Rejected` with the reason when the stage cannot go on.
    """
    if last is None:
        return 1
    if last.state in (AttemptState.WANTED, AttemptState.RUNNING, AttemptState.SUCCEEDED):
        return None
    if last.state is AttemptState.LOST and last.number < ATTEMPTS_MAX:
        return last.number + 1
    if last.state is AttemptState.LOST:
        raise Rejected(f"lost {last.number} workers, the last one: {last.because}")
    raise Rejected(last.because)
