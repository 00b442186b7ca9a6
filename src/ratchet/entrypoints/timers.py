"""What the control plane does by itself, again and again.

Each is repeatable, and finds from the database what there is to do: nothing is lost with a process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from ratchet.adapters.postgres.bell import PostgresBell
from ratchet.core.compute import METER_SECONDS
from ratchet.core.errors import Unavailable
from ratchet.durable.reaper import reap, this_executor
from ratchet.entrypoints.metrics import Metrics
from ratchet.operations.artifacts import prune, prunes_by_itself
from ratchet.operations.ledger import mind_budgets, tell_exact_routes
from ratchet.operations.notices import tell_people
from ratchet.operations.release import advance_all
from ratchet.operations.runs import bury_silent_workers, dispatch, meter_workers
from ratchet.operations.scrapes import scrape
from ratchet.operations.shadow import replay_prompts
from ratchet.operations.tracking import catch_up
from ratchet.operations.triggers import (
    attend,
    count_feedback,
    keep_schedules,
    poll,
    tell_commits,
    tidy,
)
from ratchet.operations.turns import keep_to_retention, tell_followers
from ratchet.wiring import Parts

log = structlog.get_logger()

DISPATCH_SECONDS = 0.5
REAP_SECONDS = 2.0
DROPPED_SECONDS = 30.0
BURY_SECONDS = 10.0
SHADOW_SECONDS = 0.5
NOTICE_SECONDS = 1.0
# As often as most are scraped themselves.
SCRAPE_SECONDS = 15.0
COUNT_SECONDS = 1.0
BUDGETS_SECONDS = 0.5
EXACT_SECONDS = 0.5
COSTS_SECONDS = 15.0
FOLLOW_SECONDS = 0.5
RETENTION_SECONDS = 600.0
CAPTURE_SECONDS = 15.0
ATTEND_SECONDS = 1.0
SCHEDULE_SECONDS = 5.0
COMMITS_SECONDS = 5.0
FEEDBACK_SECONDS = 60.0
TIDY_SECONDS = 3_600.0
PRUNE_SECONDS = 3_600.0
CATCH_UP_SECONDS = 60.0

Timer = Coroutine[Any, Any, None]


def timers(parts: Parts, metrics: Metrics) -> list[Timer]:
    """All of them; each runs until it is cancelled."""
    return [
        *_of_runs_and_releases(parts),
        *_of_triggers(parts),
        *_of_gateways(parts, metrics),
        *_of_turns(parts, metrics),
    ]


def _of_runs_and_releases(parts: Parts) -> list[Timer]:
    clock = parts.runs.clock
    me = this_executor(parts.durable.executor_id, os.getpid(), clock.now())

    async def reap_dead() -> None:
        recovered = await reap(me, parts.executors, parts.durable, clock.now())
        if recovered:
            log.info("flows_recovered", flows=recovered)

    async def take_up() -> None:
        if dropped := await parts.durable.take_up_dropped():
            log.error("flows_dropped", runs=dropped)

    async def tell() -> None:
        while await tell_people(parts.notices):
            continue

    async def count() -> None:
        await scrape(parts.scrapes)

    async def replay() -> None:
        while await replay_prompts(parts.shadow):
            continue

    async def take_away() -> None:
        if await prunes_by_itself(parts.artifacts):
            found = await prune(parts.artifacts, "ratchet")
            log.info("artifacts_pruned", removed=len(found.removed), bytes=found.bytes_removed)

    return [
        _every(PRUNE_SECONDS, "prune", take_away),
        _every(REAP_SECONDS, "reap", reap_dead),
        _every(DROPPED_SECONDS, "take_up", take_up),
        parts.bell.listen(),
        _every(
            DISPATCH_SECONDS, "dispatch", lambda: dispatch(parts.runs, parts.durable), parts.bell
        ),
        _every(
            parts.settings.judge_seconds,
            "judge",
            lambda: advance_all(parts.release, parts.durable),
        ),
        _every(SHADOW_SECONDS, "shadow", replay),
        _every(SCRAPE_SECONDS, "scrapes", count),
        _every(NOTICE_SECONDS, "notices", tell),
        _every(CATCH_UP_SECONDS, "catch_up", lambda: _tell_tracker(parts)),
        _every(METER_SECONDS, "meter", lambda: meter_workers(parts.runs, parts.durable)),
        _every(BURY_SECONDS, "bury", lambda: bury_silent_workers(parts.runs, parts.durable)),
    ]


async def _tell_tracker(parts: Parts) -> None:
    count, problem = await catch_up(parts.tracking)
    if count:
        log.info("tracker_caught_up", versions=count)
    if problem:
        log.warning("tracker_away", because=problem)


def _of_triggers(parts: Parts) -> list[Timer]:
    triggers, durable = parts.triggers, parts.durable

    async def drop() -> None:
        if dropped := await tidy(triggers):
            log.info("checkouts_dropped", checkouts=dropped)

    return [
        _every(ATTEND_SECONDS, "attend", lambda: attend(triggers, durable)),
        _every(SCHEDULE_SECONDS, "schedules", lambda: keep_schedules(triggers, durable)),
        _every(SCHEDULE_SECONDS, "poll", lambda: poll(triggers)),
        _every(FEEDBACK_SECONDS, "feedback", lambda: count_feedback(triggers, durable)),
        _every(COMMITS_SECONDS, "commits", lambda: tell_commits(triggers)),
        _every(TIDY_SECONDS, "tidy", drop),
    ]


def _of_gateways(parts: Parts, metrics: Metrics) -> list[Timer]:
    async def count_gateways() -> None:
        if (gateways := await parts.gateway.count(parts.runs.clock.now())) is not None:
            log.info("gateways_counted", gateways=gateways)
            metrics.gateways.set(gateways)

    async def sum_costs() -> None:
        for version, usd in (await parts.views.costs()).items():
            metrics.cost.labels(version).set(usd)
        metrics.workers.count(await parts.views.workers(parts.runs.clock.now()))
        metrics.fleet.count((await parts.fleet.store.view())["pools"])

    async def mind() -> None:
        for budget, state in await mind_budgets(parts.ledger):
            log.warning("budget_moved", budget=budget, to=state.value)

    return [
        _every(COUNT_SECONDS, "count_gateways", count_gateways),
        _every(COSTS_SECONDS, "costs", sum_costs),
        _every(BUDGETS_SECONDS, "budgets", mind),
        _every(EXACT_SECONDS, "exact_routes", lambda: tell_exact_routes(parts.ledger)),
    ]


def _of_turns(parts: Parts, metrics: Metrics) -> list[Timer]:
    async def follow() -> None:
        while await tell_followers(parts.turns):
            continue

    async def retain() -> None:
        if dropped := await keep_to_retention(parts.turns):
            log.info("days_dropped", tables=dropped)

    async def count_lost() -> None:
        lost = 0
        for project in await parts.turns.projects.listing():
            lost += (await parts.views.capture(project.name, parts.turns.clock.now()))["lost"]
        metrics.turns_lost.set(lost)

    return [
        _every(FOLLOW_SECONDS, "follow", follow),
        _every(RETENTION_SECONDS, "retain", retain),
        _every(CAPTURE_SECONDS, "capture", count_lost),
    ]


async def _every(
    seconds: float,
    name: str,
    work: Callable[[], Awaitable[None]],
    bell: PostgresBell | None = None,
) -> None:
    """A dull loop: do the work, whatever it raised go on to the next time, or the bell."""
    while True:
        heard = 0 if bell is None else bell.count
        try:
            await work()
        except Unavailable as error:
            log.warning("timer_waits", timer=name, because=str(error))
        except Exception:
            log.exception("timer_failed", timer=name)
        if bell is None:
            await asyncio.sleep(seconds)
        else:
            await bell.wait(heard, seconds)
