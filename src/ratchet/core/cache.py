"""Which requests have one answer, and under what name it is kept.

An answer is kept for one version and one request, letter for letter in what matters; so a
promotion, a rollback or another sampling parameter asks the engine again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ratchet.kit.digest import digest_json

# Who asks and what for does not change what is answered.
_ASIDE = ("user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier")


def cache_key(project: str, version: str, path: str, body: bytes) -> str | None:
    """The name of a request's answer; None for one that may be answered differently every time.

    Deterministic is what asks for temperature 0, or gives a seed.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(asked, Mapping) or not _is_deterministic(asked):
        return None
    rest = {name: value for name, value in asked.items() if name not in _ASIDE}
    try:
        digest = digest_json([path, rest])
    except (UnicodeEncodeError, RecursionError):
        # Half a character: no engine would take it either.
        return None
    return f"ratchet:answer:{project}:{version}:{digest}"


def _is_deterministic(asked: Mapping[str, Any]) -> bool:
    temperature, seed = asked.get("temperature"), asked.get("seed")
    is_zero = not isinstance(temperature, bool) and temperature == 0
    return is_zero or (isinstance(seed, int) and not isinstance(seed, bool))


def is_worth_keeping(content_type: str, body: bytes) -> bool:
    """A whole answer: JSON, or a stream that came to its end without an error event."""
    if content_type.startswith("text/event-stream"):
        events = [line for line in body.splitlines() if line.startswith(b"data:")]
        is_over = bool(events) and events[-1].removeprefix(b"data:").strip() == b"[DONE]"
        return is_over and not any(line[5:].lstrip().startswith(b'{"error"') for line in events)
    if not content_type.startswith("application/json"):
        return False
    try:
        return "error" not in json.loads(body)
    except (ValueError, TypeError):
        return False
