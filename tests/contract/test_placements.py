"""What trainings run on, on a real PostgreSQL: what is known of one, and what was decided."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from ratchet.adapters.postgres.placements import PostgresPlacements
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.runs import (
    PostgresAttempts,
    PostgresProjects,
    PostgresRuns,
    PostgresStages,
)
from ratchet.adapters.postgres.views import PostgresViews
from ratchet.core.artifact import RunId
from ratchet.core.errors import Conflict, NotFound
from ratchet.core.place import Capacity, Place
from ratchet.core.placement.plan import Decision
from ratchet.core.placement.terms import Action
from ratchet.core.run import AttemptState, StageName, StageState
from ratchet.entrypoints.metrics import Metrics
from tests.stored import NOW, SPEC, queued, with_database

RUN = RunId("run_1")
PLACE = Place(capacity=Capacity.SPOT, zone="a", usd_per_hour=1.0)
WAIT = Decision(action=Action.WAIT, zone="", because="away", usd_expected={"wait": 1.5})


async def a_run(database: Database) -> PostgresAttempts:
    runs, stages = PostgresRuns(database), PostgresStages(database)
    await PostgresProjects(database).put(SPEC, NOW)
    await runs.add(queued(RUN), "key", NOW)
    await runs.start_next(NOW)
    await stages.begin(RUN, StageName.CHECK, NOW)
    detail = {"estimated_seconds": 600}
    await stages.end(RUN, StageName.CHECK, StageState.DONE, detail, "", NOW)
    return PostgresAttempts(database)


def test_a_training_is_known_from_its_attempts(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        placements = PostgresPlacements(database)
        attempts = await a_run(database)
        with pytest.raises(NotFound, match="has not begun to train"):
            await placements.training(RUN, "p")
        await PostgresStages(database).begin(RUN, StageName.TRAIN, NOW)
        new = await placements.training(RUN, "p")
        assert (new.began_at, new.estimated_seconds, new.attempt) == (NOW, 600.0, None)
        assert (new.start_seconds, new.progress) == (None, None)

        await attempts.add(RUN, StageName.TRAIN, 1, {"place": PLACE.to_json()}, NOW)
        [alive] = await attempts.live()
        asked = await placements.training(RUN, "p")
        assert (asked.attempt, asked.place, asked.works) == (alive.id, PLACE, False)

        assert asked.started_at is None
        await attempts.claim(alive.id, NOW)
        assert not await attempts.withdraw(alive.id, "a machine that stays", NOW), "too late"
        assert (await placements.training(RUN, "p")).started_at == NOW
        told = {"step": 3, "steps": 10, "seconds_left": 70.0}
        await attempts.heartbeat(alive.id, told, [], NOW)
        works = await placements.training(RUN, "p")
        assert works.works
        assert works.progress == told

        await attempts.end(alive.id, AttemptState.PREEMPTED, None, "", NOW)
        taken = await placements.training(RUN, "p")
        assert (taken.attempt, taken.place, taken.progress) == (None, None, told)
        assert (taken.started_at, taken.ended_at) == (None, NOW)

        await attempts.add(RUN, StageName.TRAIN, 2, {"place": PLACE.to_json()}, NOW)
        [waiting] = await attempts.live()
        assert await attempts.withdraw(waiting.id, "a machine that stays", NOW)
        with pytest.raises(Conflict, match="has ended"):
            await attempts.claim(waiting.id, NOW)
        last = await attempts.last(RUN, StageName.TRAIN)
        assert last is not None
        assert (last.state, last.because) == (AttemptState.PREEMPTED, "a machine that stays")

    with_database(database_url, scenario)


def test_what_workers_took_is_counted_beside_what_staying_machines_cost(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        attempts, views = await a_run(database), PostgresViews(database)
        usual = replace(PLACE, capacity=Capacity.ON_DEMAND, usd_per_hour=3.0)
        ends = ((PLACE, AttemptState.PREEMPTED), (usual, AttemptState.SUCCEEDED))
        for number, (place, end) in enumerate(ends, 1):
            began = NOW + timedelta(hours=number)
            await attempts.add(RUN, StageName.TRAIN, number, {"place": place.to_json()}, began)
            [alive] = await attempts.live()
            await attempts.claim(alive.id, began)
            await attempts.end(alive.id, end, None, "", began + timedelta(minutes=30))

        [month] = await views.compute("p", NOW, 12)
        assert (month["attempts"], month["taken_away"]) == (2, 1)
        assert (month["seconds"], month["spot_seconds"]) == (3600.0, 1800.0)
        assert month["usd"] == pytest.approx(0.5 + 1.5)
        # The run's own price of a machine that stays, which this spec does not say.
        assert month["on_demand_usd"] == 0.0

        metrics = Metrics()
        metrics.workers.count(await views.workers(NOW))
        shown = metrics.text().decode()
        for line in (
            'ratchet_worker_attempts{capacity="spot",state="preempted"} 1.0',
            'ratchet_worker_seconds{capacity="on_demand"} 1800.0',
            'ratchet_worker_cost_usd{capacity="spot"} 0.5',
        ):
            assert line in shown

    with_database(database_url, scenario)


def test_how_long_a_start_takes_is_what_is_left_of_an_attempt_without_its_training(
    database_url: str,
) -> None:
    async def scenario(database: Database) -> None:
        attempts = await a_run(database)
        await PostgresStages(database).begin(RUN, StageName.TRAIN, NOW)
        await attempts.add(RUN, StageName.TRAIN, 1, {}, NOW)
        [alive] = await attempts.live()
        end = NOW + timedelta(seconds=100)
        await attempts.end(alive.id, AttemptState.SUCCEEDED, {"seconds": 75.0}, "", end)

        training = await PostgresPlacements(database).training(RUN, "p")

        assert training.start_seconds == pytest.approx(25.0)

        # One that was cut tells it by its first step.
        await attempts.add(RUN, StageName.EVALUATE, 1, {}, NOW)
        began = NOW + timedelta(hours=1)
        await attempts.add(RUN, StageName.TRAIN, 2, {}, began)
        cut = next(each for each in await attempts.live() if each.stage is StageName.TRAIN)
        await attempts.claim(cut.id, began + timedelta(seconds=5))
        for seconds, told in ((9, {"doing": "loading"}), (45, {"step": 0}), (50, {"step": 1})):
            await attempts.heartbeat(cut.id, told, [], began + timedelta(seconds=seconds))
        await attempts.end(cut.id, AttemptState.PREEMPTED, None, "", began + timedelta(hours=1))

        training = await PostgresPlacements(database).training(RUN, "p")
        assert training.start_seconds == pytest.approx((25.0 + 45.0) / 2)

    with_database(database_url, scenario)


def test_a_decision_is_kept_when_it_is_another(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        await a_run(database)
        placements = PostgresPlacements(database)
        spot = replace(WAIT, action=Action.SPOT, zone="a", because="up")
        for minute, decision in enumerate((WAIT, WAIT, spot, spot, WAIT)):
            await placements.add(RUN, decision, NOW + timedelta(minutes=minute))

        kept = (await PostgresViews(database).run(RUN))["placements"]

        assert [(one["action"], one["zone"], one["because"]) for one in kept] == [
            ("wait", "", "away"),
            ("spot", "a", "up"),
            ("wait", "", "away"),
        ]
        assert kept[0]["usd_expected"] == {"wait": 1.5}

    with_database(database_url, scenario)
