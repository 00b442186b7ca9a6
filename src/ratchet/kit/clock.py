"""Time is a part like any other: it is handed in, so that tests can move it.

Wall-clock time is always an aware UTC `datetime`; durations are floats of seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time.  Always timezone-aware, always UTC."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(slots=True)
class ManualClock:
    """A clock for tests and simulations: it moves only when told to."""

    at: datetime

    def now(self) -> datetime:
        return self.at

    def advance(self, by: timedelta) -> None:
        self.at += by


def monotonic_seconds() -> float:
    """Seconds that never go back; for durations only."""
    return time.monotonic()
