"""Answers from the cache: for deterministic requests of projects that want it.

A request is held until it is read; then it is answered from Valkey, or goes on and its answer is
kept on its way back.  Of several that ask the same at once one goes on and the others wait for its
answer.  A Valkey that is away or slow costs a hit, never a request.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import structlog

from ratchet.adapters.envoy.words import (
    CACHE_HEADER,
    LENGTH_HEADER,
    VERSION_HEADER,
    version_of_cluster,
)
from ratchet.core.cache import cache_key, is_worth_keeping
from ratchet.core.errors import Unavailable
from ratchet.core.serving import MEBIBYTE, Cache
from ratchet.entrypoints.beside.exchange import (
    Body,
    answer_here,
    attributes_of,
    headers_of,
    put_headers,
)
from ratchet.ports import AnswerStore
from ratchet.wire.ratchet.beside.v1 import beside_pb2 as pb

log = structlog.get_logger()

# Followers wait for the answer of who asked first for so long, then ask for themselves.
FOLLOW_SECONDS = 30.0
# Longer requests are not looked up.
REQUEST_BYTES_MAX = 2 * MEBIBYTE
Requests = AsyncIterator[pb.ProcessingRequest]
Responses = AsyncIterator[pb.ProcessingResponse]


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it is kept: its type, a line feed, its body."""

    content_type: str
    body: bytes

    def to_bytes(self) -> bytes:
        return self.content_type.encode() + b"\n" + self.body

    @classmethod
    def from_bytes(cls, content: bytes) -> Kept:
        kind, _, body = content.partition(b"\n")
        return cls(kind.decode(), body)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that has been read."""

    key: str
    """The name of its answer."""
    version: str
    size: int


@dataclass(slots=True)
class Caching:
    """One gateway's part of the cache."""

    store: AnswerStore | None
    """None: the agent was told of no Valkey."""
    counts: Counter[str] = field(default_factory=Counter)
    _keeping: set[asyncio.Task[None]] = field(default_factory=set)
    _flights: dict[str, asyncio.Future[Kept | None]] = field(default_factory=dict)

    async def serve(
        self, first: pb.ProcessingRequest, requests: Requests, project: str, cache: Cache
    ) -> Responses:
        """One request: read it, answer it or let it go on, keep its answer."""
        headers = headers_of(first.request_headers)
        version = version_of_cluster(attributes_of(first).get("xds.cluster_name", "")) or ""
        yield pb.ProcessingResponse(request_headers=pb.HeadersResponse())
        body = Body(REQUEST_BYTES_MAX)
        body.add((await anext(requests)).request_body)
        key = None
        if body.is_whole and not body.is_too_large and version:
            key = cache_key(project, version, headers.get(":path", ""), body.content())
        found: bytes | None = None
        try:
            if self.store is None:
                raise Unavailable("this gateway has no Valkey")
            if key is not None:
                found = await self.store.get(key)
        except Unavailable:
            key = None
        if key is None:
            self.counts["bypass"] += 1
            yield _go_on("bypass", body.size if body.is_whole else None)
            return
        asked = Asked(key, version, body.size)
        async for answer in self._answer(found, asked, requests, cache):
            yield answer

    async def _answer(
        self, found: bytes | None, asked: Asked, requests: Requests, cache: Cache
    ) -> Responses:
        kept = None if found is None else Kept.from_bytes(found)
        if kept is None and (flight := self._flights.get(asked.key)) is not None:
            yield _wait(FOLLOW_SECONDS)
            kept = await _landed(flight)
        if kept is not None:
            self.counts["hit"] += 1
            told = {VERSION_HEADER: asked.version, CACHE_HEADER: "hit"}
            yield answer_here(200, kept.body, kept.content_type, told)
            return
        self.counts["miss"] += 1
        async for answer in self._lead(asked, requests, cache):
            yield answer

    async def _lead(self, asked: Asked, requests: Requests, cache: Cache) -> Responses:
        """Go on to the engine, and keep what it answers."""
        new: asyncio.Future[Kept | None] = asyncio.get_running_loop().create_future()
        flight = self._flights.setdefault(asked.key, new)
        passing = Passing(asked.version, cache.answer_bytes_max)
        try:
            yield _go_on("miss", asked.size)
            async for message in requests:
                answer = passing.see(message)
                if passing.is_over and (kept := passing.kept()) is not None:
                    _land(flight, kept)
                    # Not here: Envoy waits for our word on the last piece.
                    keeping = asyncio.create_task(self._keep(asked.key, kept, cache))
                    self._keeping.add(keeping)
                    keeping.add_done_callback(self._keeping.discard)
                yield answer
                if passing.is_over:
                    return
        finally:
            # Who waits must not wait for one that went away.
            _land(flight, None)
            if self._flights.get(asked.key) is flight:
                del self._flights[asked.key]

    async def _keep(self, key: str, kept: Kept, cache: Cache) -> None:
        assert self.store is not None
        try:
            await self.store.put(key, kept.to_bytes(), round(cache.ttl_seconds))
        except Unavailable as error:
            log.warning("answer_not_kept", because=str(error))


@dataclass(slots=True)
class Passing:
    """An answer on its way back."""

    version: str
    bytes_max: int
    headers: dict[str, str] = field(default_factory=dict)
    is_over: bool = False
    _body: Body = field(init=False)

    def __post_init__(self) -> None:
        self._body = Body(self.bytes_max)

    def see(self, message: pb.ProcessingRequest) -> pb.ProcessingResponse:
        """Take note of a piece; answers what lets it pass as it is."""
        if message.WhichOneof("request") == "response_headers":
            self.headers = headers_of(message.response_headers)
            # A failure, or a fallback's answer under its own version.
            is_ours = self.headers.get(VERSION_HEADER) == self.version
            self.is_over = self.headers.get(":status") != "200" or not is_ours
            mode = pb.ProcessingMode(response_header_mode=1, response_body_mode=1)
            return pb.ProcessingResponse(
                response_headers=pb.HeadersResponse(),
                mode_override=None if self.is_over else mode,
            )
        self._body.add(message.response_body)
        self.is_over = self._body.is_whole or self._body.is_too_large
        return pb.ProcessingResponse(response_body=pb.BodyResponse())

    def kept(self) -> Kept | None:
        """What is worth keeping of it; None when nothing is."""
        kind, body = self.headers.get("content-type", ""), self._body
        is_whole = body.is_whole and not body.is_too_large
        if not is_whole or "content-encoding" in self.headers:
            return None
        content = body.content()
        return Kept(kind, content) if is_worth_keeping(kind, content) else None


def _land(flight: asyncio.Future[Kept | None], kept: Kept | None) -> None:
    if not flight.done():
        flight.set_result(kept)


async def _landed(flight: asyncio.Future[Kept | None]) -> Kept | None:
    """The answer of who asked first, if it comes in time and is worth it."""
    done, _ = await asyncio.wait((flight,), timeout=FOLLOW_SECONDS - 1.0)
    return flight.result() if done else None


def _go_on(outcome: str, size: int | None) -> pb.ProcessingResponse:
    """`size` is said because Envoy forgets it with a body that was read here."""
    headers = {CACHE_HEADER: outcome}
    if size is not None:
        headers[LENGTH_HEADER] = str(size)
    response = pb.CommonResponse(header_mutation=put_headers(headers))
    return pb.ProcessingResponse(request_body=pb.BodyResponse(response=response))


def _wait(seconds: float) -> pb.ProcessingResponse:
    waiting = pb.ProcessingResponse()
    waiting.override_message_timeout.FromMilliseconds(round(seconds * 1000))
    return waiting
