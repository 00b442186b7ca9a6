"""What asks for a run by itself: a merge, a schedule, enough new feedback.

Every trigger ends as a run with a key, so that one that is told twice, or by two ways, is one run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from itertools import takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from ratchet.core.errors import Rejected
from ratchet.kit.digest import digest_bytes

# Late by more than this, a schedule was missed: nobody was there.
MISSED_SECONDS = 300.0
# How far back a schedule is looked through for what was missed.
CATCH_UP_MAX = timedelta(days=31)
BY_HAND = ("person", "api")


class Concurrency(Enum):
    """What a new run does about one that goes on."""

    QUEUE = "queue"
    REPLACE = "replace"
    SKIP = "skip"


class CatchUp(Enum):
    """What to do about times at which nobody was there."""

    LAST = "last"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """A branch that moved."""

    branch: str = "main"
    paths: tuple[str, ...] = ()
    """Only when one of these changed; empty: whatever changed."""
    secret_variable: str = ""
    """Of webhooks, as a name in the environment."""
    poll_seconds: float | None = None
    """Set: the repository is asked, for where no webhook can be sent."""
    settle_seconds: float = 10.0
    """Merges that follow each other sooner are one run of the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Times of a clock on a wall."""

    cron: str
    timezone: str = "UTC"
    jitter_seconds: float = 0.0
    """Each time is put off by a part of this, so that not everybody starts at once."""
    catch_up: CatchUp = CatchUp.LAST

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise Rejected(
                f"timezone {self.timezone!r} is not known: like Europe/Berlin"
            ) from error
        try:
            first = next(CronSim(self.cron, datetime(2026, 1, 1, tzinfo=UTC)), None)
        except CronSimError as error:
            raise Rejected(f"cron {self.cron!r}: {error}: expected like '0 3 * * 1'") from error
        if first is None:
            raise Rejected(f"cron {self.cron!r}: there is no such time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggers:
    """All of a project's."""

    repository: str = ""
    """Where its Git repository is; empty: runs read the registered folder."""
    spec_path: str = "ratchet.yaml"
    """Of the spec within the repository."""
    token_variable: str = ""
    """What reads the repository and sets commit statuses, as a name in the environment."""
    report: str = ""
    """Base url of the API that takes commit statuses; empty: nobody is told."""
    merge: Merge | None = None
    schedule: Schedule | None = None
    feedback: int | None = None
    """New feedback since the last run that asks for another."""
    concurrency: Concurrency = Concurrency.QUEUE

    @property
    def branch(self) -> str:
        return self.merge.branch if self.merge is not None else "main"

    def __post_init__(self) -> None:
        if self.merge is not None and not self.repository:
            raise Rejected("triggers.merge: needs triggers.repository: which one is merged into?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """A branch moved, as somebody's webhook says or as the repository was found."""

    repository: str
    branch: str
    before: str
    """Commit that was the branch's; empty where it is not known."""
    after: str
    who: str

    @property
    def key(self) -> str:
        """Of the run: one for a commit, whoever tells of it."""
        return commit_key(self.after)


def commit_key(commit: str) -> str:
    return f"commit-{commit[:40]}"


def same_repository(one: str, other: str) -> bool:
    """Whether two urls name one repository: https, ssh and scp forms, with or without .git."""
    return _plain_url(one) == _plain_url(other)


def _plain_url(url: str) -> str:
    plain = re.sub(r"^[a-z+]+://", "", url.strip(), flags=re.IGNORECASE)
    plain = re.sub(r"^[^@/]*@", "", plain)
    plain = re.sub(r"^([^/:]+):(?!\d+/)", r"\1/", plain)
    return plain.removesuffix("/").removesuffix(".git").lower()


def is_about(patterns: Sequence[str], changed: Iterable[str] | None) -> bool:
    """Whether one of the changed paths is meant.  Unknown changes are."""
    if not patterns or changed is None:
        return True
    return any(_pattern(pattern).fullmatch(path) for path in changed for pattern in patterns)


@lru_cache(maxsize=1_000)
def _pattern(pattern: str) -> re.Pattern[str]:
    """A path filter as GitHub's workflows have it: `*` within a folder, `**` across."""
    parts = {
        "**/": "(?:.*/)?",
        "**": ".*",
        "*": "[^/]*",
        "?": "[^/]",
    }
    found = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(parts.get(part, re.escape(part)) for part in found))


def due(schedule: Schedule, since: datetime, now: datetime) -> datetime | None:
    """The latest time of a schedule after `since` that has come, if a run is wanted for it."""
    times = _times(schedule, max(since, now - CATCH_UP_MAX))
    come = takewhile(lambda at: at + jitter(schedule, at) <= now, times)
    catches_up = schedule.catch_up is CatchUp.LAST
    wanted = [at for at in come if catches_up or not _is_missed(at + jitter(schedule, at), now)]
    return wanted[-1] if wanted else None


def _is_missed(starts: datetime, now: datetime) -> bool:
    return (now - starts).total_seconds() > MISSED_SECONDS


def next_time(schedule: Schedule, now: datetime) -> datetime:
    """When it is due next."""
    times = _times(schedule, now - timedelta(seconds=schedule.jitter_seconds))
    return next(starts for at in times if (starts := at + jitter(schedule, at)) > now)


def _times(schedule: Schedule, since: datetime) -> Iterator[datetime]:
    zone = ZoneInfo(schedule.timezone)
    return (at.astimezone(UTC) for at in CronSim(schedule.cron, since.astimezone(zone)))


def jitter(schedule: Schedule, at: datetime) -> timedelta:
    """By the time itself, so that it is the same at every look."""
    digest = digest_bytes(f"{schedule.cron} {at.isoformat()}".encode())
    return timedelta(seconds=schedule.jitter_seconds * (int(digest[:8], 16) / 16**8))


@dataclass(frozen=True, slots=True)
class Standing:
    """A run that has not ended, as a new one needs to know it."""

    run_id: str
    kind: str
    is_queued: bool
    is_released: bool = False
    """Its version is on its way to users."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What to do about a new run."""

    supersedes: tuple[str, ...] = ()
    """Queued runs that the new one stands for, too."""
    cancels: tuple[str, ...] = ()
    """Running ones that it replaces."""
    skipped_for: str = ""
    """Set: the new one is not wanted because of this one."""


def enter(kind: str, standing: Sequence[Standing], concurrency: Concurrency) -> Entry:
    """How a run that a trigger asks for joins those that have not ended.

    A newer merge stands for older ones that wait.  What somebody asks for by hand or through the
    API is always queued.
    """
    if kind in BY_HAND:
        return Entry()
    waiting = tuple(each.run_id for each in standing if each.is_queued and each.kind == kind)
    if kind == "merge" or concurrency is Concurrency.REPLACE:
        entry = Entry(supersedes=waiting)
    elif waiting:
        return Entry(skipped_for=waiting[0])
    else:
        entry = Entry()
    running = [each for each in standing if not each.is_queued]
    if concurrency is Concurrency.SKIP and running:
        return Entry(skipped_for=running[0].run_id)
    if concurrency is Concurrency.REPLACE:
        # What users already meet is decided by its evidence, not by a newer wish.
        cancels = tuple(
            each.run_id for each in running if not each.is_released and each.kind not in BY_HAND
        )
        return Entry(supersedes=entry.supersedes, cancels=cancels)
    return entry
