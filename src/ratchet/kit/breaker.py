"""A circuit breaker: after failures in a row, do not ask for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ratchet.kit.clock import monotonic_seconds


@dataclass(slots=True)
class Breaker:
    """Open means: do not ask.  After a rest one caller may try; if that fails, rest again."""

    failures_max: int = 3
    rest_seconds: float = 2.0
    now: Callable[[], float] = monotonic_seconds
    _failures: int = 0
    _open_until: float = field(default=0.0)

    def allows(self) -> bool:
        """May one ask?  Of several that ask at the end of a rest, one may."""
        if self._failures < self.failures_max:
            return True
        if self.now() < self._open_until:
            return False
        self._open_until = self.now() + self.rest_seconds
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        if self._failures >= self.failures_max:
            self._open_until = self.now() + self.rest_seconds
