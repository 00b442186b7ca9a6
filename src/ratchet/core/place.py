"""Where a worker runs and how much of a machine it gets, as the spec asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from ratchet.core.errors import Rejected


class Executor(Enum):
    """Who starts workers."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


class Capacity(Enum):
    """What kind of machine: one that may be taken away, one that is not, or either."""

    ANY = "any"
    SPOT = "spot"
    ON_DEMAND = "on_demand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the workers of a run ask for.  Zero: whatever there is."""

    executor: Executor = Executor.LOCAL
    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0
    capacity: Capacity = Capacity.ANY
    image: str = ""
    """Of a container that trains; empty for the executor's own."""
    deadline_seconds: float = 0.0
    """Of one attempt, from its start; what is not done then has failed."""

    machine: str = ""
    """Kind of machine, as its cloud calls it; empty: any."""
    usd_per_hour: float = 0.0
    """What the machine of a worker costs."""
    spot_usd_per_hour: float = 0.0
    """... and of one that may be taken away."""
    zone: str = ""
    """Of an attempt: where it was placed."""
    budget_usd: float = 0.0
    """Of a run's workers, all attempts together."""
    pool: str = ""
    """Whose slots it takes, shared with other projects; empty: none."""
    priority: int = 0
    """Among those that share the pool: the higher goes first."""

    def __post_init__(self) -> None:
        if self.priority and not self.pool:
            raise Rejected("train.priority needs train.pool: those who share it are compared")
        if self.budget_usd and not (self.usd_per_hour or self.machine):
            raise Rejected("train.budget_usd needs train.usd_per_hour: what a machine costs")
        if self.executor is Executor.KUBERNETES:
            return
        self._check_local()

    def _check_local(self) -> None:
        has_prices = self.machine or (self.usd_per_hour and self.spot_usd_per_hour)
        if self.chooses and not has_prices:
            raise Rejected(
                "train.deadline with train.capacity: spot needs train.usd_per_hour and "
                "train.spot_usd_per_hour: what is cheaper follows from both"
            )
        only = {"train.resources.gpus": self.gpus, "train.image": self.image}
        for name, given in only.items():
            if given:
                raise Rejected(f"{name}: expected with train.executor: kubernetes only")

    @property
    def slots(self) -> int:
        """Of a pool: one for each graphics card, or one."""
        return max(1, self.gpus)

    @property
    def at_once(self) -> Place:
        """For a stage that waits for nothing: the machine that is here."""
        is_local_spot = self.executor is Executor.LOCAL and self.capacity is Capacity.SPOT
        if is_local_spot or self.chooses:
            return replace(self, capacity=Capacity.ANY, deadline_seconds=0.0)
        return self

    @property
    def chooses(self) -> bool:
        """Whether there is a choice between spot and on-demand, as long as the time allows.

        In a cluster both prices say so; without them a deadline is that of one attempt.
        """
        is_asked_for = self.capacity is Capacity.SPOT and self.deadline_seconds > 0
        has_prices = self.usd_per_hour > 0 and self.spot_usd_per_hour > 0
        return is_asked_for and (self.executor is Executor.LOCAL or has_prices)

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "executor": self.executor.value,
            "capacity": self.capacity.value,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Place:
        """Of an attempt that an older Ratchet began: the default."""
        known = dict(value)
        if known:
            known["executor"] = Executor(known["executor"])
            known["capacity"] = Capacity(known["capacity"])
        return cls(**known)
