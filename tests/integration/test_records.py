"""Access records from a real Envoy to our gRPC service: what is told of each request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc.aio
import pytest

from ratchet.adapters.envoy.files import EnvoyFiles
from ratchet.core.access import Admission
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Unavailable
from ratchet.core.routing import Arm, Endpoint
from ratchet.core.serving import Access, Serving, Sticky
from ratchet.entrypoints import shipping
from ratchet.entrypoints.grpc.reporter import Reporter
from ratchet.entrypoints.grpc.telemetry import Telemetry
from ratchet.entrypoints.metrics import Metrics
from ratchet.entrypoints.shipping import Tail, ship
from ratchet.kit.clock import SystemClock
from ratchet.kit.secret import Secret
from ratchet.ports import AccessRecord, Assignment
from ratchet.wire.ratchet.v1 import telemetry_pb2_grpc
from tests.gateway import VERSION, Gateway, running_gateway
from tests.integration.test_keys_at_the_gateway import CLOSED, token

OPEN = Admission(is_open=True, project="shop", served_name="router", jwks=(), revoked=())


@dataclass
class Kept:
    """Keeps records and settlements in memory; away for as long as it is told."""

    records: list[AccessRecord] = field(default_factory=list)
    is_away: bool = False
    given: list[Assignment] = field(default_factory=list)

    async def assigned(self, given: Sequence[Assignment], now: datetime) -> None:
        self.given += given

    async def add(self, records: Sequence[AccessRecord], now: datetime) -> set[str]:
        if self.is_away:
            raise Unavailable("a test says so")
        known = {record.request_id for record in self.records}
        new = [record for record in records if record.request_id not in known]
        self.records += new
        return {record.request_id for record in new}

    async def until(self, count: int) -> list[AccessRecord]:
        deadline = time.monotonic() + 10
        while len(self.records) < count:
            assert time.monotonic() < deadline, self.records
            await asyncio.sleep(0.02)
        return sorted(self.records, key=lambda record: record.started_at)


def with_records(
    admission: Admission,
    scenario: Callable[[Gateway, Kept], Awaitable[None]],
    *,
    alive: bool = True,
) -> None:
    """A gateway whose records are shipped, as an agent does, to our gRPC service."""

    async def run(gateway: Gateway) -> None:
        kept, token_ = Kept(), Secret("t")
        telemetry = Telemetry(kept, Metrics(), SystemClock(), token_)
        server = grpc.aio.server()
        telemetry_pb2_grpc.add_TelemetryServicer_to_server(telemetry, server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        reporter = Reporter(f"127.0.0.1:{port}", token_, "gateway-1")
        files = EnvoyFiles(gateway.places.folder, gateway.places.admin_socket)
        shipping = asyncio.create_task(
            ship(Tail(files.records), reporter.records, files.reopen_records)
        )
        try:
            await scenario(gateway, kept)
        finally:
            shipping.cancel()
            await asyncio.gather(shipping, return_exceptions=True)
            await files.close()
            await reporter.close()
            await server.stop(0)

    with running_gateway() as gateway:
        gateway.serve(admission, alive=alive)
        asyncio.run(run(gateway))


def test_tokens_are_read_from_whole_answers_and_streams_and_never_guessed() -> None:
    async def scenario(gateway: Gateway, kept: Kept) -> None:
        for kind in ("whole", "stream", "silent"):
            headers = {"x-test-kind": kind, "x-ratchet-conversation": kind}
            answer = await asyncio.to_thread(gateway.ask, None, headers=headers)
            assert answer.status_code == 200
        records = {record.conversation: record for record in await kept.until(3)}

        told = {
            kind: (record.prompt_tokens, record.completion_tokens)
            for kind, record in records.items()
        }
        assert told == {"whole": (7, 5), "stream": (7, 5), "silent": (None, None)}
        assert {record.version for record in records.values()} == {VERSION}

    with_records(OPEN, scenario)


def test_a_record_names_the_key_and_no_request_chooses_its_own_id() -> None:
    async def scenario(gateway: Gateway, kept: Kept) -> None:
        began = datetime.now(UTC)
        headers = {"x-request-id": "the-same"}
        for _ in range(2):
            await asyncio.to_thread(gateway.ask, token(), headers=headers)
        refused = await asyncio.to_thread(gateway.ask, None)
        one, two = await kept.until(2)

        assert one.known["tenant"] == "ana"
        assert refused.status_code == 401
        assert (one.key_id, two.key_id) == ("key_1", "key_1")
        # Records are settled once per id: a client must not make two requests one.
        assert len({one.request_id, two.request_id, "the-same"}) == 3
        assert one.started_at >= began
        assert one.first_byte_ms <= one.duration_ms

    with_records(CLOSED, scenario)


def test_an_arm_without_a_living_engine_fails_on_the_record() -> None:
    async def scenario(gateway: Gateway, kept: Kept) -> None:
        answer = await asyncio.to_thread(gateway.ask, None)
        [record] = await kept.until(1)

        assert answer.status_code == 503
        assert (record.version, record.status, record.failed) == (VERSION, 503, True)
        assert record.prompt_tokens is None

    with_records(OPEN, scenario, alive=False)


def test_records_wait_in_their_file_while_the_control_plane_is_away() -> None:
    async def scenario(gateway: Gateway, kept: Kept) -> None:
        kept.is_away = True
        for _ in range(30):
            await asyncio.to_thread(gateway.ask, None)
        await asyncio.sleep(0.3)
        assert kept.records == []
        kept.is_away = False

        records = await kept.until(30)

        assert len({record.request_id for record in records}) == 30

    with_records(OPEN, scenario)


def test_a_long_file_is_put_aside_and_no_line_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "ROTATE_BYTES", 3_000)
    monkeypatch.setattr(shipping, "ASIDE_SECONDS", 0.5)

    async def scenario(gateway: Gateway, kept: Kept) -> None:
        for _ in range(8):
            answers = [asyncio.to_thread(gateway.ask, None) for _ in range(10)]
            await asyncio.gather(*answers)
            await asyncio.sleep(0.4)
        await kept.until(80)
        await asyncio.sleep(2.5)

        file = EnvoyFiles(gateway.places.folder, gateway.places.admin_socket).records
        assert len(kept.records) == 80
        assert file.stat().st_size < 20_000
        assert not file.with_suffix(".old").exists()

    with_records(OPEN, scenario)


def test_a_torn_line_is_left_out_and_the_rest_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "records.log"
    file.write_text('{"half": \nnot json at all\n{}\n')
    kept: list[str] = []

    async def run() -> None:
        reporter = Reporter("127.0.0.1:9", Secret("t"), "g")
        await reporter.records(Tail(file).read()[0])
        await reporter.close()
        kept.extend(Tail(file).read()[0])

    asyncio.run(run())

    assert len(kept) == 3


def test_only_whole_lines_are_read_and_a_place_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "records.log"
    file.write_text("one\ntwo\nthr")
    tail = Tail(file)

    lines, offset = tail.read()
    tail.move_to(offset)
    with file.open("a") as more:
        more.write("ee\n")

    assert lines == ["one\n", "two\n"]
    assert Tail(file).read()[0] == ["three\n"]


def test_a_file_put_aside_by_an_agent_that_was_killed_is_not_deleted_under_its_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "ASIDE_SECONDS", 0.2)
    file = tmp_path / "records.log"
    file.write_text("one\n")
    writer = file.open("a")
    Tail(file).put_aside()  # and here the agent was killed: the writer was told nothing
    sent: list[str] = []
    told = 0

    async def send(lines: Sequence[str]) -> None:
        sent.extend(lines)

    async def reopen() -> None:
        nonlocal told, writer
        told += 1
        if told == 1:
            raise Unavailable("Envoy is just starting")
        if told == 2:
            writer.write("two\n")
            writer.close()
            writer = file.open("a")

    async def run() -> None:
        task = asyncio.create_task(ship(Tail(file), send, reopen))
        await asyncio.sleep(1.2)
        writer.write("three\n")
        writer.flush()
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    writer.close()

    assert sent == ["one\n", "two\n", "three\n"]
    assert not Tail(file).aside.file.exists()


def test_with_the_control_plane_away_for_long_the_disk_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "BEHIND_BYTES_MAX", 1_000)
    file = tmp_path / "records.log"

    async def away(_: Sequence[str]) -> None:
        raise Unavailable("a test says so")

    async def run() -> None:
        task = asyncio.create_task(ship(Tail(file), away, lambda: asyncio.sleep(0)))
        for _ in range(30):
            with file.open("a") as writer:
                writer.write("x" * 199 + "\n")
            await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())

    assert Tail(file).size() + Tail(file).aside.size() < 6_000


def test_who_is_given_which_of_two_arms_is_told_as_the_request_begins() -> None:
    other = VersionId("v_2")

    async def scenario(gateway: Gateway, kept: Kept) -> None:
        there = (Endpoint("127.0.0.1", gateway.upstream_port),)
        arms = (Arm(other, 5_000), Arm(VERSION, 5_000))

        def begin() -> None:
            # One arm: nobody is on trial, whatever a client says.
            gateway.ask(None, headers={"x-ratchet-trial": "1"})
            serving = Serving(access=Access.OPEN, sticky=Sticky.USER)
            gateway.serve(
                OPEN, arms=arms, endpoints={VERSION: there, other: there}, serving=serving
            )

        await asyncio.to_thread(begin)
        slow = {
            "x-test-wait": "1.5",
            "x-ratchet-conversation": "talk",
            "accept-language": "de-AT",
            "x-ratchet-segment": "tools",
            # Nobody says who they are but a key.
            "x-ratchet-principal": "somebody",
        }
        asked = asyncio.create_task(asyncio.to_thread(gateway.ask, None, headers=slow))
        deadline = time.monotonic() + 10
        while not kept.given:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

        [given], ended = kept.given, len(kept.records)
        assert given.known == {"language": "de", "prompt_length": "short", "feature": "tools"}
        assert ended == 1
        assert (given.conversation, given.route_revision) == ("talk", 2)
        answer = await asked
        assert answer.headers["x-ratchet-version"] == given.version
        [_, record] = await kept.until(2)
        assert (record.request_id, record.version) == (given.request_id, given.version)
        assert record.known == given.known
        # A conversation that only the body names has one arm, and is one unit, too.
        await asyncio.to_thread(gateway.ask, None, json={"model": "m", "user": "ana"})
        *_, last = await kept.until(3)
        assert (last.conversation, kept.given[-1].conversation) == ("ana", "ana")

    with_records(OPEN, scenario)
