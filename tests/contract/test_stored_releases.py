"""Releases, their units and evidence on a real PostgreSQL."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import timedelta

import pytest

from ratchet.adapters.postgres.evidence import evidence_to_json
from ratchet.adapters.postgres.gateway import PostgresEngines, PostgresGateway, PostgresRecords
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.releases import PostgresReleases
from ratchet.adapters.postgres.runs import PostgresProjects
from ratchet.adapters.postgres.samples import PostgresSamples
from ratchet.adapters.postgres.views import PostgresViews
from ratchet.core.analysis import Recent
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Conflict, NotFound, Rejected
from ratchet.core.evidence import CENSORED, first_evidence, observe
from ratchet.core.guards import Group
from ratchet.core.rollout import ReleaseId, Signal, Stage, decide
from ratchet.core.routing import Endpoint
from ratchet.core.scrapes import Counters
from ratchet.core.segments import Dimension
from ratchet.ports import (
    Assignment,
    EngineReport,
    Metric,
    Taken,
)
from tests.stored import (
    ACT,
    NOW,
    SPEC,
    a_canary,
    a_live_release,
    record,
    with_database,
)
from tests.units import USUAL, units


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


def test_what_the_engines_can_take_follows_from_what_is_in_flight(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_canary(database)
        releases, old = PostgresReleases(database), stored.release.baseline
        assert await releases.capacity_share(stored.release, NOW) == math.inf
        # Of the last ten seconds, a thousand seconds of answers: a hundred at once.
        slow = [replace(record(f"q{n}", old, 2), duration_ms=10_000.0) for n in range(100)]
        await PostgresRecords(database).add(slow, NOW)
        nothing = await releases.capacity_share(stored.release, NOW)
        engines = PostgresEngines(database)
        await engines.report(stored.release.candidate, EngineReport("ready", 1), NOW)
        one = await releases.capacity_share(stored.release, NOW)
        place = Endpoint("10.0.0.1", 9000)
        await engines.put_place(stored.release.candidate, place, "ana", NOW)
        two = await releases.capacity_share(stored.release, NOW)

        assert nothing == math.inf
        assert one == pytest.approx(0.8 * 128 / 100)
        assert two == pytest.approx(2 * one)

    with_database(database_url, scenario)


def test_a_sample_has_the_weight_in_force_and_none_is_kept_across_a_change(
    database_url: str,
) -> None:
    async def scenario(database: Database) -> None:
        stored = await a_canary(database)
        samples, releases = PostgresSamples(database), PostgresReleases(database)
        begun = await samples.position(stored.release)
        counted = {"returns": (Counters(10, 1), Counters(90, 2))}
        # Whoever samples may have read the release before its weight moved.
        stale = replace(stored.release, ramp_weight=2_500)

        await samples.add(stale, begun, counted, NOW)
        [kept] = await samples.after(stored.release.id, 0)
        await releases.commit(stored, decide(stored.release, Signal.ABORT), ACT, Taken(), NOW)
        with pytest.raises(Conflict, match="the weights moved"):
            await samples.add(stored.release, begun, counted, NOW)

        assert (kept.weight, kept.revision) == (500, begun.route_revision)
        assert kept.counters == counted
        assert len(await samples.after(stored.release.id, 0)) == 1

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
