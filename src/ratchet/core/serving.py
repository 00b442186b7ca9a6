"""How a project is served: what its file says under `gateway`, as one value.

The gateway gets it with every snapshot, so a change is in force as fast as a weight.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from ratchet.core.access import ANY_MODEL, Role, Scope
from ratchet.core.errors import Rejected
from ratchet.core.quota import Away, Exact

MEBIBYTE = 1024 * 1024
ANY_TIER = "*"
# Envoy holds a body in memory when it may have to send it a second time.
BODY_BYTES_LIMIT = 64 * MEBIBYTE


class Access(Enum):
    """Whom the gateway serves."""

    KEYS = "keys"
    OPEN = "open"


class Sticky(Enum):
    """What says that two requests belong to one conversation."""

    HEADER = "header"  # x-ratchet-conversation alone
    USER = "user"  # else `user`, or `metadata.conversation_id`, of the body, which is then buffered


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: so many requests in so many seconds, and as many at once at first."""

    requests: int
    seconds: float

    def __post_init__(self) -> None:
        if self.requests < 1 or self.seconds <= 0:
            raise Rejected(f"a rate of {self.requests} requests in {self.seconds} s")

    def share(self, gateways: int) -> Rate:
        """One gateway's part.  The parts never add up to more than the whole, unless there are
        more gateways than requests: each can only count whole ones."""
        part = self.requests // max(1, gateways)
        if part >= 1:
            return Rate(part, self.seconds)
        return Rate(1, self.seconds * max(1, gateways) / self.requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a client waits at most, in seconds."""

    first_byte_seconds: float = 120.0
    """For the answer's first byte: the whole of an answer that is no stream."""
    idle_seconds: float = 60.0
    """Between two tokens of a stream."""
    total_seconds: float = 900.0

    def __post_init__(self) -> None:
        if not self.idle_seconds <= self.first_byte_seconds <= self.total_seconds:
            raise Rejected(
                "gateway.timeouts: expected idle <= first_byte <= total, found "
                f"{self.idle_seconds:g} s, {self.first_byte_seconds:g} s, {self.total_seconds:g} s"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """Who answers when no engine of the baseline is left: another OpenAI-compatible server."""

    url: str
    """`http://host:port` or `https://host`; paths under it are the same as here."""
    key_variable: str = ""
    """Environment variable at the gateway that holds its API key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a group of the identity provider may do with this project."""

    models: tuple[str, ...] = (ANY_MODEL,)
    scopes: tuple[Scope, ...] = (Scope.ANSWERS, Scope.MODELS)
    role: Role | None = None
    """Set for groups that steer the control plane, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oidc:
    """Access tokens (JWT) of an identity provider, accepted beside keys."""

    issuer: str
    audience: str
    jwks_url: str
    """Where the provider's public keys are; fetched and kept by whoever checks."""
    claim: str = "groups"
    """Names the groups: a list, or words in one text, as `scope` has them."""
    grants: Mapping[str, Grant] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Some requests become turns: their prompt and answer are kept, without what names people."""

    sample: float = 0.1
    """Share of the requests."""
    retention_days: int = 90

    def __post_init__(self) -> None:
        if not 0 < self.sample <= 1:
            raise Rejected(
                f"gateway.capture.sample: found {self.sample:g}, expected 0 < sample <= 1"
            )
        if self.retention_days < 1:
            raise Rejected("gateway.capture.retention: expected at least a day")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Deterministic requests (temperature 0, or a seed) are answered again from Valkey."""

    ttl_seconds: float = 3600.0
    answer_bytes_max: int = MEBIBYTE

    def __post_init__(self) -> None:
        if self.ttl_seconds < 1 or not 1 <= self.answer_bytes_max <= 16 * MEBIBYTE:
            raise Rejected("gateway.cache: expected a ttl of at least 1s, max_answer at most 16MiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A project's promises to its clients."""

    access: Access = Access.KEYS
    timeouts: Timeouts = field(default_factory=Timeouts)
    body_bytes_max: int = 8 * MEBIBYTE
    key_rates: Mapping[str, Rate] = field(default_factory=dict)
    """For each key, by its tier; `*` stands for those that are not named."""
    tier_rates: Mapping[str, Rate] = field(default_factory=dict)
    """For all keys of a tier together."""
    in_flight_per_engine: int = 128
    """Requests at one engine, waiting or being answered; what comes on top is refused at once."""
    priority_tiers: tuple[str, ...] = ()
    """Tiers with room of their own, as much again, when the others have filled theirs."""
    pinned: tuple[str, ...] = ()
    """Principals that always get the baseline and so take part in no experiment."""
    sticky: Sticky = Sticky.HEADER
    fallback: Fallback | None = None
    oidc: Oidc | None = None
    capture: Capture | None = None
    cache: Cache | None = None
    exact: Exact | None = None
    """Set: budgets are exact on these routes, before a request is let in."""

    def __post_init__(self) -> None:
        if not 1 <= self.body_bytes_max <= BODY_BYTES_LIMIT:
            raise Rejected(f"gateway.max_body: {self.body_bytes_max} bytes, at most 64MiB")
        if self.access is Access.OPEN and (
            self.key_rates or self.tier_rates or self.priority_tiers or self.pinned
        ):
            raise Rejected(
                "gateway.limits, priority and pinned need keys: set gateway.access: keys"
            )


def to_json(serving: Serving) -> dict[str, Any]:
    """As it is stored and sent to gateways."""
    value = {**asdict(serving), "access": serving.access.value, "sticky": serving.sticky.value}
    if serving.exact is not None:
        value["exact"]["away"] = serving.exact.away.value
    if serving.oidc is not None:
        value["oidc"]["grants"] = {
            group: {
                "models": list(grant.models),
                "scopes": [scope.value for scope in grant.scopes],
                "role": None if grant.role is None else grant.role.value,
            }
            for group, grant in serving.oidc.grants.items()
        }
    return value


def from_json(value: Mapping[str, Any]) -> Serving:
    """What `to_json` made, by this or an older Ratchet: what is absent has its default."""
    known = dict(value)
    for name in ("key_rates", "tier_rates"):
        known[name] = {tier: Rate(**rate) for tier, rate in known.get(name, {}).items()}
    for name in ("priority_tiers", "pinned"):
        known[name] = tuple(known.get(name, ()))
    known["access"] = Access(known.get("access", Access.KEYS.value))
    known["sticky"] = Sticky(known.get("sticky", Sticky.HEADER.value))
    known["timeouts"] = Timeouts(**known.get("timeouts", {}))
    oidc = known.get("oidc")
    known["oidc"] = _oidc(oidc) if oidc else None
    fallback = known.get("fallback")
    known["fallback"] = Fallback(**fallback) if fallback else None
    exact = known.get("exact")
    if exact:
        paths = tuple(exact["paths"])
        exact = Exact(**{**exact, "paths": paths, "away": Away(exact["away"])})
    known["exact"] = exact or None
    cache = known.get("cache")
    known["cache"] = Cache(**cache) if cache else None
    capture = known.get("capture")
    known["capture"] = Capture(**capture) if capture else None
    return Serving(**known)


def _oidc(value: Mapping[str, Any]) -> Oidc:
    grants = {
        group: Grant(
            models=tuple(grant["models"]),
            scopes=tuple(Scope(scope) for scope in grant["scopes"]),
            role=None if grant["role"] is None else Role(grant["role"]),
        )
        for group, grant in value["grants"].items()
    }
    return Oidc(**{**value, "grants": grants})


def groups_of(claim: object) -> frozenset[str]:
    """Groups as a claim says them: a list, or words in one text."""
    if isinstance(claim, str):
        return frozenset(claim.split())
    return frozenset(map(str, claim)) if isinstance(claim, list | tuple) else frozenset()


def difference(old: Serving, new: Serving) -> tuple[str, str]:
    """What two servings do not share, as text for the audit log."""
    before, after = to_json(old), to_json(new)
    changed = [key for key in after if before[key] != after[key]]

    def shown(value: Mapping[str, Any]) -> str:
        return "; ".join(f"{key}: {json.dumps(value[key])}" for key in changed)

    return shown(before), shown(after)
