"""What a run's training shall have next, why, and what else it could have had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ratchet.core.placement.availability import PUBLIC, Chain, chain_of, node_of
from ratchet.core.placement.guard import guarded
from ratchet.core.placement.market import Zone
from ratchet.core.placement.policy import nearest_factor
from ratchet.core.placement.replay import best_zone
from ratchet.core.placement.table import LATE, Table, solve
from ratchet.core.placement.terms import Action, Machine, Situation, Terms

HOUR = 3600.0
# Looks until the deadline: more would cost time and memory and find the same.
TICKS = 96
TICK_SECONDS_MIN = 60.0
# More slack than this share of the time changes nothing any more.
SLACK_SHARE = 0.5
GAIN_SHARE_MIN = 0.05
# Of tables, some 15 MB each; a training needs one, or a few where its zone is unusual.
TABLES_KEPT = 10
# Before a project has trained: provision a machine, load a model, repeat a little.
START_SECONDS_GUESSED = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A training as far as it has come.  All seconds are the market's."""

    time_left_seconds: float
    """Until its deadline; negative when that has passed."""
    work_left_seconds: float
    work_left_max_seconds: float
    delay_seconds: float
    machine: Machine
    pending_seconds: float
    zone: str
    """Of its spot machine; empty without one."""
    spot_usd_per_hour: float
    on_demand_usd_per_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a training shall have until the next look."""

    action: Action
    zone: str
    because: str
    usd_expected: Mapping[str, float]
    """Until its end, by what could be done now; without what would be late."""


def tick_of(deadline_seconds: float) -> float:
    """From look to look, of a job with so much time."""
    return max(TICK_SECONDS_MIN, deadline_seconds / TICKS)


def place(facts: Facts, zones: Sequence[Zone], deadline_seconds: float) -> Decision:
    """Decide: what the table says, if it is safe.  The deadline is that of the whole training."""
    terms = Terms(
        delay_seconds=facts.delay_seconds,
        spot_usd_per_hour=facts.spot_usd_per_hour,
        on_demand_usd_per_hour=facts.on_demand_usd_per_hour,
        tick_seconds=tick_of(deadline_seconds),
        handover_seconds=None,
    )
    zone = _zone_of(facts, zones)
    at = Situation(
        time_left_seconds=facts.time_left_seconds,
        work_left_seconds=facts.work_left_seconds,
        work_left_max_seconds=facts.work_left_max_seconds,
        machine=facts.machine,
        pending_seconds=facts.pending_seconds,
        spot_is_up=zone.seen.is_up,
        spot_age_seconds=zone.seen.age_seconds,
        elapsed_seconds=0.0,
        work_done_seconds=0.0,
        loss_factor=zone.seen.loss_factor,
        recovery_factor=zone.seen.recovery_factor,
    )
    factors = nearest_factor(at.loss_factor), nearest_factor(at.recovery_factor)
    table, chain = _solved(terms, deadline_seconds, *factors)
    node = node_of(at.spot_is_up, at.spot_age_seconds)
    costs = table.costs(at, node, chain)
    wish = _steady(table.action(at, node), at, costs)
    done = guarded(wish, at, terms)
    return Decision(
        action=done,
        zone=zone.name if done is Action.SPOT else "",
        because=_because(done, wish, at, zone, terms),
        usd_expected={a.value: round(usd, 4) for a, usd in costs.items() if usd < LATE / 1e6},
    )


def _steady(wish: Action, at: Situation, costs: Mapping[Action, float]) -> Action:
    """A machine is not given up for a gain that is within the error of the model."""
    if at.machine is not Machine.SPOT or not at.spot_is_up or wish is Action.SPOT:
        return wish
    keep, change = costs.get(Action.SPOT, LATE), costs.get(wish, LATE)
    return wish if change < (1.0 - GAIN_SHARE_MIN) * keep else Action.SPOT


def _zone_of(facts: Facts, zones: Sequence[Zone]) -> Zone:
    mine = [zone for zone in zones if zone.name == facts.zone and zone.seen.is_up]
    return mine[0] if mine else zones[best_zone([zone.seen for zone in zones])]


@lru_cache(maxsize=TABLES_KEPT)
def _solved(
    terms: Terms, deadline_seconds: float, loss: float, recovery: float
) -> tuple[Table, Chain]:
    """For all looks of trainings with these terms."""
    chain = chain_of(PUBLIC.scaled(loss, recovery), terms.tick_seconds)
    ticks = -int(-deadline_seconds // terms.tick_seconds)
    return solve(chain, terms, ticks, SLACK_SHARE * deadline_seconds, keep_values=True), chain


def _because(done: Action, wish: Action, at: Situation, zone: Zone, terms: Terms) -> str:
    slack = at.time_left_seconds - at.guarded_work_seconds - terms.delay_seconds
    room = f"{_hours(slack)} to spare" if slack > 0 else "no time to spare"
    state = "up" if at.spot_is_up else "away"
    spot = f"spot has been {state} in {zone.name} for {_hours(at.spot_age_seconds)}"
    if done is not wish and done is Action.ON_DEMAND:
        return f"{room}: only a machine that stays is in time; {spot}"
    if done is Action.SPOT and slack < 0:
        return f"{room}: a new machine would be later than this one"
    if done is Action.WAIT and at.spot_is_up:
        return f"{spot}, and to wait until it has lasted is the cheapest on average; {room}"
    said = {
        Action.SPOT: f"{spot}, which is the cheapest on average; {room}",
        Action.WAIT: f"{spot}, and waiting for it is the cheapest on average; {room}",
        Action.ON_DEMAND: f"{spot}, and waiting for it would cost more on average; {room}",
        Action.OVERLAP: f"{spot}: move to it without a break; {room}",
    }
    return said[done]


def _hours(seconds: float) -> str:
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / HOUR:.1f} h"


def while_it_lasts(facts: Facts, zones: Sequence[Zone]) -> Decision:
    """Without a deadline: spot while it is there, and else nothing."""
    zone = _zone_of(facts, zones)
    age = _hours(zone.seen.age_seconds)
    if zone.seen.is_up:
        because = f"spot has been up in {zone.name} for {age}"
        return Decision(action=Action.SPOT, zone=zone.name, because=because, usd_expected={})
    because = f"spot has been away in {zone.name} for {age}; without a deadline it waits"
    return Decision(action=Action.WAIT, zone="", because=because, usd_expected={})
