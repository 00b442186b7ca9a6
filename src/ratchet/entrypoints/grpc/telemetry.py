"""What gateways report of each request: kept as evidence, settled in the ledger."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC
from typing import Any, TypeVar

import grpc

from ratchet.core.artifact import VersionId
from ratchet.core.errors import Unavailable
from ratchet.entrypoints.grpc.worker import check_token
from ratchet.entrypoints.metrics import Metrics
from ratchet.kit.clock import Clock
from ratchet.kit.secret import Secret
from ratchet.ports import AccessRecord, Assignment, RecordSink
from ratchet.wire.ratchet.v1 import telemetry_pb2 as pb
from ratchet.wire.ratchet.v1 import telemetry_pb2_grpc

_Answer = TypeVar("_Answer")


class Telemetry(telemetry_pb2_grpc.TelemetryServicer):
    """Each call is one transaction; a database that is away is UNAVAILABLE, and who reports keeps
    what it has.  So there is no queue here that could overflow or be lost."""

    def __init__(self, records: RecordSink, metrics: Metrics, clock: Clock, token: Secret) -> None:
        self._records, self._metrics = records, metrics
        self._clock, self._token = clock, token

    async def ReportRecords(  # noqa: N802
        self, request: pb.ReportRecordsRequest, context: Any
    ) -> pb.ReportRecordsResponse:
        await check_token(context, self._token)
        given = [
            Assignment(each.request_id, VersionId(each.version), each.route_revision,
                       each.conversation, dict(each.known))
            for each in request.assignments
        ]  # fmt: skip
        if given:
            await or_unavailable(context, self._records.assigned(given, self._clock.now()))
        records = [from_wire(record) for record in request.records]
        new = await or_unavailable(context, self._records.add(records, self._clock.now()))
        self._metrics.saw(request.gateway, [r for r in records if r.request_id in new])
        return pb.ReportRecordsResponse(new=len(new))


async def or_unavailable(context: Any, work: Awaitable[_Answer]) -> _Answer:
    try:
        return await work
    except Unavailable as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        raise AssertionError("abort raises") from error


def from_wire(record: pb.Record) -> AccessRecord:
    told = record.HasField
    return AccessRecord(
        request_id=record.request_id,
        version=VersionId(record.version),
        routed=record.routed,
        route_revision=record.route_revision,
        conversation=record.conversation,
        key_id=record.key_id,
        status=record.status,
        attempts=record.attempts,
        first_byte_ms=record.first_byte_us / 1000,
        duration_ms=record.duration_us / 1000,
        overhead_ms=record.overhead_us / 1000,
        bytes_sent=record.bytes_sent,
        prompt_tokens=record.prompt_tokens if told("prompt_tokens") else None,
        completion_tokens=record.completion_tokens if told("completion_tokens") else None,
        flags=record.flags,
        sampled=record.sampled,
        cache=record.cache,
        known=dict(record.known),
        started_at=record.started_at.ToDatetime(tzinfo=UTC),
    )


def to_wire(record: AccessRecord) -> pb.Record:
    made = pb.Record(
        request_id=record.request_id,
        version=record.version,
        routed=record.routed,
        route_revision=record.route_revision,
        conversation=record.conversation,
        key_id=record.key_id,
        status=record.status,
        attempts=record.attempts,
        first_byte_us=_microseconds(record.first_byte_ms),
        duration_us=_microseconds(record.duration_ms),
        overhead_us=_microseconds(record.overhead_ms),
        bytes_sent=record.bytes_sent,
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        flags=record.flags,
        sampled=record.sampled,
        cache=record.cache,
        known=record.known,
    )
    made.started_at.FromDatetime(record.started_at)
    return made


def _microseconds(milliseconds: float) -> int:
    return max(0, round(milliseconds * 1000))
