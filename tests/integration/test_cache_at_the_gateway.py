"""The response cache: a real Envoy, the agent's side of it, a real Valkey."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from dataclasses import replace
from typing import Any

import httpx2 as httpx
import pytest

from ratchet.adapters.envoy.records import line_of
from ratchet.adapters.valkey.client import Valkey
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Unavailable
from ratchet.core.routing import WEIGHT_TOTAL, Arm
from ratchet.core.serving import Cache
from ratchet.ports import AccessRecord
from tests.beside import ALL, OPEN, Side, beside
from tests.gateway import VERSION, Upstream, snapshot_of
from tests.valkey import Server

CACHED = replace(ALL, capture=None, cache=Cache())
SAME = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "who?"}]}


def outcome(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-ratchet-cache"]


def at(answer: httpx.Response) -> str:
    """When the engine gave this answer, or whose it is: its own request's id."""
    found: str = answer.json()["x-request-id"]
    return found


async def say(side: Side, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    return await asyncio.to_thread(side.gateway.ask, None, headers=headers, json={**SAME, **more})


def test_a_deterministic_request_is_answered_again_without_an_engine(valkey: Server) -> None:
    async def scenario(side: Side) -> None:
        first = await say(side)
        again = await say(side, user="somebody else", metadata={"a": "b"})
        seeded = await say(side, temperature=1, seed=7)
        warm = [await say(side, temperature=0.7) for _ in range(2)]
        silent = await asyncio.to_thread(side.gateway.ask, None, json={"model": "m"})

        assert (outcome(first), outcome(again), outcome(seeded)) == ("miss", "hit", "miss")
        assert at(first) == at(again) == first.headers["x-request-id"]
        assert again.headers["x-ratchet-version"] == VERSION
        assert again.headers["content-type"] == "application/json"
        assert [outcome(answer) for answer in (*warm, silent)] == ["bypass"] * 3

    beside(scenario, serving=CACHED, store=Valkey(valkey.url))


def test_a_stream_is_answered_as_a_stream(valkey: Server) -> None:
    async def scenario(side: Side) -> None:
        headers = {"x-test-kind": "stream"}
        first, again = [await say(side, stream=True, headers=headers) for _ in range(2)]

        assert (outcome(first), outcome(again)) == ("miss", "hit")
        assert again.headers["content-type"] == "text/event-stream"
        assert again.text == first.text
        assert again.text.endswith("data: [DONE]\n\n")
        # Not streamed is another answer.
        assert outcome(await say(side)) == "miss"

    beside(scenario, serving=CACHED, store=Valkey(valkey.url))


def test_what_is_no_whole_good_answer_is_not_kept(valkey: Server) -> None:
    async def scenario(side: Side) -> None:
        for kind in ("long", "broken"):
            for _ in range(2):
                headers = {"x-test-kind": kind}
                try:
                    assert outcome(await say(side, headers=headers, stop=kind)) == "miss"
                except httpx.TransportError:
                    assert kind == "broken"

    beside(scenario, serving=CACHED, store=Valkey(valkey.url))


def test_a_promotion_is_never_answered_by_the_old_version(valkey: Server) -> None:
    async def scenario(side: Side) -> None:
        old = await say(side)
        new = VersionId("v_2")
        other = Upstream()
        arms = (Arm(new, WEIGHT_TOTAL),)
        await asyncio.to_thread(
            side.gateway.serve, OPEN, serving=CACHED, arms=arms,
            endpoints={VERSION: (), new: (other.endpoint,)},
        )  # fmt: skip
        after = await say(side)
        again = await say(side)
        other.kill()

        assert (outcome(old), outcome(after), outcome(again)) == ("miss", "miss", "hit")
        assert at(after) == at(again) != at(old)
        assert again.headers["x-ratchet-version"] == new

    beside(scenario, serving=CACHED, store=Valkey(valkey.url))


def test_of_many_that_ask_the_same_at_once_one_asks_the_engine(valkey: Server) -> None:
    async def scenario(side: Side) -> None:
        headers = {"x-test-wait": "1.5"}
        answers = await asyncio.gather(*(say(side, headers=headers) for _ in range(8)))

        assert sorted(map(outcome, answers)) == ["hit"] * 7 + ["miss"]
        assert len({at(answer) for answer in answers}) == 1

    beside(scenario, serving=CACHED, store=Valkey(valkey.url))


def test_who_waits_for_one_that_fails_asks_itself(valkey: Server) -> None:
    async def scenario(side: Side) -> None:
        async def leaves() -> None:
            async with httpx.AsyncClient() as client:
                with pytest.raises(httpx.TimeoutException):
                    await client.post(
                        f"{side.gateway.url}/v1/chat/completions", json=SAME, timeout=0.5,
                        headers={"x-test-wait": "3"},
                    )  # fmt: skip

        async def follows() -> httpx.Response:
            await asyncio.sleep(0.2)
            return await say(side)

        _, answer = await asyncio.gather(leaves(), follows())

        assert outcome(answer) == "miss"

    beside(scenario, serving=CACHED, store=Valkey(valkey.url))


def test_without_valkey_requests_go_on(valkey: Server) -> None:
    async def scenario(side: Side) -> None:
        assert outcome(await say(side)) == "miss"
        valkey.kill()
        away = [outcome(await say(side)) for _ in range(5)]
        began = time.perf_counter()
        assert outcome(await say(side)) == "bypass"
        seconds = time.perf_counter() - began
        valkey.start()
        deadline = time.monotonic() + 10
        while outcome(await say(side)) == "bypass":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

        assert away == ["bypass"] * 5
        # The breaker is open: nobody waits for a connection that fails.
        assert seconds < 0.5
        assert outcome(await say(side)) == "hit"

    beside(scenario, serving=CACHED, store=Valkey(valkey.url))


def test_a_valkey_that_hangs_is_as_good_as_away(valkey: Server) -> None:
    async def scenario(side: Side) -> None:
        assert outcome(await say(side)) == "miss"
        os.kill(valkey.process.pid, signal.SIGSTOP)
        try:
            hung = [outcome(await say(side)) for _ in range(4)]
        finally:
            os.kill(valkey.process.pid, signal.SIGCONT)

        assert hung == ["bypass"] * 4

    beside(scenario, serving=CACHED, store=Valkey(valkey.url))


def test_without_an_agent_and_without_a_valkey_url_requests_go_on() -> None:
    async def scenario(side: Side) -> None:
        assert outcome(await say(side)) == "bypass"
        await side.server.stop(0)
        assert outcome(await say(side)) == "bypass"

    beside(scenario, serving=CACHED)


def test_no_client_says_that_it_was_cached(valkey: Server) -> None:
    async def scenario(side: Side) -> None:
        answer = await say(side, headers={"x-ratchet-cache": "hit"}, temperature=1)

        assert outcome(answer) == "bypass"

    beside(scenario, serving=CACHED, store=Valkey(valkey.url))


def test_a_hit_is_on_the_record_and_is_no_evidence_and_no_charge(valkey: Server) -> None:
    async def scenario(side: Side) -> None:
        for _ in range(2):
            await say(side)
        file = side.gateway.places.folder.parent / "records.log"
        deadline = time.monotonic() + 5
        while len(lines := file.read_text().splitlines()) < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        miss, hit = (line_of(line) for line in lines)

        assert isinstance(miss, AccessRecord)
        assert isinstance(hit, AccessRecord)
        assert (miss.routed, miss.cache, miss.prompt_tokens) == ("arms", "miss", 7)
        assert (hit.routed, hit.cache, hit.prompt_tokens) == ("cached", "hit", None)
        assert hit.version == VERSION
        assert json.loads(lines[0])["sampled"] is None

    beside(scenario, serving=CACHED, store=Valkey(valkey.url))


def test_values_come_back_until_they_are_too_old(valkey: Server) -> None:
    async def scenario() -> None:
        client = Valkey(valkey.url)
        await client.put("k", b"v", 1)
        assert await client.get("k") == b"v"
        await asyncio.sleep(1.1)
        assert await client.get("k") is None
        valkey.kill()
        for _ in range(5):
            with pytest.raises(Unavailable):
                await client.get("k")
        with pytest.raises(Unavailable, match="not asked"):
            await client.get("k")
        await client.close()

    asyncio.run(scenario())


def test_a_snapshot_without_a_cache_asks_nobody() -> None:
    async def scenario(side: Side) -> None:
        side.beside.snapshot = replace(snapshot_of(side.gateway, OPEN), serving=CACHED)
        answer = await say(side)

        assert "x-ratchet-cache" not in answer.headers
        assert side.beside.caching.counts == {}

    beside(scenario, serving=replace(CACHED, cache=None))
