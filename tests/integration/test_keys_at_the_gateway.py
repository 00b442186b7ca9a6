"""Keys against a real Envoy: who comes in, who does not, and what each is told."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest

from ratchet.adapters.envoy.admission import CLOCK_SKEW_SECONDS
from ratchet.adapters.tokens import Tokens
from ratchet.core.access import Admission, Key, KeyId, Scope, SigningKeyId
from ratchet.kit.secret import Secret
from tests.gateway import Gateway, running_gateway

TOKENS = Tokens(Secret(base64.b64encode(b"k" * 32).decode()))
SIG = SigningKeyId("sig_1")
PUBLIC, SEALED = TOKENS.new_signing_key(SIG)
NOW = datetime.now(UTC)
KEY = Key(
    id=KeyId("key_1"),
    project="shop",
    name="the app",
    principal="ana",
    scopes=frozenset(Scope),
    models=("router", "other"),
    tier="gold",
    role=None,
    signing_key=SIG,
    created_at=NOW - timedelta(days=2),
    expires_at=NOW + timedelta(days=1),
)
CLOSED = Admission(is_open=False, project="shop", served_name="router", jwks=(PUBLIC,), revoked=())


def token(**changes: Any) -> str:
    return TOKENS.sign(SIG, SEALED, replace(KEY, **changes).claims())


@pytest.fixture(scope="module")
def envoy() -> Iterator[Gateway]:
    with running_gateway() as running:
        yield running


@pytest.fixture
def gateway(envoy: Gateway) -> Gateway:
    envoy.serve(CLOSED)
    return envoy


def error_of(answer: Any) -> tuple[int, str]:
    body: Mapping[str, Any] = answer.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    return answer.status_code, str(body["code"])


def test_before_there_is_anything_to_serve_nobody_is_asked_for_a_key() -> None:
    with running_gateway() as fresh:
        answer = fresh.ask(None)

    assert answer.status_code == 503
    assert "no model is served yet" in answer.json()["error"]["message"]


def test_a_good_key_comes_in_and_its_token_stops_at_the_gateway(gateway: Gateway) -> None:
    answer = gateway.ask(token())

    assert answer.status_code == 200
    seen = answer.json()
    assert "authorization" not in seen
    assert (seen["x-ratchet-key"], seen["x-ratchet-principal"]) == ("key_1", "ana")
    assert seen["x-ratchet-tier"] == "gold"


@pytest.mark.parametrize("key", [None, "sk-of-somebody-else"])
def test_without_a_key_of_ours_one_is_told_how_to_send_it(
    gateway: Gateway, key: str | None
) -> None:
    answer = gateway.ask(key)

    assert error_of(answer) == (401, "missing_api_key")
    assert "Bearer rk_" in answer.json()["error"]["message"]


@pytest.mark.parametrize("key", ["rk_nonsense", "rk_a.b.c"])
def test_nonsense_a_forgery_and_a_revoked_key_are_told_the_same(gateway: Gateway, key: str) -> None:
    other, sealed = TOKENS.new_signing_key(SIG)
    forged = TOKENS.sign(SIG, sealed, KEY.claims())
    gateway.serve(replace(CLOSED, revoked=(KeyId("key_1"),)))

    answers = [gateway.ask(each) for each in (key, forged, token()[:-4], token())]

    assert other["x"] != PUBLIC["x"]
    assert {error_of(answer) for answer in answers} == {(401, "invalid_api_key")}
    assert len({answer.json()["error"]["message"] for answer in answers}) == 1


def test_an_old_key_is_told_that_it_has_expired(gateway: Gateway) -> None:
    answer = gateway.ask(token(expires_at=NOW - timedelta(minutes=5)))

    assert error_of(answer) == (401, "expired_api_key")


def test_a_key_that_envoy_remembers_still_grows_old(gateway: Gateway) -> None:
    # Old enough to be refused in two seconds: Envoy allows for clocks that differ.
    end = datetime.now(UTC) - timedelta(seconds=CLOCK_SKEW_SECONDS - 2)
    old = token(expires_at=end)
    assert gateway.ask(old).status_code == 200

    deadline = time.monotonic() + 10
    while (answer := gateway.ask(old)).status_code == 200:
        assert time.monotonic() < deadline

    assert error_of(answer) == (401, "expired_api_key")


@pytest.mark.parametrize(
    ("changes", "path", "code"),
    [
        ({"project": "bank"}, "/v1/chat/completions", "project_not_allowed"),
        ({"models": ("other",)}, "/v1/chat/completions", "model_not_allowed"),
        ({"scopes": frozenset({Scope.MODELS})}, "/v1/completions", "scope_not_allowed"),
        ({"scopes": frozenset({Scope.ANSWERS})}, "/v1/models", "scope_not_allowed"),
    ],
)
def test_a_key_that_may_not_is_told_what_it_lacks(
    gateway: Gateway, changes: dict[str, Any], path: str, code: str
) -> None:
    assert error_of(gateway.ask(token(**changes), path)) == (403, code)


def test_any_model_and_a_single_scope_are_enough(gateway: Gateway) -> None:
    asks = token(models=("*",), scopes=frozenset({Scope.ANSWERS}))
    lists = token(scopes=frozenset({Scope.MODELS}))

    assert gateway.ask(asks).status_code == 200
    assert gateway.ask(lists, "/v1/models").status_code == 200


def test_a_revocation_is_in_force_at_once_and_leaves_the_others_alone(gateway: Gateway) -> None:
    other = token(id=KeyId("key_2"))
    assert gateway.ask(token()).status_code == 200

    began = time.monotonic()
    gateway.serve(replace(CLOSED, revoked=(KeyId("key_0"), KeyId("key_1"))))
    seconds = time.monotonic() - began

    assert error_of(gateway.ask(token())) == (401, "invalid_api_key")
    assert gateway.ask(other).status_code == 200
    assert seconds < 1.0


def test_after_a_rotation_old_and_new_keys_are_trusted_until_the_old_pair_is_gone(
    gateway: Gateway,
) -> None:
    second = SigningKeyId("sig_2")
    public, sealed = TOKENS.new_signing_key(second)
    new = TOKENS.sign(second, sealed, replace(KEY, signing_key=second).claims())

    gateway.serve(replace(CLOSED, jwks=(PUBLIC, public)))
    assert [gateway.ask(each).status_code for each in (token(), new)] == [200, 200]

    gateway.serve(replace(CLOSED, jwks=(public,)))
    assert [gateway.ask(each).status_code for each in (token(), new)] == [401, 200]


def test_an_open_gateway_asks_nobody_and_believes_nobody(gateway: Gateway) -> None:
    gateway.serve(replace(CLOSED, is_open=True))

    answer = gateway.ask(None, headers={"x-ratchet-key": "key_of_the_boss"})

    assert answer.status_code == 200
    assert "x-ratchet-key" not in answer.json()


def test_claims_that_come_as_headers_are_thrown_away(gateway: Gateway) -> None:
    answer = gateway.ask(token(), headers={"x-ratchet-key": "key_9", "x-ratchet-tier": "free"})

    assert answer.json()["x-ratchet-key"] == "key_1"
    assert answer.json()["x-ratchet-tier"] == "gold"


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completion%73", "/v1//chat/completions", "/v1/chat/completions/", "/v1/x/../models",
     "/v1/embeddings", "/metrics"],
)  # fmt: skip
def test_only_the_known_paths_reach_an_engine_letter_by_letter(gateway: Gateway, path: str) -> None:
    with socket.create_connection(("127.0.0.1", gateway.places.port)) as line:
        key = token()
        head = f"GET {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {key}\r\n\r\n"
        line.sendall(head.encode())
        answer = line.recv(4096).decode()

    assert answer.startswith("HTTP/1.1 404 ")
    assert "no such path" in answer


def test_health_needs_no_key_and_models_do(gateway: Gateway) -> None:
    assert httpx.get(f"{gateway.url}/health").json()["status"] == "ok"
    assert gateway.ask(None, "/v1/models").status_code == 401


def test_a_key_without_budget_is_told_so_and_comes_back(gateway: Gateway) -> None:
    gateway.serve(replace(CLOSED, exhausted=(KeyId("key_1"),)))
    refused = gateway.ask(token())
    other = gateway.ask(token(id=KeyId("key_2")))
    gateway.serve(CLOSED)

    assert error_of(refused) == (429, "insufficient_quota")
    assert int(refused.headers["retry-after"]) > 0
    assert other.status_code == 200
    assert gateway.ask(token()).status_code == 200
