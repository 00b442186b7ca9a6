"""What roles may do, what a key says, and who a token speaks for."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ratchet.core.access import (
    GRANTS,
    Admission,
    Caller,
    Key,
    KeyId,
    Permission,
    Role,
    Scope,
    SigningKeyId,
    caller_of,
    refusal,
)
from ratchet.core.errors import Rejected

NOW = datetime(2026, 11, 24, tzinfo=UTC)
KEY = Key(
    id=KeyId("key_1"),
    project="shop",
    name="the app",
    principal="ana",
    scopes=frozenset({Scope.ANSWERS}),
    models=("router",),
    tier="gold",
    role=None,
    signing_key=SigningKeyId("sig_1"),
    created_at=NOW,
    expires_at=NOW + timedelta(days=1),
)
# The whole table, written out a second time on purpose.
MAY = {
    ("viewer", "read"),
    ("operator", "read"),
    ("operator", "run"),
    ("operator", "turns"),
    ("releaser", "read"),
    ("releaser", "run"),
    ("releaser", "turns"),
    ("releaser", "release"),
    ("releaser", "audit"),
    ("releaser", "prune"),
    *(("admin", permission.value) for permission in Permission),
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("permission", Permission)
def test_each_role_may_do_what_the_table_says_and_nothing_else(
    role: Role, permission: Permission
) -> None:
    caller = Caller(name="ana", role=role)

    why = refusal(caller, permission, "shop")

    assert (why is None) == ((role.value, permission.value) in MAY)
    if why is not None:
        assert "ana has the role" in why
        assert permission.value in why


def test_a_higher_role_includes_the_lower_ones() -> None:
    roles = list(Role)

    assert all(GRANTS[a] < GRANTS[b] for a, b in itertools.pairwise(roles))


def test_a_caller_of_one_project_touches_no_other() -> None:
    caller = Caller(name="ana", role=Role.ADMIN, project="shop")

    assert refusal(caller, Permission.RELEASE, "shop") is None
    assert refusal(caller, Permission.RELEASE, None) is None
    assert "belongs to project shop" in str(refusal(caller, Permission.RELEASE, "bank"))


def test_a_key_says_what_it_may_in_its_claims() -> None:
    assert KEY.claims() == {
        "iss": "ratchet",
        "sub": "ana",
        "jti": "key_1",
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 86400,
        "project": "shop",
        "scopes": ["answers"],
        "models": ["router"],
        "tier": "gold",
    }
    assert replace(KEY, role=Role.VIEWER).claims()["role"] == "viewer"
    assert "exp" not in replace(KEY, expires_at=None).claims()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": " "}, "1 to 200 characters"),
        ({"models": ()}, "at least one model"),
        ({"expires_at": NOW}, "expire before it is made"),
    ],
)
def test_a_key_that_makes_no_sense_cannot_be_made(change: dict[str, object], says: str) -> None:
    with pytest.raises(Rejected, match=says):
        replace(KEY, **change)  # type: ignore[arg-type]


def test_a_token_speaks_for_its_principal_with_its_role() -> None:
    claims = replace(KEY, role=Role.RELEASER).claims()

    assert caller_of(claims) == Caller(name="ana", role=Role.RELEASER, project="shop")


def test_a_key_of_the_gateway_steers_nothing() -> None:
    with pytest.raises(Rejected, match="wants one with a role"):
        caller_of(KEY.claims())


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "RSA", "crv": "Ed25519", "x": "A" * 43},
        {"kty": "OKP", "crv": "Ed25519", "x": "short"},
        {"kty": "OKP", "crv": "Ed25519", "x": "A"},
    ],
)
def test_a_public_key_that_envoy_could_not_read_is_refused_here(jwk: dict[str, str]) -> None:
    with pytest.raises(Rejected, match="no Ed25519 key"):
        Admission(is_open=False, project="p", served_name="m", jwks=(jwk,), revoked=())
