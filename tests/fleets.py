"""Random fleets from a seed, looked at at every tick: what no plan may ever do."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ratchet.core.fleet.answer import answer
from ratchet.core.fleet.claims import Claim, Pool, Share
from ratchet.core.fleet.plan import Plan, decide
from ratchet.core.fleet.replay import Arrival, Fleet, run_fleet
from ratchet.core.place import Capacity
from ratchet.core.placement.replay import HOUR, Outcome, Seen
from ratchet.core.placement.rules import greedy
from ratchet.core.placement.terms import Terms

TICK = 600.0
TERMS = Terms(
    delay_seconds=360.0,
    spot_usd_per_hour=1.0,
    on_demand_usd_per_hour=3.0,
    tick_seconds=TICK,
    handover_seconds=None,
)
KINDS = (Capacity.SPOT, Capacity.ON_DEMAND)


@dataclass(slots=True)
class Watched:
    """A planner that looks at each of its plans."""

    faults: list[str] = field(default_factory=list)
    plans: int = 0

    def __call__(self, pool: Pool, claims: Sequence[Claim], shares: Mapping[str, Share]) -> Plan:
        plan = decide(pool, claims, shares)
        self.plans += 1
        for kind in KINDS:
            taken = sum(
                claim.slots
                for claim in claims
                if kind in (claim.alive, plan.granted.get(claim.run))
            )
            if taken > pool.slots(kind):
                self.faults.append(f"{taken} {kind.value} slots of {pool.slots(kind)}")
        self.faults += [why for claim in claims if (why := _wrong(claim, plan, claims, shares))]
        backwards = decide(pool, list(reversed(claims)), shares)
        if (backwards.granted, backwards.leaves) != (plan.granted, plan.leaves):
            self.faults.append("the order of the claims matters")
        return plan


def _wrong(claim: Claim, plan: Plan, claims: Sequence[Claim], shares: Mapping[str, Share]) -> str:
    kind = plan.granted.get(claim.run)
    if shares[claim.project].is_spent:
        return f"{claim.run} has {kind} with its budget spent" if kind is not None else ""
    if claim.is_leaving and kind is not None and claim.granted is None:
        return f"{claim.run} is given {kind} before it has left"
    loses = claim.alive is claim.granted is not kind and claim.wants is claim.alive is not None
    if not loses or kind is not None:
        return ""
    if claim.run not in plan.leaves:
        return f"{claim.run} leaves for nobody"
    other = next(each for each in claims if each.run == plan.leaves[claim.run])
    is_due_first = other.run in plan.urgent and _due(other) < _due(claim)
    if other.priority > claim.priority or is_due_first:
        return ""
    return f"{claim.run} leaves for {other.run}, which is no more urgent"


def _due(claim: Claim) -> float:
    return 1e18 if claim.time_left_seconds is None else claim.time_left_seconds


def random_zone(chance: random.Random, ticks: int) -> list[Seen]:
    found, is_up, age = [], chance.random() < 0.6, 0.0
    for _ in range(ticks):
        found.append(Seen(is_up, age))
        age += TICK
        if chance.random() < 0.08:
            is_up, age = not is_up, 0.0
    return found


def random_arrivals(chance: random.Random, slots_max: int, *, due: bool) -> list[Arrival]:
    """Up to twelve; with `due` all have a deadline."""
    found = []
    for number in range(chance.randint(1, 12)):
        work = chance.uniform(600.0, 6 * HOUR)
        deadline = work * chance.uniform(1.5, 8.0) + HOUR
        found.append(
            Arrival(
                name=f"run-{number}",
                project=f"project-{chance.randint(0, 3)}",
                at_seconds=chance.uniform(0.0, 12 * HOUR),
                work_seconds=work,
                deadline_seconds=deadline if due or chance.random() < 0.7 else None,
                slots=min(slots_max, chance.choice([1, 1, 2])),
                priority=chance.choice([0, 0, 1]),
            )
        )
    return found


@dataclass(slots=True)
class Played:
    """A fleet that was played to its end."""

    pool: Pool
    arrivals: list[Arrival]
    fleet: Fleet
    outcomes: dict[str, Outcome]
    watched: Watched
    budget_usd: float | None

    @property
    def late(self) -> list[str]:
        return [
            arrival.name
            for arrival in self.arrivals
            if arrival.deadline_seconds is not None
            and self.outcomes[arrival.name].late_seconds > 0.0
        ]


def play(seed: int, *, ample: bool = False, budget: bool = False) -> Played:
    """One random fleet.  `ample`: a machine that stays for everybody; `budget`: of one project."""
    chance = random.Random(seed)
    pool = Pool(
        name="p",
        spot=chance.choice([0, 1, 2, 4]),
        on_demand=chance.choice([1, 2, 4]),
        turnover_seconds=2 * TICK,
    )
    arrivals = random_arrivals(chance, pool.on_demand or 1, due=ample)
    if ample:
        slots = sum(arrival.slots for arrival in arrivals)
        pool = Pool(name="p", spot=pool.spot, on_demand=slots, turnover_seconds=2 * TICK)
    limit = chance.uniform(5.0, 30.0) if budget else None
    shares = {f"project-{n}": Share(weight=chance.choice([1.0, 2.0])) for n in range(4)}
    if limit is not None:
        shares["project-0"] = Share(usd_per_month=limit)
    watched = Watched()
    fleet = Fleet(pool, shares, TICK, watched)
    outcomes = run_fleet(fleet, arrivals, random_zone(chance, 420), TERMS, greedy)
    return Played(pool, arrivals, fleet, outcomes, watched, limit)


def play_looks(seed: int, looks: int = 400) -> list[str]:
    """Runs that look one by one, as they do: each tells of itself, hears of itself, and knows
    nothing of what others are told.  Answers what was wrong with the machines in use."""
    chance, faults = random.Random(seed), list[str]()
    pool = Pool(name="p", spot=chance.randint(0, 3), on_demand=chance.randint(1, 3))
    told: dict[str, Claim] = {}
    works: dict[str, Capacity] = {}
    for _ in range(looks):
        run = f"run-{chance.randint(0, 9)}"
        before = told.get(run)
        mine = Claim(
            run=run,
            project=f"project-{chance.randint(0, 1)}",
            slots=1 if before is None else before.slots,
            priority=chance.choice([0, 0, 1]),
            wants=chance.choice([None, *KINDS]),
            sees_spot=chance.random() < 0.5,
            alive=works.get(run),
            granted=None if before is None else before.granted,
            waiting_seconds=chance.uniform(0.0, 2_000.0),
            time_left_seconds=chance.choice([None, chance.uniform(0.0, 20 * HOUR)]),
            work_left_seconds=chance.uniform(0.0, 2 * HOUR),
            delay_seconds=TERMS.delay_seconds,
        ).at_its_look
        told[run] = mine
        limit = chance.choice([None, None, 2.0, 0.5])
        shares = {"project-0": Share(usd_spent=1.0, usd_per_month=limit)}
        grant = answer(run, pool, list(told.values()), shares)
        told[run] = replace(mine, granted=grant.kind)
        if grant.leaves:
            # It saves and is gone before its next look.
            del works[run]
        elif grant.kind is not None:
            works[run] = grant.kind
        elif chance.random() < 0.1:
            del told[run]
        for kind in KINDS:
            if (used := sum(each is kind for each in works.values())) > pool.slots(kind):
                faults.append(f"{used} machines on {pool.slots(kind):.0f} {kind.value} slots")
    return faults
