"""Exact budgets at the gateway: Envoy asks before a request and tells after its answer.

Envoy's rate limit service, of which one request has two parts: `reserve` is answered, `settle` is
told when the stream is over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.quota import Away, Exact, Tokens, bound
from ratchet.core.routing import GatewaySnapshot
from ratchet.kit.clock import Clock
from ratchet.ports import QuotaStore
from ratchet.wire.ratchet.beside.v1 import beside_pb2 as pb

log = structlog.get_logger()

OK, OVER_LIMIT = 1, 2
# After a request's longest time, for clocks that differ.
GRACE_SECONDS = 60.0


@dataclass(slots=True)
class Quotas:
    """One gateway's part of the budgets."""

    store: QuotaStore | None
    """None: the agent was told of no Valkey."""
    clock: Clock
    counts: Counter[str] = field(default_factory=Counter)

    async def should_limit(
        self, request: pb.RateLimitRequest, snapshot: GatewaySnapshot
    ) -> pb.RateLimitResponse:
        """Raises `Unavailable` when nobody can say and the route then refuses."""
        exact = snapshot.serving.exact
        if exact is None:
            return pb.RateLimitResponse(overall_code=OK)
        parts = [(_entries(each), each) for each in request.descriptors]
        project = snapshot.admission.project
        if parts and parts[0][0].get("phase") == "settle":
            await self._settle(project, parts)
            return pb.RateLimitResponse(overall_code=OK)
        entries = parts[0][0] if parts else {}
        words = await self._refused(project, entries, exact, snapshot)
        if not words:
            return pb.RateLimitResponse(overall_code=OK)
        return pb.RateLimitResponse(overall_code=OVER_LIMIT, raw_body=words.encode())

    async def _refused(
        self, project: str, entries: Mapping[str, str], exact: Exact, snapshot: GatewaySnapshot
    ) -> str:
        """Why a request is not let in; empty for one that is.  Raises `Unavailable`."""
        largest = snapshot.serving.body_bytes_max
        try:
            most = bound(
                int(entries.get("bytes") or entries.get("bytes_read") or largest),
                _whole(entries.get("max_completion_tokens") or entries.get("max_tokens")),
                _whole(entries.get("n")),
                exact.answer_tokens,
            )
        except Rejected:
            # The engine says it better.
            return ""
        deadline = self.clock.now().timestamp() + snapshot.serving.timeouts.total_seconds
        try:
            if self.store is None:
                raise Unavailable("this gateway has no Valkey")
            refusal = await self.store.reserve(
                project,
                entries.get("key", ""),
                entries.get("request", ""),
                most,
                deadline + GRACE_SECONDS,
            )
        except Unavailable as error:
            self.counts["away"] += 1
            log.warning("quota_unknown", because=str(error), then=exact.away.value)
            if exact.away is Away.REFUSE:
                raise
            return ""
        self.counts["reserved" if refusal is None else "refused"] += 1
        return "" if refusal is None else refusal.describe()

    async def _settle(self, project: str, parts: list[tuple[dict[str, str], Any]]) -> None:
        took = {entries.get("count"): each.hits_addend.value for entries, each in parts}
        entries = parts[0][0]
        tokens = Tokens(took.get("prompt_tokens", 0), took.get("completion_tokens", 0))
        try:
            if self.store is not None:
                await self.store.settle(
                    project, entries.get("key", ""), entries.get("request", ""), tokens
                )
                self.counts["settled"] += 1
        except Unavailable as error:
            # It stays put aside until its deadline, or until the ledger has it.
            log.warning("quota_unsettled", because=str(error))


def _entries(descriptor: pb.RateLimitDescriptor) -> dict[str, str]:
    return {entry.key: entry.value for entry in descriptor.entries}


def _whole(text: str | None) -> int | None:
    """As Envoy reads numbers of a body; None for what is no whole number."""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number == number and abs(number) < 2**53 else None
