"""Users of the served model, played through the gateway with the official `openai` client.

Arrivals are random (Poisson) and do not wait for answers, as users do not wait for one another.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

from ratchet.kit.clock import monotonic_seconds

AT_ONCE_MAX = 64
ANSWER_SECONDS_MAX = 30.0
PROBES = 7
VERSION_HEADER = "x-ratchet-version"


@dataclass(slots=True)
class Tally:
    """What users saw, by the version that answered."""

    answered: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


class Users:
    """A stream of users with one question each, whose right answer is known.

    `rate` is users a second and may be changed at any time.
    """

    def __init__(
        self, url: str, key: str, model: str, rows: Sequence[dict[str, Any]], rate: float = 1.0
    ) -> None:
        self._client = openai.AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key=key,
            max_retries=0,
            timeout=ANSWER_SECONDS_MAX,
        )
        self._model, self._rows = model, rows
        self.rate = rate
        self._chance = random.Random(0)
        self._room = asyncio.Semaphore(AT_ONCE_MAX)
        self.tally = Tally()

    async def seconds_an_answer(self) -> float:
        """Median of a few, one after another."""
        seconds = []
        for row in self._rows[:PROBES]:
            began = monotonic_seconds()
            await self._room.acquire()
            await self._ask(row)
            seconds.append(monotonic_seconds() - began)
        return statistics.median(seconds)

    async def play(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._room.acquire()
                group.create_task(self._ask(self._chance.choice(self._rows)))
                await asyncio.sleep(self._chance.expovariate(self.rate))

    async def _ask(self, row: dict[str, Any]) -> None:
        messages, expected = row["messages"][:-1], row["messages"][-1]["content"]
        try:
            answer = await self._client.chat.completions.with_raw_response.create(
                model=self._model, messages=messages, max_tokens=4, temperature=0.0
            )
            version = answer.headers.get(VERSION_HEADER, "unknown")
            text = answer.parse().choices[0].message.content or ""
            self.tally.answered[version] += 1
            self.tally.right[version] += text.strip() == expected
        except openai.APIStatusError as error:
            version = error.response.headers.get(VERSION_HEADER, "no version")
            self.tally.failed[version] += 1
            self.tally.reasons[f"{error.status_code} {error.message[:80]}"] += 1
        except openai.APIError as error:
            self.tally.failed["no version"] += 1
            self.tally.reasons[type(error).__name__] += 1
        finally:
            self._room.release()


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
