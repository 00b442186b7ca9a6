"""Access tokens of a real identity provider, at the gateway and at the control plane."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ratchet.core.access import KeyId
from ratchet.core.serving import Serving
from tests.contract.test_specfile import SMALL
from tests.gateway import Gateway, running_gateway
from tests.integration.test_access import Api, with_api
from tests.integration.test_keys_at_the_gateway import CLOSED, error_of, token
from tests.oidc import AUDIENCE, Issuer, running_issuer


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(issuer: Issuer) -> Iterator[Gateway]:
    with running_gateway() as running:
        running.serve(CLOSED, serving=Serving(oidc=issuer.oidc))
        deadline = time.monotonic() + 10
        while running.ask(issuer.token("answers")).status_code != 200:
            assert time.monotonic() < deadline, running.ask(issuer.token("answers")).text
            time.sleep(0.1)
        yield running


def test_a_service_comes_in_with_its_access_token_and_the_token_stops_there(
    gateway: Gateway, issuer: Issuer
) -> None:
    answer = gateway.ask(issuer.token("answers"))

    seen = answer.json()
    assert answer.status_code == 200
    assert "authorization" not in seen
    assert (seen["x-ratchet-key"], seen["x-ratchet-principal"]) == ("answers", "answers")


def test_keys_are_accepted_beside_access_tokens(gateway: Gateway) -> None:
    assert gateway.ask(token()).status_code == 200
    assert error_of(gateway.ask(token(models=("x",)))) == (403, "model_not_allowed")


def test_a_group_without_a_grant_may_nothing(gateway: Gateway, issuer: Issuer) -> None:
    assert gateway.ask(issuer.token("nobody")).status_code == 403


def test_wrong_tokens_are_refused(gateway: Gateway, issuer: Issuer) -> None:
    other = issuer.token("answers", audience="https://elsewhere.test")
    good = issuer.token("answers")
    head, claims, signature = good.split(".")

    for bad in (other, f"{head}.{claims}.{signature[:-8]}AAAAAAAA", "nonsense"):
        answer = gateway.ask(bad)
        assert answer.status_code == 401, answer.text
        assert error_of(answer)[1] in ("invalid_api_key", "missing_api_key")


def test_models_go_by_group_and_who_is_revoked_stays_out(gateway: Gateway, issuer: Issuer) -> None:
    grants = {"ml": replace(issuer.oidc.grants["ml"], models=("another",))}
    gateway.serve(CLOSED, serving=Serving(oidc=replace(issuer.oidc, grants=grants)))
    other_model = gateway.ask(issuer.token("answers"))
    gateway.serve(replace(CLOSED, revoked=(KeyId("answers"),)), serving=Serving(oidc=issuer.oidc))
    revoked = gateway.ask(issuer.token("answers"))
    gateway.serve(CLOSED, serving=Serving(oidc=issuer.oidc))

    assert error_of(other_model) == (403, "model_not_allowed")
    assert error_of(revoked) == (401, "invalid_api_key")


def test_roles_at_the_control_plane_go_by_group(
    issuer: Issuer, database_url: str, tmp_path: Path
) -> None:
    oidc: dict[str, Any] = {
        "issuer": issuer.url,
        "audience": AUDIENCE,
        "jwks": issuer.oidc.jwks_url,
        "groups": {"ml": {"models": ["*"]}, "ops": {"role": "operator"}},
    }

    async def scenario(api: Api) -> None:
        spec = {"spec": f"{SMALL}gateway: {{oidc: {oidc}}}\n", "path": "/x/ratchet.yaml"}
        assert (await api("POST", "/projects", **spec)).status_code == 200
        operator, plain = issuer.token("operator"), issuer.token("answers")
        foreign = issuer.token("operator", audience="https://elsewhere.test")

        started = await api("POST", "/runs", operator, **spec)
        assert started.status_code == 201, started.text
        assert (await api("GET", "/audit", operator)).status_code == 403
        assert (await api("POST", "/runs", plain, **spec)).status_code == 401
        assert (await api("POST", "/runs", foreign, **spec)).status_code == 401
        assert (await api("POST", "/runs", operator[:-6] + "AAAAAA", **spec)).status_code == 401
        trigger = (await api("GET", f"/runs/{started.json()['id']}")).json()["trigger"]
        assert trigger["who"] == "operator"

    with_api(database_url, tmp_path, scenario)
