"""Gateways and engines, what they report, who comes in, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from ratchet.core.access import Key, KeyId, SigningKeyId
from ratchet.core.artifact import VersionId
from ratchet.core.ledger import Budget, BudgetState, Price
from ratchet.core.quota import Accounts, Refusal, Tokens
from ratchet.core.routing import Arm, Endpoint, GatewaySnapshot
from ratchet.core.serving import Oidc
from ratchet.core.spec import Drill


class EngineStore(Protocol):
    async def down_seconds(self, version: VersionId, now: datetime) -> float | None:
        """None: it has not been ready yet.  Zero: it is ready."""

    async def failure(self, version: VersionId) -> str | None:
        """Why it cannot start, once it was tried often enough."""

    async def place_of(self, version: VersionId) -> Endpoint | None:
        """Where one that is ready listens."""

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
    cache: str = ""
    """`hit` (no engine was asked, nothing is charged), `miss`, `bypass`; empty without a cache."""
    sampled: bool = False
    """It was chosen to become a turn."""
    known: Mapping[str, str] = field(default_factory=dict)
    """What it was before it had an arm, by dimension of segments."""
    started_at: datetime

    @property
    def is_on_trial(self) -> bool:
        """It went the way of everybody: to one of the arms, by its conversation."""
        return self.routed == "arms"

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

    async def accounts(
        self, project: str, requests: Sequence[str], now: datetime
    ) -> tuple[Accounts, list[str]]:
        """Budgets as exact routes see them, and which of the requests they have in them already;
        both of one moment."""

    async def move_budget(
        self, id_: str, old: BudgetState, new: BudgetState, now: datetime
    ) -> bool:
        """False when somebody else moved it.  Gateways are told in the same transaction."""


class AnswerStore(Protocol):
    """Answers that may be lost."""

    async def get(self, key: str) -> bytes | None:
        """Raises `Unavailable` within milliseconds."""

    async def put(self, key: str, value: bytes, seconds: int) -> None:
        """Keep for so long at most.  Raises `Unavailable` within milliseconds."""


class QuotaStore(Protocol):
    """What is put aside of budgets for requests in flight."""

    async def reserve(
        self, project: str, key_id: str, request_id: str, most: Tokens, deadline_seconds: float
    ) -> Refusal | None:
        """Put aside in every budget that it counts for, or in none.  By request.  After the
        deadline (seconds since 1970) it is given back.  Raises `Unavailable` within
        milliseconds."""

    async def settle(self, project: str, key_id: str, request_id: str, took: Tokens) -> None:
        """What it really took, until the ledger has it.  By request.  Raises `Unavailable`."""

    async def open_requests(self, project: str) -> list[str]:
        """Requests that something is put aside for.  Raises `Unavailable`."""

    async def tell(
        self, project: str, known: Accounts, settled: Sequence[str], now_seconds: float
    ) -> None:
        """What the ledger says; `settled` are requests that are in it.  Raises `Unavailable`."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A request was given to an arm; its answer may never end."""

    request_id: str
    version: VersionId
    route_revision: int
    conversation: str
    known: Mapping[str, str] = field(default_factory=dict)
    """By dimension of segments."""


class RecordSink(Protocol):
    async def assigned(self, given: Sequence[Assignment], now: datetime) -> None:
        """Keep who was given which arm, in this order, once per request id; of a conversation the
        first under each weight.  Only under weights of two arms."""

    async def add(self, records: Sequence[AccessRecord], now: datetime) -> set[str]:
        """Keep records, once per request id, and settle those that told their usage, in one
        transaction; answer the ids that were new.  What was never assigned is, by that."""


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
