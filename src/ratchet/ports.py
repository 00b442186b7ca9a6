"""Everything Ratchet needs from the outside world, and nothing else.

Read this file to know what Ratchet touches.  Each protocol is implemented once per system under
`ratchet.adapters`.  Every method that writes says by what key it may be repeated.  Failures of the
outside system are `Unavailable`; everything else that is raised is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from ratchet.core.access import Key, KeyId, SigningKeyId
from ratchet.core.analysis import Evidence, Unit
from ratchet.core.artifact import RunId, Version, VersionId
from ratchet.core.data import Rows
from ratchet.core.gates import SuiteReport
from ratchet.core.ledger import Budget, BudgetState, Price
from ratchet.core.rollout import Decision, Release, ReleaseId
from ratchet.core.routing import Arm, GatewaySnapshot
from ratchet.core.run import (
    AttemptId,
    AttemptOutcome,
    AttemptState,
    RunState,
    StageName,
    StageState,
)
from ratchet.core.serving import Oidc, Serving
from ratchet.core.spec import BaseModel, Drill, ReleasePlan, Spec

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

    async def get(self, name: str) -> Project:
        """Raises `NotFound`."""

    async def find(self, name: str) -> Project | None: ...

    async def listing(self) -> list[Project]: ...

    async def first_baseline(self, version: Version, now: datetime) -> None:
        """Serve a project's base model, if it serves nothing yet: version, route and engine in
        one transaction.  By project."""


class RunStore(Protocol):
    async def add(self, run: Run, key: str, now: datetime) -> RunId:
        """Queue a run with its stages.  By (project, key): a known key gives the known run."""

    async def get(self, run_id: RunId) -> Run:
        """Raises `NotFound`."""

    async def start_next(self, now: datetime) -> list[RunId]:
        """Start the oldest queued run of each idle project; answer all active runs."""

    async def move(
        self, run_id: RunId, current: RunState, wanted: RunState, because: str, now: datetime
    ) -> None:
        """Raises `Conflict` if the run is not in `current`, `Rejected` if the move is illegal."""


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

    async def cancel(self, run_id: RunId, because: str, now: datetime) -> None:
        """End every living attempt of a run; its worker learns so at the next heartbeat."""


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
    ) -> bool:
        """False tells the worker to stop: somebody ended its attempt."""

    async def live(self) -> list[LiveAttempt]:
        """All attempts that are wanted or running."""


@dataclass(frozen=True, slots=True)
class LiveAttempt:
    id: AttemptId
    run_id: RunId
    stage: StageName
    state: AttemptState
    heartbeat_at: datetime | None


class Registry(Protocol):
    async def add_dataset(self, id_: str, project: str, uri: str, rows: int, now: datetime) -> None:
        """By id."""

    async def add(self, version: Version, now: datetime) -> None:
        """By digest and by run: registering twice is registering once."""

    async def get(self, version_id: VersionId) -> Version:
        """Raises `NotFound`."""

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

    async def live(self) -> list[StoredRelease]: ...

    async def commit(
        self, before: Release, decision: Decision, evidence: Evidence, act: Act, now: datetime
    ) -> None:
        """Save release, evidence, verdict, weights, baseline and engines in one transaction.

        Raises `Conflict` if the stored version is not `before`'s.
        """

    async def save_evidence(
        self, stored: StoredRelease, evidence: Evidence, because: str, now: datetime
    ) -> None:
        """Raises `Conflict` if a decision was committed in the meantime."""


class EvidenceSource(Protocol):
    """What the gateway saw."""

    async def units(self, release: Release, watermark: int) -> list[Unit]:
        """Units assigned at the present weight, after the watermark, in order of arrival."""

    async def baseline_durations_ms(self, version: VersionId) -> list[float]:
        """Durations of the version's newest answers."""

    async def seconds_since_record(self, project: str, now: datetime) -> float:
        """Infinite when there was never one."""

    async def seconds_since_verdict(self, release: ReleaseId, now: datetime) -> float:
        """Infinite when there was never one.  By our clock, as all that is compared with it."""


class EngineStore(Protocol):
    async def down_seconds(self, version: VersionId, now: datetime) -> float | None:
        """None: it has not been ready yet.  Zero: it is ready."""

    async def failure(self, version: VersionId) -> str | None:
        """Why it cannot start, once it was tried often enough."""

    async def stop_retired(self, now: datetime) -> None:
        """Stop engines whose time is over and that nothing is routed to."""

    async def listing(self) -> list[WantedEngine]: ...

    async def report(self, version: VersionId, report: EngineReport, now: datetime) -> None:
        """What the supervisor sees.  A changed address reaches the gateways at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedEngine:
    """An engine as it should be, with what a process needs to be one."""

    version: VersionId
    wanted: bool
    kind: str
    served_name: str
    base: str
    adapter_uri: str | None
    drill: Drill | None
    state: str
    port: int | None


@dataclass(frozen=True, slots=True)
class EngineReport:
    state: str
    port: int | None
    because: str = ""
    restarts: int = 0


class GatewayStore(Protocol):
    async def snapshot(self, now: datetime) -> GatewaySnapshot:
        """What gateways must do now.  Raises `NotFound` before the first project."""

    async def wait(self, revision: int, seconds: float) -> None:
        """Return when there may be a newer snapshot than `revision`, or after `seconds`."""

    async def applied(self, report: GatewayReport) -> None:
        """By gateway; the newest report stands."""

    async def arms(self, project: str) -> tuple[Arm, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayReport:
    gateway: str
    revision: int
    route_revision: int
    rejected: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRecord:
    """One answered request, as Envoy logged it."""

    request_id: str
    version: VersionId
    routed: str
    """`arms`, or how else the request found its engine; only arms prove something."""
    route_revision: int
    conversation: str
    key_id: str
    """Which key asked; empty where the gateway is open."""
    status: int
    """HTTP; 0 when no answer was given."""
    attempts: int
    first_byte_ms: float
    duration_ms: float
    overhead_ms: float
    """What the gateway itself took of that."""
    bytes_sent: int
    prompt_tokens: int | None
    completion_tokens: int | None
    """As the answer told them; None when it told none, a failure for example."""
    flags: str
    """Envoy's own words for what went wrong; empty when nothing did."""
    started_at: datetime

    @property
    def failed(self) -> bool:
        """What a retry saved was still a failure of the first attempt."""
        return self.status >= 500 or self.status == 0 or self.attempts > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What one answer is charged by."""

    request_id: str
    version: VersionId
    key_id: str
    prompt_tokens: int
    completion_tokens: int
    answered_at: datetime


class LedgerStore(Protocol):
    """Settled answers, prices and budgets."""

    async def settle(self, answers: Sequence[Settlement], told_by: str, now: datetime) -> int:
        """Each once, by request id, at the price of now; answers how many were new."""

    async def put_price(
        self, project: str, version: str, price: Price, by: str, now: datetime
    ) -> str:
        """Answers what it was, as text; empty for nothing."""

    async def put_budget(self, budget: Budget, by: str, now: datetime) -> tuple[str, str]:
        """By subject, period and unit; answers its id and what it was."""

    async def drop_budget(self, id_: str) -> Budget:
        """Raises `NotFound`."""

    async def budgets_spent(self, now: datetime) -> list[tuple[str, Budget, BudgetState, Decimal]]:
        """Every budget with its id, its state and what its present period has used."""

    async def move_budget(
        self, id_: str, old: BudgetState, new: BudgetState, now: datetime
    ) -> bool:
        """False when somebody else moved it.  Gateways are told in the same transaction."""


class RecordSink(Protocol):
    async def add(self, records: Sequence[AccessRecord], now: datetime) -> set[str]:
        """Keep records, once per request id, and settle those that told their usage, in one
        transaction; answer the ids that were new."""


class ObjectStore(Protocol):
    """Artifacts: written beside and renamed, never changed afterwards."""

    async def put(self, key: str, content: bytes) -> bool:
        """Create-only.  False when the key exists already."""

    async def get(self, key: str) -> bytes:
        """Raises `NotFound`."""


class FileSource(Protocol):
    """The user's files, as they are at this moment."""

    async def rows(self, folder: Path, patterns: Sequence[str]) -> Rows:
        """All rows of all files.  Raises `Rejected` naming a pattern that matches nothing."""

    async def suite(self, folder: Path, path: str) -> Suite:
        """Raises `Rejected` with file, line, found and expected."""

    async def base_problem(self, base: BaseModel) -> str | None:
        """What is wrong with a base model, as far as this machine can see without loading it."""


@dataclass(frozen=True, slots=True)
class Suite:
    """An evaluation: items with expected answers, and how an answer is checked."""

    name: str
    digest: str
    rows: Rows
    check: str
    max_tokens: int


class Tracker(Protocol):
    """A mirror of runs and versions in the team's tracker."""

    async def mirror(self, version: Version, run: Run, losses: Sequence[tuple[int, float]]) -> str:
        """Link to the mirrored run, empty when no tracker is configured.  By version."""


class Audit(Protocol):
    async def add(
        self, who: str, what: str, subject: str, old: str, new: str, because: str, now: datetime
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair that signs tokens: public half as a JSON Web Key, private half sealed."""

    id: SigningKeyId
    public: Mapping[str, str]
    sealed: bytes


class AccessStore(Protocol):
    """Keys and what signs them.  A change that gateways must know reaches them at once."""

    async def signing_key(self) -> SigningKey | None:
        """The one that signs now; None before the first."""

    async def add_signing_key(self, key: SigningKey, now: datetime) -> None:
        """The first one.  Of two at once one wins, and both callers read it back."""

    async def replace_signing_key(
        self, old: SigningKeyId, new: SigningKey, now: datetime, *, revoke_because: str | None
    ) -> int:
        """Sign with `new` from now on, in one transaction.  With a reason, every key that `old`
        signed is revoked; answers how many.  Raises `Conflict` when another was faster."""

    async def trusted(self, now: datetime) -> list[Mapping[str, str]]:
        """Public keys that a token may still be signed with."""

    async def add(self, key: Key, hint: str, created_by: str) -> None:
        """By id."""

    async def get(self, key_id: KeyId) -> Key:
        """Raises `NotFound`."""

    async def revoke(self, key_id: KeyId, because: str, now: datetime) -> bool:
        """False when it was revoked before, and nothing changes then."""

    async def is_revoked(self, key_id: KeyId) -> bool:
        """True for keys that are not known, too."""


class PeopleTokens(Protocol):
    async def verify(self, token: str, oidc: Oidc, now: datetime) -> Mapping[str, Any]:
        """The claims of a good access token of this provider.  Raises `Rejected` for any other,
        `Unavailable` when the provider's keys cannot be had."""


class TokenMaker(Protocol):
    """Makes key pairs, signs tokens and checks them."""

    def new_signing_key(self, id_: SigningKeyId) -> tuple[dict[str, str], bytes]: ...

    def sign(self, id_: SigningKeyId, sealed: bytes, claims: Mapping[str, object]) -> str:
        """Raises `Unavailable` when the private half cannot be unsealed."""

    def verify(
        self, token: str, jwks: Sequence[Mapping[str, str]], now: datetime
    ) -> Mapping[str, object]:
        """Claims of a token that is ours and young enough.  Raises `Rejected`."""
