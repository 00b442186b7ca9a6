"""A simulated cloud: it takes spot workers of this machine away, as a file of availability says.

The only thing about spot on one machine that is not real.  The worker, its checkpoint and the
choice of what comes next are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from ratchet.adapters.traces import player_of
from ratchet.core.errors import Rejected
from ratchet.core.place import Capacity, Place
from ratchet.core.placement.market import Player
from ratchet.entrypoints.local.children import Child
from ratchet.settings import spot_of

log = structlog.get_logger()


@dataclass(slots=True)
class SimulatedCloud:
    player: Player
    notice_seconds: float
    _told: dict[str, datetime] = field(default_factory=dict)
    """When a worker heard that its machine is taken away."""

    def has(self, place: Place, now: datetime) -> bool:
        """Whether there is such a machine now."""
        is_spot = place.capacity is Capacity.SPOT and place.zone in self.player.names
        return not is_spot or self.player.is_up(place.zone, now)

    def take(self, attempt_id: str, child: Child, now: datetime) -> None:
        """Take the machine of a worker: first the notice, then the end."""
        process = child.process
        if process is None:
            return
        told = self._told.get(attempt_id)
        if told is None and self.notice_seconds > 0:
            log.info("spot_taken", attempt=attempt_id, notice_seconds=self.notice_seconds)
            self._told[attempt_id] = now
            process.terminate()
        elif told is None or (now - told).total_seconds() >= self.notice_seconds:
            log.info("spot_gone", attempt=attempt_id)
            process.kill()

    def forget(self, attempt_id: str) -> None:
        self._told.pop(attempt_id, None)


def simulated_cloud(env: Mapping[str, str]) -> SimulatedCloud | None:
    """What `RATCHET_SPOT_TRACES` asks for.  Raises `Rejected`."""
    try:
        spot = spot_of(env)
    except ValueError as error:
        raise Rejected(f"settings of simulated spot (RATCHET_SPOT_*): {error}") from error
    if spot is None:
        return None
    return SimulatedCloud(player_of(spot.traces, spot.speed, spot.began_at), spot.notice_seconds)
