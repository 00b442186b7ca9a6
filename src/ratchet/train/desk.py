"""The worker's side of the control plane: claim, heartbeat, finish, over gRPC.

The control plane may be away for as long as it likes: work goes on, reports are sent when it is
back, and only the newest progress is kept meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

import grpc

from ratchet.kit.peers import RECONNECT_OPTIONS, PeerFiles
from ratchet.kit.processes import StopNotice
from ratchet.wire.ratchet.v1 import worker_pb2, worker_pb2_grpc

HEARTBEAT_SECONDS = 1.0
CALL_SECONDS = 10.0
YIELD_SECONDS = 2.0
RETRY_SECONDS_MAX = 5.0
GONE = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)


class Superseded(Exception):
    """Somebody ended this attempt; its work is no longer wanted."""


class Desk:
    """One attempt's line to the control plane.  `check` raises `Superseded` between two steps."""

    def __init__(
        self, address: str, attempt: str, token: str, peers: PeerFiles | None = None
    ) -> None:
        self._stub = worker_pb2_grpc.WorkerStub(_channel(address, peers))  # type: ignore[no-untyped-call]
        self._attempt = attempt
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._lock = threading.Lock()
        self._progress: dict[str, Any] = {}
        self._losses: list[tuple[int, float]] = []
        self._superseded = threading.Event()
        self.stop = StopNotice()
        """Also given by the control plane, when it wants the work saved and the place back."""
        self._closed = threading.Event()

    def claim(self) -> dict[str, Any]:
        """The assignment.  Waits for the control plane; raises `Superseded`."""
        request = worker_pb2.ClaimRequest(attempt_id=self._attempt)
        answer = self._persist(self._stub.Claim, request)
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        assignment: dict[str, Any] = json.loads(answer.assignment_json)
        return assignment

    def report(self, progress: dict[str, Any], losses: list[tuple[int, float]]) -> None:
        """Say how far the work is; sent with the next heartbeat."""
        with self._lock:
            self._progress.update(progress)
            self._losses += losses

    def check(self) -> None:
        """Raises `Superseded` once the control plane wants this attempt no more."""
        if self._superseded.is_set():
            raise Superseded

    def succeed(self, result: dict[str, Any]) -> None:
        self._finish(worker_pb2.OUTCOME_SUCCEEDED, json.dumps(result), "")

    def fail(self, because: str) -> None:
        """The input or the work is at fault: trying again would fail the same way."""
        self._finish(worker_pb2.OUTCOME_FAILED, "", because)

    def yield_place(self, because: str) -> bool:
        """The machine is wanted back.  Told once, not waited for; answers whether it was heard."""
        request = worker_pb2.FinishRequest(
            attempt_id=self._attempt, outcome=worker_pb2.OUTCOME_PREEMPTED, because=because
        )
        self._closed.set()
        self._send_heartbeat()
        with contextlib.suppress(grpc.RpcError):
            self._stub.Finish(request, timeout=YIELD_SECONDS, metadata=self._metadata)
            return True
        return False

    def outgrow(self, because: str) -> None:
        """The work does not fit into this machine's memory."""
        self._finish(worker_pb2.OUTCOME_OUT_OF_MEMORY, "", because)

    def _finish(self, outcome: worker_pb2.Outcome, result: str, because: str) -> None:
        self._closed.set()
        self._send_heartbeat()
        request = worker_pb2.FinishRequest(
            attempt_id=self._attempt, outcome=outcome, result_json=result, because=because
        )
        self._persist(self._stub.Finish, request)

    def _persist(self, call: Any, request: Any) -> Any:
        """Call until there is an answer.  Raises `Superseded` when the answer is "not you"."""
        pause = 0.2
        while True:
            try:
                return call(request, timeout=CALL_SECONDS, metadata=self._metadata)
            except grpc.RpcError as error:
                if error.code() in GONE:
                    raise Superseded from error
                time.sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS_MAX)

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT_SECONDS) and not self._superseded.is_set():
            self._send_heartbeat()

    def _send_heartbeat(self) -> None:
        with self._lock:
            progress, losses = dict(self._progress), self._losses[:]
        request = worker_pb2.HeartbeatRequest(
            attempt_id=self._attempt,
            progress_json=json.dumps(progress),
            losses=[worker_pb2.LossPoint(step=step, loss=loss) for step, loss in losses],
        )
        try:
            answer = self._stub.Heartbeat(request, timeout=CALL_SECONDS, metadata=self._metadata)
        except grpc.RpcError:
            return
        with self._lock:
            del self._losses[: len(losses)]
        if not answer.wanted:
            self._superseded.set()
        if answer.stop:
            self.stop.given = True


def _channel(address: str, peers: PeerFiles | None) -> grpc.Channel:
    if peers is None:
        return grpc.insecure_channel(address, RECONNECT_OPTIONS)
    certificate, key, authority = peers.read()
    return grpc.secure_channel(
        address, grpc.ssl_channel_credentials(authority, key, certificate), RECONNECT_OPTIONS
    )
