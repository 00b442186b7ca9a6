"""Many trainings over few machines: who is late, and at what cost, under each planner; and how long
a plan takes.

Jobs are made up, from a seed: this is no trace of anybody's.  Spot comes and goes as it did in nine
zones of 2023 (`../shared/data/spot-traces`, or `--traces`; without them as the model says).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from report import Result, publish
from traces import HOUR, SEED, of_year, starts_of

from ratchet.core.fleet.claims import Claim, Pool, Share
from ratchet.core.fleet.plan import Plan, decide
from ratchet.core.fleet.replay import Arrival, Fleet, Planner, run_fleet, tabled
from ratchet.core.place import Capacity
from ratchet.core.placement import rules
from ratchet.core.placement.availability import PUBLIC
from ratchet.core.placement.forecast import sample
from ratchet.core.placement.replay import Outcome, Seen, watched
from ratchet.core.placement.rules import Rule
from ratchet.core.placement.terms import Action, Situation, Terms

TRACES = Path(__file__).parents[2] / "shared/data/spot-traces"
TICK = 600.0
TERMS = Terms(
    delay_seconds=360.0,
    spot_usd_per_hour=0.9731,
    on_demand_usd_per_hour=3.06,
    tick_seconds=TICK,
    handover_seconds=None,
)
# A slot is free two looks after it is asked back.
POOL = Pool(name="gpus", spot=4, on_demand=3, turnover_seconds=2 * TICK)
PROJECTS = {"router": Share(weight=2.0), "summaries": Share(), "support": Share()}
JOBS, HORIZON_HOURS = 40, 240.0
DEADLINE_HOURS_MAX = 60.0
Costs = Mapping[str, list[tuple[Sequence[Arrival], Mapping[str, Outcome]]]]


def arrivals(rng: np.random.Generator, *, burst: bool) -> list[Arrival]:
    """Forty jobs over two days, or half of them within a minute: one alarm of many."""
    names, found = list(PROJECTS), []
    for number in range(JOBS):
        work = float(np.clip(rng.lognormal(math.log(1.6), 1.0), 0.1, 12.0)) * HOUR
        deadline = min(float(rng.uniform(1.5, 6.0)) * work + 2 * HOUR, DEADLINE_HOURS_MAX * HOUR)
        is_in_burst = burst and number < JOBS // 2
        at = 12 * HOUR if is_in_burst else float(rng.uniform(0, 48.0)) * HOUR
        found.append(
            Arrival(
                name=f"run-{number}",
                project=names[int(rng.integers(len(names)))],
                at_seconds=at,
                work_seconds=work,
                deadline_seconds=deadline,
                slots=int(rng.choice([1, 1, 1, 2])),
            )
        )
    return found


def first_come(pool: Pool, claims: Sequence[Claim], shares: Mapping[str, Share]) -> Plan:
    """A queue: what was first keeps its machine and is served first; nobody passes it."""
    return _queue(pool, sorted(claims, key=lambda c: (c.alive is None, -c.waiting_seconds, c.run)))


def earliest_deadline(pool: Pool, claims: Sequence[Claim], shares: Mapping[str, Share]) -> Plan:
    """Who is due first has a machine, and takes it from who is due later."""
    return _queue(pool, sorted(claims, key=lambda c: (c.time_left_seconds or 0.0, c.run)))


def _queue(pool: Pool, line: Sequence[Claim]) -> Plan:
    plan, free = Plan(), {kind: pool.slots(kind) for kind in (Capacity.SPOT, Capacity.ON_DEMAND)}
    for claim in line:
        kinds = dict.fromkeys((claim.alive, claim.wants, Capacity.ON_DEMAND))
        fitting = [kind for kind in kinds if kind is not None and claim.slots <= free[kind]]
        if claim.alive is Capacity.SPOT and claim.wants is not Capacity.SPOT:
            fitting = [kind for kind in fitting if kind is not Capacity.SPOT]
        if fitting:
            free[fitting[0]] -= claim.slots
            plan.granted[claim.run] = fitting[0]
    return _once_free(pool, line, plan)


def _once_free(pool: Pool, line: Sequence[Claim], plan: Plan) -> Plan:
    """Nobody has a slot before who leaves it is gone: for them as for us."""
    taken = {
        kind: sum(claim.slots for claim in line if claim.alive is kind)
        for kind in (Capacity.SPOT, Capacity.ON_DEMAND)
    }
    for claim in line:
        kind = plan.granted.get(claim.run)
        if kind is None or claim.alive is kind:
            continue
        taken[kind] += claim.slots
        if claim.alive is not None or taken[kind] > pool.slots(kind):
            del plan.granted[claim.run]
            taken[kind] -= claim.slots
    return plan


def spot_or_at_once(at: Situation, terms: Terms) -> Action:
    """Spot while it is there, else a machine that stays."""
    return Action.SPOT if at.spot_is_up else Action.ON_DEMAND


def policies(ours: Rule) -> dict[str, tuple[Rule, Planner]]:
    return {
        "first come, on demand": (rules.on_demand_only, first_come),
        "first come, spot or at once": (spot_or_at_once, first_come),
        "earliest deadline, on demand": (rules.on_demand_only, earliest_deadline),
        "earliest deadline, spot or at once": (spot_or_at_once, earliest_deadline),
        "ours, greedy jobs": (rules.greedy, decide),
        "ours": (ours, decide),
    }


def zones(folder: Path, count: int) -> list[list[Seen]]:
    """So many pieces of ten days, each as it looks to who knows its past."""
    ticks = int(HORIZON_HOURS * HOUR / TICK)
    if not folder.exists():
        print(f"no traces at {folder}: spot comes and goes as the model says")
        rng = np.random.default_rng(SEED)
        return [watched(sample(PUBLIC, TICK, ticks, rng), TICK, PUBLIC) for _ in range(count)]
    series = of_year(folder, 2023)
    found = []
    for number in range(count):
        one = series[number % len(series)]
        start = starts_of(folder, f"2023 {one.name}", HORIZON_HOURS, count)[number]
        every = round(TICK / one.tick_seconds)
        up = one.up[start : start + ticks * max(1, every) : max(1, every)]
        found.append(watched(up, TICK, PUBLIC))
    return found


def compared(folder: Path, fleets: int) -> Costs:
    ours = tabled(TERMS)
    costs: dict[str, list[tuple[Sequence[Arrival], Mapping[str, Outcome]]]] = {}
    for number, zone in enumerate(zones(folder, fleets)):
        jobs = arrivals(np.random.default_rng([SEED, number]), burst=number % 2 == 1)
        for name, (rule, planner) in policies(ours).items():
            fleet = Fleet(POOL, dict(PROJECTS), TICK, planner)
            found = run_fleet(fleet, jobs, zone, TERMS, rule)
            costs.setdefault(name, []).append((jobs, found))
    return costs


@dataclass(frozen=True, slots=True)
class Sums:
    usd: float
    late: int
    jobs: int
    slot_hours: float
    spot_share: float


def summed(runs: Sequence[tuple[Sequence[Arrival], Mapping[str, Outcome]]]) -> Sums:
    slots = [(a.slots, found[a.name]) for jobs, found in runs for a in jobs]
    spot = sum(n * out.spot_seconds for n, out in slots) / HOUR
    stays = sum(n * out.on_demand_seconds for n, out in slots) / HOUR
    return Sums(
        usd=sum(out.usd for _, out in slots),
        late=sum(out.late_seconds > 1.0 for _, out in slots),
        jobs=len(slots),
        slot_hours=spot + stays,
        spot_share=spot / (spot + stays),
    )


def fleets(folder: Path, count: int) -> list[Result]:
    found = {name: summed(runs) for name, runs in compared(folder, count).items()}
    print(f"\n{count} fleets of {JOBS} jobs, {POOL.spot} spot slots and {POOL.on_demand} that stay")
    print(f"  {'':34} {'USD a job':>9} {'late':>5} {'slot hours':>10} {'on spot':>8}")
    for name, sums in found.items():
        print(
            f"  {name:34} {sums.usd / sums.jobs:9.2f} {sums.late:5d} {sums.slot_hours:10.1f} "
            f"{sums.spot_share:8.0%}"
        )
    queue, due, ours = (
        found[name]
        for name in ("first come, on demand", "earliest deadline, spot or at once", "ours")
    )
    return [
        Result("fleet.late", ours.late, f"of {ours.jobs} jobs", queue.late),
        Result("fleet.late_beside_earliest_deadline", ours.late - due.late, "jobs", 0),
        Result("fleet.usd", ours.usd / queue.usd, "x first come, on demand"),
        Result("fleet.slot_hours", ours.slot_hours / queue.slot_hours, "x first come", 0.8),
    ]


def queued(count: int, rng: np.random.Generator) -> list[Claim]:
    """So many claims, of which a fortieth has slots."""
    found, slots = [], {Capacity.SPOT: count // 80 + 1, Capacity.ON_DEMAND: count // 80 + 1}
    for number in range(count):
        size = int(rng.choice([1, 1, 1, 2, 4]))
        kind = Capacity.SPOT if rng.random() < 0.7 else Capacity.ON_DEMAND
        has = kind if size <= slots[kind] else None
        slots[kind] -= size if has else 0
        work = float(np.clip(rng.lognormal(math.log(1.6), 1.0), 0.1, 24.0)) * HOUR
        backlog = count / (count // 40 + 1) * 3.0 * HOUR
        due = float(rng.uniform(1.2, 6.0)) * work + float(rng.uniform(0, 1.0)) * backlog
        found.append(
            Claim(
                run=f"run-{number}",
                project=f"project-{number % 20}",
                slots=size,
                priority=int(rng.choice([0, 0, 0, 1])),
                wants=kind,
                alive=has,
                granted=has,
                waiting_seconds=0.0 if has else float(rng.uniform(0, 3e4)),
                time_left_seconds=due,
                work_left_seconds=work,
                delay_seconds=360.0,
            )
        )
    return found


def planning(counts: Sequence[int], repeats: int) -> list[Result]:
    """One plan of all, as each look makes it; a look is what follows an event."""
    medians, found = {}, []
    shares = {f"project-{n}": Share(weight=1.0 + n % 3) for n in range(20)}
    print(f"\n{'jobs':>8} {'median ms':>10} {'p99 ms':>8}")
    for count in counts:
        rng = np.random.default_rng([SEED, count])
        claims = queued(count, rng)
        slots = count // 80 + 1
        pool = Pool(name="gpus", spot=slots, on_demand=slots)
        took = []
        for _ in range(repeats):
            event = int(rng.integers(count))
            claims[event] = replace(claims[event], work_left_seconds=float(rng.uniform(0, 9e4)))
            began = time.perf_counter()
            decide(pool, claims, shares)
            took.append(1000 * (time.perf_counter() - began))
        medians[count] = float(np.median(took))
        p99 = float(np.quantile(took, 0.99))
        print(f"{count:8d} {medians[count]:10.2f} {p99:8.2f}")
        found.append(Result(f"planning.{count}.median", medians[count], "ms", 1000.0))
        found.append(Result(f"planning.{count}.p99", p99, "ms", 20.0))
    low, high = counts[-2], counts[-1]
    slope = math.log(medians[high] / medians[low]) / math.log(high / low)
    return [*found, Result("planning.growth", slope, "exponent", 1.1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer fleets and plans")
    parser.add_argument("--traces", type=Path, default=TRACES, help="folder of availability")
    given = parser.parse_args()
    count, repeats = (6, 30) if given.quick else (36, 200)
    results = [*fleets(given.traces, count), *planning((10, 100, 1_000, 10_000), repeats)]
    publish("fleet", f"{count} fleets, {repeats} plans of each size, one core", results)


if __name__ == "__main__":
    main()
