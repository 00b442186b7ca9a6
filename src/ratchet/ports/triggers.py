"""What is needed to hear triggers: repositories, what was heard, and where each has come to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Protocol

from ratchet.core.artifact import RunId
from ratchet.core.spec import Spec
from ratchet.core.triggers import Push, Standing, Triggers


class Heard(Enum):
    """What became of something that was heard."""

    WAITING = "waiting"
    STARTED = "started"
    LEFT = "left"  # it is about nothing that a model is made of, or a run is not wanted
    REFUSED = "refused"  # there is something wrong with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    project: str
    push: Push
    source: str
    """Who told: `github`, `gitlab`, `poll`."""
    heard_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A project with its triggers, and the spec file that runs without a repository read."""

    project: str
    triggers: Triggers
    spec_file: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Untold:
    """A commit whose status is not what became of it."""

    project: str
    run_id: RunId | None
    """None where it was refused before there was a run."""
    triggers: Triggers
    commit: str
    state: str
    """Of the run; `failed` where there is none."""
    because: str


class TriggerStore(Protocol):
    async def watched(self) -> list[Watched]:
        """All projects."""

    async def hear(self, delivery: Delivery) -> bool:
        """By project and commit; False when it was heard before."""

    async def waiting(self) -> list[Delivery]:
        """What was heard and not dealt with, the oldest first."""

    async def settle(
        self, delivery: Delivery, heard: Heard, because: str, run_id: RunId | None, now: datetime
    ) -> None:
        """By project and commit."""

    async def mark(self, project: str, name: str) -> tuple[datetime, str] | None:
        """Where a trigger has come to: when, and a word of its own."""

    async def put_mark(self, project: str, name: str, at: datetime, word: str) -> None:
        """By project and name."""

    async def run_of(self, project: str, key: str) -> RunId | None:
        """The run that was asked for by a key."""

    async def standing(self, project: str) -> list[Standing]:
        """Runs that have not ended, the oldest first."""

    async def feedback_since_run(self, project: str) -> tuple[int, str]:
        """Feedback that came since the last run was asked for, and that run's id."""

    async def live_sources(self) -> list[Path]:
        """Folders of runs that have not ended."""

    async def untold(self, since: datetime) -> list[Untold]:
        """Some that were asked for since, the oldest first."""

    async def told(self, untold: Untold) -> None:
        """By run, or by project and commit."""


class Repositories(Protocol):
    async def newest(self, triggers: Triggers) -> str:
        """The commit of the branch, fetched.  Raises `Unavailable`, or `Rejected` if there is no
        such branch."""

    async def changed(self, triggers: Triggers, before: str, after: str) -> tuple[str, ...] | None:
        """Paths that differ between two commits; None when that cannot be told."""

    async def checkout(self, triggers: Triggers, commit: str) -> Path:
        """A folder with the files of a commit.  By commit.  Raises `NotFound`."""

    async def forget(self, keep: Collection[Path], now: datetime) -> int:
        """Drop checkouts that are a day old and that are not in `keep`; answers how many."""


class SpecReader(Protocol):
    async def read(self, path: Path) -> Spec:
        """Raises `Rejected` with every problem on a line of its own."""


class Forge(Protocol):
    async def tell(self, untold: Untold, url: str) -> None:
        """Set a commit's status, with a link.  By commit.  Raises `Unavailable`, and `Rejected`
        for what never will be taken."""
