"""Turns and feedback from a real Envoy, through the agent's side of it, to our gRPC service."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx2 as httpx
import pytest

from ratchet.core.serving import Access, Capture
from ratchet.core.turns import subject_digest
from ratchet.entrypoints.beside import capture
from tests.beside import ALL, Side, beside
from tests.gateway import VERSION, Gateway
from tests.integration.test_keys_at_the_gateway import CLOSED, token


def test_requests_and_answers_whole_and_streamed_become_scrubbed_turns() -> None:
    async def scenario(side: Side) -> None:
        whole = await side.ask(token(), headers={"x-ratchet-conversation": "c-1"})
        stream = await side.ask(token(), headers={"x-test-kind": "stream"})
        one, two = await side.until(side.kept.turns, 2)

        assert (whole.status_code, stream.status_code) == (200, 200)
        assert one.messages == ({"role": "user", "content": "I am [EMAIL], who are you?"},)
        assert one.answer["content"] == "ask [EMAIL]"
        assert (one.conversation, one.version, one.key_id) == ("c-1", VERSION, "key_1")
        assert one.request_id == whole.headers["x-request-id"]
        assert one.subjects == (subject_digest("shop", "ana"),)
        assert (two.answer["content"], two.sample) == ("hi", 1.0)
        assert "@b.io" not in side.turns.file.read_text()

    beside(scenario, CLOSED, replace(ALL, access=Access.KEYS))


def test_a_sample_is_a_share_and_each_record_says_whether_it_is_in_it() -> None:
    async def scenario(side: Side) -> None:
        for _ in range(60):
            await side.ask()
        records = side.gateway.places.folder.parent / "records.log"
        await asyncio.sleep(0.2)
        sampled = [json.loads(line) for line in records.read_text().splitlines()]
        chosen = {record["id"] for record in sampled if record["sampled"]}
        await side.until(side.kept.turns, len(chosen))

        # 60 times a half: outside of 12 to 48 once in 300,000 runs.
        assert 12 < len(chosen) < 48
        assert set(side.kept.turns) == chosen

    beside(scenario, serving=replace(ALL, capture=Capture(sample=0.5)))


def test_what_is_no_turn_is_counted_by_its_reason() -> None:
    async def scenario(side: Side) -> None:
        await side.ask(headers={"x-test-kind": "long"})
        await side.ask(headers={"x-test-kind": "silent"})
        with suppress(httpx.TransportError):
            await side.ask(headers={"x-test-kind": "broken"})

        # Of a broken stream Envoy tells no end; its place is given up a little later.
        assert await side.until_counted(3) == {"too_large": 1, "unreadable": 1, "cut": 1}
        assert side.kept.turns == {}

    beside(scenario)


def test_without_capture_and_without_an_agent_requests_are_answered() -> None:
    async def scenario(side: Side) -> None:
        await side.server.stop(0)
        answers = [await side.ask() for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200, 200, 200]

    beside(scenario)
    beside(scenario, serving=replace(ALL, capture=None))


def test_turns_wait_on_the_disk_while_the_control_plane_is_away() -> None:
    async def scenario(side: Side) -> None:
        side.kept.is_away = True
        for _ in range(5):
            await side.ask()
        assert await side.until_counted(5) == {"kept": 5}
        assert side.kept.turns == {}
        side.kept.is_away = False

        assert len(await side.until(side.kept.turns, 5)) == 5

    beside(scenario)


def test_a_full_spool_leaves_turns_out_and_says_so() -> None:
    async def scenario(side: Side) -> None:
        side.kept.is_away = True
        side.turns._bytes_max = 100
        await side.ask()

        assert await side.until_counted(1) == {"no_room": 1}

    beside(scenario)


def test_what_is_held_in_memory_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "HELD_BYTES_MAX", 50)

    async def scenario(side: Side) -> None:
        await side.ask()
        assert await side.until_counted(1) == {"no_room": 1}
        assert side.beside.capturing.held_bytes == 0

    beside(scenario)


def feedback(gateway: Gateway, key: str | None, **body: Any) -> httpx.Response:
    return gateway.ask(key, path="/v1/feedback", json=body)


def test_feedback_is_acknowledged_beside_the_gateway_and_reaches_the_control_plane() -> None:
    async def scenario(side: Side) -> None:
        side.kept.is_away = True
        said = {"request_id": "r1", "thumbs": "down", "correction": "mail ann@b.io"}
        taken = [await asyncio.to_thread(feedback, side.gateway, token(), **said) for _ in "ab"]
        side.kept.is_away = False
        [known] = await side.until(side.kept.feedback, 1)

        assert [answer.status_code for answer in taken] == [202, 202]
        assert taken[0].json() == {"id": known.id, "object": "feedback", "status": "accepted"}
        assert (known.request_id, known.thumbs, known.correction) == ("r1", "down", "mail [EMAIL]")
        assert (known.key_id, known.subjects) == ("key_1", (subject_digest("shop", "ana"),))

    beside(scenario, CLOSED, replace(ALL, access=Access.KEYS))


def test_bad_feedback_is_refused_with_what_was_expected() -> None:
    async def scenario(side: Side) -> None:
        def say(key: str | None, **body: Any) -> tuple[int, str]:
            answer = feedback(side.gateway, key, **body)
            return answer.status_code, answer.json()["error"]["code"]

        empty = await asyncio.to_thread(say, token())
        stranger = await asyncio.to_thread(say, None, request_id="r", thumbs="up")
        huge = await asyncio.to_thread(say, token(), request_id="r", comment="x" * 600_000)
        await side.server.stop(0)
        away = await asyncio.to_thread(say, token(), request_id="r", thumbs="up")

        assert empty == (400, "invalid_feedback")
        assert stranger == (401, "missing_api_key")
        assert huge == (413, "request_too_large")
        assert away[0] == 503

    beside(scenario, CLOSED, replace(ALL, access=Access.KEYS))
