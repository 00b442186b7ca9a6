"""Turns: what goes by is put together, scrubbed and written to a file that is shipped.

Envoy tells and does not wait.  So nothing here may grow without a bound: what is held in memory,
what waits to be scrubbed and what waits on the disk each have one, and what is above it is left out
and counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from ratchet.adapters.envoy.admission import KEY_HEADER, PRINCIPAL_HEADER
from ratchet.adapters.envoy.words import CONVERSATION_HEADER, VERSION_HEADER
from ratchet.adapters.spool import Spool
from ratchet.core.turns import LeftOut, Seen, Turn, turn_of
from ratchet.entrypoints.beside.exchange import Body, headers_of
from ratchet.kit.clock import Clock
from ratchet.wire.ratchet.beside.v1 import beside_pb2 as pb

log = structlog.get_logger()

BODY_BYTES_MAX = 1024 * 1024
HELD_BYTES_MAX = 64 * 1024 * 1024


@dataclass(slots=True)
class Passing:
    """One request that goes by."""

    request: dict[str, str]
    started_at: datetime
    asked: Body = field(default_factory=lambda: Body(BODY_BYTES_MAX))
    answer: dict[str, str] = field(default_factory=dict)
    said: Body = field(default_factory=lambda: Body(BODY_BYTES_MAX))
    has_no_room: bool = False

    @property
    def is_over(self) -> bool:
        return bool(self.answer) and self.said.is_whole

    def left_out(self) -> LeftOut | None:
        """Why it is no turn, as far as one can see without reading it."""
        if self.has_no_room:
            return LeftOut.NO_ROOM
        if self.answer and self.answer.get(":status") != "200":
            return LeftOut.FAILED
        if not self.is_over or not self.asked.is_whole:
            return LeftOut.CUT
        if self.asked.is_too_large or self.said.is_too_large:
            return LeftOut.TOO_LARGE
        return None


class Capturing:
    """Reads what Envoy tells of sampled requests."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool, self._clock = spool, clock
        self.held_bytes = 0
        self._one_at_a_time = asyncio.Lock()
        self.counts: Counter[str] = Counter()
        """Turns kept, and requests left out by reason, since the start."""

    async def take(
        self,
        first: pb.ProcessingRequest,
        rest: AsyncIterator[pb.ProcessingRequest],
        project: str,
        sample: float,
    ) -> None:
        """One request to its end."""
        passing = Passing(headers_of(first.request_headers), self._clock.now())
        passing.asked.is_whole = first.request_headers.end_of_stream
        held = 0
        try:
            async for message in rest:
                held += self._see(passing, message, held)
                if passing.is_over:
                    break
            reason = passing.left_out()
            if reason is None:
                reason = await self._keep(passing, project, sample)
        finally:
            self.held_bytes -= held
        self.counts["kept" if reason is None else reason.value] += 1

    def _see(self, passing: Passing, message: pb.ProcessingRequest, held: int) -> int:
        """One piece; answers by how much more is held in memory."""
        more = 0
        match message.WhichOneof("request"):
            case "request_body":
                more = passing.asked.add(message.request_body)
            case "response_headers":
                passing.answer = headers_of(message.response_headers)
                passing.said.is_whole = message.response_headers.end_of_stream
            case "response_body":
                more = passing.said.add(message.response_body)
            case _:
                pass
        self.held_bytes += more
        if self.held_bytes > HELD_BYTES_MAX and more > 0:
            # Too much at once: this one is given up, the others go on.
            passing.has_no_room = True
            for body in (passing.asked, passing.said):
                body.bytes_max = -1
                body.parts.clear()
            self.held_bytes -= held + more
            return -held
        return more

    async def _keep(self, passing: Passing, project: str, sample: float) -> LeftOut | None:
        seen = Seen(
            request_id=passing.request.get("x-request-id", ""),
            version=passing.answer.get(VERSION_HEADER, ""),
            conversation=passing.request.get(CONVERSATION_HEADER, ""),
            key_id=passing.request.get(KEY_HEADER, ""),
            principal=passing.request.get(PRINCIPAL_HEADER, ""),
            sample=sample,
            started_at=passing.started_at,
        )
        asked, said = passing.asked.content(), passing.said.content()
        # One scrubs, others wait: this process has other work that is more urgent.
        async with self._one_at_a_time:
            made = await asyncio.to_thread(turn_of, project, seen, asked, said)
            if isinstance(made, Turn) and not self._spool.add(made):
                return LeftOut.NO_ROOM
        return None if isinstance(made, Turn) else made
