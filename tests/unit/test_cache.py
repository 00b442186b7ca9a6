"""Which answers may be given again, and the breaker in front of what keeps them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ratchet.core.cache import cache_key, is_worth_keeping
from ratchet.kit.breaker import Breaker

ASKED = {"model": "m", "messages": [{"role": "user", "content": "ä"}], "temperature": 0}


def key(version: str = "v_1", path: str = "/v1/chat/completions", **more: Any) -> str | None:
    return cache_key("shop", version, path, json.dumps({**ASKED, **more}).encode())


def test_the_same_request_has_the_same_name_whoever_sends_it() -> None:
    body = json.dumps(dict(reversed(ASKED.items())), indent=2, ensure_ascii=False).encode()

    assert key() == key(user="ana", metadata={"a": "b"})
    assert key() == cache_key("shop", "v_1", "/v1/chat/completions", body)


@pytest.mark.parametrize(
    "other",
    [
        {"version": "v_2"},
        {"path": "/v1/completions"},
        {"stream": True},
        {"max_tokens": 5},
        {"seed": 1},
        {"model": "n"},
        {"tools": []},
    ],
)
def test_what_may_be_answered_differently_has_another_name(other: dict[str, Any]) -> None:
    assert key(**other) not in (None, key())


@pytest.mark.parametrize(
    "body",
    [
        {"temperature": 0.1},
        {"temperature": None},
        {"temperature": False},
        {"temperature": 1, "seed": None},
        {"temperature": 1, "seed": True},
        {"temperature": "0"},
    ],
)
def test_what_is_not_deterministic_has_none(body: dict[str, Any]) -> None:
    assert key(**body) is None


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"[" * 100_000, b'{"temperature": 0, "a": "\\ud800"}']
)
def test_what_cannot_be_read_has_none(body: bytes) -> None:
    assert cache_key("shop", "v_1", "/v1/completions", body) is None


@pytest.mark.parametrize(
    ("kind", "body", "worth"),
    [
        ("application/json", b'{"choices": []}', True),
        ("application/json; charset=utf-8", b"{}", True),
        ("application/json", b'{"error": {}}', False),
        ("application/json", b'{"cho', False),
        ("application/json", b"7", False),
        ("text/plain", b"hello", False),
        ("text/event-stream", b'data: {"a": 1}\n\ndata: [DONE]\n\n', True),
        ("text/event-stream; charset=utf-8", b"data: [DONE]\n\n", True),
        ("text/event-stream", b'data: {"a": 1}\n\n', False),
        ("text/event-stream", b'data: {"error": {}}\n\ndata: [DONE]\n\n', False),
        ("text/event-stream", b"", False),
    ],
)
def test_only_whole_good_answers_are_worth_keeping(kind: str, body: bytes, worth: bool) -> None:
    assert is_worth_keeping(kind, body) is worth


def test_a_breaker_rests_after_failures_in_a_row_and_lets_one_try() -> None:
    now = [0.0]
    breaker = Breaker(failures_max=2, rest_seconds=5.0, now=lambda: now[0])

    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()
    now[0] = 5.0
    assert breaker.allows()
    # The others go on resting until it is known how that one fared.
    assert not breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
