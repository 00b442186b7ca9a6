"""What waiting for spot capacity saves, and whether anybody is late: policies side by side on real
availability, under the same guard, beside the optimum of who knows the future.

Availability of 2022 and 2023 from `../shared/data/spot-traces` (or `--traces`): models are fitted
on one year and asked on the other.  Windows of one series overlap, so intervals are over series.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from report import Result, publish
from traces import HOUR, SEED, Series, of_year, other, published, starts_of, traces

from ratchet.core.placement import rules
from ratchet.core.placement.availability import Availability, Frailty, fit, fit_zones, spells_of
from ratchet.core.placement.bound import least_usd
from ratchet.core.placement.guard import guarded
from ratchet.core.placement.policy import Tables
from ratchet.core.placement.replay import EXACT, Guess, Job, Seen, replay, watched
from ratchet.core.placement.terms import Action, Machine, Situation, Terms

ON_DEMAND_USD, SPOT_USD = 3.06, 0.9731
TRACES = Path(__file__).parents[2] / "shared/data/spot-traces"
Rule = Callable[[Situation, Terms], Action]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A job, and where it starts: the windows of one series, or of several zones at once."""

    zones: tuple[str, ...]
    year: int
    starts: tuple[int, ...]
    work_hours: float
    deadline_hours: float
    delay_minutes: float
    overlap: bool = True
    whole_ticks: bool = False
    guess: Guess = EXACT


@cache
def model(folder: Path, year: int) -> Availability:
    """Fitted on all series of a year."""
    series = of_year(folder, year)
    spells = [spells_of(one.up, one.tick_seconds) for one in series]
    return fit(spells, series[0].tick_seconds)


@cache
def view(folder: Path, name: str) -> tuple[Seen, ...]:
    series = traces(folder)[name]
    known = model(folder, other(series.year))
    return tuple(watched(series.up, series.tick_seconds, known))


def terms_of(case: Case, tick: float, *, overlap: bool) -> Terms:
    return Terms(
        delay_seconds=60.0 * case.delay_minutes,
        spot_usd_per_hour=SPOT_USD,
        on_demand_usd_per_hour=ON_DEMAND_USD,
        tick_seconds=tick,
        handover_seconds=120.0 if overlap else None,
        bills_whole_ticks=case.whole_ticks,
    )


@cache
def tables(
    folder: Path, year: int, terms: Terms, work_hours: float, deadline_hours: float, adapts: bool
) -> Tables:
    slack = (deadline_hours - work_hours) * HOUR
    known = model(folder, other(year))
    return Tables(known, terms, deadline_hours * HOUR, slack, adapts)


def policies(folder: Path, case: Case, tick: float) -> dict[str, tuple[Rule, Terms]]:
    """All that are compared.  The last is ours, whole."""
    plain = terms_of(case, tick, overlap=False)
    key = (case.work_hours, case.deadline_hours)
    found: dict[str, tuple[Rule, Terms]] = {
        "on-demand": (rules.on_demand_only, plain),
        "greedy": (rules.greedy, plain),
        "uniform progress": (rules.uniform_progress, plain),
        "levi": (rules.levi, plain),
        "table": (tables(folder, case.year, plain, *key, False).wish, plain),
        "+ adaptive": (tables(folder, case.year, plain, *key, True).wish, plain),
    }
    if case.overlap:
        both = terms_of(case, tick, overlap=True)
        found["+ overlap"] = (tables(folder, case.year, both, *key, True).wish, both)
    return found


def run(work: tuple[Path, Case]) -> dict[str, list[tuple[float, float]]]:
    """Of each policy and the optimum: USD and seconds late, by window."""
    folder, case = work
    series = [traces(folder)[name] for name in case.zones]
    tick = series[0].tick_seconds
    ticks = math.ceil(case.deadline_hours * HOUR / tick)
    found: dict[str, list[tuple[float, float]]] = {}
    for start in case.starts:
        seen = [view(folder, name)[start : start + ticks] for name in case.zones]
        job = (case.work_hours * HOUR, case.deadline_hours * HOUR)
        for name, (rule, terms) in policies(folder, case, tick).items():
            out = replay(rule, seen, *job, terms, case.guess)
            found.setdefault(name, []).append((out.usd, out.late_seconds))
        # The optimum has no overlap, like those that it is compared with in the literature.
        up = [one.up[start : start + ticks] for one in series]
        best = least_usd(up, *job, terms_of(case, tick, overlap=False))
        found.setdefault("omniscient", []).append((best, 0.0))
    return found


class Pool:
    """Cases over the cores, grouped by series."""

    def __init__(self, folder: Path, processes: int) -> None:
        self._folder = folder
        self._pool = multiprocessing.get_context("fork").Pool(processes)

    def costs(
        self, cases: Sequence[Case], together: int
    ) -> dict[str, list[list[tuple[float, float]]]]:
        """[policy][case][window].  So many cases in a row are of one job, and share its tables."""
        merged: dict[str, list[list[tuple[float, float]]]] = {}
        works = [(self._folder, case) for case in cases]
        for found in self._pool.imap(run, works, chunksize=together):
            for name, outcomes in found.items():
                merged.setdefault(name, []).append(outcomes)
        return merged

    def zones(
        self, works: Sequence[tuple[Path, tuple[str, ...], float, int, int]]
    ) -> list[dict[str, list[tuple[float, float]]]]:
        return self._pool.map(run_zones, works)

    def close(self) -> None:
        self._pool.close()
        self._pool.join()


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over windows of each series, and over series."""

    ratio: Mapping[str, float]
    """Cost over the optimum's."""
    gap: Mapping[str, tuple[float, float, float]]
    """Of the way from uniform progress to the optimum: done, with a 90 % interval over series."""
    worse: Mapping[str, int]
    """Series in which it costs more than uniform progress."""
    late: int


def summed_up(costs: Mapping[str, list[list[tuple[float, float]]]]) -> Summary:
    means = {
        name: np.array([np.mean([usd for usd, _ in case]) for case in cases])
        for name, cases in costs.items()
    }
    best, up = means["omniscient"], means["uniform progress"]
    late = sum(seconds > 1.0 for cases in costs.values() for case in cases for _, seconds in case)
    rng = np.random.default_rng(SEED)
    draws = rng.integers(0, len(best), (2_000, len(best)))

    def gap(mine: Any) -> tuple[float, float, float]:
        shares = (up - mine)[draws].sum(1) / np.maximum((up - best)[draws].sum(1), 1e-9)
        low, high = np.quantile(shares, [0.05, 0.95])
        return float((up - mine).sum() / (up - best).sum()), float(low), float(high)

    return Summary(
        {name: float(mine.sum() / best.sum()) for name, mine in means.items()},
        {name: gap(mine) for name, mine in means.items()},
        {name: int((mine > up * (1 + 1e-4)).sum()) for name, mine in means.items()},
        late,
    )


def show(title: str, summary: Summary) -> None:
    print(f"\n{title}")
    print(f"  {'':18} {'x optimum':>9}  {'of the gap to UP closed':>26}  worse than UP")
    for name, ratio in summary.ratio.items():
        share, low, high = summary.gap[name]
        print(
            f"  {name:18} {ratio:9.3f}  {share:10.2f} [{low:5.2f}, {high:5.2f}]"
            f"  {summary.worse[name]:13d}"
        )
    print(f"  late: {summary.late}", flush=True)


def leaderboard(pool: Pool, folder: Path) -> list[Result]:
    """The published single-zone benchmark: per cent of what undisturbed spot would save."""
    windows = json.loads((folder / "published-windows.json").read_text())["single_zone"]
    ids = windows["leaderboard_30_window_ids"]
    cases = [
        Case(
            zones=(f"2022 {zone}",),
            year=2022,
            starts=tuple(
                windows["start_tick_by_window_id"][key] - traces(folder)[f"2022 {zone}"].first_tick
                for key in ids
            ),
            work_hours=48.0,
            deadline_hours=deadline,
            delay_minutes=60 * delay,
            whole_ticks=True,
        )
        for deadline in windows["leaderboard_jobs"]["deadline_h"]
        for delay in windows["leaderboard_jobs"]["restart_overhead_h"]
        for zone in windows["leaderboard_zones"]
    ]
    costs = pool.costs(cases, len(windows["leaderboard_zones"]))
    whole, least = 48.0 * ON_DEMAND_USD, 48.0 * SPOT_USD
    print("\nThe published leaderboard (52 and 70 h, 1.2, 3 and 6 minutes): score")
    late = 0
    scores = {}
    for name, found in costs.items():
        usd = np.mean([usd for case in found for usd, _ in case])
        late += sum(seconds > 1.0 for case in found for _, seconds in case)
        scores[name] = 100 * (whole - float(usd)) / (whole - least)
        print(f"  {name:18} {scores[name]:6.2f}")
    print(f"  late: {late}", flush=True)
    return [
        Result("leaderboard.score", scores["+ adaptive"], "points", 52.0, "higher"),
        Result("leaderboard.late", late, "windows", 0),
    ]


def paper(pool: Pool, folder: Path, count: int, shares: Sequence[float]) -> list[Result]:
    """48 hours of work, 12 minutes of delay, at three shares of the time until the deadline."""
    kinds = [(year, share) for share in shares for year in (2022, 2023)]
    found = []
    for (year, share), summary in zip(
        kinds,
        compared(
            pool, folder, count, [(year, (48.0, 48.0 / share, 12.0)) for year, share in kinds]
        ),
        strict=True,
    ):
        title = f"{year}, 48 h within {48 / share:.1f} h, 12 minutes of delay"
        show(f"{title}; model of {other(year)}", summary)
        name = f"48h.{year}.{share:g}"
        found += [
            Result(f"{name}.ratio", summary.ratio["+ overlap"], "x optimum", 1.05),
            Result(f"{name}.gap", summary.gap["+ overlap"][0], "of the gap", 0.5, "higher"),
            Result(f"{name}.worse", summary.worse["+ overlap"], "series", 0),
            Result(f"{name}.late", summary.late, "windows", 0),
        ]
    return found


def compared(
    pool: Pool, folder: Path, count: int, jobs: Sequence[tuple[int, tuple[float, float, float]]]
) -> list[Summary]:
    """Each job, (work, deadline) in hours and a delay in minutes, over all series of its year."""
    groups = [
        [case_of(folder, series, count, job) for series in of_year(folder, year)]
        for year, job in jobs
    ]
    size = max(map(len, groups))
    costs = pool.costs([case for group in groups for case in group], size)
    found, at = [], 0
    for group in groups:
        part = {name: cases[at : at + len(group)] for name, cases in costs.items()}
        found.append(summed_up(part))
        at += len(group)
    return found


def case_of(
    folder: Path, series: Series, count: int, job: tuple[float, float, float], **more: Any
) -> Case:
    """Windows of one series for (work, deadline) in hours and a delay in minutes."""
    name = f"{series.year} {series.name}"
    work, deadline, delay = job
    starts = (
        published(folder, name, count)
        if series.year == 2022
        else starts_of(folder, name, deadline, count)
    )
    return Case(
        zones=(name,),
        year=series.year,
        starts=starts,
        work_hours=work,
        deadline_hours=deadline,
        delay_minutes=delay,
        **more,
    )


PARTS = ("leaderboard", "paper", "small", "delays", "zones", "hostile", "planning")
SMALL = ((1.0, 4.0), (2.0, 4.0), (2.0, 8.0), (6.0, 12.0), (6.0, 24.0))


def small(
    pool: Pool, folder: Path, count: int, jobs: Sequence[tuple[float, float]]
) -> list[Result]:
    """Jobs like those of LoRA: hours, with a deadline of two to four times as much."""
    kinds = [(*job, delay) for delay in (3.0, 12.0) for job in jobs]
    found = []
    for (work, deadline, delay), summary in zip(
        kinds, compared(pool, folder, count, [(2022, kind) for kind in kinds]), strict=True
    ):
        show(f"2022, {work:g} h within {deadline:g} h, {delay:g} minutes of delay", summary)
        name = f"small.{work:g}h.{deadline:g}h.{delay:g}min"
        goal = 1.02 if delay == 3.0 else 1.06
        found += [
            Result(f"{name}.ratio", summary.ratio["+ overlap"], "x optimum", goal),
            Result(f"{name}.late", summary.late, "windows", 0),
        ]
    return found


def delays(pool: Pool, folder: Path, count: int, minutes: Sequence[float]) -> list[Result]:
    """What a slow start costs each policy."""
    jobs = [(2022, (48.0, 60.0, delay)) for delay in minutes]
    found = []
    for delay, summary in zip(minutes, compared(pool, folder, count, jobs), strict=True):
        show(f"2022, 48 h within 60 h, {delay:g} minutes of delay", summary)
        ratio = summary.ratio["+ overlap"]
        found.append(Result(f"delay.{delay:g}min.ratio", ratio, "x optimum"))
    return found


ZONES = {
    "2 zones of a region": ("us-west-2a", "us-west-2b"),
    "3 zones of a region": ("us-west-2a", "us-west-2b", "us-west-2c"),
    "2 regions": ("us-east-1a", "us-west-2a"),
    "3 regions": ("us-east-1a", "us-east-2a", "us-west-2a"),
    "5 zones of 3 regions": (
        "us-east-1a", "us-east-1c", "us-east-2a", "us-west-2a", "us-west-2b",
    ),
    "9 zones of 3 regions": (
        "us-east-1a", "us-east-1c", "us-east-1d", "us-east-1f", "us-east-2a", "us-east-2b",
        "us-west-2a", "us-west-2b", "us-west-2c",
    ),
}  # fmt: skip
TRAINED_SHARE = 0.6


def zones(
    pool: Pool, folder: Path, count: int, sets: Mapping[str, tuple[str, ...]]
) -> list[Result]:
    """Several zones at once: fitted on the first part of 2023, asked on the rest."""
    found, ratios = [], []
    for title, names in sets.items():
        for share in (0.92, 0.8):
            outcome = pool.zones([(folder, names, share, part, count) for part in range(2)])
            costs = {k: [[x] for o in outcome for x in o[k]] for k in outcome[0]}
            summary = summed_up(costs)
            show(f"{title}, 48 h within {48 / share:.0f} h", summary)
            ratio = summary.ratio["+ overlap"]
            ratios.append(ratio)
            goal = 1.03 if len({name[:-1] for name in names}) == 3 else None
            found += [
                Result(f"zones.{title}.{share:g}.ratio", ratio, "x optimum", goal),
                Result(f"zones.{title}.{share:g}.late", summary.late, "windows", 0),
            ]
    return [*found, Result("zones.mean", float(np.mean(ratios)), "x optimum", 1.05)]


@cache
def fitted_zones(folder: Path, names: tuple[str, ...]) -> Availability:
    series = [traces(folder)[f"2023 {name}_v100_1"] for name in names]
    known = round(len(series[0].up) * TRAINED_SHARE)
    return fit_zones([one.up[:known] for one in series], series[0].tick_seconds)


@cache
def zone_tables(
    folder: Path, names: tuple[str, ...], terms: Terms, deadline: float, adapts: bool
) -> Tables:
    slack = deadline - 48.0 * HOUR
    return Tables(fitted_zones(folder, names), terms, deadline, slack, adapts)


def run_zones(
    work: tuple[Path, tuple[str, ...], float, int, int],
) -> dict[str, list[tuple[float, float]]]:
    """Half of the windows of one set of zones."""
    folder, names, share, part, count = work
    series = [traces(folder)[f"2023 {name}_v100_1"] for name in names]
    tick, deadline = series[0].tick_seconds, 48.0 * HOUR / share
    ticks, first = math.ceil(deadline / tick), round(len(series[0].up) * TRAINED_SHARE)
    rng = np.random.default_rng([SEED, len(names), part])
    starts = rng.integers(first, len(series[0].up) - ticks, count)
    known = fitted_zones(folder, names)
    seen = [watched(one.up, tick, known) for one in series]
    job = Case(
        zones=(), year=2023, starts=(), work_hours=48, deadline_hours=0, delay_minutes=12
    )  # fmt: skip
    plain, both = (terms_of(job, tick, overlap=on) for on in (False, True))
    wishes: dict[str, tuple[Rule, Terms]] = {
        "greedy": (rules.greedy, plain),
        "uniform progress": (rules.uniform_progress, plain),
        "levi": (rules.levi, plain),
        "table": (zone_tables(folder, names, plain, deadline, False).wish, plain),
        "+ overlap": (zone_tables(folder, names, both, deadline, False).wish, both),
    }
    found: dict[str, list[tuple[float, float]]] = {}
    for start in starts:
        window = [one[start : start + ticks] for one in seen]
        for name, (rule, terms) in wishes.items():
            out = replay(rule, window, 48.0 * HOUR, deadline, terms)
            found.setdefault(name, []).append((out.usd, out.late_seconds))
        up = [one.up[start : start + ticks] for one in series]
        found.setdefault("omniscient", []).append((least_usd(up, 48.0 * HOUR, deadline, plain), 0))
    return found


def hostile(folder: Path, count: int) -> list[Result]:
    """Guesses of the work that are wrong, and availability that spites whoever works on demand."""
    late, ratios = 0, []
    terms = terms_of(
        Case(zones=(), year=2022, starts=(), work_hours=6, deadline_hours=0, delay_minutes=12),
        600.0,
        overlap=True,
    )
    plain = replace(terms, handover_seconds=None)
    for factor in (0.5, 1.0, 2.0):
        guess = Guess(factor, 2.0, known_after_seconds=900.0)
        for deadline in (9.0, 13.0, 24.0):
            ours = Tables(model(folder, 2023), terms, deadline * HOUR, deadline * HOUR)
            costs = {"ours": 0.0, "greedy": 0.0}
            for series in of_year(folder, 2022):
                name = f"2022 {series.name}"
                for start in published(folder, name, count):
                    seen = [view(folder, name)[start : start + math.ceil(deadline * 6)]]
                    for who, rule, how in (
                        ("ours", ours.wish, terms),
                        ("greedy", rules.greedy, plain),
                    ):
                        out = replay(rule, seen, 6 * HOUR, deadline * HOUR, how, guess)
                        costs[who] += out.usd
                        late += out.late_seconds > 1.0
            ratios.append(costs["ours"] / costs["greedy"])
    known = model(folder, 2023)
    spite = {w: spited(rule, how, known) for w, rule, how in _players(folder, terms, plain)}
    for who, (usd, seconds) in spite.items():
        print(
            f"  spot comes only to who works on demand: {who:7} {usd:.2f} USD, {seconds:.0f} s late"
        )
    late += sum(seconds > 1.0 for _, seconds in spite.values())
    print(
        f"\nWork guessed at half and twice: {late} late; at most {max(ratios):.3f} of greedy's cost"
    )
    return [
        Result("wrong guesses.late", late, "windows", 0),
        Result("wrong guesses.over greedy", max(ratios), "x", 1.05),
        Result("spite.over greedy", spite["ours"][0] / spite["greedy"][0], "x", 1.05),
    ]


def _players(folder: Path, terms: Terms, plain: Terms) -> list[tuple[str, Rule, Terms]]:
    ours = Tables(model(folder, 2023), terms, 12 * HOUR, 6 * HOUR)
    return [("ours", ours.wish, terms), ("greedy", rules.greedy, plain)]


def spited(rule: Rule, terms: Terms, known: Availability) -> tuple[float, float]:
    """USD and seconds late of 6 h within 12 h, where spot is up only while the job is on demand."""
    job, age, was_up = Job(6 * HOUR, 12 * HOUR, terms), 0.0, False
    frailty = Frailty()
    while job.left_seconds > 1e-6:
        is_up = job.machine is Machine.ON_DEMAND
        frailty.see(known, was_up, age, terms.tick_seconds, is_up != was_up)
        age = age + terms.tick_seconds if is_up == was_up else 0.0
        was_up = is_up
        seen = Seen(is_up, age, frailty.factor(True), frailty.factor(False))
        at = job.situation(job.look([seen]))
        job.act(guarded(rule(at, terms), at, terms))
    return job.outcome.usd, max(0.0, job.elapsed_seconds - job.deadline_seconds)


def planning(folder: Path) -> list[Result]:
    """Seconds that a table takes, and a decision."""
    terms = terms_of(
        Case(zones=(), year=2022, starts=(), work_hours=6, deadline_hours=24, delay_minutes=12),
        600.0,
        overlap=True,
    )
    made = Tables(model(folder, 2023), terms, 24 * HOUR, 18 * HOUR)
    began = time.perf_counter()
    made.table(1.0, 1.0)
    table = time.perf_counter() - began
    seen = view(folder, "2022 us-west-2a_v100_1")[:144]
    looks = []
    for _ in range(20):
        began = time.perf_counter()
        out = replay(made.wish, [seen], 6 * HOUR, 24 * HOUR, terms)
        looks.append((time.perf_counter() - began) / len(out.actions))
    print(f"\nA table for 24 h: {1e3 * table:.0f} ms; a look: {1e6 * np.median(looks):.0f} us")
    return [
        Result("table of 24 h", 1e3 * table, "ms"),
        Result("a look", 1e6 * float(np.median(looks)), "us"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few windows, two minutes")
    parser.add_argument("--traces", type=Path, default=TRACES)
    parser.add_argument("--only", choices=PARTS)
    chosen = parser.parse_args()
    if not chosen.traces.is_dir():
        sys.exit(f"no availability at {chosen.traces}: give a folder with --traces")
    folder, quick = chosen.traces, chosen.quick
    began = time.perf_counter()
    pool = Pool(folder, 2)
    shares = (0.8,) if quick else (0.9, 0.8, 0.7)
    jobs = ((2.0, 8.0),) if quick else SMALL
    minutes = (3.0,) if quick else (1.2, 3.0, 6.0, 12.0, 18.0, 24.0)
    sets = {"3 regions": ZONES["3 regions"]} if quick else ZONES
    parts: dict[str, Callable[[], list[Result]]] = {
        # Few windows would be another benchmark.
        "leaderboard": lambda: [] if quick else leaderboard(pool, folder),
        "paper": lambda: paper(pool, folder, 3 if quick else 20, shares),
        "small": lambda: small(pool, folder, 10 if quick else 60, jobs),
        "delays": lambda: delays(pool, folder, 3 if quick else 10, minutes),
        "zones": lambda: zones(pool, folder, 3 if quick else 10, sets),
        "hostile": lambda: hostile(folder, 2 if quick else 20),
        "planning": lambda: planning(folder),
    }
    found = []
    for name, part in parts.items():
        if chosen.only in (None, name):
            found += part()
    pool.close()
    settings = f"{'quick, ' if quick else ''}{time.perf_counter() - began:.0f} s, two processes"
    publish("scheduler", settings, found)


if __name__ == "__main__":
    main()
