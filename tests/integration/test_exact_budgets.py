"""Exact budgets: a real Envoy asks the agent's side, which puts aside in a real Valkey."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import pytest

from ratchet.adapters.valkey.client import Valkey
from ratchet.adapters.valkey.quota import ValkeyQuota
from ratchet.core.errors import Unavailable
from ratchet.core.ledger import Budget, Period, Price, SubjectKind, Unit
from ratchet.core.quota import Account, Accounts, Away, Exact, Tokens, account
from ratchet.core.serving import Access, Cache, Serving
from tests.beside import Side, beside
from tests.integration.test_keys_at_the_gateway import CLOSED, token
from tests.valkey import Server

EXACT = Serving(access=Access.KEYS, exact=Exact())
FOR_EVER = 4e9
# The stand-in engine's answer.
TOOK = 12


def tokens(limit: int, spent: int = 0, id_: str = "bud_1") -> Account:
    return Account(
        id=id_, limit=limit, spent=spent, prompt_nano=0, completion_nano=0, words=f"{limit} tokens"
    )


def accounts(*of_all: Account, keys: dict[str, Sequence[Account]] | None = None) -> Accounts:
    of_keys = keys or {}
    every = [*of_all, *(each for known in of_keys.values() for each in known)]
    return Accounts(
        accounts=tuple({each.id: each for each in every}.values()),
        of_keys={key: tuple(each.id for each in known) for key, known in of_keys.items()},
        of_all=tuple(each.id for each in of_all),
    )


async def ask(side: Side, **body: Any) -> httpx.Response:
    body = {"model": "m", "max_tokens": 50, **body}
    headers = body.pop("headers", {})
    return await asyncio.to_thread(side.gateway.ask, token(), json=body, headers=headers)


async def used(quota: ValkeyQuota, id_: str = "bud_1") -> tuple[int, int]:
    """What is put aside of an account, and for how many requests."""
    [amount] = await quota._valkey.fields(f"quota:{{shop}}:{id_}", ["open"])
    names = await quota._valkey.names(f"quota:{{shop}}:{id_}:open")
    return int(amount or 0), len(names)


def test_what_a_request_may_take_is_put_aside_and_replaced_by_what_it_took(
    valkey: Server,
) -> None:
    quota = ValkeyQuota(Valkey(valkey.url))

    async def scenario(side: Side) -> None:
        await quota.tell("shop", accounts(tokens(500)), (), 0)
        slow = asyncio.create_task(ask(side, headers={"x-test-wait": "0.5"}))
        await asyncio.sleep(0.25)
        while_it_runs, requests = await used(quota)
        assert (await slow).status_code == 200
        await until(lambda: used(quota), (TOOK, 1))
        # A stream, whose usage comes last.
        await ask(side, headers={"x-test-kind": "stream"})
        await until(lambda: used(quota), (2 * TOOK, 2))

        # 50 for the answer and a token for each byte of the body.
        assert (50 < while_it_runs < 200, requests) == (True, 1)
        # The ledger has them now.
        settled = await quota.open_requests("shop")
        await quota.tell("shop", accounts(tokens(500, 2 * TOOK)), settled, 0)
        assert await used(quota) == (0, 0)

    beside(scenario, CLOSED, EXACT, quota=quota)


async def until(look: Any, wanted: object) -> None:
    deadline = time.monotonic() + 5
    while (seen := await look()) != wanted:
        assert time.monotonic() < deadline, (seen, wanted)
        await asyncio.sleep(0.02)


def test_who_would_pass_the_budget_is_refused_before_the_engine_is_asked(valkey: Server) -> None:
    quota = ValkeyQuota(Valkey(valkey.url))

    async def scenario(side: Side) -> None:
        mine, ours = tokens(300, id_="bud_key"), tokens(10_000, id_="bud_all")
        await quota.tell("shop", accounts(ours, keys={"key_1": [mine]}), (), 0)
        answers = [await ask(side, max_tokens=n) for n in (5000, 50)]
        unsaid = await ask(side, max_tokens=None)
        many = await ask(side, n=100)

        assert [answer.status_code for answer in answers] == [429, 200]
        error = answers[0].json()["error"]
        assert error["code"] == "insufficient_quota"
        assert "300 tokens" in error["message"]
        assert answers[0].headers["retry-after"] == "1"
        # Nobody said how long: 4096.
        assert (unsaid.status_code, many.status_code) == (429, 429)
        # What was refused by one account took nothing of the other.
        await until(lambda: used(quota, "bud_all"), (TOOK, 1))

    beside(scenario, CLOSED, EXACT, quota=quota)


def test_however_many_ask_at_once_the_budget_is_never_passed(valkey: Server) -> None:
    quota = ValkeyQuota(Valkey(valkey.url))

    async def scenario(side: Side) -> None:
        await quota.tell("shop", accounts(tokens(1000)), (), 0)
        chance = random.Random(7)
        answers = await asyncio.gather(
            *(
                ask(side, max_tokens=chance.randrange(20, 200), headers={"x-test-wait": "0.3"})
                for _ in range(30)
            )
        )
        codes = [answer.status_code for answer in answers]
        # Each took 12: the rest is free again, and in the end all of it can be had.
        await until(lambda: used(quota), (TOOK * codes.count(200), codes.count(200)))

        assert set(codes) == {200, 429}
        assert codes.count(200) < 1000 / 20
        assert (await ask(side, max_tokens=300)).status_code == 200

    beside(scenario, CLOSED, EXACT, quota=quota)


def test_without_valkey_the_route_does_what_it_says(valkey: Server) -> None:
    refusing = replace(EXACT, exact=Exact(away=Away.REFUSE))
    quota = ValkeyQuota(Valkey(valkey.url))

    async def allows(side: Side) -> None:
        await quota.tell("shop", accounts(tokens(1000)), (), 0)
        os.kill(valkey.process.pid, signal.SIGSTOP)
        hung = (await ask(side)).status_code
        os.kill(valkey.process.pid, signal.SIGCONT)
        valkey.kill()
        gone = [(await ask(side)).status_code for _ in range(3)]
        await side.server.stop(0)
        assert (hung, gone, (await ask(side)).status_code) == (200, [200] * 3, 200)

    async def refuses(side: Side) -> None:
        gone = await ask(side)
        await side.server.stop(0)
        alone = await ask(side)
        assert (gone.status_code, alone.status_code) == (503, 503)
        for answer in (gone, alone):
            assert answer.json()["error"]["code"] == "quota_unknown"

    beside(allows, CLOSED, EXACT, quota=quota)
    beside(refuses, CLOSED, refusing, quota=quota)
    valkey.start()


def test_with_a_cache_what_is_asked_is_still_known(valkey: Server) -> None:
    client = Valkey(valkey.url)
    quota = ValkeyQuota(client)

    async def scenario(side: Side) -> None:
        await quota.tell("shop", accounts(tokens(300)), (), 0)
        answers = [await ask(side, temperature=0), await ask(side, temperature=0), await ask(side)]
        too_much = await ask(side, max_tokens=300)

        said = [answer.headers["x-ratchet-cache"] for answer in answers]
        assert said == ["miss", "hit", "bypass"]
        # What the cache answered took nothing.
        await until(lambda: used(quota), (2 * TOOK, 2))
        assert too_much.status_code == 429

    beside(scenario, CLOSED, replace(EXACT, cache=Cache()), quota=quota, store=client)


def test_other_paths_are_not_asked_for(valkey: Server) -> None:
    only = replace(EXACT, exact=Exact(paths=("/v1/completions",), away=Away.REFUSE))

    async def scenario(side: Side) -> None:
        assert (await ask(side)).status_code == 200
        answer = await asyncio.to_thread(side.gateway.ask, token(), path="/v1/completions")
        assert answer.status_code == 503

    beside(scenario, CLOSED, only)


def test_reservations_of_a_gateway_that_died_end_with_their_deadline(valkey: Server) -> None:
    async def scenario() -> None:
        quota = ValkeyQuota(Valkey(valkey.url))
        known = accounts(tokens(100))
        await quota.tell("shop", known, (), 0)
        assert await quota.reserve("shop", "k", "r1", Tokens(50, 40), 1000.0) is None
        assert await quota.reserve("shop", "k", "r2", Tokens(5, 6), 1000.0) is not None
        # Told twice, as a gateway may: it is one.
        assert await quota.reserve("shop", "k", "r3", Tokens(1, 1), 1000.0) is None
        await quota.settle("shop", "k", "r3", Tokens(2, 1))
        await quota.settle("shop", "k", "r3", Tokens(2, 1))
        assert await used(quota) == (93, 2)

        await quota.tell("shop", known, (), 2000.0)

        # An answer that is over stays until the ledger has it.
        assert await used(quota) == (3, 1)
        await quota.tell("shop", known, ("r3",), 2000.0)
        await quota.settle("shop", "k", "r3", Tokens(2, 1))
        assert await used(quota) == (0, 0)

    asyncio.run(scenario())


def test_a_budget_that_is_dropped_leaves_nothing_behind(valkey: Server) -> None:
    async def scenario() -> None:
        client = Valkey(valkey.url)
        quota = ValkeyQuota(client)
        with pytest.raises(Unavailable):
            await quota.reserve("shop", "k", "r1", Tokens(1, 1), FOR_EVER)
        await quota.tell("shop", accounts(tokens(10)), (), 0)
        await quota.reserve("shop", "k", "r1", Tokens(1, 1), FOR_EVER)
        await quota.tell("shop", accounts(), (), 0)

        assert await quota.reserve("shop", "k", "r2", Tokens(1000, 1000), FOR_EVER) is None
        assert await quota.open_requests("shop") == []
        assert await client._client.keys("*") == [b"quota:{shop}:index"]

    asyncio.run(scenario())


def test_dollars_are_counted_at_the_dearest_price(valkey: Server) -> None:
    async def scenario() -> None:
        quota = ValkeyQuota(Valkey(valkey.url))
        budget = Budget(
            project="shop", kind=SubjectKind.PROJECT, subject="", period=Period.DAY,
            unit=Unit.USD, amount=Decimal("0.001"),
        )  # fmt: skip
        prices = [Price(Decimal(1), Decimal(2)), Price(Decimal("0.5"), Decimal(10))]
        known = account("bud_1", budget, Decimal("0.0005"), prices)
        await quota.tell("shop", accounts(known), (), 0)

        # 0.0005 are left: 100 prompt tokens at 1 and 40 completion tokens at 10 a million.
        assert await quota.reserve("shop", "k", "r1", Tokens(101, 40), FOR_EVER) is not None
        assert await quota.reserve("shop", "k", "r2", Tokens(100, 40), FOR_EVER) is None
        assert await used(quota) == (500_000, 1)

    asyncio.run(scenario())
