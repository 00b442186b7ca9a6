"""`ratchet fleet simulate`: how a pool of some size would have served such jobs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from ratchet.adapters.specfile.fleet import load_fleet
from ratchet.adapters.specfile.jobs import load_jobs
from ratchet.adapters.specfile.reader import duration_seconds
from ratchet.adapters.traces import read_zones
from ratchet.core.errors import Rejected
from ratchet.core.fleet.claims import FleetPlan, Pool, Share
from ratchet.core.fleet.replay import Arrival, Fleet, run_fleet, tabled
from ratchet.core.placement.availability import PUBLIC
from ratchet.core.placement.forecast import sample
from ratchet.core.placement.replay import HOUR, Outcome, Seen, watched
from ratchet.core.placement.terms import Terms
from ratchet.entrypoints.cli.key import JsonOption
from ratchet.entrypoints.cli.tables import list_table

TICK_SECONDS = 600.0
# After the last job has come: who has not ended by then waits for what does not come.
AFTER_HOURS = 14 * 24.0


def simulate(
    file: Annotated[Path, typer.Argument(help="Pools and projects' shares, like fleet.yaml.")],
    jobs: Annotated[
        Path, typer.Option(help="CSV: project,at_hours,work_hours,deadline_hours,slots,priority.")
    ],
    pool: Annotated[str, typer.Option(help="Which one. Default: the first of the file.")] = "",
    delay: Annotated[str, typer.Option(help="From the order of a machine until it works.")] = "6m",
    spot: Annotated[float, typer.Option(min=0.0001, help="USD an hour and slot.")] = 1.0,
    on_demand: Annotated[float, typer.Option(min=0.0001, help="USD an hour and slot.")] = 3.0,
    trace: Annotated[
        Path | None, typer.Option(help="Availability of a zone. Default: made up.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is made up.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Play jobs over a pool, with one machine that stays less, as it is, and with one more.

    The same plan as in production, every ten minutes.
    """
    plan, arrivals = load_fleet(file), load_jobs(jobs)
    chosen = _chosen(plan, pool)
    zone, tick = _zone(trace, arrivals, seed)
    terms = Terms(
        delay_seconds=duration_seconds(delay),
        spot_usd_per_hour=spot,
        on_demand_usd_per_hour=on_demand,
        tick_seconds=tick,
        handover_seconds=None,
    )
    _check(arrivals, chosen)
    played = [_played(size, plan, arrivals, zone, terms) for size in _sizes(chosen, arrivals)]
    if as_json:
        print(json.dumps([one.row() for one in played], indent=2))
        return
    kind = f"as in {trace}" if trace else "made up, of the usual kind"
    print(f"{len(arrivals)} jobs over pool {chosen.name}, spot {kind}")
    table = list_table("spot", "on demand", "late", "not ended", "USD", "on spot", "waited", "most")
    for one in played:
        row = one.row()
        table.add_row(
            _limit(row["spot"]), _limit(row["on_demand"]), str(row["late"]), str(row["not_ended"]),
            f"{row['usd']:.2f}", f"{row['spot_share']:.0%}", f"{row['waited_hours_median']:.1f} h",
            f"{row['waited_hours_max']:.1f} h",
        )  # fmt: skip
    Console().print(table)


@dataclass(frozen=True, slots=True)
class Played:
    """How a pool of one size served the jobs."""

    pool: Pool
    fleet: Fleet
    outcomes: dict[str, Outcome]

    def row(self) -> dict[str, Any]:
        found = self.outcomes.values()
        ended = [member for member in self.fleet.members if member.ended_at is not None]
        slots = {member.arrival.name: member.arrival.slots for member in self.fleet.members}
        spot = sum(out.spot_seconds * slots[name] for name, out in self.outcomes.items())
        stays = sum(out.on_demand_seconds * slots[name] for name, out in self.outcomes.items())
        waited = [
            (self.fleet.now if member.began_at is None else member.began_at)
            - member.arrival.at_seconds
            for member in self.fleet.members
        ]
        return {
            "spot": self.pool.spot,
            "on_demand": self.pool.on_demand,
            "late": sum(1.0 < out.late_seconds < math.inf for out in found),
            "not_ended": len(self.fleet.members) - len(ended),
            "usd": sum(out.usd for out in found),
            "spot_share": spot / max(1.0, spot + stays),
            "waited_hours_median": float(np.median(waited)) / HOUR,
            "waited_hours_max": max(waited) / HOUR,
        }


def _played(
    pool: Pool, plan: FleetPlan, arrivals: Sequence[Arrival], zone: Sequence[Seen], terms: Terms
) -> Played:
    # A tick goes by until a look is heard of, and one until a worker has left.
    sized = replace(pool, turnover_seconds=2 * terms.tick_seconds)
    shares = {arrival.project: Share() for arrival in arrivals} | dict(plan.shares)
    fleet = Fleet(sized, shares, terms.tick_seconds)
    return Played(pool, fleet, run_fleet(fleet, arrivals, zone, terms, tabled(terms)))


def _chosen(plan: FleetPlan, name: str) -> Pool:
    for pool in plan.pools:
        if name in ("", pool.name):
            return pool
    known = ", ".join(pool.name for pool in plan.pools)
    raise Rejected(f"--pool: found {name!r}, expected one of {known}")


def _sizes(pool: Pool, arrivals: Sequence[Arrival]) -> list[Pool]:
    if pool.on_demand is None:
        return [pool]
    least = max([arrival.slots for arrival in arrivals if arrival.deadline_seconds] or [0])
    sizes = [pool.on_demand - 1, pool.on_demand, pool.on_demand + 1]
    return [replace(pool, on_demand=size) for size in sizes if size >= least]


def _check(arrivals: Sequence[Arrival], pool: Pool) -> None:
    """Raises `Rejected` for a job that the pool never has room for."""
    for arrival in arrivals:
        limit = pool.on_demand if arrival.deadline_seconds else pool.spot
        if limit is not None and arrival.slots > limit:
            kind = "on-demand" if arrival.deadline_seconds else "spot"
            raise Rejected(
                f"--jobs: {arrival.name} needs {arrival.slots} slots, and pool {pool.name} has "
                f"{limit} {kind} ones: make the pool larger, or the job smaller"
            )


def _zone(trace: Path | None, arrivals: Sequence[Arrival], seed: int) -> tuple[list[Seen], float]:
    """Spot from before the first job until well after the last; a trace begins again at its end."""
    hours = max(arrival.at_seconds for arrival in arrivals) / HOUR + AFTER_HOURS
    if trace is None:
        ticks = math.ceil(hours * HOUR / TICK_SECONDS)
        up = sample(PUBLIC, TICK_SECONDS, ticks, np.random.default_rng(seed))
        return watched(up, TICK_SECONDS, PUBLIC), TICK_SECONDS
    [zone] = read_zones([trace])
    ticks = math.ceil(hours * HOUR / zone.tick_seconds)
    series = [zone.up[tick % len(zone.up)] for tick in range(ticks)]
    return watched(series, zone.tick_seconds, PUBLIC), zone.tick_seconds


def _limit(limit: int | None) -> str:
    return "any" if limit is None else str(limit)
