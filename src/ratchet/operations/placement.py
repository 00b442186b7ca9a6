"""Give a training what it shall run on: read what is known, decide, keep the decision."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ratchet.core.artifact import RunId
from ratchet.core.checkpoints import SAVE_SECONDS_GUESSED, interval_seconds
from ratchet.core.fleet.answer import kind_of
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
from ratchet.core.placement.replay import Seen, best_zone
from ratchet.core.placement.terms import Action, Machine
from ratchet.kit.clock import Clock
from ratchet.operations.fleet import POOL_LOOK_SECONDS, Need, pooled
from ratchet.ports import FleetStore, PlacementStore, Training

DELAY_STEP_SECONDS = 30.0
# What was estimated before the first step may be wrong by so much.
UNCERTAINTY = 2.0
LOOK_SECONDS_MIN = 0.5
# What a machine that goes without a word had done since its last checkpoint.
REPEATED_SECONDS_MAX = interval_seconds(SAVE_SECONDS_GUESSED)


@dataclass(frozen=True, slots=True)
class PlacementParts:
    store: PlacementStore
    fleet: FleetStore
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
    if wish.executor is Executor.KUBERNETES:
        return wish.chooses
    return parts.market is not None and wish.capacity is Capacity.SPOT


async def placed(run_id: RunId, project: str, wish: Place, parts: PlacementParts) -> Placed:
    """Decide for a run that trains.  The decision is kept when it is another than the last."""
    now = parts.clock.now()
    training = await parts.store.training(run_id, project)
    if wish.executor is Executor.KUBERNETES:
        zones, speed = [zone_of_cluster(training, now)], 1.0
    else:
        assert parts.market is not None
        zones, speed = parts.market.zones(now, PUBLIC), parts.market.speed
    facts = facts_of(training, wish, speed, now)
    decision, tick = await asyncio.to_thread(_decide, facts, wish, zones, speed)
    wanted = _place(decision, wish)
    if wish.executor is Executor.KUBERNETES:
        wanted = _in_cluster(wanted, training, wish)
    found = Placed(
        decision=decision,
        training=training,
        place=wanted,
        moves=training.place is not None and not _is_there(training.place, wanted),
        look_again_seconds=max(LOOK_SECONDS_MIN, tick / speed / 2),
    )
    if wish.pool:
        need = Need(
            time_left_seconds=facts.time_left_seconds / speed if wish.deadline_seconds else None,
            work_left_seconds=max(facts.work_left_seconds, facts.work_left_max_seconds) / speed,
            delay_seconds=facts.delay_seconds / speed,
            spot=_spot_now(wish, zones),
        )
        found = await _in_pool(run_id, project, wish, found, need, parts.fleet)
    await parts.store.add(run_id, found.decision, now)
    return found


async def _in_pool(
    run_id: RunId,
    project: str,
    wish: Place,
    found: Placed,
    need: Need,
    fleet: FleetStore,
) -> Placed:
    """What others leave of it."""
    there = found.training.place
    shared = await pooled(run_id, project, wish, found.place, there, need, fleet)
    decision = found.decision
    if shared.place != found.place:
        zone = "" if shared.place is None else shared.place.zone
        action = Action.WAIT if shared.place is None else _ACTIONS[kind_of(shared.place)]
        because = shared.grant.because
        decision = replace(decision, action=action, zone=zone, because=because)
    return replace(
        found,
        decision=decision,
        place=shared.place,
        moves=shared.moves,
        look_again_seconds=min(found.look_again_seconds, POOL_LOOK_SECONDS),
    )


def _spot_now(wish: Place, zones: Sequence[Zone]) -> Place | None:
    """A spot machine that could be asked for.  A cluster has to be asked to know."""
    if wish.executor is Executor.KUBERNETES:
        return _on_spot(wish, "")
    up = [zone for zone in zones if zone.seen.is_up]
    return _on_spot(wish, up[best_zone([zone.seen for zone in up])].name) if up else None


def _on_spot(wish: Place, zone: str) -> Place:
    return replace(wish, zone=zone, usd_per_hour=wish.spot_usd_per_hour, deadline_seconds=0.0)


_ACTIONS = {Capacity.SPOT: Action.SPOT, Capacity.ON_DEMAND: Action.ON_DEMAND}


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
    where = None if _only_asks(training) else training.place
    machine = Machine.NONE
    if where is not None:
        machine = Machine.SPOT if where.capacity is Capacity.SPOT else Machine.ON_DEMAND
    pending = 0.0
    since = training.asked_at
    if wish.executor is Executor.KUBERNETES and machine is Machine.SPOT:
        since = training.started_at
    if where is not None and since is not None and not training.works:
        pending = max(0.0, delay - (now - since).total_seconds())
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
        return _on_spot(wish, decision.zone)
    if decision.action is Action.ON_DEMAND:
        return replace(wish, capacity=Capacity.ON_DEMAND, deadline_seconds=0.0)
    return None


CLUSTER = "the cluster"


def zone_of_cluster(training: Training, now: datetime) -> Zone:
    """A cluster shows its spot machines only to who asks for one: they are there while a worker has
    one, and away since one was asked for, or lost."""
    where, started_at = training.place, training.started_at
    if where is not None and where.capacity is Capacity.SPOT and started_at is not None:
        return Zone(CLUSTER, Seen(is_up=True, age_seconds=(now - started_at).total_seconds()))
    since = training.asked_at if training.attempt is not None else training.ended_at
    age = 0.0 if since is None else (now - since).total_seconds()
    return Zone(CLUSTER, Seen(is_up=False, age_seconds=max(0.0, age)))


def _only_asks(training: Training) -> bool:
    """It asked a cluster for a spot machine, and has none yet."""
    where = training.place
    return (
        where is not None
        and where.executor is Executor.KUBERNETES
        and where.capacity is Capacity.SPOT
        and training.started_at is None
    )


def _in_cluster(wanted: Place | None, training: Training, wish: Place) -> Place:
    """Who waits asks for spot: a Job that no machine has room for costs nothing.  A machine that
    stays is not given up for spot that nobody has seen."""
    where = training.place
    if where is not None and where.capacity is Capacity.ON_DEMAND:
        return where
    if wanted is None or wanted.capacity is Capacity.SPOT:
        return _on_spot(wish, "")
    return wanted


def _is_there(place: Place, wanted: Place | None) -> bool:
    """The same kind of machine; another zone would have to be lost first."""
    return wanted is not None and place.capacity is wanted.capacity
