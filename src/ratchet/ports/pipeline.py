"""Runs, their stages and attempts, versions and releases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Protocol

from ratchet.core.analysis import Recent
from ratchet.core.artifact import RunId, Version, VersionId
from ratchet.core.evidence import Evidence, Unit
from ratchet.core.gates import SuiteReport
from ratchet.core.guards import Group
from ratchet.core.late import LateUnit
from ratchet.core.place import Place
from ratchet.core.replay import Recorded
from ratchet.core.report import Entry
from ratchet.core.rollout import Decision, Release, ReleaseId
from ratchet.core.run import (
    AttemptId,
    AttemptOutcome,
    AttemptState,
    RunState,
    StageName,
    StageState,
)
from ratchet.core.scrapes import Sample
from ratchet.core.segments import Dimension
from ratchet.core.serving import Serving
from ratchet.core.shadow import Pair
from ratchet.core.spec import ReleasePlan, Spec

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as stored: what was asked, and where it stands."""

    id: RunId
    state: RunState
    spec: Spec
    source_dir: Path
    trigger: Json
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    name: str
    served_name: str
    base: str
    baseline: VersionId | None
    serving: Serving


class ProjectStore(Protocol):
    async def put(self, spec: Spec, now: datetime) -> Project:
        """Register or update, by name.  Raises `Rejected` for a second project on one gateway."""

    async def put_spec_file(self, name: str, path: Path) -> None:
        """Where runs that read no repository find the spec.  By name."""

    async def get(self, name: str) -> Project:
        """Raises `NotFound`."""

    async def find(self, name: str) -> Project | None: ...

    async def listing(self) -> list[Project]: ...

    async def first_baseline(self, version: Version, now: datetime) -> None:
        """Serve a project's base model, if it serves nothing yet: version, route and engine in
        one transaction.  By project."""


class RunStore(Protocol):
    async def add(
        self,
        run: Run,
        key: str,
        now: datetime,
        not_before: datetime | None = None,
        supersedes: Sequence[str] = (),
    ) -> RunId:
        """Queue a run with its stages, not to be started before a moment, and end queued ones
        that it stands for.  By (project, key): a known key gives the known run."""

    async def get(self, run_id: RunId) -> Run:
        """Raises `NotFound`."""

    async def start_next(self, now: datetime) -> list[RunId]:
        """Start the oldest queued run of each idle project; answer all active runs."""

    async def move(
        self, run_id: RunId, current: RunState, wanted: RunState, because: str, now: datetime
    ) -> None:
        """Raises `Conflict` if the run is not in `current`, `Rejected` if the move is illegal."""

    async def put_place(self, run_id: RunId, place: Place) -> None:
        """What its workers ask for, with the prices of now."""


@dataclass(frozen=True, slots=True)
class StageRecord:
    state: StageState
    detail: Json
    because: str


class StageStore(Protocol):
    async def begin(self, run_id: RunId, stage: StageName, now: datetime) -> None:
        """By (run, stage); a stage that has ended stays ended."""

    async def end(
        self,
        run_id: RunId,
        stage: StageName,
        state: StageState,
        detail: Json,
        because: str,
        now: datetime,
    ) -> None:
        """By (run, stage); a stage that has ended stays as it ended."""

    async def stop_open(
        self, run_id: RunId, state: StageState, because: str, now: datetime
    ) -> None:
        """End whatever stage is running."""

    async def get(self, run_id: RunId, stage: StageName) -> StageRecord:
        """Raises `NotFound`."""


class AttemptStore(Protocol):
    async def last(self, run_id: RunId, stage: StageName) -> AttemptOutcome | None: ...

    async def add(
        self, run_id: RunId, stage: StageName, number: int, assignment: Json, now: datetime
    ) -> None:
        """Ask for a worker.  By (run, stage, number)."""

    async def result(self, run_id: RunId, stage: StageName) -> Json:
        """What the attempt that succeeded answered.  Raises `NotFound`."""

    async def end(
        self,
        attempt_id: AttemptId,
        state: AttemptState,
        result: Json | None,
        because: str,
        now: datetime,
    ) -> RunId | None:
        """By attempt; None when it had ended before, and nothing changes then."""

    async def spent_usd(self, run_id: RunId, now: datetime) -> float:
        """What the workers of a run have cost, each at the price of its machine."""

    async def ask_to_leave(self, attempt_id: AttemptId, now: datetime) -> datetime:
        """Tell its worker to save and leave; answers when that was first said."""

    async def withdraw(self, attempt_id: AttemptId, because: str, now: datetime) -> bool:
        """End an attempt that no worker has claimed; False where one has."""

    async def tokens_per_second(self, project: str) -> float | None:
        """Of the project's last training; None before there was one."""

    async def cancel(self, run_id: RunId, because: str, now: datetime) -> None:
        """End every living attempt of a run; its worker learns so at the next heartbeat."""


class Wish(Enum):
    """What the control plane wants of a worker."""

    GO_ON = "go_on"
    SAVE_AND_LEAVE = "save_and_leave"
    STOP = "stop"
    """Somebody ended its attempt."""


class WorkerDesk(Protocol):
    """What a worker says to the control plane."""

    async def claim(self, attempt_id: AttemptId, now: datetime) -> Json:
        """The assignment.  Repeatable.  Raises `Conflict` when the attempt has ended."""

    async def heartbeat(
        self,
        attempt_id: AttemptId,
        progress: Json,
        losses: Sequence[tuple[int, float]],
        now: datetime,
    ) -> Wish:
        """What the worker is to do now."""

    async def live(self) -> list[LiveAttempt]:
        """All attempts that are wanted or running."""


@dataclass(frozen=True, slots=True)
class LiveAttempt:
    id: AttemptId
    run_id: RunId
    stage: StageName
    state: AttemptState
    heartbeat_at: datetime | None
    place: Place


class Registry(Protocol):
    async def add(self, version: Version, now: datetime) -> None:
        """By digest and by run: registering twice is registering once."""

    async def get(self, version_id: VersionId) -> Version:
        """Raises `NotFound`."""

    async def put_mirror(self, version_id: VersionId, link: str, now: datetime) -> None:
        """The tracker has it, and shows it there.  By version."""

    async def not_mirrored(self, limit: int) -> list[Version]:
        """Versions of runs that the tracker has not, the oldest first."""

    async def evaluation(self, weights: str, suite: str) -> SuiteReport | None: ...

    async def put_evaluation(self, weights: str, report: SuiteReport, now: datetime) -> None:
        """By (weights, suite digest)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRelease:
    """A release with its plan and what the judge knows."""

    release: Release
    plan: ReleasePlan
    evidence: Evidence
    run_id: RunId
    because: str
    entered_at: datetime | None = None
    """When the canary first got traffic."""
    problem: str = ""
    """Why its shadow waits."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a look took in, besides the evidence: to be kept, so that it can be taken again."""

    censored: tuple[int, ...] = ()
    """Units that were judged as not ended."""
    late: Mapping[Group, Mapping[int, Mapping[str, float]]] = field(default_factory=dict)
    """Values of guards that were known later, by group and unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Who moved a release, by which signal, and why."""

    signal: str
    because: str
    numbers: Mapping[str, float]
    who: str


class ReleaseStore(Protocol):
    async def add(self, stored: StoredRelease, now: datetime) -> ReleaseId:
        """Start a release and ask for its engine, in one transaction.  By run."""

    async def get(self, release_id: ReleaseId) -> StoredRelease:
        """Raises `NotFound`."""

    async def live(self) -> list[StoredRelease]:
        """All that are not over, the oldest first."""

    async def serving(self, project: str) -> VersionId:
        """The version that everybody gets who takes part in nothing.  Raises `NotFound`."""

    async def commit(
        self, stored: StoredRelease, decision: Decision, act: Act, taken: Taken, now: datetime
    ) -> None:
        """Save release, plan, evidence, verdict, weights, baseline and engines in one transaction.

        Raises `Conflict` if somebody else moved the release, or another version became what it
        is compared with.
        """

    async def ledger(self, release_id: ReleaseId) -> list[Entry]:
        """All verdicts, in order."""

    async def without_report(self) -> list[ReleaseId]:
        """Some that are decided and have no report yet."""

    async def put_report(self, release_id: ReleaseId, report: str) -> None:
        """By release.  A later verdict takes it away."""

    async def save_evidence(self, stored: StoredRelease, taken: Taken, now: datetime) -> None:
        """Raises `Conflict` if a decision was committed in the meantime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that a release's verdicts follow from."""

    plan: ReleasePlan
    begun: Evidence
    units: Mapping[Group, Sequence[Unit]]
    verdicts: tuple[Recorded, ...]
    pairs: Sequence[Pair | None] = ()
    """Of its shadow."""
    samples: Sequence[Sample] = ()


class HistorySource(Protocol):
    async def history(self, release_id: ReleaseId) -> History:
        """Raises `NotFound`, and `Rejected` for a release that an older Ratchet judged."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What a project's own systems measured of one answer."""

    request_id: str
    name: str
    value: float


class MetricSink(Protocol):
    async def push(self, project: str, metrics: Sequence[Metric], now: datetime) -> int:
        """Keep them, each once by answer and name; answers how many were new."""


class EvidenceSource(Protocol):
    """What the gateway saw."""

    async def units(self, release: Release, watermark: int, now: datetime) -> list[Unit]:
        """Units after the watermark in order of assignment, with what their records say."""

    async def late_units(
        self, release: Release, group: Group, watermark: int, now: datetime
    ) -> list[LateUnit]:
        """The same for guards of a late group, with what was heard of each unit since."""

    async def newest_unit(self, project: str) -> int:
        """Sequence of the last unit of any release; 0 before the first."""

    async def recent(self, stored: StoredRelease) -> Recent:
        """How the newest answers of both arms ended."""

    async def baseline_measures(self, version: VersionId) -> Mapping[str, Sequence[float]]:
        """Of the version's newest answers, by guard."""

    async def segment_measures(
        self, version: VersionId, dimensions: Sequence[Dimension]
    ) -> Mapping[str, Mapping[str, Sequence[float]]]:
        """The same within each segment that is worth judging, the largest first."""

    async def answers(self, project: str, since: datetime) -> tuple[int, int]:
        """How many there were, and how many of them failed."""

    async def requests_per_second(self, project: str, now: datetime) -> float:
        """Of the last minute."""

    async def capacity_share(self, release: Release, now: datetime) -> float:
        """Of the traffic, what the canary's engines can take; infinite when there is none."""

    async def seconds_since_record(self, project: str, now: datetime) -> float:
        """Infinite when there was never one."""

    async def seconds_since_verdict(self, release: ReleaseId, now: datetime) -> float:
        """Infinite when there was never one.  By our clock, as all that is compared with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """A version with its run, as a tracker shows it."""

    version: Version
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    losses: Sequence[tuple[int, float]]
    """By step."""
    adapter: Mapping[str, bytes]
    """Files by name."""
    url: str
    """Of its run in our console."""


class Tracker(Protocol):
    """A mirror of runs and versions in the team's tracker."""

    async def mirror(self, tracked: Tracked) -> str:
        """Where it is shown there.  By version.  Raises `Unavailable`."""


class Audit(Protocol):
    async def add(
        self, who: str, what: str, subject: str, old: str, new: str, because: str, now: datetime
    ) -> None: ...
