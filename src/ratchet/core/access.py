"""Who may do what: keys of the gateway, roles of the control plane.

A key is a signed token.  The gateway checks it by itself, so what a key may do stands in the token
and nowhere else; only what was revoked before its time has to be told.  Roles are for people and
programs that steer; one table says what each may do.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NewType

from ratchet.core.errors import Rejected

KeyId = NewType("KeyId", str)
SigningKeyId = NewType("SigningKeyId", str)

# Tells our tokens from those of other issuers, in headers, logs and secret scanners.
KEY_PREFIX = "rk_"
ISSUER = "ratchet"
ANY_MODEL = "*"


class Scope(Enum):
    """What a key may ask the gateway for."""

    ANSWERS = "answers"  # chat and plain completions
    MODELS = "models"  # the list of models
    ARMS = "arms"  # to choose the version that answers, for testers


class Role(Enum):
    """What the bearer may do with the control plane.  Each includes the one before."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    RELEASER = "releaser"
    ADMIN = "admin"


class Permission(Enum):
    """What a call to the control plane needs."""

    READ = "read"  # look at anything but keys
    RUN = "run"  # start and cancel runs
    RELEASE = "release"  # move live traffic
    SERVE = "serve"  # register a project, change how it is served, set the fleet
    KEYS = "keys"  # create, revoke and list keys
    AUDIT = "audit"  # read who did what
    TURNS = "turns"  # read what users asked and were answered
    ERASE = "erase"  # remove what is known of a person
    PRUNE = "prune"  # take artifacts away, and pin them
    NODE = "node"  # be a gateway's agent, a machine's supervisor or a worker


_VIEWER = frozenset({Permission.READ})
_OPERATOR = _VIEWER | {Permission.RUN, Permission.TURNS}
_RELEASER = _OPERATOR | {Permission.RELEASE, Permission.AUDIT, Permission.PRUNE}
GRANTS: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _OPERATOR,
    Role.RELEASER: _RELEASER,
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls the control plane."""

    name: str
    role: Role
    project: str | None = None
    """The only project that the caller may touch; None for all."""


def refusal(caller: Caller, permission: Permission, project: str | None) -> str | None:
    """Why a caller may not do something, as a sentence; None when it may.

    `project` is the one that would be touched, None when the call touches no single one.
    """
    if permission not in GRANTS[caller.role]:
        needed = next(role for role in Role if permission in GRANTS[role])
        return (
            f"{caller.name} has the role {caller.role.value}; this needs {needed.value} "
            f"(permission {permission.value})"
        )
    if caller.project is not None and project is not None and project != caller.project:
        return f"{caller.name} belongs to project {caller.project}, not to {project}"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it is known here; the token itself is shown once and never stored."""

    id: KeyId
    project: str
    name: str
    principal: str
    """Who answers for what the key does: a person, a team, a service."""
    scopes: frozenset[Scope]
    models: tuple[str, ...]
    """Names that may be asked for; `*` is every one."""
    tier: str
    team: str = ""
    """Whose budget the key uses, besides its own and the project's."""
    role: Role | None
    """Set for keys that steer the control plane."""
    signing_key: SigningKeyId
    created_at: datetime
    expires_at: datetime | None

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > 200:
            raise Rejected(f"key name {self.name!r}: expected 1 to 200 characters")
        if not self.models:
            raise Rejected(f"key {self.name}: expected at least one model, or {ANY_MODEL!r}")
        if self.expires_at is not None and self.expires_at <= self.created_at:
            raise Rejected(f"key {self.name} would expire before it is made")

    def claims(self) -> dict[str, object]:
        """What the token says.  Names of RFC 7519 where it has one."""
        claims: dict[str, object] = {
            "iss": ISSUER,
            "sub": self.principal,
            "jti": self.id,
            "iat": int(self.created_at.timestamp()),
            "project": self.project,
            "scopes": sorted(scope.value for scope in self.scopes),
            "models": list(self.models),
            "tier": self.tier,
        }
        if self.expires_at is not None:
            claims["exp"] = int(self.expires_at.timestamp())
        if self.role is not None:
            claims["role"] = self.role.value
        return claims


def caller_of(claims: Mapping[str, object]) -> Caller:
    """Who a verified token speaks for.  Raises `Rejected` for a key that steers nothing."""
    role = claims.get("role")
    if role is None:
        raise Rejected("this key is for the gateway; the control plane wants one with a role")
    return Caller(name=str(claims["sub"]), role=Role(role), project=str(claims["project"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What a gateway must know to check who comes in, without asking anybody."""

    is_open: bool
    """Everybody is served, key or not."""
    project: str
    served_name: str
    jwks: tuple[Mapping[str, str], ...]
    """Public keys, as JSON Web Keys (RFC 8037)."""
    revoked: tuple[KeyId, ...]
    """Keys that were taken back before their time, in order."""
    exhausted: tuple[KeyId, ...] = ()
    """Keys whose budget, or whose team's or project's, is used up."""

    def __post_init__(self) -> None:
        # Envoy takes a key that it cannot read without a word, and then lets nobody in.
        for jwk in self.jwks:
            if not _is_ed25519(jwk):
                raise Rejected(f"public key {jwk.get('kid', '?')} is no Ed25519 key (RFC 8037)")


def _is_ed25519(jwk: Mapping[str, str]) -> bool:
    text = jwk.get("x", "")
    try:
        point = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return False
    return (jwk.get("kty"), jwk.get("crv"), len(point)) == ("OKP", "Ed25519", 32)
