"""Limits of requests, through real Envoys: for each key, for a tier, and divided among gateways."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ratchet.core.serving import Rate, Serving
from tests.gateway import Gateway, running_gateway
from tests.integration.test_keys_at_the_gateway import CLOSED, error_of, token

# Nothing comes back into these buckets while a test runs.
HOUR = 3600.0


@pytest.fixture(scope="module")
def envoy() -> Iterator[Gateway]:
    with running_gateway() as running:
        yield running


def statuses(gateway: Gateway, key: str, count: int) -> list[int]:
    return [gateway.ask(key).status_code for _ in range(count)]


def test_each_key_has_a_bucket_of_its_tiers_size(envoy: Gateway) -> None:
    rates = {"gold": Rate(5, HOUR), "*": Rate(2, HOUR)}
    envoy.serve(CLOSED, serving=Serving(key_rates=rates))

    for number in range(2):
        gold = token(id=f"gold-{number}", tier="gold")
        other = token(id=f"other-{number}", tier="silver")
        assert statuses(envoy, gold, 7) == [200] * 5 + [429] * 2
        assert statuses(envoy, other, 4) == [200] * 2 + [429] * 2


def test_who_is_too_fast_is_told_when_to_come_again(envoy: Gateway) -> None:
    envoy.serve(CLOSED, serving=Serving(key_rates={"*": Rate(1, 2.0)}))
    key = token(id="fast")
    envoy.ask(key)

    refused = envoy.ask(key)

    assert error_of(refused) == (429, "rate_limit_exceeded")
    wait = int(refused.headers["retry-after"])
    assert 1 <= wait <= 2
    time.sleep(wait)
    assert envoy.ask(key).status_code == 200


def test_a_tier_has_a_limit_together_and_one_key_cannot_use_it_up(envoy: Gateway) -> None:
    serving = Serving(key_rates={"*": Rate(4, HOUR)}, tier_rates={"silver": Rate(6, HOUR)})
    envoy.serve(CLOSED, serving=serving)
    greedy, other = token(id="greedy", tier="silver"), token(id="calm", tier="silver")

    assert statuses(envoy, greedy, 20).count(200) == 4
    assert statuses(envoy, other, 4) == [200, 200, 429, 429]


def test_a_moved_weight_does_not_fill_the_buckets(envoy: Gateway) -> None:
    serving = Serving(key_rates={"*": Rate(3, HOUR)})
    envoy.serve(CLOSED, serving=serving)
    key = token(id="steady")
    assert statuses(envoy, key, 4) == [200, 200, 200, 429]

    envoy.serve(CLOSED, serving=serving)

    assert envoy.ask(key).status_code == 429


def test_three_gateways_share_a_limit_and_two_take_over_when_one_dies() -> None:
    limit = 30
    serving = Serving(key_rates={"*": Rate(limit, HOUR)})
    key = token(id="shared")
    with ExitStack() as stack:
        gateways = [stack.enter_context(running_gateway()) for _ in range(3)]
        for gateway in gateways:
            gateway.serve(CLOSED, serving=serving, gateways=3)
        first = counted(gateways, key, limit)
        dead = gateways.pop()
        dead.process.kill()
        still = counted(gateways, key, limit)
        for gateway in gateways:
            gateway.serve(CLOSED, serving=serving, gateways=2)
        second = counted(gateways, key, limit)

    # Together never more than the limit; what the new division lets in once more is the bound of
    # docs/reference/gateway.md.
    assert first[200] == limit
    assert still[200] == 0
    assert second[200] == limit


def counted(gateways: list[Gateway], key: str, each: int) -> collections.Counter[int]:
    found: collections.Counter[int] = collections.Counter()
    threads = [
        threading.Thread(target=lambda g=gateway: found.update(statuses(g, key, each)))
        for gateway in gateways
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
