"""`ratchet simulate`: what jobs of a kind would have cost under each policy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from ratchet.adapters.specfile.reader import duration_seconds
from ratchet.adapters.traces import Trace, read_zones
from ratchet.core.errors import Rejected
from ratchet.core.placement.availability import PUBLIC
from ratchet.core.placement.forecast import compare, offers, sample
from ratchet.core.placement.replay import Outcome, Seen, watched
from ratchet.core.placement.terms import Terms
from ratchet.entrypoints.cli.tables import list_table

HOUR = 3600.0
# As often as the windows of a trace may start anew.
WINDOWS = 200
TICK_SECONDS = 600.0


def simulate(
    work: Annotated[str, typer.Option(help="Of one job on one machine, like 2h.")],
    deadline: Annotated[str, typer.Option(help="From its start to its end, like 8h.")],
    delay: Annotated[
        str, typer.Option(help="From the order of a machine until it works, with what is repeated.")
    ] = "6m",
    spot: Annotated[float, typer.Option(min=0.0001, help="USD an hour.")] = 1.0,
    on_demand: Annotated[float, typer.Option(min=0.0001, help="USD an hour.")] = 3.0,
    trace: Annotated[
        list[Path] | None,
        typer.Option(help="Availability of a zone; again for more zones. Default: made up."),
    ] = None,
    windows: Annotated[int, typer.Option(min=1, max=10_000, help="Starts to try.")] = WINDOWS,
    seed: Annotated[int, typer.Option(help="Other starts.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable answer.")] = False,
) -> None:
    """Replay jobs over spot capacity as it was, or as it usually is, under each policy."""
    zones = read_zones(trace or ())
    tick = zones[0].tick_seconds if zones else TICK_SECONDS
    terms = Terms(
        delay_seconds=duration_seconds(delay),
        spot_usd_per_hour=spot,
        on_demand_usd_per_hour=on_demand,
        tick_seconds=tick,
    )
    work_seconds, deadline_seconds = duration_seconds(work), duration_seconds(deadline)
    least = work_seconds + terms.delay_seconds
    if deadline_seconds < least:
        raise Rejected(
            f"--deadline: found {deadline}, expected at least {least / HOUR:.2f}h: the work and "
            "one start of a machine"
        )
    rng = np.random.default_rng(seed)
    ticks = math.ceil(deadline_seconds / tick)
    tried = _of_traces(zones, ticks, windows, rng) if zones else _made_up(tick, ticks, windows, rng)
    found = compare(work_seconds, deadline_seconds, tried, terms, PUBLIC)
    rows = [_row(name, outcomes) for name, outcomes in found.items()]
    later = [deadline_seconds * factor for factor in (1.0, 1.5, 2.0, 3.0)]
    prices = offers(work_seconds, later, terms, PUBLIC)
    if as_json:
        value = {
            "windows": len(tried),
            "policies": rows,
            "deadlines": [{"seconds": o.deadline_seconds, "usd": o.usd} for o in prices],
        }
        print(json.dumps(value, indent=2))
        return
    _print(rows, len(tried), bool(zones))
    offered = ", ".join(f"{o.deadline_seconds / HOUR:g} h for ${o.usd:.2f}" for o in prices)
    print(f"What a deadline is expected to cost: {offered}")


def _made_up(
    tick: float, ticks: int, windows: int, rng: np.random.Generator
) -> list[list[list[Seen]]]:
    series = (sample(PUBLIC, tick, ticks, rng) for _ in range(windows))
    return [[watched(one, tick, PUBLIC)] for one in series]


def _of_traces(
    zones: list[Trace], ticks: int, windows: int, rng: np.random.Generator
) -> list[list[list[Seen]]]:
    """Windows of all zones at once.  Raises `Rejected` when they are too short."""
    last = len(zones[0].up) - ticks
    if last < 0:
        raise Rejected(
            f"--trace {zones[0].name}: found {len(zones[0].up)} probes, expected at least {ticks}: "
            "a job's time until its deadline"
        )
    seen = [watched(zone.up, zone.tick_seconds, PUBLIC) for zone in zones]
    starts = rng.integers(0, last + 1, windows)
    return [[zone[start : start + ticks] for zone in seen] for start in starts]


def _row(name: str, outcomes: list[Outcome]) -> dict[str, Any]:
    usd = np.array([outcome.usd for outcome in outcomes])
    spot = sum(outcome.spot_seconds for outcome in outcomes)
    whole = spot + sum(outcome.on_demand_seconds for outcome in outcomes)
    return {
        "policy": name,
        "usd_mean": float(usd.mean()),
        "usd_p95": float(np.quantile(usd, 0.95)),
        "spot_share": spot / whole,
        "preemptions_mean": float(np.mean([outcome.preemptions for outcome in outcomes])),
        "late": sum(outcome.late_seconds > 1.0 for outcome in outcomes),
    }


def _print(rows: list[dict[str, Any]], windows: int, is_real: bool) -> None:
    kind = "windows of the trace" if is_real else "made-up windows of the usual kind"
    table = list_table("policy", "USD", "saved", "95 % below", "on spot", "preempted", "late")
    dearest = rows[0]["usd_mean"]
    for row in rows:
        table.add_row(
            row["policy"],
            f"{row['usd_mean']:.2f}",
            f"{1 - row['usd_mean'] / dearest:.0%}",
            f"{row['usd_p95']:.2f}",
            f"{row['spot_share']:.0%}",
            f"{row['preemptions_mean']:.1f}",
            f"{row['late']}",
        )
    print(f"{windows} {kind}")
    Console().print(table)
