"""A model that scores answers: `check: judge`, over OpenAI's HTTP API.

It sees the conversation, the expected answer and the answer, and ends with a number from 0 to 10.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx

from ratchet.core.errors import Rejected
from ratchet.train.grading import Scorer

CALL_SECONDS_MAX = 120.0
# A judge that is busy, or away for a moment, is asked again: 2 + 4 + 8 + 16 + 32 seconds.
TRIES, PAUSE_SECONDS = 6, 2.0
MARKS_MAX = 10.0
TOKENS_MAX = 512
RUBRIC = (
    "10: as good as the expected answer in every respect. 5: partly right. 0: wrong, empty, or "
    "about something else. Wording does not matter where the meaning is the same."
)
PROMPT = """\
You grade the answer of another model. Do not answer the conversation yourself.

Conversation:
{conversation}

Expected answer:
{expected}

Answer to grade:
{answer}

How to grade: {rubric}
Say in one sentence why, then end with a line `score: N`, where N is from 0 to 10."""


@contextmanager
def judge(suite: str, how: dict[str, Any]) -> Iterator[Scorer]:
    """The check of a suite as long as it is needed; may be called from several threads.

    A score raises `Rejected` when the judge refuses, stays away, or gives no number.
    """
    headers = {}
    if name := how.get("key", ""):
        key = os.environ.get(name[1:], "")  # noqa: TID251 - a name that the suite gives
        if not key:
            raise Rejected(f"suite {suite}: judge.key: {name} is not set where workers run")
        headers["authorization"] = f"Bearer {key}"
    with httpx.Client(headers=headers, timeout=CALL_SECONDS_MAX) as client:

        def score(answer: str, row: dict[str, Any]) -> float:
            body = {
                "model": how["model"],
                "messages": [{"role": "user", "content": question(answer, row, how)}],
                "temperature": 0.0,
                "max_tokens": TOKENS_MAX,
            }
            said = _asked(client, f"{how['url'].rstrip('/')}/chat/completions", body, suite)
            marks = re.findall(r"score\W{0,5}(\d+(?:\.\d+)?)", said, re.IGNORECASE)
            if not marks or float(marks[-1]) > MARKS_MAX:
                raise Rejected(
                    f"suite {suite}: its judge gave no `score: N` from 0 to 10: {said[-200:]!r}"
                )
            return float(marks[-1]) / MARKS_MAX

        yield score


def question(answer: str, row: dict[str, Any], how: dict[str, Any]) -> str:
    """What a judge is asked of one answer."""
    *before, last = row["messages"]
    conversation = "\n".join(f"{each['role']}: {each['content']}" for each in before)
    return PROMPT.format(
        conversation=conversation,
        expected=last["content"],
        answer=answer,
        rubric=how.get("rubric") or RUBRIC,
    )


def _asked(client: httpx.Client, url: str, body: dict[str, Any], suite: str) -> str:
    fault = ""
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE_SECONDS * 2 ** (number - 1))
        try:
            answer = client.post(url, json=body)
        except httpx.TransportError as error:
            fault = repr(error)
            continue
        if answer.status_code in (408, 409, 429) or answer.status_code >= 500:
            fault = f"{answer.status_code}: {answer.text[:200]}"
            continue
        if answer.status_code >= 400:
            raise Rejected(
                f"suite {suite}: its judge at {url} refused: {answer.status_code} "
                f"{answer.text[:200]}"
            )
        try:
            return str(answer.json()["choices"][0]["message"]["content"] or "")
        except (json.JSONDecodeError, LookupError, TypeError) as error:
            raise Rejected(
                f"suite {suite}: its judge at {url} speaks another API: {answer.text[:200]}"
            ) from error
    raise Rejected(f"suite {suite}: its judge at {url} does not answer: {fault}")
