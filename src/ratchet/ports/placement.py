"""What the placement of trainings needs to know, and where its decisions are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ratchet.core.artifact import RunId
from ratchet.core.place import Place
from ratchet.core.placement.plan import Decision
from ratchet.core.run import AttemptId


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A run's training as far as it has come."""

    began_at: datetime
    estimated_seconds: float | None
    """Of the whole, from before it began; None where nothing was known."""
    start_seconds: float | None
    """From the order of a worker to its first step, as it usually is; None before there was one."""
    attempt: AttemptId | None = None
    """The one that is alive."""
    asked_at: datetime | None = None
    """Since when it is wanted."""
    started_at: datetime | None = None
    """Since when it has a machine."""
    ended_at: datetime | None = None
    """Of the newest attempt, where none is alive."""
    works: bool = False
    """It has begun to train."""
    place: Place | None = None
    progress: Mapping[str, float] | None = None
    """Of this attempt or one before it: `step`, `steps` and `seconds_left`."""


class PlacementStore(Protocol):
    async def training(self, run_id: RunId, project: str) -> Training:
        """Raises `NotFound` before the stage has begun."""

    async def add(self, run_id: RunId, decision: Decision, now: datetime) -> None:
        """Keep a decision, if it is another than the last."""
