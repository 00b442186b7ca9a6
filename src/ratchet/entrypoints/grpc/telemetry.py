"""Envoy's access log service: what the gateway saw, off the request path.

Records are queued and written in batches; when the database is away they wait in bounded memory,
and what does not fit is dropped and counted, never silently.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

import grpc
import structlog

from ratchet.adapters.envoy import usage
from ratchet.adapters.envoy.admission import KEY_HEADER
from ratchet.adapters.envoy.words import (
    CONVERSATION_HEADER,
    CONVERSATION_NAMESPACE,
    FALLBACK,
    VERSION_HEADER,
    route_of,
    version_of_cluster,
)
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Unavailable
from ratchet.kit.clock import Clock
from ratchet.ports import AccessRecord, RecordSink
from ratchet.wire.ratchet.v1 import accesslog_pb2 as pb

log = structlog.get_logger()

SERVICE = "envoy.service.accesslog.v3.AccessLogService"
QUEUE_MAX = 50_000
BATCH_MAX = 1_000
GATHER_SECONDS = 0.05
RETRY_SECONDS = 0.5


def record_of(entry: pb.HTTPAccessLogEntry) -> AccessRecord | None:
    """One record, or None for what asked no model for an answer (health, lists, unknown paths)."""
    common, request, response = entry.common_properties, entry.request, entry.response
    found = route_of(common.route_name)
    version = _version(entry)
    if found is None or version is None or not request.path.endswith("/completions"):
        return None
    routed, route_revision = found
    status = response.response_code.value
    attempts = max(1, common.upstream_request_attempt_count)
    last = common.time_to_last_downstream_tx_byte
    duration = last if last.ByteSize() else common.duration
    return AccessRecord(
        request_id=request.request_id,
        version=version,
        routed=FALLBACK if version == FALLBACK else routed,
        route_revision=route_revision,
        conversation=_conversation(entry),
        key_id=request.request_headers.get(KEY_HEADER, ""),
        status=status,
        # What a retry saved was still a failure of the first attempt; code 0 is an answer that
        # was never given.
        failed=status >= 500 or status == 0 or attempts > 1,
        attempts=attempts,
        first_byte_ms=_milliseconds(common.time_to_first_downstream_tx_byte),
        duration_ms=_milliseconds(duration),
        bytes_sent=response.response_body_bytes,
        **_tokens(common.metadata),
        started_at=common.start_time.ToDatetime(tzinfo=UTC),
    )


def _version(entry: pb.HTTPAccessLogEntry) -> VersionId | None:
    """The version that answered, or that should have; None for who was not let in."""
    response = entry.response
    told = response.response_headers.get(VERSION_HEADER)
    cluster = version_of_cluster(entry.common_properties.upstream_cluster)
    if told == FALLBACK:
        return VersionId(FALLBACK)
    if cluster is None and told and response.response_code.value >= 500:
        # An arm without a living engine: Envoy answers by itself and names no cluster.
        return VersionId(told)
    return cluster


def _conversation(entry: pb.HTTPAccessLogEntry) -> str:
    header = entry.request.request_headers.get(CONVERSATION_HEADER, "")
    found = entry.common_properties.metadata.filter_metadata
    if header or CONVERSATION_NAMESPACE not in found:
        return header
    return str(found[CONVERSATION_NAMESPACE]["id"])


def _tokens(metadata: pb.Metadata) -> dict[str, int | None]:
    """Counts that Envoy read from the answer; None where the answer told none."""
    told: dict[str, Any] = {}
    if usage.NAMESPACE in metadata.filter_metadata:
        told.update(metadata.filter_metadata[usage.NAMESPACE].items())
    return {name: int(told[name]) if name in told else None for name in usage.COUNTS}


def _milliseconds(duration: Any) -> float:
    return float(duration.seconds * 1000.0 + duration.nanos / 1e6)


class Telemetry:
    """Receives records and writes them behind the gateway's back."""

    def __init__(self, sink: RecordSink, clock: Clock) -> None:
        self._sink, self._clock = sink, clock
        self._queue: asyncio.Queue[AccessRecord] = asyncio.Queue(QUEUE_MAX)
        self.dropped = 0

    def handler(self) -> Any:
        """The service under Envoy's name, with our own classes for its messages."""
        method = grpc.stream_unary_rpc_method_handler(
            self.stream,
            request_deserializer=pb.StreamAccessLogsMessage.FromString,
            response_serializer=pb.StreamAccessLogsResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"StreamAccessLogs": method})

    async def stream(
        self, messages: AsyncIterator[pb.StreamAccessLogsMessage], _: Any
    ) -> pb.StreamAccessLogsResponse:
        async for message in messages:
            for entry in message.http_logs.log_entry:
                record = record_of(entry)
                if record is not None:
                    self._keep(record)
        return pb.StreamAccessLogsResponse()

    def _keep(self, record: AccessRecord) -> None:
        try:
            self._queue.put_nowait(record)
        except asyncio.QueueFull:
            self.dropped += 1
            if self.dropped % 1000 == 1:
                log.warning("records_dropped", total=self.dropped, queue=QUEUE_MAX)

    async def write_forever(self) -> None:
        """Write batches until cancelled.  A batch is written or kept, never half."""
        while True:
            batch = [await self._queue.get()]
            await asyncio.sleep(GATHER_SECONDS)
            while len(batch) < BATCH_MAX and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            while True:
                try:
                    await self._sink.add(batch, self._clock.now())
                    break
                except Unavailable as error:
                    log.warning("records_wait", records=len(batch), because=str(error))
                    await asyncio.sleep(RETRY_SECONDS)
