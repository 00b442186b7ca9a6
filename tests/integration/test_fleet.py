"""Two stacks with a database each take turns on machines that they share."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import cast

import psycopg
import pytest

from ratchet.adapters.specfile.reader import parse_spec
from ratchet.core.artifact import RunId
from ratchet.core.errors import Unavailable
from ratchet.core.fleet.answer import Grant
from ratchet.core.place import Capacity, Executor
from ratchet.core.placement.market import Player
from ratchet.core.run import AttemptState, StageName
from ratchet.entrypoints.metrics import Metrics
from ratchet.kit.clock import ManualClock
from ratchet.kit.secret import Secret
from ratchet.operations.access import prepare
from ratchet.operations.retrain import Pipeline
from ratchet.operations.runs import base_version
from ratchet.ports import FleetStore, LiveAttempt
from ratchet.ports import Wish as Heard
from ratchet.wiring import _pipeline, build
from tests.contract.test_specfile import SMALL
from tests.fragile import Fragile, Killed
from tests.integration.test_access import Api, settings
from tests.stored import NOW, about_to_train, queued

TRAIN, EVALUATE = StageName.TRAIN.value, StageName.EVALUATE.value
FLEET = {"pools": {"gpus": {"spot": 1, "on_demand": 1}}, "projects": {"p": {"weight": 2.0}}}
HOUR = 3600.0


class Stack:
    """A control plane with one run that is about to train."""

    def __init__(self, api: Api, run: RunId, pipeline: Pipeline) -> None:
        self.api, self.run, self.pipeline = api, run, pipeline

    async def look(self, stage: str = TRAIN) -> LiveAttempt | None:
        """What the run's flow does; answers the worker that it then has."""
        await self.pipeline.attempt(self.run, stage)
        attempts = self.api.parts.attempts
        live = await attempts.live()
        if live and live[0].state is AttemptState.WANTED:
            await attempts.claim(live[0].id, NOW)
        return live[0] if live else None

    async def heard(self, attempt: LiveAttempt) -> Heard:
        return await self.api.parts.attempts.heartbeat(attempt.id, {}, [], NOW)

    async def end(self, attempt: LiveAttempt, state: AttemptState) -> None:
        result = {"seconds": 1.0, "adapter_uri": "u"}
        await self.api.parts.attempts.end(attempt.id, state, result, "", NOW)


@pytest.fixture
def another_url(postgres_url: str, template: str) -> Iterator[str]:
    """A second stack's database."""
    name = f"u{time.monotonic_ns()}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield postgres_url.replace("/postgres?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def made_stack(url: str, fleet_url: str, folder: Path, name: str, train: str) -> Stack:
    given = replace(settings(url, folder), fleet_database_url=Secret(fleet_url))
    parts = build(given)
    await parts.database.open()
    await parts.fleet_database.open()
    await prepare(parts.access)
    api, run = Api(parts), RunId(f"run_{name}")
    spec = parse_spec(SMALL + f"train: {{{train}}}\n", Path("/x/ratchet.yaml"))
    await parts.runs.projects.put(spec, NOW)
    await parts.runs.projects.first_baseline(base_version(spec), NOW)
    await parts.runs.runs.add(replace(queued(run), spec=spec), run, NOW)
    await parts.runs.runs.start_next(NOW)
    await about_to_train(run, parts.runs.stages, HOUR)
    pipeline = _pipeline(parts.database, parts.material, parts.datasets, parts.tracking)
    return Stack(api, run, pipeline)


def with_stacks(
    urls: tuple[str, str],
    folder: Path,
    trains: tuple[str, str],
    scenario: Callable[[Stack, Stack], Awaitable[None]],
) -> None:
    """Both share the fleet of the first."""

    async def run() -> None:
        made = [
            await made_stack(url, urls[0], folder, name, train)
            for url, name, train in zip(urls, ("one", "two"), trains, strict=True)
        ]
        try:
            assert (await made[1].api("PUT", "/fleet", **FLEET)).status_code == 204
            await scenario(*made)
        finally:
            for each in made:
                await each.api.parts.fleet_database.close()
                await each.api.parts.database.close()

    asyncio.run(run())


def test_two_stacks_take_turns_and_the_higher_priority_has_the_other_leave(
    database_url: str, another_url: str, tmp_path: Path
) -> None:
    async def scenario(one: Stack, two: Stack) -> None:
        works = await one.look()
        assert works is not None
        assert await one.heard(works) is Heard.GO_ON
        assert await two.look() is None, "there is one slot"

        await one.look()
        assert await one.heard(works) is Heard.SAVE_AND_LEAVE, "two has a higher priority"
        assert await two.look() is None, "the worker has not left yet"
        await one.end(works, AttemptState.PREEMPTED)
        assert await one.look() is None
        mine = await two.look()
        assert mine is not None

        await two.look()
        await two.end(mine, AttemptState.SUCCEEDED)
        seen = (await one.api("GET", "/fleet")).json()
        [pool] = seen["pools"]
        assert [(c["run_id"], c["alive"]) for c in pool["claims"]] == [
            ("run_one", None),
            ("run_two", "on_demand"),
        ]
        assert pool["claims"][0]["because"] == (
            "pool gpus: waits for 1 on-demand slot, 1 before it; 0 of 1 on-demand slots taken"
        )
        page = (await one.api.page("/fleet")).text
        assert page.count('class="slot on_demand"') == 1
        assert "free</span>" in page, "of spot"
        assert "waits for 1 on-demand slot, 1 before it" in page
        metrics = Metrics()
        metrics.fleet.count(seen["pools"])
        numbers = metrics.text().decode()
        assert 'ratchet_pool_slots_taken{kind="on_demand",pool="gpus"} 1.0' in numbers
        assert 'ratchet_pool_slots{kind="spot",pool="gpus"} 1.0' in numbers
        assert 'ratchet_pool_waiting{pool="gpus"} 1.0' in numbers
        await two.pipeline.finish_failed(two.run, "the test is over")
        again = await one.look()
        assert again is not None
        assert again.place.pool == "gpus"

    trains = ("pool: gpus", "pool: gpus, priority: 1")
    with_stacks((database_url, another_url), tmp_path, trains, scenario)


def test_an_evaluation_takes_a_slot_and_is_not_asked_to_leave(
    database_url: str, another_url: str, tmp_path: Path
) -> None:
    async def scenario(one: Stack, two: Stack) -> None:
        trains = await one.look()
        assert trains is not None
        await one.end(trains, AttemptState.SUCCEEDED)
        assert await one.pipeline.attempt(one.run, TRAIN) is True
        evaluates = await one.look(EVALUATE)
        assert evaluates is not None
        assert evaluates.stage is StageName.EVALUATE
        assert await two.look() is None
        await one.look(EVALUATE)
        assert await one.heard(evaluates) is Heard.GO_ON

    trains = ("pool: gpus", "pool: gpus, priority: 1")
    with_stacks((database_url, another_url), tmp_path, trains, scenario)


def test_who_waits_for_spot_that_another_has_goes_to_a_machine_that_stays_in_time(
    database_url: str, another_url: str, tmp_path: Path
) -> None:
    market = Player(names=("a",), series=((True,),), tick_seconds=600.0, began_at=NOW)
    clock = ManualClock(NOW + timedelta(hours=1))

    async def scenario(one: Stack, two: Stack) -> None:
        for each in (one, two):
            placement = replace(each.pipeline.placement, market=market, clock=clock)
            each.pipeline = replace(each.pipeline, placement=placement, clock=clock)
        mine = await one.look()
        assert mine is not None
        assert mine.place.capacity is Capacity.SPOT
        assert await two.look() is None, "it waits for spot, and has time"

        clock.advance(timedelta(hours=14))
        await one.look()
        late = await two.look()

        assert late is not None
        assert late.place.capacity is Capacity.ON_DEMAND
        clock.advance(timedelta(hours=8, minutes=30))
        await one.end(mine, AttemptState.PREEMPTED)
        again = await one.look()
        assert again is not None
        assert again.place.capacity is Capacity.SPOT, "it is urgent, and the other slot is taken"
        assert again.place.zone == "a"
        run = (await two.api("GET", "/runs/run_two")).json()
        assert [each["action"] for each in run["placements"]] == ["wait", "on_demand"]
        assert run["placements"][0]["because"] == (
            "pool gpus: waits for 1 spot slot; 1 of 1 spot slots taken"
        )

    spot = "pool: gpus, capacity: spot, deadline: 24h, usd_per_hour: 3, spot_usd_per_hour: 1"
    with_stacks((database_url, another_url), tmp_path, (spot, spot), scenario)


class Away:
    """The PostgreSQL of the stack that the fleet belongs to."""

    async def ask(self, *_: object) -> Grant:
        raise Unavailable("PostgreSQL does not answer")

    async def release(self, *_: object) -> None:
        raise Unavailable("PostgreSQL does not answer")


def test_a_fleet_that_is_away_takes_nothing_gives_nothing_and_holds_nobody_up(
    database_url: str, another_url: str, tmp_path: Path
) -> None:
    async def scenario(one: Stack, two: Stack) -> None:
        works = await one.look()
        assert works is not None
        for each in (one, two):
            placement = replace(each.pipeline.placement, fleet=cast(FleetStore, Away()))
            each.pipeline = replace(each.pipeline, placement=placement)

        assert await two.look() is None, "it has no slot"
        assert await one.look() is not None
        assert await one.heard(works) is Heard.GO_ON

        await one.end(works, AttemptState.SUCCEEDED)
        assert await one.pipeline.attempt(one.run, TRAIN) is True
        assert await one.pipeline.finish_failed(one.run, "the test is over") == "failed"

    with_stacks((database_url, another_url), tmp_path, ("pool: gpus", "pool: gpus"), scenario)


KILLED_SHARE = 0.15
LOOKS = 250


async def worker(stack: Stack, chance: random.Random) -> None:
    """What becomes of a stack's worker between two looks: it goes on, or is lost with its machine.
    A run whose worker is lost keeps its slot, unless it ends."""
    attempts, live = stack.api.parts.attempts, await stack.api.parts.attempts.live()
    if not live and chance.random() < 0.6:
        await stack.api.parts.fleet.store.release(stack.run)
    for each in live:
        if each.state is AttemptState.WANTED:
            await attempts.claim(each.id, NOW)
        leaves = await stack.heard(each) is Heard.SAVE_AND_LEAVE
        if leaves or chance.random() < 0.2:
            await stack.end(each, AttemptState.PREEMPTED)


def test_servers_that_are_killed_at_any_line_use_no_slot_twice(
    database_url: str, another_url: str, tmp_path: Path
) -> None:
    chance = random.Random(11)
    kills, trained = 0, Counter[str]()

    async def scenario(*stacks: Stack) -> None:
        nonlocal kills

        def dies() -> bool:
            return chance.random() < KILLED_SHARE

        for each in stacks:
            made = each.pipeline
            placement = replace(made.placement, fleet=Fragile(made.placement.fleet, dies))
            attempts = Fragile(made.attempts, dies)
            each.pipeline = replace(made, placement=placement, attempts=attempts)
        for _ in range(LOOKS):
            one = chance.choice(stacks)
            try:
                await one.pipeline.attempt(one.run, TRAIN)
            except Killed:
                kills += 1
            live = [s.run for s in stacks for _ in await s.api.parts.attempts.live()]
            assert len(live) <= 1, "two workers on one slot"
            trained.update(live)
            if chance.random() < 0.5:
                await worker(one, chance)

    with_stacks((database_url, another_url), tmp_path, ("pool: gpus", "pool: gpus"), scenario)

    assert kills > LOOKS * 0.2
    assert min(trained.values()) >= 10, "each had its turn"
    assert len(trained) == 2


def test_in_a_cluster_a_job_is_asked_for_only_where_the_pool_has_a_slot(
    database_url: str, another_url: str, tmp_path: Path
) -> None:
    """Else whoever waits for spot asks the cluster for it, at no cost."""

    async def scenario(one: Stack, two: Stack) -> None:
        clock = ManualClock(NOW + timedelta(hours=1))
        for each in (one, two):
            placement = replace(each.pipeline.placement, clock=clock)
            each.pipeline = replace(each.pipeline, placement=placement, clock=clock)

        has = await one.look()
        waits = await two.look()

        assert has is not None
        assert (has.place.executor, has.place.capacity) == (Executor.KUBERNETES, Capacity.SPOT)
        assert waits is None
        run = (await two.api("GET", "/runs/run_two")).json()
        assert run["placements"][0]["because"].startswith("pool gpus: waits for 1 spot slot")

    cluster = (
        "pool: gpus, executor: kubernetes, capacity: spot, deadline: 24h, usd_per_hour: 3, "
        "spot_usd_per_hour: 1"
    )
    with_stacks((database_url, another_url), tmp_path, (cluster, cluster), scenario)


def test_a_run_is_checked_against_the_pool(
    database_url: str, another_url: str, tmp_path: Path
) -> None:
    async def scenario(one: Stack, two: Stack) -> None:
        small = {"pools": {"other": {"on_demand": 0}}}
        assert (await one.api("PUT", "/fleet", **small)).status_code == 204

        with pytest.raises(Exception, match="found 'gpus', known are: other"):
            await one.pipeline.attempt(one.run, TRAIN)

    with_stacks((database_url, another_url), tmp_path, ("pool: gpus", "pool: gpus"), scenario)


def test_only_an_administrator_says_what_there_is(
    database_url: str, another_url: str, tmp_path: Path
) -> None:
    async def scenario(one: Stack, _: Stack) -> None:
        assert (await one.api("PUT", "/fleet", None, **FLEET)).status_code == 401
        assert (await one.api("GET", "/fleet", None)).status_code == 200
        refused = await one.api("PUT", "/fleet", pools={})
        assert refused.status_code == 422
        key = (await one.api.key(role="admin", models=["m"], lives_seconds=3600.0))["key"]
        bound = await one.api("PUT", "/fleet", key, **FLEET)
        assert bound.status_code == 403
        assert "belongs to project p; the fleet is shared" in bound.text
        assert (await one.api("PUT", "/fleet", **FLEET)).status_code == 204
        act = (await one.api("GET", "/audit")).json()[0]
        said = "gpus 1 spot 1 on demand; p weight 2"
        assert (act["what"], act["old"], act["new"]) == ("set fleet", said, said)

    with_stacks((database_url, another_url), tmp_path, ("pool: gpus", "pool: gpus"), scenario)
