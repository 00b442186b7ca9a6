"""Give a training what it shall run on: read what is known, decide, keep the decision."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ratchet.core.artifact import RunId
from ratchet.core.checkpoints import SAVE_SECONDS_GUESSED, interval_seconds
from ratchet.core.place import Capacity, Executor, Place
from ratchet.core.placement.availability import PUBLIC
from ratchet.core.placement.market import Player, Zone
from ratchet.core.placement.plan import (
    START_SECONDS_GUESSED,
    Decision,
    Facts,
    place,
    tick_of,
    while_it_lasts,
)
from ratchet.core.placement.terms import Action, Machine
from ratchet.kit.clock import Clock
from ratchet.ports import PlacementStore, Training

DELAY_STEP_SECONDS = 30.0
# What was estimated before the first step may be wrong by so much.
UNCERTAINTY = 2.0
LOOK_SECONDS_MIN = 0.5
# What a machine that goes without a word had done since its last checkpoint.
REPEATED_SECONDS_MAX = interval_seconds(SAVE_SECONDS_GUESSED)


@dataclass(frozen=True, slots=True)
class PlacementParts:
    store: PlacementStore
    market: Player | None
    """None: no spot capacity is known here, and workers run at once."""
    clock: Clock


@dataclass(frozen=True, slots=True)
class Placed:
    """What to do now, and when to look again."""

    decision: Decision
    training: Training
    place: Place | None
    """Of the worker to ask for; None while it waits."""
    moves: bool
    """The worker that is alive is on the wrong machine."""
    look_again_seconds: float


def is_placed(wish: Place, parts: PlacementParts) -> bool:
    """Whether a choice is made for it, again and again."""
    is_local = wish.executor is Executor.LOCAL
    return parts.market is not None and is_local and wish.capacity is Capacity.SPOT


async def placed(run_id: RunId, project: str, wish: Place, parts: PlacementParts) -> Placed:
    """Decide for a run that trains.  The decision is kept when it is another than the last."""
    assert parts.market is not None
    now, speed = parts.clock.now(), parts.market.speed
    training = await parts.store.training(run_id, project)
    zones = parts.market.zones(now, PUBLIC)
    facts = facts_of(training, wish, speed, now)
    decision, tick = await asyncio.to_thread(_decide, facts, wish, zones, speed)
    await parts.store.add(run_id, decision, now)
    wanted = _place(decision, wish)
    return Placed(
        decision=decision,
        training=training,
        place=wanted,
        moves=training.place is not None and not _is_there(training.place, wanted),
        look_again_seconds=max(LOOK_SECONDS_MIN, tick / speed / 2),
    )


def _decide(
    facts: Facts, wish: Place, zones: Sequence[Zone], speed: float
) -> tuple[Decision, float]:
    if not wish.deadline_seconds:
        tick = tick_of(0.0)
        return while_it_lasts(facts, zones), tick
    deadline = wish.deadline_seconds * speed
    return place(facts, zones, deadline), tick_of(deadline)


def facts_of(training: Training, wish: Place, speed: float, now: datetime) -> Facts:
    """In the market's seconds, of which a played one has more."""
    elapsed = (now - training.began_at).total_seconds()
    time_left = wish.deadline_seconds - elapsed
    delay = training.start_seconds or START_SECONDS_GUESSED / speed
    # In whole rows of tables, so that trainings share them.
    delay = max(1.0, round(delay * speed / DELAY_STEP_SECONDS)) * DELAY_STEP_SECONDS / speed
    guessed, most = _work_left(training, time_left - delay)
    where = training.place
    machine = Machine.NONE
    if where is not None:
        machine = Machine.SPOT if where.capacity is Capacity.SPOT else Machine.ON_DEMAND
    pending = 0.0
    if training.asked_at is not None and not training.works:
        pending = max(0.0, delay - (now - training.asked_at).total_seconds())
    return Facts(
        time_left_seconds=time_left * speed,
        work_left_seconds=guessed * speed,
        work_left_max_seconds=most * speed,
        delay_seconds=delay * speed,
        machine=machine,
        pending_seconds=pending * speed,
        zone="" if where is None else where.zone,
        spot_usd_per_hour=wish.spot_usd_per_hour / speed,
        on_demand_usd_per_hour=wish.usd_per_hour / speed,
    )


def _work_left(training: Training, room_seconds: float) -> tuple[float, float]:
    """Seconds that are likely left, and at most."""
    if training.progress is not None:
        left = float(training.progress["seconds_left"])
        return left, left + REPEATED_SECONDS_MAX
    if training.estimated_seconds is not None:
        return training.estimated_seconds, UNCERTAINTY * training.estimated_seconds
    # Nothing is known: it has to show how fast it is, on a machine that stays if need be.
    return max(0.0, room_seconds / UNCERTAINTY), max(0.0, room_seconds)


def _place(decision: Decision, wish: Place) -> Place | None:
    if decision.action is Action.SPOT:
        return replace(
            wish, zone=decision.zone, usd_per_hour=wish.spot_usd_per_hour, deadline_seconds=0.0
        )
    if decision.action is Action.ON_DEMAND:
        return replace(wish, capacity=Capacity.ON_DEMAND, deadline_seconds=0.0)
    return None


def _is_there(place: Place, wanted: Place | None) -> bool:
    """The same kind of machine; another zone would have to be lost first."""
    return wanted is not None and place.capacity is wanted.capacity
