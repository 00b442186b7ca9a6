"""The other end of `Telemetry`: from an agent to the control plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import structlog

from ratchet.adapters.envoy.records import record_of
from ratchet.core.errors import Unavailable
from ratchet.entrypoints.grpc.telemetry import to_wire
from ratchet.kit.secret import Secret
from ratchet.wire.ratchet.v1 import telemetry_pb2 as pb
from ratchet.wire.ratchet.v1 import telemetry_pb2_grpc

log = structlog.get_logger()

CALL_SECONDS = 10.0


class Reporter:
    """Sends lines that Envoy wrote.  Made on the loop that uses it."""

    def __init__(self, address: str, token: Secret, name: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._stub = telemetry_pb2_grpc.TelemetryStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = (("authorization", f"Bearer {token.reveal()}"),)
        self._name = name

    async def records(self, lines: Sequence[str]) -> None:
        """Lines of an access log.  Raises `Unavailable`."""
        records = []
        for line in lines:
            try:
                record = record_of(line)
            except (ValueError, KeyError, TypeError) as error:
                log.error("record_unreadable", line=line[:200], because=repr(error))
                continue
            if record is not None:
                records.append(to_wire(record))
        if records:
            request = pb.ReportRecordsRequest(gateway=self._name, records=records)
            await self._call(self._stub.ReportRecords, request)

    async def _call(self, method: Any, request: Any) -> None:
        try:
            await method(request, timeout=CALL_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"control plane: {error.code().name} {error.details()}") from error

    async def close(self) -> None:
        await self._channel.close()
