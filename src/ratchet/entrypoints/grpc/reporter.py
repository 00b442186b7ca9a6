"""The other end of `Telemetry` and `Capture`: from an agent to the control plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio
import structlog

from ratchet.adapters.envoy.records import line_of
from ratchet.adapters.spool import feedback_from_line, turn_from_line
from ratchet.core.errors import Unavailable
from ratchet.entrypoints.grpc import capture, telemetry
from ratchet.entrypoints.grpc.credentials import channel
from ratchet.kit.peers import PeerFiles
from ratchet.kit.secret import Secret
from ratchet.ports import AccessRecord
from ratchet.wire.ratchet.v1 import (
    capture_pb2,
    capture_pb2_grpc,
    telemetry_pb2,
    telemetry_pb2_grpc,
)

log = structlog.get_logger()

CALL_SECONDS = 10.0
_Read = TypeVar("_Read")


class Reporter:
    """Sends lines of files.  Made on the loop that uses it.

    A line that nobody can read is said in the log and left out: it would stop all that follow.
    """

    def __init__(
        self, address: str, token: Secret, name: str, peers: PeerFiles | None = None
    ) -> None:
        self._channel = channel(address, peers)
        self._stub = telemetry_pb2_grpc.TelemetryStub(self._channel)  # type: ignore[no-untyped-call]
        self._capture = capture_pb2_grpc.CaptureStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = (("authorization", f"Bearer {token.reveal()}"),)
        self._name = name

    async def records(self, lines: Sequence[str]) -> None:
        """Lines of an access log.  Raises `Unavailable`."""
        request = telemetry_pb2.ReportRecordsRequest(gateway=self._name)
        for read in _readable(lines, line_of):
            if isinstance(read, AccessRecord):
                request.records.append(telemetry.to_wire(read))
            elif read is not None:
                request.assignments.append(
                    telemetry_pb2.Assignment(
                        request_id=read.request_id,
                        version=read.version,
                        route_revision=read.route_revision,
                        conversation=read.conversation,
                        known=read.known,
                    )
                )
        if request.records or request.assignments:
            await self._call(self._stub.ReportRecords, request)

    async def turns(self, lines: Sequence[str]) -> None:
        """Lines of a spool.  Raises `Unavailable`."""
        read = [capture.turn_to_wire(turn) for turn in _readable(lines, turn_from_line)]
        request = capture_pb2.ReportTurnsRequest(gateway=self._name, turns=read)
        await self._call(self._capture.ReportTurns, request)

    async def feedback(self, lines: Sequence[str]) -> None:
        """Lines of a spool.  Raises `Unavailable`."""
        read = [capture.feedback_to_wire(said) for said in _readable(lines, feedback_from_line)]
        request = capture_pb2.ReportFeedbackRequest(gateway=self._name, feedback=read)
        await self._call(self._capture.ReportFeedback, request)

    async def _call(self, method: Any, request: Any) -> None:
        try:
            await method(request, timeout=CALL_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"control plane: {error.code().name} {error.details()}") from error

    async def close(self) -> None:
        await self._channel.close()


def _readable(lines: Sequence[str], read: Callable[[str], _Read]) -> Iterator[_Read]:
    for line in lines:
        try:
            yield read(line)
        except (ValueError, KeyError, TypeError) as error:
            # Never the line itself: a turn's has what a person wrote.
            log.error("line_unreadable", characters=len(line), because=type(error).__name__)
