"""What capacity there is: zones, since when their spot is up or down, and how that was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ratchet.core.placement.availability import Availability
from ratchet.core.placement.replay import Seen, watched


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone now."""

    name: str
    seen: Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """Zones as they were, played again: probe by probe, `speed` times as fast as they went."""

    names: tuple[str, ...]
    series: tuple[tuple[bool, ...], ...]
    """Of each zone; after its end it begins again."""
    tick_seconds: float
    began_at: datetime
    speed: float = 1.0

    def tick(self, now: datetime) -> int:
        """How many probes there have been."""
        return max(0, int((now - self.began_at).total_seconds() * self.speed / self.tick_seconds))

    def is_up(self, name: str, now: datetime) -> bool:
        series = self.series[self.names.index(name)]
        return series[self.tick(now) % len(series)]

    def zones(self, now: datetime, model: Availability) -> list[Zone]:
        """Each zone as it looks to who knows its past, beside the model."""
        tick = self.tick(now)
        return [
            Zone(name, _latest(series, tick, self.tick_seconds, model))
            for name, series in zip(self.names, self.series, strict=True)
        ]


# What a zone did before does not matter any more (`availability.HALF_LIFE_HOURS`).
REMEMBERED_TICKS = 2_000


def _latest(series: Sequence[bool], tick: int, tick_seconds: float, model: Availability) -> Seen:
    past = range(max(0, tick - REMEMBERED_TICKS), tick + 1)
    return watched([series[i % len(series)] for i in past], tick_seconds, model)[-1]
