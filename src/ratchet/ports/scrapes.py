"""What is needed to judge by counters that somebody else keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ratchet.core.rollout import Release, ReleaseId
from ratchet.core.scrapes import Counters, Sample


class CounterSource(Protocol):
    async def value(self, query: str) -> float | None:
        """A counter now; None where there is none.  Raises `Unavailable`, and `Rejected` for a
        query that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a project's traffic is."""

    route_revision: int
    newest_unit: int


class SampleStore(Protocol):
    async def position(self, release: Release) -> Position: ...

    async def add(
        self,
        release: Release,
        begun: Position,
        counters: Mapping[str, tuple[Counters, Counters]],
        now: datetime,
    ) -> None:
        """Raises `Conflict` when the weights moved since it was begun."""

    async def after(self, release_id: ReleaseId, watermark: int) -> list[Sample]:
        """The sample at the watermark, and those after it."""
