"""The desk for workers: claim, heartbeat, finish."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from ratchet.adapters.postgres.runs import PostgresAttempts
from ratchet.core.errors import Conflict, RatchetError, Unavailable
from ratchet.core.run import AttemptId, AttemptState
from ratchet.durable.flow import Durable
from ratchet.kit.clock import Clock
from ratchet.kit.secret import Secret
from ratchet.ports import Wish
from ratchet.wire.ratchet.v1 import worker_pb2 as pb
from ratchet.wire.ratchet.v1 import worker_pb2_grpc

_OUTCOMES = {
    pb.OUTCOME_SUCCEEDED: AttemptState.SUCCEEDED,
    pb.OUTCOME_FAILED: AttemptState.FAILED,
    pb.OUTCOME_PREEMPTED: AttemptState.PREEMPTED,
    pb.OUTCOME_OUT_OF_MEMORY: AttemptState.OUT_OF_MEMORY,
}


class WorkerDesk(worker_pb2_grpc.WorkerServicer):
    """Each call is one operation; a database that is away is UNAVAILABLE, and workers wait."""

    def __init__(
        self, attempts: PostgresAttempts, durable: Durable, clock: Clock, token: Secret
    ) -> None:
        self._attempts, self._durable = attempts, durable
        self._clock, self._token = clock, token

    async def Claim(self, request: pb.ClaimRequest, context: Any) -> pb.ClaimResponse:  # noqa: N802
        await check_token(context, self._token)
        assignment = await _translated(
            context,
            lambda: self._attempts.claim(AttemptId(request.attempt_id), self._clock.now()),
        )
        return pb.ClaimResponse(assignment_json=json.dumps(assignment))

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatResponse:  # noqa: N802
        await check_token(context, self._token)
        wish = await _translated(
            context,
            lambda: self._attempts.heartbeat(
                AttemptId(request.attempt_id),
                json.loads(request.progress_json or "{}"),
                [(point.step, point.loss) for point in request.losses],
                self._clock.now(),
            ),
        )
        return pb.HeartbeatResponse(wanted=wish is not Wish.STOP, stop=wish is Wish.SAVE_AND_LEAVE)

    async def Finish(self, request: pb.FinishRequest, context: Any) -> pb.FinishResponse:  # noqa: N802
        await check_token(context, self._token)
        run_id = await _translated(
            context,
            lambda: self._attempts.end(
                AttemptId(request.attempt_id),
                _OUTCOMES[request.outcome],
                json.loads(request.result_json) if request.result_json else None,
                request.because,
                self._clock.now(),
            ),
        )
        if run_id is not None:
            await self._durable.wake(run_id)
        return pb.FinishResponse()


async def check_token(context: Any, token: Secret) -> None:
    """Refuse a call without the token of the state directory."""
    given = dict(context.invocation_metadata()).get("authorization", "")
    if not hmac.compare_digest(given, f"Bearer {token.reveal()}"):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong or missing token")


async def _translated(context: Any, call: Callable[[], Awaitable[Any]]) -> Any:
    """Our errors as gRPC statuses."""
    try:
        return await call()
    except Unavailable as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
    except Conflict as error:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    except RatchetError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
