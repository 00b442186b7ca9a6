"""Who decides about a canary, how soon, how often wrongly, and at whose cost.

Seeded streams of ten requests a second; every judge of a row sees the same one.  Where nothing is
wrong, the share of releases that are rolled back counts, with its 99 % Clopper-Pearson interval;
where something is, the canary's requests until it is noticed, and the bad answers more than the
baseline would have given.  The limit is what no test with this error rate can beat on average
(Wald; Lorden): ln(1/a) over the information that a canary request carries.

Ours is the code of the live judge.  The others are their rules, not their controllers
(`judges/others.py`); what is lost by query windows and scrapes is left out, in their favour.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from judges.others import of_failures, of_means
from judges.ours import FALSE_ROLLBACK, Ours, Within, harm_budgeted, take
from judges.world import (
    UNITS,
    World,
    always,
    costs,
    drifting_failures,
    failures,
    failures_in_a_segment,
    late,
    latencies,
    losses,
    stream,
)
from report import Result, publish
from rich.console import Console
from rich.table import Table

from ratchet.stats.exchangeable import log_choose
from ratchet.stats.limits import units_to_find

HOURS_10 = 3_600
ONSET = 1_140
LOG_LIMIT = math.log(1.0 / FALSE_ROLLBACK)


@dataclass(frozen=True, slots=True)
class Row:
    """How one judge did in one world."""

    world: str
    judge: str
    runs: int
    stopped: float
    low: float
    high: float
    canary: float
    canary_p90: float
    total: float
    harm: float
    harm_p99: float


def clopper_pearson(hits: int, runs: int, level: float = 0.99) -> tuple[float, float]:
    """The exact interval of a share: by bisection on the binomial tails."""
    tail = (1.0 - level) / 2
    k = np.arange(runs + 1)
    ways = log_choose(np.full(runs + 1, runs), k)

    def at_least(p: float, count: int) -> float:
        logs = ways + k * math.log(p) + (runs - k) * math.log1p(-p)
        return float(np.exp(logs[count:]).sum())

    def where(crosses: Callable[[float], bool]) -> float:
        low, high = 1e-12, 1.0 - 1e-12
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if crosses(middle) else (middle, high)
        return high

    lower = 0.0 if hits == 0 else where(lambda p: at_least(p, hits) >= tail)
    upper = 1.0 if hits == runs else where(lambda p: 1.0 - at_least(p, hits + 1) <= tail)
    return lower, upper


def played(world: World, judges: list[Any], runs: int, seed: int) -> list[Row]:
    """All judges on the same streams, each until it has stopped every run or the time is over."""
    source = stream(world, runs, seed)
    alive = [np.ones(runs, dtype=bool) for _ in judges]
    canary = [np.zeros(runs) for _ in judges]
    total = [np.zeros(runs) for _ in judges]
    for number in range(world.blocks):
        if not any(part.any() for part in alive):
            break
        block = source.draw(number)
        shown = block.is_canary.sum(axis=1)
        for index, judge in enumerate(judges):
            if not alive[index].any():
                continue
            if number >= world.onset:
                canary[index][alive[index]] += shown[alive[index]]
                total[index][alive[index]] += UNITS
            hit = judge.step(block, alive[index])
            alive[index][np.flatnonzero(alive[index])[hit]] = False
    return [
        _row(world, judge.name, ~living, used, all_)
        for judge, living, used, all_ in zip(judges, alive, canary, total, strict=True)
    ]


def _row(world: World, name: str, stopped: Any, canary: Any, total: Any) -> Row:
    hits, runs = int(stopped.sum()), len(stopped)
    low, high = clopper_pearson(hits, runs)
    nan = float("nan")
    harm = canary * world.excess
    return Row(
        world.name, name, runs, hits / runs, low, high,
        float(np.median(canary[stopped])) if hits else nan,
        float(np.quantile(canary[stopped], 0.9)) if hits else nan,
        float(np.median(total[stopped])) if hits else nan,
        float(harm.mean()), float(np.quantile(harm, 0.99)),
    )  # fmt: skip


def limit_of(baseline: float, canary: float, weight: float = 0.05) -> float:
    return units_to_find(baseline, canary, weight, FALSE_ROLLBACK)


# Rows: a world, who judges, how many runs in a quick and in a full benchmark.
Judges = Callable[[World, int], list[Any]]


def ours_alone(world: World, runs: int) -> list[Any]:
    return [Ours(world, runs)]


def with_failures(world: World, runs: int) -> list[Any]:
    return [Ours(world, runs), *of_failures(world, runs)]


def with_means(world: World, runs: int) -> list[Any]:
    return [Ours(world, runs), *of_means(world, runs)]


class OneOfNine(Ours):
    """Errors with a quarter of the error rate, as one of nine metrics."""

    name = "ratchet, in nine metrics"

    def __init__(self, world: World, runs: int) -> None:
        super().__init__(world, runs, share=0.25)


class Nine:
    """Nine metrics averaged: three rates, three latencies, three costs, all without harm."""

    name = "ratchet, nine metrics"

    def __init__(self, world: World, runs: int) -> None:
        self._chance = np.random.default_rng(17)
        kinds = [
            World(name="", kind="failures", values=failures(rate, rate))
            for rate in (0.01, 0.001, 0.03)
        ]
        kinds += [World(name="", kind="latency", values=latencies())] * 2
        kinds += [World(name="", kind="costs", values=costs(1.0))] * 4
        self._parts = [(kind, Ours(kind, runs)) for kind in kinds]

    def step(self, block: Any, alive: Any) -> Any:
        logs = []
        for kind, judge in self._parts:
            values = kind.values(self._chance, block.is_canary, block.number)
            judge.observe(replace(block, values=values), alive)
            logs.append(judge.evidence.log_e)
        hit = np.logaddexp.reduce(np.stack(logs), axis=0) - math.log(len(logs)) >= LOG_LIMIT
        for _, judge in self._parts:
            judge.evidence = take(judge.evidence, ~hit)
        return hit


@dataclass(frozen=True, slots=True)
class Play:
    world: World
    judges: Judges
    quick: int
    full: int
    seed: int


def nothing_wrong() -> list[Play]:
    same = failures(0.01, 0.01)
    return [
        Play(World(name="A/A, 1 % errors, 1 h", kind="failures", values=same),
             with_failures, 1000, 10_000, 1),
        Play(World(name="A/A, 1 % errors, 10 h", kind="failures", values=same, blocks=HOURS_10),
             ours_alone, 1000, 4_000, 2),
        Play(World(name="A/A, 0.1 % errors, 1 h", kind="failures", values=failures(0.001, 0.001)),
             ours_alone, 1000, 10_000, 3),
        Play(World(name="A/A, both drift 0.5 to 3 %", kind="failures",
                   values=drifting_failures(0.005, 0.03, 360)), with_failures, 400, 4_000, 4),
        Play(World(name="A/A, 5 % asked, 7 % given", kind="failures", values=same,
                   weights=always(0.05), realised=lambda _: 0.07), ours_alone, 1000, 4_000, 5),
        Play(World(name="A/A, sticky users, by conversation", kind="failures", values=same,
                   sticky_users=300), ours_alone, 400, 2_000, 6),
        Play(World(name="A/A, nine metrics", kind="failures", values=same),
             lambda world, runs: [Nine(world, runs)], 60, 1_000, 7),
        Play(World(name="A/A, ten segments", kind="failures", values=same),
             lambda world, runs: [Within(world, runs)], 400, 4_000, 10),
        Play(World(name="A/A, latency", kind="latency", values=latencies()),
             ours_alone, 200, 2_000, 8),
        Play(World(name="A/A, judge's scores, 20 % judged", kind="scores", values=losses(0.8, 0.8),
                   judged_share=0.2), ours_alone, 400, 2_000, 9),
    ]  # fmt: skip


def _errors(name: str, baseline: float, canary: float, **more: Any) -> World:
    return World(
        name=name, kind="failures", values=failures(baseline, canary), excess=canary - baseline,
        **more,
    )  # fmt: skip


def something_wrong() -> list[Play]:
    five = always(0.05)
    late_errors = late(failures(0.01, 0.01), failures(0.01, 0.03), ONSET)
    return [
        Play(_errors("errors 1 to 50 %", 0.01, 0.5), with_failures, 400, 4_000, 20),
        Play(_errors("errors 1 to 3 %, always 5 %", 0.01, 0.03, weights=five, blocks=2_000),
             lambda w, r: [Ours(w, r), OneOfNine(w, r)], 2000, 8_000, 21),
        Play(_errors("errors 1 to 3 %", 0.01, 0.03), with_failures, 400, 4_000, 22),
        Play(World(name="errors 1 to 10 % in a tenth of the traffic", kind="failures",
                   values=failures_in_a_segment(0.01, 0.1), excess=0.009),
             lambda w, r: [Ours(w, r), Within(w, r)], 400, 4_000, 31),
        Play(_errors("errors 1 to 2 %", 0.01, 0.02), with_failures, 1000, 4_000, 23),
        Play(_errors("errors 0.1 to 1 %", 0.001, 0.01), with_failures, 1000, 4_000, 24),
        Play(_errors("refusals 3 to 6 %", 0.03, 0.06), with_failures, 1000, 4_000, 25),
        Play(World(name="latency +20 %", kind="latency", values=latencies(1.2)),
             with_means, 300, 2_000, 26),
        Play(World(name="tail: 3 % five times slower", kind="latency",
                   values=latencies(1.0, 0.03, 5.0)), with_means, 300, 2_000, 27),
        Play(World(name="judge 0.80 to 0.75, 20 % judged", kind="scores", values=losses(0.8, 0.75),
                   judged_share=0.2), with_means, 300, 2_000, 28),
        Play(World(name="cost +15 %", kind="costs", values=costs(1.15)),
             with_means, 300, 2_000, 29),
        Play(World(name="errors 1 to 3 %, after 190 minutes", kind="failures", values=late_errors,
                   onset=ONSET, blocks=ONSET + 1_500, excess=0.02), ours_alone, 400, 2_000, 30),
    ]  # fmt: skip


def run_play(play: Play, is_quick: bool) -> list[Row]:
    runs = play.quick if is_quick else play.full
    return played(play.world, play.judges(play.world, runs), runs, play.seed)


@dataclass(frozen=True, slots=True)
class Budgeted:
    """A harm-budgeted ramp: how runs ended."""

    name: str
    budget: float
    runs: int
    promoted: float
    rolled_back: float
    held: float
    canary: float
    total: float
    harm: float
    harm_p99: float
    over_budget: float


RATES = {"good": 0.01, "1 to 50 %": 0.5, "1 to 5 %": 0.05, "1 to 3 %": 0.03, "at the margin": 0.02}


def run_budgeted(name: str, budget: float, runs: int) -> Budgeted:
    """One hour, margin one point at 1 % errors, as the study has it."""
    rate = RATES[name]
    world = _errors(name, 0.01, rate)
    end = harm_budgeted(world, runs, seed=40 + round(budget), budget=budget, margin=0.01)
    decided = end.promoted | end.rolled_back
    return Budgeted(
        name, budget, runs, float(end.promoted.mean()), float(end.rolled_back.mean()),
        float(end.held.mean()),
        float(np.median(end.canary_units[decided])) if decided.any() else float("nan"),
        float(np.median(end.units[decided])) if decided.any() else float("nan"),
        float(end.harm.mean()), float(np.quantile(end.harm, 0.99)),
        float((end.harm > budget).mean()),
    )  # fmt: skip


def shadow_pairs(preference: float, runs: int) -> float:
    """Median discordant pairs until a preference is proven, with bets as for yes-or-no metrics."""
    from ratchet.stats.exchangeable import log_sum_exp
    from ratchet.stats.harm import LOG_PRIOR_ODDS, ODDS_RATIOS

    chance = np.random.default_rng(60)
    pairs = 3_000
    lost = chance.random((runs, pairs)) < preference
    # Against a half: a bet on odds psi pays 2 psi / (1 + psi) for a loss and 2 / (1 + psi) else.
    win, lose = np.log(2 * ODDS_RATIOS / (1 + ODDS_RATIOS)), np.log(2 / (1 + ODDS_RATIOS))
    k = np.cumsum(lost, axis=1)[..., None]
    n = np.arange(1, pairs + 1)[None, :, None]
    crossed = log_sum_exp(k * win + (n - k) * lose + LOG_PRIOR_ODDS) >= LOG_LIMIT
    return float(np.median(np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, np.inf)))


def show(rows: list[Row], title: str) -> None:
    table = Table("world", "judge", "runs", "rolled back", "99 % interval", "canary", "p90",
                  "in all", "harm", "p99", title=title)  # fmt: skip
    last = ""
    for row in rows:
        numbers = (row.canary, row.canary_p90, row.total)
        table.add_row(
            row.world if row.world != last else "", row.judge, str(row.runs),
            f"{row.stopped:.2%}", f"{row.low:.2%} – {row.high:.2%}",
            *("–" if math.isnan(n) else f"{n:.0f}" for n in numbers),
            f"{row.harm:.1f}", f"{row.harm_p99:.1f}",
        )  # fmt: skip
        last = row.world
    Console(width=150).print(table)


def show_budgeted(rows: list[Budgeted]) -> None:
    titles = ("promoted", "rolled back", "held", "canary", "in all", "harm", "p99", "over budget")
    table = Table("release", "budget", "runs", *titles)
    table.title = "harm-budgeted ramp, one hour, margin +1 pp"
    for row in rows:
        table.add_row(
            row.name, f"{row.budget:g}", str(row.runs), f"{row.promoted:.1%}",
            f"{row.rolled_back:.1%}", f"{row.held:.1%}", f"{row.canary:.0f}",
            f"{row.total:.0f}", f"{row.harm:.1f}", f"{row.harm_p99:.1f}",
            f"{row.over_budget:.2%}",
        )  # fmt: skip
    Console(width=150).print(table)


def results(rows: list[Row], budgeted: list[Budgeted], pairs: float) -> list[Result]:
    ours = {row.world: row for row in rows if row.judge == "ratchet"}
    nine = {row.world: row for row in rows if row.judge.startswith("ratchet, ")}
    kayenta = {row.world: row for row in rows if row.judge == "kayenta"}
    by = {(row.name, row.budget): row for row in budgeted}
    in_a_tenth = "errors 1 to 10 % in a tenth of the traffic"

    def false(id_: str, world: str, target: float = 1.0) -> Result:
        row = ours.get(world) or nine[world]
        return Result(id_, row.stopped * 100, "%", target)

    def soon(id_: str, world: str, target: float) -> Result:
        return Result(id_, ours[world].canary, "canary requests", target)

    found = [
        false("C1.false_rollback_1h", "A/A, 1 % errors, 1 h"),
        false("C1.false_rollback_10h", "A/A, 1 % errors, 10 h"),
        false("C1.false_rollback_rare", "A/A, 0.1 % errors, 1 h"),
        false("C2.false_rollback_nine_metrics", "A/A, nine metrics"),
        false("C3.drift", "A/A, both drift 0.5 to 3 %"),
        false("C3.wrong_split", "A/A, 5 % asked, 7 % given"),
        false("C3.sticky_users", "A/A, sticky users, by conversation"),
        false("C3.segments", "A/A, ten segments"),
        false("C3.latency", "A/A, latency"),
        false("C3.scores", "A/A, judge's scores, 20 % judged"),
        soon("C4.errors_1_to_50", "errors 1 to 50 %", 10),
        Result("C4.harm", ours["errors 1 to 50 %"].harm, "bad answers", 5),
        soon("C5.errors_1_to_3", "errors 1 to 3 %, always 5 %", 510),
        Result("C5.limit", limit_of(0.01, 0.03), "canary requests"),
        Result("C5.in_nine", nine["errors 1 to 3 %, always 5 %"].canary, "canary requests", 660),
        Result("segments.whole_alone", ours[in_a_tenth].canary, "canary requests"),
        Result("segments.within", nine[in_a_tenth].canary, "canary requests"),
        soon("C6.errors_1_to_2", "errors 1 to 2 %", 1_900),
        soon("C7.errors_01_to_1", "errors 0.1 to 1 %", 560),
        soon("C8.refusals_3_to_6", "refusals 3 to 6 %", 560),
        soon("C9.latency_20", "latency +20 %", 160),
        soon("C9.tail", "tail: 3 % five times slower", 800),
        soon("C10.judge", "judge 0.80 to 0.75, 20 % judged", 1_200),
        soon("C11.cost_15", "cost +15 %", 700),
        Result("C12.late", ours["errors 1 to 3 %, after 190 minutes"].total, "requests", 4_300),
        Result("C13.promoted", by["good", 100.0].promoted * 100, "%", 95, "higher"),
        Result("C13.canary", by["good", 100.0].canary, "canary requests", 2_600),
        Result("C13.total", by["good", 100.0].total, "requests", 5_500),
        Result("C14.promoted_at_margin", by["at the margin", 100.0].promoted * 100, "%", 1),
    ]
    for budget in (25.0, 100.0):
        worst = max(row.over_budget for row in budgeted if row.budget == budget)
        found.append(Result(f"C15.over_budget_{budget:g}", worst * 100, "%", 1))
    found.append(Result("C16.shadow_60_40", pairs, "pairs", 320))
    slower = [
        kayenta[world].canary / ours[world].canary
        for world in ("errors 1 to 3 %", "refusals 3 to 6 %", "latency +20 %", "cost +15 %")
        if not math.isnan(kayenta[world].canary)
    ]
    found.append(Result("C19.kayenta_over_ours", min(slower, default=math.inf), "x", 4, "higher"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    is_quick = parser.parse_args().quick
    plays = [*nothing_wrong(), *something_wrong()]
    budgets = [(name, budget) for budget in (25.0, 50.0, 100.0) for name in RATES]
    runs = 200 if is_quick else 2_000
    # The long ones first.  Judges are made in the workers: what they close over does not travel.
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        parts = [pool.submit(_play, number, is_quick) for number in range(len(plays))]
        ramps = [pool.submit(run_budgeted, name, budget, runs) for name, budget in budgets]
        pairs = pool.submit(shadow_pairs, 0.6, runs)
        everything: list[Future[Any]] = [*parts, *ramps, pairs]
        for done, _ in enumerate(as_completed(everything), 1):
            print(f"{done} of {len(everything)} done", file=sys.stderr, flush=True)
        rows = [row for part in parts for row in part.result()]
        budgeted = [ramp.result() for ramp in ramps]
    quiet = {play.world.name for play in nothing_wrong()}
    show([row for row in rows if row.world in quiet], "nothing is wrong")
    show([row for row in rows if row.world not in quiet], "something is wrong")
    show_budgeted(budgeted)
    publish("canary", "quick" if is_quick else "full", results(rows, budgeted, pairs.result()))
    details = {"rows": [asdict(r) for r in rows], "ramps": [asdict(r) for r in budgeted]}
    Path("build/bench/canary-rows.json").write_text(json.dumps(details, indent=1))


def _play(number: int, is_quick: bool) -> list[Row]:
    return run_play([*nothing_wrong(), *something_wrong()][number], is_quick)


if __name__ == "__main__":
    main()
