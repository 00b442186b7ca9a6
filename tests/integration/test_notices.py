"""Notices over a real database to a real receiver: signed, told once, tried again."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks import Webhook

from ratchet.adapters.messenger import Messages
from ratchet.adapters.postgres.notices import PostgresNotices
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.releases import PostgresReleases
from ratchet.core.notices import Channel, Service
from ratchet.core.rollout import Signal, decide
from ratchet.kit.clock import ManualClock, SystemClock
from ratchet.operations.notices import NoticeParts, tell_people
from ratchet.ports import StoredRelease, Taken
from tests.stored import ACT, NOW, a_live_release, with_database

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BECAUSE = "errors: 5 < 9 & more"


class Receiver(ThreadingHTTPServer):
    """Takes notices, or refuses them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.got: list[tuple[str, dict[str, str], str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.got.append((self.path, headers, body))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


@contextmanager
def receiving() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def parts_of(database: Database, receiver: Receiver, clock: ManualClock) -> NoticeParts:
    secrets = {
        "HOOK": SECRET,
        "SLACK": f"{receiver.url}/slack",
        "PAGER": "key-1",
        "BROKEN": "whsec_a",
    }
    messages = Messages(secrets.get, f"{receiver.url}/pager")
    return NoticeParts(PostgresNotices(database), messages, clock)


async def move(
    database: Database, stored: StoredRelease, signal: Signal, at: datetime = NOW
) -> StoredRelease:
    decision = decide(stored.release, signal)
    act = replace(ACT, signal=signal.value, because=BECAUSE)
    await PostgresReleases(database).commit(stored, decision, act, Taken(), at)
    return replace(stored, release=decision.release)


async def begun(database: Database, *channels: Channel) -> StoredRelease:
    stored = await a_live_release(database)
    return replace(stored, plan=replace(stored.plan, notify=channels))


def test_people_are_told_of_each_state_and_of_each_once(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        with receiving() as receiver:
            parts = parts_of(database, receiver, ManualClock(NOW))
            stored = await begun(
                database,
                Channel(service=Service.SLACK, variable="SLACK"),
                Channel(service=Service.PAGERDUTY, variable="PAGER"),
            )
            stored = await move(database, stored, Signal.READY)
            stored = await move(database, stored, Signal.ASK)
            # Two servers at once.
            sent = await asyncio.gather(tell_people(parts), tell_people(parts))
            assert sorted(sent) == [0, 3]
            stored = await move(database, stored, Signal.ABORT)
            assert await tell_people(parts) == 2
            assert await tell_people(parts) == 0

        by_path = {
            path: [json.loads(body) for where, _, body in receiver.got if where == path]
            for path in ("/slack", "/pager")
        }
        texts = sorted(each["text"] for each in by_path["/slack"])
        assert texts == [
            "*p: release rel_1 is canary* (5 %)\n> errors: 5 &lt; 9 &amp; more",
            "*p: release rel_1 is held, a person must decide* (0 %)\n> errors: 5 &lt; 9 &amp; more",
            "*p: release rel_1 is rolled back* (0 %)\n> errors: 5 &lt; 9 &amp; more",
        ]
        assert [each["event_action"] for each in by_path["/pager"]] == ["trigger", "trigger"]
        assert {each["dedup_key"] for each in by_path["/pager"]} == {"rel_1"}
        assert {each["payload"]["severity"] for each in by_path["/pager"]} == {"warning", "error"}
        assert by_path["/pager"][0]["routing_key"] == "key-1"

    with_database(database_url, scenario)


def test_a_judge_that_wants_a_persons_word_says_so(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        with receiving() as receiver:
            parts = parts_of(database, receiver, ManualClock(NOW))
            stored = await begun(database, Channel(service=Service.SLACK, variable="SLACK"))
            for signal in (Signal.READY, Signal.PAUSE):
                stored = await move(database, stored, signal)
            await tell_people(parts)

        texts = [json.loads(body)["text"] for _, _, body in receiver.got]
        assert any("is paused, a person must decide" in text for text in texts)

    with_database(database_url, scenario)


def test_a_page_ends_when_a_person_has_decided(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        with receiving() as receiver:
            parts = parts_of(database, receiver, ManualClock(NOW))
            stored = await begun(database, Channel(service=Service.PAGERDUTY, variable="PAGER"))
            for signal in (Signal.READY, Signal.ASK, Signal.EXTEND):
                stored = await move(database, stored, signal)
                await tell_people(parts)

        actions = [json.loads(body)["event_action"] for _, _, body in receiver.got]
        assert actions == ["trigger", "resolve"]

    with_database(database_url, scenario)


def test_a_webhook_is_signed_and_named_the_same_at_every_attempt(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        with receiving() as receiver:
            # A receiver looks at the time, so it is that of now.
            clock = ManualClock(SystemClock().now())
            parts = parts_of(database, receiver, clock)
            hook = Channel(service=Service.WEBHOOK, url=f"{receiver.url}/hook", variable="HOOK")
            await move(database, await begun(database, hook), Signal.READY, clock.now())
            receiver.status = 503
            assert await tell_people(parts) == 0
            assert await tell_people(parts) == 0
            [row] = await database.all("list_notices", release_id="rel_1")
            assert (row["attempts"], row["problem"]) == (1, "answered 503")

            receiver.status = 200
            clock.advance(timedelta(seconds=6))
            assert await tell_people(parts) == 1

        first, second = receiver.got
        assert first[1]["webhook-id"] == second[1]["webhook-id"] == "rel_1.1.0"
        event = Webhook(SECRET).verify(second[2], second[1])
        assert event["type"] == "release.canary"
        assert event["data"]["because"] == BECAUSE

    with_database(database_url, scenario)


def test_a_sender_that_is_killed_is_followed_by_another(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        with receiving() as receiver:
            clock = ManualClock(NOW)
            parts = parts_of(database, receiver, clock)
            hook = Channel(service=Service.WEBHOOK, url=receiver.url)
            await move(database, await begun(database, hook), Signal.READY)
            # Claimed, and then nothing.
            assert len(await parts.notices.claim(NOW)) == 1
            assert await tell_people(parts) == 0
            clock.advance(timedelta(seconds=61))
            assert await tell_people(parts) == 1

        assert "webhook-signature" not in receiver.got[0][1]

    with_database(database_url, scenario)


@pytest.mark.parametrize(
    ("variable", "url", "problem"),
    [("NOT_SET", "/hook", "$NOT_SET is not set"), ("", "/hook", "refused it: 410 "),
     ("BROKEN", "/hook", "the webhook's secret is no base64")],
)  # fmt: skip
def test_what_cannot_be_sent_says_why(
    database_url: str, variable: str, url: str, problem: str
) -> None:
    async def scenario(database: Database) -> None:
        with receiving() as receiver:
            receiver.status = 410
            parts = parts_of(database, receiver, ManualClock(NOW))
            channel = Channel(
                service=Service.WEBHOOK, url=f"{receiver.url}{url}", variable=variable
            )
            await move(database, await begun(database, channel), Signal.READY)
            assert await tell_people(parts) == 0
            [row] = await database.all("list_notices", release_id="rel_1")

        assert row["problem"].startswith(problem)
        # A variable may be set later; a refusal stays one.
        assert (row["due_at"] is None) == (variable != "NOT_SET")

    with_database(database_url, scenario)


def test_nobody_is_there(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        with receiving() as receiver:
            parts = parts_of(database, receiver, ManualClock(NOW))
            url = receiver.url
        channel = Channel(service=Service.WEBHOOK, url=url)
        await move(database, await begun(database, channel), Signal.READY)
        assert await tell_people(parts) == 0
        [row] = await database.all("list_notices", release_id="rel_1")
        assert row["problem"] == "cannot be reached: ConnectError"

    with_database(database_url, scenario)
