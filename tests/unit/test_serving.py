"""How a project is served, as values."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratchet.core.access import Role
from ratchet.core.errors import Rejected
from ratchet.core.quota import Away, Exact
from ratchet.core.serving import (
    Access,
    Cache,
    Capture,
    Fallback,
    Grant,
    Oidc,
    Rate,
    Serving,
    Sticky,
    Timeouts,
    difference,
    from_json,
    groups_of,
    to_json,
)


@given(st.integers(1, 10_000), st.floats(0.1, 1e5), st.integers(1, 50))
@example(requests=2, seconds=60.0, gateways=3)
def test_the_parts_of_a_rate_never_let_in_more_than_the_whole(
    requests: int, seconds: float, gateways: int
) -> None:
    whole = Rate(requests, seconds)
    part = whole.share(gateways)

    assert gateways * part.requests / part.seconds <= requests / seconds * (1 + 1e-9)
    assert part.requests >= 1
    # In the first moment: the whole, or one for each gateway where there are more of those.
    assert gateways * part.requests <= max(requests, gateways)


def test_a_serving_survives_the_database_and_the_wire() -> None:
    serving = Serving(
        key_rates={"gold": Rate(10, 60.0), "*": Rate(1, 1.0)},
        priority_tiers=("gold",),
        pinned=("acme",),
        sticky=Sticky.USER,
        timeouts=Timeouts(idle_seconds=5.0),
        fallback=Fallback(url="https://x", key_variable="K"),
        oidc=Oidc(
            issuer="i",
            audience="a",
            jwks_url="https://i/jwks",
            grants={"ml": Grant(models=("m",)), "ops": Grant(role=Role.OPERATOR)},
        ),
        capture=Capture(sample=0.5),
        cache=Cache(ttl_seconds=5),
        exact=Exact(away=Away.REFUSE),
    )

    assert from_json(json.loads(json.dumps(to_json(serving)))) == serving
    assert from_json({}) == Serving()


def test_groups_are_a_list_or_words_in_one_text() -> None:
    assert groups_of(["ml", "ops"]) == groups_of("ml ops") == {"ml", "ops"}
    assert groups_of(None) == groups_of(7) == frozenset()


def test_only_what_changed_is_told() -> None:
    old, new = difference(Serving(), Serving(access=Access.OPEN, in_flight_per_engine=5))

    assert old == 'access: "keys"; in_flight_per_engine: 128'
    assert new == 'access: "open"; in_flight_per_engine: 5'


@pytest.mark.parametrize(
    ("impossible", "message"),
    [
        (lambda: Serving(access=Access.OPEN, pinned=("a",)), "need keys"),
        (lambda: Serving(body_bytes_max=0), "max_body"),
        (lambda: Serving(body_bytes_max=2**30), "at most 64MiB"),
        (lambda: Timeouts(first_byte_seconds=10, total_seconds=5), "idle <= first_byte <= total"),
        (lambda: Rate(0, 1.0), "a rate of 0"),
        (lambda: Capture(sample=0), "sample"),
        (lambda: Capture(retention_days=0), "at least a day"),
        (lambda: Cache(ttl_seconds=0.5), "ttl"),
        (lambda: Cache(answer_bytes_max=2**30), "max_answer"),
        (lambda: Exact(paths=("/v1/models",)), "expected of"),
        (lambda: Exact(paths=()), "a path"),
        (lambda: Exact(answer_tokens=0), "answer_tokens"),
    ],
)
def test_what_cannot_be_meant_is_refused(impossible: object, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        impossible()  # type: ignore[operator]
