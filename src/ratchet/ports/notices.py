"""What is needed to tell people that a release moved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ratchet.core.notices import Channel, Notice


@dataclass(frozen=True, slots=True)
class DueNotice:
    notice: Notice
    channel: Channel
    attempts: int
    """With this one."""


class NoticeStore(Protocol):
    """Notices are written down with their verdict."""

    async def claim(self, now: datetime) -> list[DueNotice]:
        """Some that are due.  Nobody else gets them within a minute."""

    async def sent(self, notice: Notice, now: datetime) -> None:
        """By notice."""

    async def failed(self, notice: Notice, problem: str, again_at: datetime | None) -> None:
        """By notice; None gives it up."""


class Messenger(Protocol):
    async def send(self, channel: Channel, notice: Notice, now: datetime) -> None:
        """Raises `Unavailable` for what may go later, `Rejected` for what never will."""
