"""The socket at which Envoy asks: what goes by, what wants an answer, what may come in.

The control plane may be away: the project and its settings are those of the last snapshot, which
the agent has in a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog

from ratchet.adapters.envoy.words import FEEDBACK_ROUTE
from ratchet.core.errors import Unavailable
from ratchet.core.routing import GatewaySnapshot
from ratchet.entrypoints.beside import feedback
from ratchet.entrypoints.beside.caching import Caching
from ratchet.entrypoints.beside.capture import Capturing
from ratchet.entrypoints.beside.exchange import Body, answer_here, attributes_of, headers_of
from ratchet.entrypoints.beside.feedback import TakingFeedback
from ratchet.entrypoints.beside.quota import Quotas
from ratchet.wire.ratchet.beside.v1 import beside_pb2 as pb

log = structlog.get_logger()

LIMITER = "envoy.service.ratelimit.v3.RateLimitService"
PROCESSOR = "envoy.service.ext_proc.v3.ExternalProcessor"
# A body in one piece, with room for what is around it.
MESSAGE_BYTES_MAX = 80 * 1024 * 1024
Requests = AsyncIterator[pb.ProcessingRequest]
Responses = AsyncIterator[pb.ProcessingResponse]


class Beside:
    """Answers one Envoy."""

    def __init__(
        self, capturing: Capturing, taking: TakingFeedback, caching: Caching, quotas: Quotas
    ) -> None:
        self.capturing, self.caching, self.quotas = capturing, caching, quotas
        self._taking = taking
        self.snapshot: GatewaySnapshot | None = None
        """What is in force; None before the first."""

    async def process(self, requests: Requests, _: Any) -> Responses:
        """One request of a client's."""
        try:
            first = await anext(requests)
        except StopAsyncIteration:
            return
        snapshot = self.snapshot
        if snapshot is None:
            return
        if first.observability_mode:
            capture = snapshot.serving.capture
            if capture is not None:
                project = snapshot.admission.project
                await self.capturing.take(first, requests, project, capture.sample)
            return
        if attributes_of(first).get("xds.route_name") == FEEDBACK_ROUTE:
            async for answer in self._feedback(first, requests, snapshot.admission.project):
                yield answer
        elif snapshot.serving.cache is not None:
            project, cache = snapshot.admission.project, snapshot.serving.cache
            async for answer in self.caching.serve(first, requests, project, cache):
                yield answer

    async def should_limit(
        self, request: pb.RateLimitRequest, context: Any
    ) -> pb.RateLimitResponse:
        """May a request come in, or what did one take.  UNAVAILABLE when nobody can say: then the
        route does what it does without us."""
        try:
            if self.snapshot is None:
                raise Unavailable("no snapshot yet")
            return await self.quotas.should_limit(request, self.snapshot)
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise AssertionError("abort raises") from error

    async def _feedback(
        self, first: pb.ProcessingRequest, requests: Requests, project: str
    ) -> Responses:
        headers = headers_of(first.request_headers)
        body = Body(feedback.BODY_BYTES_MAX, is_whole=first.request_headers.end_of_stream)
        if not body.is_whole:
            yield pb.ProcessingResponse(request_headers=pb.HeadersResponse())
            piece = await anext(requests)
            body.add(piece.request_body)
        status, content = await self._taking.take(project, headers, body)
        yield answer_here(status, content)


async def listen(beside: Beside, socket: Path) -> grpc.aio.Server:
    """Listen for Envoy.  The caller stops it."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)])
    process = grpc.stream_stream_rpc_method_handler(
        beside.process,
        request_deserializer=pb.ProcessingRequest.FromString,
        response_serializer=pb.ProcessingResponse.SerializeToString,
    )
    handlers = grpc.method_handlers_generic_handler(PROCESSOR, {"Process": process})
    should_limit = grpc.unary_unary_rpc_method_handler(
        beside.should_limit,
        request_deserializer=pb.RateLimitRequest.FromString,
        response_serializer=pb.RateLimitResponse.SerializeToString,
    )
    limits = grpc.method_handlers_generic_handler(LIMITER, {"ShouldRateLimit": should_limit})
    server.add_generic_rpc_handlers((handlers, limits))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    # Whoever may write here could invent turns and feedback.
    await asyncio.to_thread(socket.chmod, 0o600)
    return server
