"""What a shadow needs: prompts, a canary that answers them, and a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ratchet.core.rollout import Release, ReleaseId
from ratchet.core.routing import Endpoint
from ratchet.core.shadow import Pair, PairJudge, Preference


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A captured turn that is replayed."""

    position: int
    request_id: str
    messages: tuple[Mapping[str, Any], ...]
    """Empty when the turn is gone: erased, or older than turns are kept."""
    answer: Mapping[str, Any]
    """The baseline's."""
    parameters: Mapping[str, Any]
    correction: str | None = None
    """Set: no prompt for the canary, but what a person would have wanted instead."""


class ShadowStore(Protocol):
    """A release's prompts are chosen with the verdict that begins its shadow."""

    async def next_prompts(self, release: Release, limit: int) -> list[Prompt]:
        """The first that are not compared yet; those of people before the canary's."""

    async def put(self, release_id: ReleaseId, prompt: Prompt, pair: Pair) -> None:
        """By release and prompt: what was said first stays."""

    async def pairs(self, release_id: ReleaseId) -> list[Pair | None]:
        """In their order; None is not compared yet."""

    async def corrections(self, release_id: ReleaseId) -> list[Pair | None]:
        """The same of what people corrected: better, where the judge agrees with them."""

    async def put_problem(self, release_id: ReleaseId, problem: str) -> None:
        """Why it waits; empty when it does not."""

    async def preference(self, digest: str) -> Preference | None:
        """What a judge said before."""

    async def put_preference(self, digest: str, said: Preference, now: datetime) -> None:
        """By digest."""


class Answerer(Protocol):
    async def answer(self, place: Endpoint, model: str, prompt: Prompt) -> Mapping[str, Any]:
        """The first choice's message.  Raises `Unavailable` where there is none."""


class Judges(Protocol):
    async def prefer(
        self, judge: PairJudge, messages: Sequence[Mapping[str, Any]], first: str, second: str
    ) -> Preference:
        """Which of two answers is better.  Raises `Unavailable`, also for an answer that is
        none."""
