"""`POST /v1/feedback`, answered beside the gateway: it is on the disk before it is acknowledged, so
the control plane may be away."""

from __future__ import annotations

import asyncio
import json

from ratchet.adapters.envoy.admission import KEY_HEADER, PRINCIPAL_HEADER
from ratchet.adapters.envoy.routes import FEEDBACK_BYTES_MAX
from ratchet.adapters.spool import Spool
from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.turns import feedback_of
from ratchet.entrypoints.beside.exchange import Body
from ratchet.kit.clock import Clock

BODY_BYTES_MAX = FEEDBACK_BYTES_MAX


class TakingFeedback:
    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool, self._clock = spool, clock

    async def take(self, project: str, headers: dict[str, str], body: Body) -> tuple[int, bytes]:
        """HTTP status and body of the answer."""
        try:
            if body.is_too_large or not body.is_whole:
                raise Rejected(f"feedback is at most {body.bytes_max // 1024} KiB")
            said = feedback_of(
                project,
                body.content(),
                headers.get(KEY_HEADER, ""),
                headers.get(PRINCIPAL_HEADER, ""),
                self._clock.now(),
            )
            if not await asyncio.to_thread(self._spool.add, said, is_promised=True):
                raise Unavailable("the gateway's disk has no room for feedback: try again later")
        except Rejected as error:
            return 400, _error(str(error), "invalid_request_error", "invalid_feedback")
        except Unavailable as error:
            return 503, _error(str(error), "server_error", "no_room")
        return 202, json.dumps({"id": said.id, "object": "feedback", "status": "accepted"}).encode()


def _error(message: str, type_: str, code: str) -> bytes:
    error = {"message": message, "type": type_, "param": None, "code": code}
    return json.dumps({"error": error}).encode()
