"""Access records from a real Envoy to our gRPC service: what is told of each request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import grpc.aio

from ratchet.core.access import Admission
from ratchet.entrypoints.grpc.telemetry import Telemetry
from ratchet.kit.clock import SystemClock
from ratchet.ports import AccessRecord
from tests.gateway import VERSION, Gateway, running_gateway
from tests.integration.test_keys_at_the_gateway import CLOSED, token

OPEN = Admission(is_open=True, project="shop", served_name="router", jwks=(), revoked=())


@dataclass
class Kept:
    """A sink that keeps records in a list."""

    records: list[AccessRecord] = field(default_factory=list)

    async def add(self, records: Sequence[AccessRecord], now: datetime) -> int:
        self.records += records
        return len(records)

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
    async def run(gateway: Gateway) -> None:
        kept = Kept()
        telemetry = Telemetry(kept, SystemClock())
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((telemetry.handler(),))
        server.add_insecure_port(f"127.0.0.1:{gateway.places.telemetry_port}")
        await server.start()
        writing = asyncio.create_task(telemetry.write_forever())
        try:
            await scenario(gateway, kept)
        finally:
            writing.cancel()
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
