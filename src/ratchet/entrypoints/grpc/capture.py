"""Turns and feedback that gateways kept: stored once each."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from ratchet.core.turns import Feedback, Turn
from ratchet.entrypoints.grpc.telemetry import or_unavailable
from ratchet.entrypoints.grpc.worker import check_token
from ratchet.entrypoints.metrics import Metrics
from ratchet.kit.clock import Clock
from ratchet.kit.secret import Secret
from ratchet.ports import TurnStore
from ratchet.wire.ratchet.v1 import capture_pb2 as pb
from ratchet.wire.ratchet.v1 import capture_pb2_grpc


class Capture(capture_pb2_grpc.CaptureServicer):
    """As `Telemetry`: a call is a transaction, and who reports keeps what is not taken."""

    def __init__(self, turns: TurnStore, metrics: Metrics, clock: Clock, token: Secret) -> None:
        self._turns, self._metrics = turns, metrics
        self._clock, self._token = clock, token

    async def ReportTurns(  # noqa: N802
        self, request: pb.ReportTurnsRequest, context: Any
    ) -> pb.ReportTurnsResponse:
        await check_token(context, self._token)
        turns = [turn_from_wire(turn) for turn in request.turns]
        new = await or_unavailable(context, self._turns.add(turns, self._clock.now()))
        self._metrics.turns.inc(new)
        return pb.ReportTurnsResponse(new=new)

    async def ReportFeedback(  # noqa: N802
        self, request: pb.ReportFeedbackRequest, context: Any
    ) -> pb.ReportFeedbackResponse:
        await check_token(context, self._token)
        said = [feedback_from_wire(each) for each in request.feedback]
        new = await or_unavailable(context, self._turns.add_feedback(said, self._clock.now()))
        self._metrics.feedback.inc(new)
        return pb.ReportFeedbackResponse(new=new)


def turn_to_wire(turn: Turn) -> pb.Turn:
    made = pb.Turn(
        project=turn.project,
        request_id=turn.request_id,
        version=turn.version,
        conversation=turn.conversation,
        key_id=turn.key_id,
        subjects=turn.subjects,
        messages_json=json.dumps(turn.messages),
        answer_json=json.dumps(turn.answer),
        parameters_json=json.dumps(turn.parameters),
        finish_reason=turn.finish_reason,
        scrubbed=turn.scrubbed,
        sample=turn.sample,
    )
    made.started_at.FromDatetime(turn.started_at)
    return made


def turn_from_wire(turn: pb.Turn) -> Turn:
    return Turn(
        project=turn.project,
        request_id=turn.request_id,
        version=turn.version,
        conversation=turn.conversation,
        key_id=turn.key_id,
        subjects=tuple(turn.subjects),
        messages=tuple(json.loads(turn.messages_json)),
        answer=json.loads(turn.answer_json),
        parameters=json.loads(turn.parameters_json),
        finish_reason=turn.finish_reason,
        scrubbed=dict(turn.scrubbed),
        sample=turn.sample,
        started_at=turn.started_at.ToDatetime(tzinfo=UTC),
    )


def feedback_to_wire(said: Feedback) -> pb.Feedback:
    made = pb.Feedback(
        project=said.project,
        id=said.id,
        request_id=said.request_id,
        conversation=said.conversation,
        key_id=said.key_id,
        subjects=said.subjects,
        score=said.score,
        thumbs=said.thumbs,
        correction=said.correction,
        comment=said.comment,
    )
    made.received_at.FromDatetime(said.received_at)
    return made


def feedback_from_wire(said: pb.Feedback) -> Feedback:
    return Feedback(
        project=said.project,
        id=said.id,
        request_id=said.request_id,
        conversation=said.conversation,
        key_id=said.key_id,
        subjects=tuple(said.subjects),
        score=said.score if said.HasField("score") else None,
        thumbs=said.thumbs,
        correction=said.correction,
        comment=said.comment,
        received_at=said.received_at.ToDatetime(tzinfo=UTC),
    )
