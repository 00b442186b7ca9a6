"""Tell people that a release moved: at least once, later if they cannot be reached."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.notices import next_attempt
from ratchet.kit.clock import Clock
from ratchet.ports import DueNotice, Messenger, NoticeStore

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NoticeParts:
    notices: NoticeStore
    messenger: Messenger
    clock: Clock


async def tell_people(parts: NoticeParts) -> int:
    """Send what is due; answers how many went out."""
    sent = 0
    for due in await parts.notices.claim(parts.clock.now()):
        try:
            await parts.messenger.send(due.channel, due.notice, parts.clock.now())
        except Unavailable as error:
            await _failed(due, str(error), parts, is_for_good=False)
        except Rejected as error:
            await _failed(due, str(error), parts, is_for_good=True)
        else:
            await parts.notices.sent(due.notice, parts.clock.now())
            sent += 1
    return sent


async def _failed(due: DueNotice, problem: str, parts: NoticeParts, *, is_for_good: bool) -> None:
    now = parts.clock.now()
    again_at = None if is_for_good else next_attempt(due.notice.at, now, due.attempts)
    await parts.notices.failed(due.notice, problem, again_at)
    say = log.warning if again_at else log.error
    said = "notice_waits" if again_at else "notice_given_up"
    say(said, notice=due.notice.id, to=due.channel.service.value, because=problem)
