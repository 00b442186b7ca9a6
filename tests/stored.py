"""What tests keep in a real PostgreSQL: a project, a run, a version, its release."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.registry import PostgresRegistry
from ratchet.adapters.postgres.releases import PostgresReleases
from ratchet.adapters.postgres.runs import PostgresProjects, PostgresRuns
from ratchet.adapters.specfile.reader import parse_spec
from ratchet.core.artifact import RunId, Version, VersionId
from ratchet.core.evidence import first_evidence
from ratchet.core.rollout import Release, ReleaseId, Signal, decide
from ratchet.core.run import RunState, StageName, StageState
from ratchet.operations.runs import base_version
from ratchet.ports import (
    AccessRecord,
    Act,
    Run,
    StageStore,
    StoredRelease,
    Taken,
)
from tests.contract.test_specfile import SMALL

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


async def about_to_train(run: RunId, stages: StageStore, work_seconds: float) -> None:
    """Of a run under way: what comes before the training is done."""
    details: dict[StageName, dict[str, object]] = {
        StageName.CHECK: {"estimated_seconds": work_seconds},
        StageName.FREEZE: {"uri": "d", "dataset": "ds", "suites": []},
    }
    for stage, detail in details.items():
        await stages.begin(run, stage, NOW)
        await stages.end(run, stage, StageState.DONE, detail, "", NOW)


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
