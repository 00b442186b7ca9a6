"""`ratchet agent`: beside each Envoy.

Fetches the snapshot as soon as it changes, brings it into force, reads back what Envoy applied and
reports it; ships the access records that Envoy writes; and does what routes ask of it (`beside`):
keeps sampled turns, takes feedback, answers from the cache, keeps to budgets.  The control plane
may be away: what Envoy has stays in force, and what is to be shipped waits in files.  Only in the
middle of a canary there is a limit: after `blind_hold` without a word all traffic goes to the
baseline, because nobody can see how the canary does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx
import structlog

from ratchet.adapters.envoy.files import EnvoyFiles
from ratchet.adapters.spool import Spool
from ratchet.adapters.valkey.client import Valkey
from ratchet.adapters.valkey.quota import ValkeyQuota
from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.routing import GatewaySnapshot, without_canary
from ratchet.entrypoints import snapshots
from ratchet.entrypoints.beside.caching import Caching
from ratchet.entrypoints.beside.capture import Capturing
from ratchet.entrypoints.beside.feedback import TakingFeedback
from ratchet.entrypoints.beside.quota import Quotas
from ratchet.entrypoints.beside.server import Beside, listen
from ratchet.entrypoints.grpc.reporter import Reporter
from ratchet.entrypoints.shipping import Tail, ship
from ratchet.kit.clock import Clock, monotonic_seconds
from ratchet.kit.peers import PeerFiles
from ratchet.kit.secret import Secret

log = structlog.get_logger()

# Also how often the server hears that this gateway is alive.
WAIT_SECONDS = 5.0
RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 1.0
# Somebody was there until this moment: a control plane that restarts again and again is no silence.
BROKEN_OFF = (httpx.ReadError, httpx.RemoteProtocolError)
# What may wait on the disk while the control plane is away.
TURNS_BYTES_MAX = 512 * 1024 * 1024
FEEDBACK_BYTES_MAX = 64 * 1024 * 1024


@dataclass(slots=True)
class Agent:
    """One gateway's line to the control plane."""

    name: str
    server_url: str
    telemetry: str
    """Where records go: host and port of the control plane's gRPC."""
    token: Secret
    envoy: EnvoyFiles
    clock: Clock
    valkey: Valkey | None = None
    """For routes with a cache or exact budgets."""
    peers: PeerFiles | None = None
    """For mutual TLS with the control plane's gRPC."""
    snapshot: GatewaySnapshot | None = None
    applied_revision: int = -1
    is_blind: bool = False
    heard_at: float = 0.0
    beside: Beside = field(init=False)

    async def run(self) -> None:
        """Until cancelled."""
        reporter = Reporter(self.telemetry, self.token, self.name, self.peers)
        turns = Spool(self.envoy.spool("turns"), TURNS_BYTES_MAX)
        feedback = Spool(self.envoy.spool("feedback"), FEEDBACK_BYTES_MAX)
        self.beside = Beside(
            Capturing(turns, self.clock),
            TakingFeedback(feedback, self.clock),
            Caching(self.valkey),
            Quotas(None if self.valkey is None else ValkeyQuota(self.valkey), self.clock),
        )
        self._remember()
        asked = await listen(self.beside, self.envoy.beside)
        shipping = [
            asyncio.create_task(ship(Tail(file), send, reopen))
            for file, send, reopen in (
                (self.envoy.records, reporter.records, self.envoy.reopen_records),
                (turns.file, reporter.turns, turns.reopen),
                (feedback.file, reporter.feedback, feedback.reopen),
            )
        ]
        try:
            await self._follow()
        finally:
            for task in shipping:
                task.cancel()
            await asyncio.gather(*shipping, return_exceptions=True)
            await asked.stop(grace=0.5)
            await reporter.close()

    def _remember(self) -> None:
        """What was in force when an agent was here last."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            known = json.loads(self.envoy.known_snapshot().read_text())
            self.beside.snapshot = snapshots.from_json(known)

    def _in_force(self, snapshot: GatewaySnapshot) -> None:
        self.beside.snapshot = snapshot
        file = self.envoy.known_snapshot()
        part = file.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(json.dumps(snapshots.to_json(snapshot)))
        part.replace(file)

    async def _follow(self) -> None:
        self.heard_at = monotonic_seconds()
        headers = {"authorization": f"Bearer {self.token.reveal()}"}
        pause = RETRY_SECONDS_MIN
        async with httpx.AsyncClient(
            base_url=self.server_url, headers=headers, timeout=WAIT_SECONDS + 5.0
        ) as client:
            while True:
                try:
                    await self._turn(client)
                    pause = RETRY_SECONDS_MIN
                except (httpx.TransportError, httpx.HTTPStatusError, Unavailable) as error:
                    if isinstance(error, BROKEN_OFF):
                        self.heard_at = monotonic_seconds()
                    log.warning("agent_waits", because=repr(error))
                    await self._mind_blindness()
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, RETRY_SECONDS_MAX)

    async def _turn(self, client: httpx.AsyncClient) -> None:
        """Wait for news, apply it, report it."""
        query: dict[str, str | float] = {
            "after": self.applied_revision,
            "wait": WAIT_SECONDS,
            "gateway": self.name,
        }
        answer = await client.get("/api/v1/gateway/snapshot", params=query)
        if answer.status_code == 404:
            # No project yet: nothing to serve, and nothing is wrong.
            self.heard_at = monotonic_seconds()
            await asyncio.sleep(0.2)
            return
        answer.raise_for_status()
        snapshot = snapshots.from_json(answer.json())
        self.heard_at = monotonic_seconds()
        if snapshot.revision == self.applied_revision and not self.is_blind:
            return
        self.snapshot = snapshot
        rejected = ""
        try:
            await self.envoy.apply(snapshot)
            self._in_force(snapshot)
            self.is_blind = False
        except Rejected as error:
            rejected = str(error)
            log.error("snapshot_rejected", revision=snapshot.revision, because=rejected)
        self.applied_revision = snapshot.revision
        await self._report(client, snapshot, rejected)

    async def _report(
        self, client: httpx.AsyncClient, snapshot: GatewaySnapshot, rejected: str
    ) -> None:
        body: dict[str, Any] = {
            "gateway": self.name,
            "revision": snapshot.revision,
            "route_revision": snapshot.route_revision,
            "rejected": rejected,
            "at": self.clock.now().isoformat(),
        }
        answer = await client.post("/api/v1/gateway/applied", json=body)
        answer.raise_for_status()

    async def _mind_blindness(self) -> None:
        """Take the canary out when the control plane stays away for too long."""
        snapshot = self.snapshot
        if snapshot is None or snapshot.fallback is None or self.is_blind:
            return
        silent = monotonic_seconds() - self.heard_at
        if silent <= snapshot.blind_hold_seconds or len(snapshot.arms) < 2:
            return
        with contextlib.suppress(Unavailable, Rejected):
            await self.envoy.apply(without_canary(snapshot))
            self.is_blind = True
            log.warning("canary_taken_out", silent_seconds=round(silent), to=snapshot.fallback)
