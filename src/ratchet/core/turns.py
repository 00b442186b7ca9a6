"""Turns and feedback: what a request and its answer become when they are kept.

A turn is put together from the bytes that went by, and scrubbed; who asked is kept only as a
digest, by which a person's turns can be found again and erased.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from ratchet.core.errors import Rejected
from ratchet.core.scrub import scrub, scrub_json
from ratchet.kit.digest import digest_bytes

CORRECTION_CHARACTERS_MAX = 100_000
COMMENT_CHARACTERS_MAX = 10_000
ID_CHARACTERS_MAX = 200


class LeftOut(Enum):
    """Why a request that was sampled did not become a turn."""

    FAILED = "failed"  # there was no answer worth keeping
    CUT = "cut"  # the client went, or the stream broke
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"  # not what the API's requests and answers look like
    NO_ROOM = "no_room"  # too many at once, or the disk's share is used up


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a gateway knows of a request besides its body."""

    request_id: str
    version: str
    conversation: str
    key_id: str
    principal: str
    sample: float
    """The share of requests that was sampled then: this one stands for 1/sample of them."""
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    project: str
    request_id: str
    version: str
    conversation: str
    key_id: str
    subjects: tuple[str, ...]
    """Digests of who asked."""
    messages: tuple[Mapping[str, Any], ...]
    """The prompt, as chat messages."""
    answer: Mapping[str, Any]
    """The first choice, as a chat message."""
    parameters: Mapping[str, Any]
    """All else that the request asked for: temperature, tools, ..."""
    finish_reason: str
    scrubbed: Mapping[str, int]
    """What was taken out, by kind."""
    sample: float
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What somebody said of an answer, or of a conversation."""

    project: str
    id: str
    """By who said what of what, so that saying it twice is saying it once."""
    request_id: str
    conversation: str
    key_id: str
    subjects: tuple[str, ...]
    score: float | None
    thumbs: str
    correction: str
    comment: str
    received_at: datetime


def subject_digest(project: str, subject: str) -> str:
    """A person as a turn remembers them.  Who has the name finds the digest; not the other way
    round, unless names can be guessed."""
    return digest_bytes(f"{project}\0{subject}".encode(errors="replace"))[:32]


def turn_of(project: str, seen: Seen, request: bytes, answer: bytes) -> Turn | LeftOut:
    """A turn of a whole request and its whole answer, JSON or event stream, scrubbed."""
    try:
        asked = _loads(request)
        said = _answer(answer)
        messages = _messages(asked)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return LeftOut.UNREADABLE
    if said is None:
        return LeftOut.CUT
    message, finish_reason = said
    counts: Counter[str] = Counter()
    people = dict.fromkeys(name for name in (seen.principal, _user(asked)) if name)
    rest = {k: v for k, v in asked.items() if k not in ("messages", "prompt", "user", "metadata")}
    return Turn(
        project=project,
        request_id=seen.request_id,
        version=seen.version,
        conversation=str(scrub_json(seen.conversation or _conversation(asked), counts)),
        key_id=seen.key_id,
        subjects=tuple(subject_digest(project, name) for name in people),
        messages=tuple(_clean(each, counts) for each in messages),
        answer=_clean(message, counts),
        parameters=_clean(rest, counts),
        finish_reason=finish_reason,
        scrubbed=dict(counts),
        sample=seen.sample,
        started_at=seen.started_at,
    )


def _loads(text: bytes | str) -> Any:
    """JSON as the standard has it: Python would also take NaN and 1e999."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse, parse_float=_finite)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _clean(value: Mapping[str, Any], counts: Counter[str]) -> dict[str, Any]:
    clean = scrub_json(value, counts)
    assert isinstance(clean, dict)
    return clean


def _user(asked: Mapping[str, Any]) -> str:
    user = asked.get("user")
    return user if isinstance(user, str) else ""


def _conversation(asked: Mapping[str, Any]) -> str:
    metadata = asked.get("metadata")
    named = metadata.get("conversation_id") if isinstance(metadata, Mapping) else None
    return named if isinstance(named, str) else ""


def _messages(asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "messages" in asked:
        messages = asked["messages"]
        if not isinstance(messages, list) or not messages:
            raise ValueError("messages")
        return [dict(message) for message in messages]
    prompt = asked["prompt"]
    if isinstance(prompt, list):
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise TypeError("prompt")
    return [{"role": "user", "content": prompt}]


def _answer(content: bytes) -> tuple[Mapping[str, Any], str] | None:
    """The message and why it ended; None for a stream that did not come to its end."""
    if not content.lstrip().startswith((b"data:", b":", b"event:")):
        choice = _loads(content)["choices"][0]
        message = choice.get("message") or {"role": "assistant", "content": choice["text"]}
        return message, choice.get("finish_reason") or ""
    events = [
        line[5:].strip() for line in content.decode().splitlines() if line.startswith("data:")
    ]
    if not events or events[-1] != "[DONE]":
        return None
    return _joined([_loads(event) for event in events[:-1]])


def _joined(events: list[Mapping[str, Any]]) -> tuple[Mapping[str, Any], str] | None:
    """A stream's chunks as one message."""
    texts: list[str] = []
    calls: dict[int, dict[str, Any]] = {}
    finish_reason = ""
    for event in events:
        if "error" in event:
            return None
        for choice in event.get("choices", []):
            if choice.get("index", 0) != 0:
                continue
            delta = choice.get("delta") or {"content": choice.get("text")}
            texts.append(delta.get("content") or "")
            for call in delta.get("tool_calls") or ():
                _add_call(calls.setdefault(call.get("index", 0), {}), call)
            finish_reason = choice.get("finish_reason") or finish_reason
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return message, finish_reason


def _add_call(known: dict[str, Any], part: Mapping[str, Any]) -> None:
    """One chunk of a tool call: names come whole, arguments in pieces."""
    for key in ("id", "type"):
        if part.get(key):
            known[key] = part[key]
    function = part.get("function") or {}
    if function:
        before = known.setdefault("function", {"name": "", "arguments": ""})
        before["name"] += function.get("name") or ""
        before["arguments"] += function.get("arguments") or ""


def feedback_of(
    project: str, body: bytes, key_id: str, principal: str, received_at: datetime
) -> Feedback:
    """Feedback as a client sent it, scrubbed.  Raises `Rejected` with what was expected."""
    try:
        said = _loads(body)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"the body is not JSON: {error}") from None
    if not isinstance(said, dict):
        raise Rejected("expected an object")
    known = {"request_id", "conversation_id", "score", "thumbs", "correction", "comment", "user"}
    if unknown := sorted(set(said) - known):
        raise Rejected(f"unknown field {unknown[0]!r}; there are {', '.join(sorted(known))}")
    texts = {name: _text(said, name, limit) for name, limit in _TEXTS.items()}
    if bool(texts["request_id"]) == bool(texts["conversation_id"]):
        raise Rejected("expected either request_id (the answer's x-request-id) or conversation_id")
    thumbs, score = said.get("thumbs"), said.get("score")
    if thumbs not in (None, "up", "down"):
        raise Rejected(f'thumbs: found {thumbs!r}, expected "up" or "down"')
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1
    ):
        raise Rejected(f"score: found {score!r}, expected a number from 0 to 1")
    if thumbs is None and score is None and not texts["correction"] and not texts["comment"]:
        raise Rejected("expected at least one of score, thumbs, correction, comment")
    people = dict.fromkeys(name for name in (principal, texts["user"]) if name)
    content = json.dumps([project, key_id, said], sort_keys=True)
    return Feedback(
        project=project,
        id=f"fb_{digest_bytes(content.encode())[:24]}",
        request_id=texts["request_id"],
        conversation=scrub(texts["conversation_id"])[0],
        key_id=key_id,
        subjects=tuple(subject_digest(project, name) for name in people),
        score=None if score is None else float(score),
        thumbs=thumbs or "",
        correction=scrub(texts["correction"])[0],
        comment=scrub(texts["comment"])[0],
        received_at=received_at,
    )


_TEXTS: Mapping[str, int] = {
    "request_id": ID_CHARACTERS_MAX,
    "conversation_id": ID_CHARACTERS_MAX,
    "user": ID_CHARACTERS_MAX,
    "correction": CORRECTION_CHARACTERS_MAX,
    "comment": COMMENT_CHARACTERS_MAX,
}


def _text(said: Mapping[str, Any], name: str, limit: int) -> str:
    value = said.get(name, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Rejected(f"{name}: found {type(value).__name__}, expected text")
    if len(value) > limit:
        raise Rejected(f"{name}: found {len(value)} characters, expected at most {limit}")
    if "\0" in value:
        raise Rejected(f"{name}: found a NUL character")
    return value
