"""What a job is, what capacity costs, and what may be done next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Machine(Enum):
    """What a job has."""

    NONE = "none"
    SPOT = "spot"
    ON_DEMAND = "on_demand"
    BOTH = "both"
    """Works on demand while its spot machine starts."""


class Action(Enum):
    """What a job shall have until the next look."""

    WAIT = "wait"
    SPOT = "spot"
    ON_DEMAND = "on_demand"
    OVERLAP = "overlap"
    """Make before break: work on demand, and start the spot machine beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What does not change while a job runs."""

    delay_seconds: float
    """From the order of a machine to work on it: provision, load, repeat what was lost."""
    spot_usd_per_hour: float
    on_demand_usd_per_hour: float
    tick_seconds: float
    """From one look to the next."""
    handover_seconds: float | None = 120.0
    """What a planned move costs of work: a checkpoint.  None: never overlap."""
    bills_whole_ticks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that a policy may know at a look."""

    time_left_seconds: float
    work_left_seconds: float
    machine: Machine
    pending_seconds: float
    """Of its machine (of the spot machine, if it has both): what is left of the delay."""
    spot_is_up: bool
    spot_age_seconds: float
    """Since when spot has been up, or down."""
    elapsed_seconds: float
    work_done_seconds: float
    work_left_max_seconds: float = 0.0
    """The most that it may be, where what is left is a guess; what the guard minds."""
    loss_factor: float = 1.0
    """How many times as often as modelled this zone loses spot, and gets it back."""
    recovery_factor: float = 1.0

    @property
    def guarded_work_seconds(self) -> float:
        return max(self.work_left_seconds, self.work_left_max_seconds)

    @property
    def slack_seconds(self) -> float:
        """What could be spent waiting."""
        pending = 0.0 if self.machine is Machine.BOTH else self.pending_seconds
        return self.time_left_seconds - self.work_left_seconds - pending
