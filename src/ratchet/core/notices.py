"""Who is told when a release moves, of what, and how often it is tried.

A notice is written down with the verdict that it is about, in the same transaction, and sent by
whoever looks next: at least once.  Who receives it can tell a second time by its id.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from ratchet.core.rollout import Stage


class Service(Enum):
    SLACK = "slack"  # an incoming webhook's url
    PAGERDUTY = "pagerduty"  # an integration key of Events API v2
    WEBHOOK = "webhook"  # anybody's url, signed as Standard Webhooks has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """Where notices go; what is secret is the name of an environment variable."""

    service: Service
    variable: str = ""
    """Holds Slack's url, PagerDuty's key, or the secret that a webhook is signed with."""
    url: str = ""
    """A webhook's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A release moved."""

    id: str
    """The same at every attempt."""
    project: str
    release_id: str
    run_id: str
    candidate: str
    from_stage: Stage
    to_stage: Stage
    weight_percent: float
    asks: bool
    """A person must decide."""
    because: str
    who: str
    at: datetime

    @property
    def wakes(self) -> bool:
        """It is worth waking somebody for."""
        return self.asks or self.to_stage is Stage.ROLLED_BACK

    @property
    def headline(self) -> str:
        stage = self.to_stage.value.replace("_", " ")
        asks = ", a person must decide" if self.asks else ""
        return f"{self.project}: release {self.release_id} is {stage}{asks}"


def is_told(channel: Channel, from_stage: Stage, to_stage: Stage) -> bool:
    """Each change of state, and not each change of weight.  Whoever is paged hears only of what
    wakes, and of what ends it."""
    if from_stage is to_stage:
        return False
    if channel.service is not Service.PAGERDUTY:
        return True
    ended = (Stage.PROMOTED, Stage.HOLDBACK)
    wakes = to_stage in (Stage.ROLLED_BACK, Stage.HELD)
    return wakes or to_stage in ended or from_stage is Stage.HELD


FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(minutes=15)
# Later it is news to nobody.
TRIED_FOR = timedelta(days=1)


def next_attempt(begun: datetime, now: datetime, attempts: int) -> datetime | None:
    """When to try again after so many attempts that failed; None: not any more."""
    pause = min(FIRST_PAUSE * 2 ** min(attempts - 1, 20), LONGEST_PAUSE)
    later = now + pause
    return later if later - begun <= TRIED_FOR else None
