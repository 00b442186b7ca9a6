"""Turns, feedback, and who else is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from ratchet.core.artifact import VersionId
from ratchet.core.captured import Answered
from ratchet.core.spec import LearnedTurns
from ratchet.core.turns import Feedback, Turn
from ratchet.ports.pipeline import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was removed of one person, and what had referred to it."""

    turns: int
    feedback: int
    conversations: int
    """Access records that had the person's name as their conversation; it is blank now."""
    versions: tuple[VersionId, ...]
    """Versions that had answered the turns."""


class TurnStore(Protocol):
    """Turns and feedback, by project and day."""

    async def add(self, turns: Sequence[Turn], now: datetime) -> int:
        """Each once, by its request; answers how many were new.  Nothing of an erased person."""

    async def add_feedback(self, said: Sequence[Feedback], now: datetime) -> int:
        """Each once, by its id; answers how many were new."""

    async def erase(self, project: str, subject: str, digest: str, now: datetime) -> Erased:
        """By subject, in one transaction; what is still on its way here is refused from now on."""

    async def drop_before(self, project: str, first_day: date) -> list[str]:
        """Drop whole days; answers the tables that went."""


class AnsweredSource(Protocol):
    """Turns as data."""

    async def answered(self, project: str, plan: LearnedTurns, now: datetime) -> list[Answered]:
        """The newest turns of a project of which somebody said something, the oldest first."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that followers are told, in order."""

    sequence: int
    kind: str
    """`turn`, `feedback` or `erasure`."""
    id: str
    content: Json


class EventLog(Protocol):
    """What followers have been told."""

    async def after(self, follower: str, limit: int) -> list[Event]:
        """What this follower was not told yet, in order."""

    async def move(self, follower: str, sequence: int, now: datetime) -> None:
        """Everything up to `sequence` was taken."""


class EventSink(Protocol):
    """Somebody else's store of events."""

    @property
    def name(self) -> str: ...

    async def send(self, events: Sequence[Event]) -> None:
        """All or some; repeatable, by kind and id.  Raises `Unavailable`."""
