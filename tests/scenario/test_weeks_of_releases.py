"""Weeks of releases under a manual clock, from a seed: real operations over real tables.

Traffic, engines and people are played; everything that decides and stores is the product's own.
After every tick the invariants must hold.  What happened is compared with a transcript, which
`pytest --rewrite-transcripts` writes anew, to be reviewed as a diff.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.adapters.postgres.gateway import PostgresEngines, PostgresGateway, PostgresRecords
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.registry import PostgresRegistry
from ratchet.adapters.postgres.releases import PostgresReleases
from ratchet.adapters.postgres.runs import PostgresAudit, PostgresProjects, PostgresRuns
from ratchet.adapters.postgres.samples import PostgresSamples
from ratchet.adapters.postgres.shadow import PostgresShadow
from ratchet.adapters.postgres.views import PostgresViews
from ratchet.adapters.specfile.reader import parse_spec
from ratchet.core.analysis import first_weight
from ratchet.core.artifact import RunId, Version, VersionId
from ratchet.core.errors import Rejected
from ratchet.core.evidence import first_evidence
from ratchet.core.guards import LATENCY, with_always
from ratchet.core.rollout import Release, ReleaseId, Signal, Stage
from ratchet.core.routing import WEIGHT_TOTAL
from ratchet.core.run import RunState
from ratchet.core.spec import Spec
from ratchet.kit.clock import ManualClock
from ratchet.operations.release import ReleaseParts, act, advance_all, decided_otherwise, replayed
from ratchet.operations.runs import base_version
from ratchet.ports import AccessRecord, Assignment, EngineReport, Run, StoredRelease
from tests.contract.test_specfile import SMALL

SPEC = parse_spec(SMALL + "release: {notches: [5, 25, 50, 100]}\n", Path("/x/ratchet.yaml"))
BUDGETED = parse_spec(
    SMALL + "release: {harm_budget: 100, guards: {latency_p95: {margin: 20%}}}\n",
    Path("/x/ratchet.yaml"),
)
TRANSCRIPT = Path(__file__).parent / "transcripts" / "weeks.txt"
START = datetime(2026, 11, 2, 3, 0, tzinfo=UTC)
TICK = timedelta(seconds=5)
REQUESTS_PER_TICK = 60
TICKS_MAX = 400
ENDS = {
    "good": Stage.PROMOTED,
    "fails": Stage.ROLLED_BACK,
    "slow": Stage.ROLLED_BACK,
    "dies": Stage.ROLLED_BACK,
    "unseen": Stage.PROMOTED,
    "disliked": Stage.ROLLED_BACK,
    "hangs": Stage.ROLLED_BACK,
    "sours": Stage.ROLLED_BACK,
}
"""What a candidate is like, and how its release must end: one hangs without an end on every fifth
request, one turns bad when it was promoted."""


class NobodyWaits:
    """No flow waits for a release here, so nobody is woken."""

    async def start(self, name: str, key: str, *arguments: object) -> str | None:
        raise AssertionError("no flow is started")

    async def wake(self, key: str) -> None:
        return


@dataclass
class World:
    """A project, its users and its operators."""

    database: Database
    chance: random.Random
    spec: Spec = SPEC
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))
    kinds: dict[VersionId, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    verdicts: dict[ReleaseId, int] = field(default_factory=dict)
    requests: int = 0
    jump: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        self.releases = PostgresReleases(self.database)
        self.engines = PostgresEngines(self.database)
        self.gateway = PostgresGateway(self.database)
        self.parts = ReleaseParts(
            releases=self.releases,
            evidence=self.releases,
            engines=self.engines,
            audit=PostgresAudit(self.database),
            clock=self.clock,
            history=self.releases,
            shadow=PostgresShadow(self.database),
            samples=PostgresSamples(self.database),
        )

    async def begin(self) -> None:
        await PostgresProjects(self.database).put(self.spec, self.clock.now())
        baseline = base_version(self.spec)
        await PostgresProjects(self.database).first_baseline(baseline, self.clock.now())
        self.kinds[baseline.id] = "good"

    async def release(self, number: int, kind: str) -> Stage:
        """One release from its start to its end."""
        release_id = await self.open(number, kind)
        for tick in range(TICKS_MAX):
            await self.tick(release_id, kind, tick)
            stored = await self.releases.get(release_id)
            await self._check(stored)
            await self._listen(release_id, number, kind)
            if stored.release.stage.is_end:
                again = await replayed(release_id, self.parts)
                assert [verdict.differences for verdict in again] == [[]] * len(again)
                await self.end_run(stored, RunState(stored.release.stage.value))
                return stored.release.stage
        raise AssertionError(f"release {number} ({kind}) did not end: {stored}")

    async def end_run(self, stored: StoredRelease, end: RunState) -> None:
        await PostgresRuns(self.database).move(
            stored.run_id, RunState.RUNNING, end, stored.because, self.clock.now()
        )

    async def open(self, number: int, kind: str) -> ReleaseId:
        now, runs = self.clock.now(), PostgresRuns(self.database)
        run = Run(
            id=RunId(f"run_{number}"), state=RunState.QUEUED, spec=self.spec, source_dir=Path("/x"),
            trigger={"kind": "schedule"}, because="",
        )  # fmt: skip
        await runs.add(run, f"week-{number}", now)
        await runs.start_next(now)
        version = Version(
            id=VersionId(f"v_{number}"), project="p", base=self.spec.base.source,
            adapter_uri=f"adapters/{number}", adapter_digest=str(number), dataset_id=None,
            recipe={}, report={}, run_id=run.id,
        )  # fmt: skip
        await PostgresRegistry(self.database).add(version, now)
        self.kinds[version.id] = kind
        baseline = (await PostgresProjects(self.database).get("p")).baseline
        assert baseline is not None
        usual = await self.releases.baseline_measures(baseline)
        per_second = await self.releases.requests_per_second("p", now)
        release = Release(
            id=ReleaseId(f"rel_{number}"), project="p", candidate=version.id, baseline=baseline,
            notches_percent=self.spec.release.notches_percent,
            ramp_weight=first_weight(self.spec.release, per_second),
        )  # fmt: skip
        stored = StoredRelease(
            release=release, plan=self.spec.release, run_id=run.id, because="",
            evidence=first_evidence(
                self.spec.release, usual, await self.releases.newest_unit("p")
            ),
        )  # fmt: skip
        return await self.releases.add(stored, now)

    async def tick(self, release_id: ReleaseId, kind: str, tick: int) -> None:
        self.clock.advance(TICK)
        await self._engines(kind, tick)
        seen = not (kind == "unseen" and 4 <= tick < 40)
        if seen:
            await self._users()
        if kind == "disliked" and tick in (3, 9):
            signal = Signal.PAUSE if tick == 3 else Signal.ABORT
            await act(release_id, signal, "ana", "it sounds rude", self.parts, NobodyWaits())
        await advance_all(self.parts, NobodyWaits())
        if self.chance.random() < 0.2:
            # A second controller, or the same one started again after a crash.
            await advance_all(self.parts, NobodyWaits())

    async def _engines(self, kind: str, tick: int) -> None:
        for engine in await self.engines.listing():
            dead = kind == "dies" and tick >= 4 and self.kinds[engine.version] == "dies"
            state = "down" if dead else "ready" if engine.wanted else "stopped"
            if state != engine.state:
                port = 9000 if state == "ready" else None
                await self.engines.report(
                    engine.version, EngineReport(state, port), self.clock.now()
                )

    async def _users(self) -> None:
        arms = await self.gateway.arms("p")
        ready = {e.version for e in await self.engines.listing() if e.state == "ready"}
        sour = await self._is_held_back()
        given = []
        revision = (await self.gateway.snapshot(self.clock.now())).route_revision
        records = []
        for _ in range(REQUESTS_PER_TICK):
            self.requests += 1
            place = self.chance.randrange(WEIGHT_TOTAL)
            version = next(a.version for a in arms if (place := place - a.weight) < 0)
            kind = self.kinds[version]
            is_bad = kind == "fails" or (kind == "sours" and sour)
            rate = 1.0 if version not in ready else 0.15 if is_bad else 0.005
            given.append(Assignment(f"q{self.requests}", version, revision, ""))
            if kind == "hangs" and self.chance.random() < 0.2:
                continue
            failed = self.chance.random() < rate
            duration = self.chance.lognormvariate(5.0, 0.4) * (1.8 if kind == "slow" else 1.0)
            records.append(
                AccessRecord(
                    request_id=f"q{self.requests}", version=version, route_revision=revision,
                    conversation="", routed="arms", key_id="",
                    status=500 if failed else 200,
                    attempts=1,
                    overhead_ms=0.1, flags="",
                    first_byte_ms=duration, duration_ms=duration, bytes_sent=1, prompt_tokens=1,
                    completion_tokens=1,
                    started_at=self.clock.now(),
                )
            )  # fmt: skip
        await PostgresRecords(self.database).assigned(given, self.clock.now())
        # Somebody sets the clock while answers are on their way.
        self.clock.advance(self.jump)
        self.jump = timedelta(0)
        await PostgresRecords(self.database).add(records, self.clock.now())

    async def _is_held_back(self) -> bool:
        live = await self.releases.live()
        return any(stored.release.stage is Stage.HOLDBACK for stored in live)

    async def _check(self, stored: StoredRelease) -> None:
        """What must be true after every tick."""
        release = stored.release
        weights = {arm.version: arm.weight for arm in await self.gateway.arms("p")}
        weight = weights.get(release.candidate, 0)
        assert sum(weights.values()) == WEIGHT_TOTAL
        assert weight == release.weight
        assert not release.notches_percent or weight / 100 in (0, 95, *release.notches_percent)
        serving = {engine.version for engine in await self.engines.listing() if engine.wanted}
        assert set(weights) <= serving
        project = await PostgresProjects(self.database).get("p")
        promoted = release.stage in (Stage.PROMOTED, Stage.HOLDBACK)
        assert project.baseline == (release.candidate if promoted else release.baseline)

    async def _listen(self, release_id: ReleaseId, number: int, kind: str) -> None:
        """Write down the verdicts that are new; none may be missing or double."""
        verdicts = (await PostgresViews(self.database).release(release_id))["verdicts"]
        assert [v["version"] for v in verdicts] == list(range(1, len(verdicts) + 1))
        for verdict in verdicts[self.verdicts.get(release_id, 0) :]:
            hours = (self.clock.now() - START).total_seconds() / 3600
            self.said.append(
                f"{hours:8.2f} h  {number:>2} {kind:<9} {verdict['from_stage']} -> "
                f"{verdict['to_stage']} {verdict['weight_percent']:g} %: {verdict['because']}"
            )
        self.verdicts[release_id] = len(verdicts)


def test_releases_with_a_harm_budget_are_promoted_by_proof_or_rolled_back(
    database_url: str,
) -> None:
    async def scenario() -> list[str]:
        database = Database(database_url)
        await database.open()
        world = World(database, random.Random(11), BUDGETED)
        await world.begin()
        try:
            kinds = ("good", "fails", "slow", "unseen", "dies", "hangs")
            for number, kind in enumerate(kinds, 1):
                assert await world.release(number, kind) is ENDS[kind], (number, kind)
            # Other rules on the same answers: a wide margin for latency, and a narrow one.
            wide, narrow = (
                replace(
                    BUDGETED.release,
                    guards=with_always([replace(LATENCY, margin=m, tolerance=m)]),
                )
                for m in (2.0, 0.01)
            )
            slow = ReleaseId("rel_3")
            assert (await decided_otherwise(slow, wide, world.parts)).decision == "undecided"
            assert (await decided_otherwise(slow, narrow, world.parts)).decision == "rolled back"
            good = await decided_otherwise(ReleaseId("rel_1"), BUDGETED.release, world.parts)
            assert (good.decision, good.canary_units > 200) == ("promoted", True)
        finally:
            await database.close()
        return world.said

    said = asyncio.run(scenario())

    good = [line for line in said if " 1 good " in line]
    assert "starting -> canary 5 %" in good[0]
    assert "proven after" in good[-1]
    # It climbed in steps of its own, each with its reason.
    assert len(good) > 3
    assert all("budget" in line for line in good[1:-1])


HELD_BACK = replace(
    SPEC, release=replace(SPEC.release, holdback_seconds=600.0, deadline_seconds=30.0)
)


def test_after_a_promotion_harm_still_rolls_back_and_a_newer_release_ends_the_holdback(
    database_url: str,
) -> None:
    async def scenario() -> list[str]:
        database = Database(database_url)
        await database.open()
        world = World(database, random.Random(5), HELD_BACK)
        await world.begin()
        try:
            for number, kind in enumerate(("sours", "good", "dies"), 1):
                assert await world.release(number, kind) is ENDS[kind], (number, kind)
        finally:
            await database.close()
        return world.said

    said = asyncio.run(scenario())

    sours = [line for line in said if " 1 sours " in line]
    assert "canary -> holdback 95 %" in sours[-2]
    assert "holdback -> rolled_back 0 %: errors: " in sours[-1]
    good = [line for line in said if " 2 good " in line]
    assert "the holdback is over, and nothing spoke against it" in good[-1]


@pytest.mark.parametrize(("kind", "end"), [("good", Stage.PROMOTED), ("fails", Stage.ROLLED_BACK)])
def test_a_clock_that_jumps_decides_nothing(database_url: str, kind: str, end: Stage) -> None:
    """An hour ahead and an hour back, while answers are on their way; verdicts are the judge's."""

    async def scenario() -> list[str]:
        database = Database(database_url)
        await database.open()
        world = World(database, random.Random(11), BUDGETED)
        await world.begin()
        try:
            id_ = await world.open(1, kind)
            for tick in range(TICKS_MAX):
                hours = {5: 1, 8: -1}.get(tick, 0)
                world.jump = timedelta(hours=hours)
                await world.tick(id_, kind, tick)
                stored = await world.releases.get(id_)
                await world._check(stored)
                await world._listen(id_, 1, kind)
                if stored.release.stage.is_end:
                    break
            assert stored.release.stage is end, stored.because
            again = await replayed(id_, world.parts)
            assert [verdict.differences for verdict in again] == [[]] * len(again)
        finally:
            await database.close()
        return world.said

    said = asyncio.run(scenario())

    assert ("proven after" in said[-1]) == (end is Stage.PROMOTED)


def test_a_newer_release_ends_the_holdback_of_the_one_before(database_url: str) -> None:
    async def scenario() -> None:
        database = Database(database_url)
        await database.open()
        world = World(database, random.Random(5), HELD_BACK)
        await world.begin()
        try:
            first = await world.open(1, "good")
            for tick in range(TICKS_MAX):
                await world.tick(first, "good", tick)
                if (await world.releases.get(first)).release.stage is Stage.HOLDBACK:
                    break
            await world.end_run(await world.releases.get(first), RunState.PROMOTED)
            second = await world.open(2, "good")
            for tick in range(4):
                await world.tick(second, "good", tick)
            before, after = [(await world.releases.get(id_)).release for id_ in (first, second)]
            assert (before.stage, after.stage) == (Stage.PROMOTED, Stage.CANARY)
            # And the way back is closed while another is compared with it.
            with pytest.raises(Rejected, match="roll it back first"):
                await act(first, Signal.ABORT, "ana", "no", world.parts, NobodyWaits())
        finally:
            await database.close()

    asyncio.run(scenario())


def test_weeks_of_releases_end_as_each_candidate_deserves(
    database_url: str, request: pytest.FixtureRequest
) -> None:
    async def scenario() -> list[str]:
        database = Database(database_url)
        await database.open()
        chance = random.Random(7)
        world = World(database, chance)
        await world.begin()
        try:
            kinds = [kind for kind in ENDS if kind != "sours"]
            for number, kind in enumerate(chance.sample(3 * kinds, 18), 1):
                assert await world.release(number, kind) is ENDS[kind], (number, kind)
                world.clock.advance(timedelta(hours=chance.randrange(20, 60)))
        finally:
            await database.close()
        return world.said

    said = "\n".join(asyncio.run(scenario())) + "\n"

    if request.config.getoption("--rewrite-transcripts"):
        TRANSCRIPT.write_text(said)
    assert said == TRANSCRIPT.read_text()
