"""Where a worker runs and how much of a machine it gets, as the spec asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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

    usd_per_hour: float = 0.0
    """What the machine of a worker costs."""
    budget_usd: float = 0.0
    """Of a run's workers, all attempts together."""

    def __post_init__(self) -> None:
        if self.budget_usd and not self.usd_per_hour:
            raise Rejected("train.budget_usd needs train.usd_per_hour: what a machine costs")
        if self.executor is Executor.KUBERNETES:
            return
        only = {
            "train.resources.gpus": self.gpus,
            "train.image": self.image,
            "train.capacity": self.capacity is not Capacity.ANY,
        }
        for name, given in only.items():
            if given:
                raise Rejected(f"{name}: expected with train.executor: kubernetes only")

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
