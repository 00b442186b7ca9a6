"""The response cache: a real Envoy, the agent's side of it, a real Valkey."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from ratchet.adapters.envoy.records import record_of
from ratchet.adapters.valkey import Valkey
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Unavailable
from ratchet.core.routing import WEIGHT_TOTAL, Arm
from ratchet.core.serving import Cache
from ratchet.entrypoints.local.supervisor import valkey_binary
from ratchet.kit.processes import die_with_parent
from ratchet.kit.secret import Secret
from tests.beside import ALL, OPEN, Side, beside
from tests.gateway import VERSION, Upstream, snapshot_of

CACHED = replace(ALL, capture=None, cache=Cache())
SAME = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "who?"}]}


class Server:
    """A Valkey of this test's own, which can be killed and stopped in its tracks."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "v.sock"
        self._folder = folder
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [valkey_binary(), "--port", "0", "--unixsocket", str(self.socket), "--save", ""],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        deadline = time.monotonic() + 10
        while not self.socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)

    @property
    def url(self) -> Secret:
        return Secret(f"unix://{self.socket}")


@pytest.fixture
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="ratchet-v-") as folder:
        made = Server(Path(folder))
        yield made
        made.process.kill()
        made.process.wait()


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


def test_a_deterministic_request_is_answered_again_without_an_engine(server: Server) -> None:
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

    beside(scenario, serving=CACHED, store=Valkey(server.url))


def test_a_stream_is_answered_as_a_stream(server: Server) -> None:
    async def scenario(side: Side) -> None:
        headers = {"x-test-kind": "stream"}
        first, again = [await say(side, stream=True, headers=headers) for _ in range(2)]

        assert (outcome(first), outcome(again)) == ("miss", "hit")
        assert again.headers["content-type"] == "text/event-stream"
        assert again.text == first.text
        assert again.text.endswith("data: [DONE]\n\n")
        # Not streamed is another answer.
        assert outcome(await say(side)) == "miss"

    beside(scenario, serving=CACHED, store=Valkey(server.url))


def test_what_is_no_whole_good_answer_is_not_kept(server: Server) -> None:
    async def scenario(side: Side) -> None:
        for kind in ("long", "broken"):
            for _ in range(2):
                headers = {"x-test-kind": kind}
                try:
                    assert outcome(await say(side, headers=headers, stop=kind)) == "miss"
                except httpx.TransportError:
                    assert kind == "broken"

    beside(scenario, serving=CACHED, store=Valkey(server.url))


def test_a_promotion_is_never_answered_by_the_old_version(server: Server) -> None:
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

    beside(scenario, serving=CACHED, store=Valkey(server.url))


def test_of_many_that_ask_the_same_at_once_one_asks_the_engine(server: Server) -> None:
    async def scenario(side: Side) -> None:
        headers = {"x-test-wait": "1.5"}
        answers = await asyncio.gather(*(say(side, headers=headers) for _ in range(8)))

        assert sorted(map(outcome, answers)) == ["hit"] * 7 + ["miss"]
        assert len({at(answer) for answer in answers}) == 1

    beside(scenario, serving=CACHED, store=Valkey(server.url))


def test_who_waits_for_one_that_fails_asks_itself(server: Server) -> None:
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

    beside(scenario, serving=CACHED, store=Valkey(server.url))


def test_without_valkey_requests_go_on(server: Server) -> None:
    async def scenario(side: Side) -> None:
        assert outcome(await say(side)) == "miss"
        server.kill()
        away = [outcome(await say(side)) for _ in range(5)]
        began = time.perf_counter()
        assert outcome(await say(side)) == "bypass"
        seconds = time.perf_counter() - began
        server.start()
        deadline = time.monotonic() + 10
        while outcome(await say(side)) == "bypass":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

        assert away == ["bypass"] * 5
        # The breaker is open: nobody waits for a connection that fails.
        assert seconds < 0.5
        assert outcome(await say(side)) == "hit"

    beside(scenario, serving=CACHED, store=Valkey(server.url))


def test_a_valkey_that_hangs_is_as_good_as_away(server: Server) -> None:
    async def scenario(side: Side) -> None:
        assert outcome(await say(side)) == "miss"
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            hung = [outcome(await say(side)) for _ in range(4)]
        finally:
            os.kill(server.process.pid, signal.SIGCONT)

        assert hung == ["bypass"] * 4

    beside(scenario, serving=CACHED, store=Valkey(server.url))


def test_without_an_agent_and_without_a_valkey_url_requests_go_on() -> None:
    async def scenario(side: Side) -> None:
        assert outcome(await say(side)) == "bypass"
        await side.server.stop(0)
        assert outcome(await say(side)) == "bypass"

    beside(scenario, serving=CACHED)


def test_no_client_says_that_it_was_cached(server: Server) -> None:
    async def scenario(side: Side) -> None:
        answer = await say(side, headers={"x-ratchet-cache": "hit"}, temperature=1)

        assert outcome(answer) == "bypass"

    beside(scenario, serving=CACHED, store=Valkey(server.url))


def test_a_hit_is_on_the_record_and_is_no_evidence_and_no_charge(server: Server) -> None:
    async def scenario(side: Side) -> None:
        for _ in range(2):
            await say(side)
        file = side.gateway.places.folder.parent / "records.log"
        deadline = time.monotonic() + 5
        while len(lines := file.read_text().splitlines()) < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        miss, hit = (record_of(line) for line in lines)

        assert miss is not None
        assert hit is not None
        assert (miss.routed, miss.cache, miss.prompt_tokens) == ("arms", "miss", 7)
        assert (hit.routed, hit.cache, hit.prompt_tokens) == ("cached", "hit", None)
        assert hit.version == VERSION
        assert json.loads(lines[0])["sampled"] is None

    beside(scenario, serving=CACHED, store=Valkey(server.url))


def test_values_come_back_until_they_are_too_old(server: Server) -> None:
    async def scenario() -> None:
        valkey = Valkey(server.url)
        await valkey.put("k", b"v", 1)
        assert await valkey.get("k") == b"v"
        await asyncio.sleep(1.1)
        assert await valkey.get("k") is None
        server.kill()
        for _ in range(5):
            with pytest.raises(Unavailable):
                await valkey.get("k")
        with pytest.raises(Unavailable, match="not asked"):
            await valkey.get("k")
        await valkey.close()

    asyncio.run(scenario())


def test_a_snapshot_without_a_cache_asks_nobody() -> None:
    async def scenario(side: Side) -> None:
        side.beside.snapshot = replace(snapshot_of(side.gateway, OPEN), serving=CACHED)
        answer = await say(side)

        assert "x-ratchet-cache" not in answer.headers
        assert side.beside.caching.counts == {}

    beside(scenario, serving=replace(CACHED, cache=None))
