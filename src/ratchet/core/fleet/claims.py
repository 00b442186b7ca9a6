"""What is shared and who wants it: pools of slots, projects' shares, and claims."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ratchet.core.place import Capacity

# Holds of kinds of slots; `Capacity.ANY` is none of them.
KINDS = (Capacity.ON_DEMAND, Capacity.SPOT)
# What a file or a call may say.
SLOTS_MAX = 100_000
WEIGHT_MAX = 1e6
USD_MAX = 1e9
LEAST = 1e-6
# Two looks of a minute, and a worker that saves and leaves.
TURNOVER_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Slots of machines.  What a slot is (a machine, a graphics card) is the owner's to say."""

    name: str
    spot: int | None = None
    """None: as many as are asked for."""
    on_demand: int | None = None
    turnover_seconds: float = TURNOVER_SECONDS
    """How long a slot may take to get free."""

    def slots(self, kind: Capacity) -> float:
        limit = self.spot if kind is Capacity.SPOT else self.on_demand
        return math.inf if limit is None else float(limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A project's part of a fleet."""

    weight: float = 1.0
    used_slot_seconds: float = 0.0
    """Lately: what is a week ago counts half."""
    usd_spent: float = 0.0
    """In this month (UTC)."""
    usd_per_month: float | None = None
    """None: no limit."""

    @property
    def is_spent(self) -> bool:
        return self.usd_per_month is not None and self.usd_spent >= self.usd_per_month


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A run's claim to slots of a pool, as its last look told it."""

    run: str
    project: str
    slots: int = 1
    """All at once, or none."""
    priority: int = 0
    wants: Capacity | None = None
    """What its own decision asks for now; None: it waits by choice."""
    sees_spot: bool = False
    """A spot machine could be had now, if need be."""
    alive: Capacity | None = None
    """What its living worker is on."""
    granted: Capacity | None = None
    """At its last look.  It holds until the next: a worker may have been asked for."""
    waiting_seconds: float = 0.0
    """Since it first wanted what it has not."""
    time_left_seconds: float | None = None
    """Until its deadline; None: it has none."""
    work_left_seconds: float = 0.0
    delay_seconds: float = 0.0
    """From the order of a machine to work on it, and what is repeated then."""
    may_leave: bool = True
    """Its work is kept when it is asked to leave."""

    @property
    def at_its_look(self) -> Claim:
        """As it tells it itself: what was granted, was not used and is not wanted is given back."""
        is_unused = self.alive is None and self.granted is not self.wants
        return replace(self, granted=None) if is_unused else self

    @property
    def slack_seconds(self) -> float:
        """What it can wait from now on and still be in time on a new machine that stays."""
        if self.time_left_seconds is None:
            return math.inf
        return self.time_left_seconds - self.work_left_seconds - self.delay_seconds

    def holds(self, kind: Capacity) -> bool:
        return kind in (self.alive, self.granted)

    @property
    def has_nothing(self) -> bool:
        return self.alive is None and self.granted is None

    @property
    def is_leaving(self) -> bool:
        """Its worker is on what it has no right to any more."""
        return self.alive is not None and self.granted is not self.alive


def slots_taken(kind: Capacity, claims: Iterable[Claim]) -> int:
    return sum(claim.slots for claim in claims if claim.holds(kind))


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What an owner says of a fleet, whole."""

    pools: tuple[Pool, ...]
    shares: Mapping[str, Share]
    """By project; who is not named has a weight of one and no limit."""

    def describe(self) -> str:
        """In a line, for the audit."""
        pools = [
            f"{pool.name} {_limit(pool.spot)} spot {_limit(pool.on_demand)} on demand"
            for pool in self.pools
        ]
        shares = [
            f"{project} weight {share.weight:g}"
            + ("" if share.usd_per_month is None else f" {share.usd_per_month:g} USD a month")
            for project, share in self.shares.items()
        ]
        return "; ".join([*pools, *shares])


def _limit(slots: int | None) -> str:
    return "any" if slots is None else str(slots)
