"""Before anything runs: what a deadline costs, and what each policy would have cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ratchet.core.place import Place
from ratchet.core.placement import rules
from ratchet.core.placement.availability import HOUR, PUBLIC, Availability, chain_of
from ratchet.core.placement.plan import tick_of
from ratchet.core.placement.policy import Tables
from ratchet.core.placement.replay import Outcome, Seen, replay
from ratchet.core.placement.table import LATE, solve
from ratchet.core.placement.terms import Machine, Terms
from ratchet.core.precheck import Found


@dataclass(frozen=True, slots=True)
class Offer:
    """A deadline, and what it costs on average to meet it."""

    deadline_seconds: float
    usd: float


def offers(
    work_seconds: float,
    deadlines_seconds: Sequence[float],
    terms: Terms,
    model: Availability,
) -> list[Offer]:
    """The expected cost of each deadline that can be met; for a job that starts at any time."""
    longest = max(deadlines_seconds)
    ticks = math.ceil(longest / terms.tick_seconds)
    slack = max(terms.tick_seconds, longest - work_seconds)
    chain = chain_of(model, terms.tick_seconds)
    table = solve(chain, terms, ticks, slack, keep_values=True)
    assert table.values is not None
    usual, none = chain.usual(), table.grid.state(Machine.NONE, 0)
    found = []
    for deadline in deadlines_seconds:
        tick = int(deadline / terms.tick_seconds)
        row = int((tick * terms.tick_seconds - work_seconds) / table.grid.row_seconds)
        usd = float(table.values[tick, row, none].astype(float) @ usual) if row >= 0 else LATE
        # A chance of being late makes a mean of it: what is not certain is no offer.
        if usd < LATE / 1e6:
            found.append(Offer(deadline, usd))
    return found


# Deadlines that are offered in the place of one that does not go, as multiples of it.
LATER = (1.25, 1.5, 2.0, 3.0, 4.0)


def foreseen(work_seconds: float, start_seconds: float, place: Place, speed: float) -> Found:
    """Whether a training with a choice of machines comes out in time and within its budget.

    Seconds are this machine's; `speed` is how many of the market's go by in one.
    """
    work, delay, hour = work_seconds * speed, start_seconds * speed, HOUR * speed
    deadline = place.deadline_seconds * speed
    terms = Terms(
        delay_seconds=delay,
        # An hour of the market is less of ours, and costs less.
        spot_usd_per_hour=place.spot_usd_per_hour / speed,
        on_demand_usd_per_hour=place.usd_per_hour / speed,
        tick_seconds=tick_of(deadline),
        handover_seconds=None,
    )
    basis = f"about {_time(work, hour)} of work, {_time(delay, hour)} to start a machine"
    asked = offers(work, [deadline], terms, PUBLIC) if deadline >= work + delay else []
    if not asked:
        nearest = _said(_later(work, terms, deadline)[:3], hour)
        problem = (
            f"train.deadline: found {_time(deadline, hour)}, too short for {basis}. Nearest: "
            f"{nearest}"
        )
        return Found((problem,))
    usd = asked[0].usd
    facts: dict[str, object] = {
        "estimated_seconds": round(work_seconds),
        "estimated_usd": round(usd, 4),
    }
    on_demand = (work + delay) / HOUR * terms.on_demand_usd_per_hour
    note = (
        f"train: {basis}, within {_time(deadline, hour)}: {_usd(usd)} USD on average, "
        f"{_usd(on_demand)} on demand"
    )
    if not place.budget_usd or usd <= place.budget_usd:
        return Found((), (note,), facts)
    later = _later(work, terms, deadline)
    enough = [one for one in later if one.usd <= place.budget_usd]
    offered = _said(enough[:3], hour) if enough else "no deadline makes it cheap enough"
    problem = (
        f"train.budget_usd: found {place.budget_usd:g}, the training costs {_usd(usd)} USD "
        f"on average ({basis}, within {_time(deadline, hour)}). Within the budget: {offered}"
    )
    return Found((problem,), (note,), facts)


def _later(work: float, terms: Terms, deadline: float) -> list[Offer]:
    """What other deadlines cost, in coarser steps."""
    coarse = replace(terms, tick_seconds=tick_of(LATER[-1] * deadline))
    least = (work + terms.delay_seconds) * 1.02 + 2 * coarse.tick_seconds
    tried = {least, *(deadline * factor for factor in LATER)}
    return offers(work, sorted(one for one in tried if one >= least), coarse, PUBLIC)


def _said(found: Sequence[Offer], hour: float) -> str:
    return ", ".join(
        f"{_time(one.deadline_seconds, hour)} for {_usd(one.usd)} USD" for one in found
    )


def _time(seconds: float, hour: float) -> str:
    hours = seconds / hour
    return f"{hours:.2f} h" if hours >= 1.5 else f"{60 * hours:.3g} min"


def _usd(usd: float) -> str:
    return f"{usd:.2f}" if usd >= 1.0 else f"{usd:.2g}"


def sample(
    model: Availability, tick_seconds: float, ticks: int, rng: np.random.Generator
) -> list[bool]:
    """A zone of the model's kind, from its middle: it does not begin with a change."""
    warm_up = math.ceil(48 * HOUR / tick_seconds)
    is_up, age, found = bool(rng.random() < 0.5), 0.0, []
    for chance in rng.random(warm_up + ticks):
        found.append(is_up)
        rate = model.per_hour(is_up, age)
        if chance < 1.0 - math.exp(-rate * tick_seconds / HOUR):
            is_up, age = not is_up, 0.0
        else:
            age += tick_seconds
    return found[warm_up:]


POLICIES = {
    "on-demand": rules.on_demand_only,
    "greedy": rules.greedy,
    "uniform progress": rules.uniform_progress,
}
OURS = "ratchet"


def compare(
    work_seconds: float,
    deadline_seconds: float,
    windows: Sequence[Sequence[Sequence[Seen]]],
    terms: Terms,
    model: Availability,
) -> Mapping[str, list[Outcome]]:
    """How the job would have gone under each policy, in each window of the zones."""
    slack = max(0.0, deadline_seconds - work_seconds)
    ours = Tables(model, terms, deadline_seconds, slack)
    wishes = {**POLICIES, OURS: ours.wish}
    return {
        name: [replay(rule, zones, work_seconds, deadline_seconds, terms) for zones in windows]
        for name, rule in wishes.items()
    }
