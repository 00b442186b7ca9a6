"""The agent's side of a gateway in this process: what Envoy asks it, and where its files go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

import grpc.aio
import httpx2 as httpx

from ratchet.adapters.envoy.words import beside_socket
from ratchet.adapters.spool import Spool
from ratchet.core.access import Admission
from ratchet.core.errors import Unavailable
from ratchet.core.serving import Access, Capture, Serving
from ratchet.core.turns import Feedback, Turn
from ratchet.entrypoints.beside.caching import Caching
from ratchet.entrypoints.beside.capture import Capturing
from ratchet.entrypoints.beside.feedback import TakingFeedback
from ratchet.entrypoints.beside.quota import Quotas
from ratchet.entrypoints.beside.server import Beside, listen
from ratchet.entrypoints.grpc.capture import Capture as CaptureService
from ratchet.entrypoints.grpc.reporter import Reporter
from ratchet.entrypoints.metrics import Metrics
from ratchet.entrypoints.shipping import Tail, ship
from ratchet.kit.clock import SystemClock
from ratchet.kit.secret import Secret
from ratchet.ports import AnswerStore, Erased, QuotaStore
from ratchet.wire.ratchet.v1 import capture_pb2_grpc
from tests.gateway import Gateway, running_gateway, snapshot_of

OPEN = Admission(is_open=True, project="shop", served_name="router", jwks=(), revoked=())
ALL = Serving(access=Access.OPEN, capture=Capture(sample=1.0))
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "I am ann@b.io, who are you?"}]}


@dataclass
class Kept:
    """Keeps turns and feedback in memory; away for as long as it is told."""

    turns: dict[str, Turn] = field(default_factory=dict)
    feedback: dict[str, Feedback] = field(default_factory=dict)
    is_away: bool = False

    async def add(self, turns: Sequence[Turn], now: datetime) -> int:
        return self._put(self.turns, {turn.request_id: turn for turn in turns})

    async def add_feedback(self, said: Sequence[Feedback], now: datetime) -> int:
        return self._put(self.feedback, {each.id: each for each in said})

    def _put(self, known: dict[str, Any], more: dict[str, Any]) -> int:
        if self.is_away:
            raise Unavailable("a test says so")
        before = len(known)
        known.update(more)
        return len(known) - before

    async def erase(self, project: str, subject: str, digest: str, now: datetime) -> Erased:
        raise NotImplementedError

    async def drop_before(self, project: str, first_day: date) -> list[str]:
        raise NotImplementedError


@dataclass
class Side:
    """The agent's side of a gateway, in this process."""

    gateway: Gateway
    kept: Kept
    beside: Beside
    turns: Spool
    server: grpc.aio.Server

    async def ask(self, key: str | None = None, **more: Any) -> httpx.Response:
        return await asyncio.to_thread(self.gateway.ask, key, json=QUESTION, **more)

    async def until(self, known: dict[str, Any], count: int) -> list[Any]:
        deadline = time.monotonic() + 10
        while len(known) < count:
            assert time.monotonic() < deadline, (known, self.beside.capturing.counts)
            await asyncio.sleep(0.02)
        return list(known.values())

    async def until_counted(self, count: int) -> dict[str, int]:
        deadline = time.monotonic() + 10
        while self.beside.capturing.counts.total() < count:
            assert time.monotonic() < deadline, self.beside.capturing.counts
            await asyncio.sleep(0.02)
        return dict(self.beside.capturing.counts)


def beside(
    scenario: Callable[[Side], Awaitable[None]],
    admission: Admission = OPEN,
    serving: Serving = ALL,
    store: AnswerStore | None = None,
    quota: QuotaStore | None = None,
    **changes: Any,
) -> None:
    """Play a scenario with a gateway and its agent's side."""

    async def run(gateway: Gateway) -> None:
        kept, secret, clock = Kept(), Secret("t"), SystemClock()
        service = grpc.aio.server()
        capture_pb2_grpc.add_CaptureServicer_to_server(  # type: ignore[no-untyped-call]
            CaptureService(kept, Metrics(), clock, secret), service
        )
        port = service.add_insecure_port("127.0.0.1:0")
        await service.start()
        folder = gateway.places.folder.parent
        turns, feedback = (Spool(folder / f"{n}.jsonl", 2**20) for n in ("turns", "feedback"))
        reporter = Reporter(f"127.0.0.1:{port}", secret, "gateway-1")
        caching = Caching(store)
        made = Beside(
            Capturing(turns, clock),
            TakingFeedback(feedback, clock),
            caching,
            Quotas(quota, clock),
        )
        made.snapshot = replace(snapshot_of(gateway, admission), serving=serving)
        server = await listen(made, beside_socket(gateway.places.admin_socket))
        shipping = [
            asyncio.create_task(ship(Tail(turns.file), reporter.turns, turns.reopen)),
            asyncio.create_task(ship(Tail(feedback.file), reporter.feedback, feedback.reopen)),
        ]
        try:
            await scenario(Side(gateway, kept, made, turns, server))
        finally:
            for task in shipping:
                task.cancel()
            await asyncio.gather(*shipping, return_exceptions=True)
            await reporter.close()
            await server.stop(0)
            await service.stop(0)

    with running_gateway() as gateway:
        gateway.serve(admission, serving=serving, **changes)
        asyncio.run(run(gateway))
