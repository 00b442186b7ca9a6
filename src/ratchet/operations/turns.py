"""Turns: how long they are kept, who is forgotten, and who else is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta

from ratchet.core.access import Caller
from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.serving import Capture
from ratchet.core.turns import subject_digest
from ratchet.kit.clock import Clock
from ratchet.ports import Audit, Erased, EventLog, EventSink, ProjectStore, TurnStore

BATCH_EVENTS = 200


@dataclass(frozen=True, slots=True)
class TurnParts:
    turns: TurnStore
    events: EventLog
    sinks: tuple[EventSink, ...]
    projects: ProjectStore
    audit: Audit
    clock: Clock


async def erase(project: str, subject: str, why: str, by: Caller, parts: TurnParts) -> Erased:
    """Remove a person's turns and what was said of them.

    `subject` is the principal of a key, the `user` of requests, or a conversation.  What waits at a
    gateway is refused when it comes.  The audit row has the digest, not the name.  Raises
    `NotFound` for an unknown project, `Rejected` for an empty name.
    """
    if not subject.strip():
        raise Rejected("subject: expected the name of a person, as requests or keys have it")
    await parts.projects.get(project)
    now = parts.clock.now()
    digest = subject_digest(project, subject)
    erased = await parts.turns.erase(project, subject, digest, now)
    found = f"{erased.turns} turns, {erased.feedback} feedback"
    await parts.audit.add(by.name, "erase subject", digest, found, "", why, now)
    return erased


async def keep_to_retention(parts: TurnParts) -> list[str]:
    """Drop the days that are older than each project keeps them; answers what went.

    A project that captures no more keeps what it has for the default time.
    """
    dropped = []
    today = parts.clock.now().astimezone(UTC).date()
    for project in await parts.projects.listing():
        days = (project.serving.capture or Capture()).retention_days
        first_day = today - timedelta(days=days)
        dropped += await parts.turns.drop_before(project.name, first_day)
    return dropped


async def tell_followers(parts: TurnParts) -> int:
    """Send each sink a batch of what it was not told yet; answers how many events went out.

    At least once and in order.  Raises `Unavailable` for the first sink that is away, after the
    others were told.
    """
    sent, away = 0, None
    for sink in parts.sinks:
        events = await parts.events.after(sink.name, BATCH_EVENTS)
        if not events:
            continue
        try:
            await sink.send(events)
        except Unavailable as error:
            away = error
            continue
        await parts.events.move(sink.name, events[-1].sequence, parts.clock.now())
        sent += len(events)
    if away is not None:
        raise away
    return sent
