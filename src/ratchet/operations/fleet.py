"""What a run may use of a pool that it shares with other projects."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from ratchet.core.access import Caller
from ratchet.core.artifact import RunId
from ratchet.core.errors import Unavailable
from ratchet.core.fleet.answer import Grant, kind_of
from ratchet.core.fleet.claims import Claim, FleetPlan
from ratchet.core.place import Capacity, Place
from ratchet.kit.clock import Clock
from ratchet.ports import Audit, FleetStore

# A grant lasts until the next look; so long a slot may stand empty, or a worker in the way.
POOL_LOOK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class FleetParts:
    store: FleetStore
    audit: Audit
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How urgent it is."""

    time_left_seconds: float | None = None
    """None: there is no deadline."""
    work_left_seconds: float = 0.0
    delay_seconds: float = 0.0
    may_leave: bool = True
    spot: Place | None = None
    """What spot machine it could have now, if need be."""


@dataclass(frozen=True, slots=True)
class Pooled:
    grant: Grant
    place: Place | None
    """What it runs on until the next look; None: nothing."""
    moves: bool
    """Its living worker is not there."""


async def pooled(
    run_id: RunId,
    project: str,
    wish: Place,
    wanted: Place | None,
    there: Place | None,
    need: Need,
    store: FleetStore,
) -> Pooled:
    """Ask for what a run wants, being where it is.

    While the fleet's database is away it keeps what it has and gets nothing new.
    """
    claim = Claim(
        run=run_id,
        project=project,
        slots=wish.slots,
        priority=wish.priority,
        wants=None if wanted is None else kind_of(wanted),
        sees_spot=need.spot is not None,
        alive=None if there is None else kind_of(there),
        time_left_seconds=need.time_left_seconds,
        work_left_seconds=need.work_left_seconds,
        delay_seconds=need.delay_seconds,
        may_leave=need.may_leave,
    )
    try:
        grant = await store.ask(wish.pool, claim, 0.0 if there is None else there.usd_per_hour)
    except Unavailable as away:
        grant = Grant(claim.alive, False, f"pool {wish.pool}: {away}")
    place = _place(grant.kind, wish, wanted, there, need.spot)
    moves = there is not None and (place is None or kind_of(place) is not kind_of(there))
    return Pooled(grant, place, moves)


def _place(kind: Capacity | None, wish: Place, *known_places: Place | None) -> Place | None:
    if kind is None:
        return None
    for known in known_places:
        if known is not None and kind_of(known) is kind:
            return known
    # It wanted spot or nothing, and cannot wait for it any longer.
    return replace(wish, capacity=Capacity.ON_DEMAND, deadline_seconds=0.0)


async def leave_pool(run_id: RunId, wish: Place, store: FleetStore) -> None:
    """Give a run's slots back.  A fleet that is away will know it from its silence."""
    if wish.pool:
        with contextlib.suppress(Unavailable):
            await store.release(run_id)


async def apply_fleet(plan: FleetPlan, by: Caller, parts: FleetParts) -> None:
    """Replace pools and shares.  Raises `Rejected` when a pool that is used is left out."""
    before = await parts.store.put(plan)
    old, new, now = before.describe(), plan.describe(), parts.clock.now()
    await parts.audit.add(by.name, "set fleet", "fleet", old, new, "", now)
