"""What is measured of one answer, by guard: from the gateway's record of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ratchet.core.guards import ERRORS, LATENCY


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that has ended, as the gateway saw it."""

    failed: bool
    first_byte_ms: float
    duration_ms: float
    completion_tokens: int | None
    """None: it told none."""
    cost_usd: float | None
    """None: it was not settled."""


def measures(answer: Answer) -> Mapping[str, float]:
    """Values of all guards that the record itself tells; absent: cannot be known.

    A failure is slower than anything, as it never gave an answer; it has no length.
    """
    if answer.failed:
        return {ERRORS.name: 1.0, LATENCY.name: math.inf, "ttft_p95": math.inf}
    known = {
        ERRORS.name: 0.0,
        LATENCY.name: answer.duration_ms,
        "ttft_p95": answer.first_byte_ms,
    }
    if answer.completion_tokens is not None:
        known["length"] = float(answer.completion_tokens)
        # Time for a token, so that more is worse.
        known["tokens_per_second"] = answer.duration_ms / max(answer.completion_tokens, 1)
    if answer.cost_usd is not None:
        known["cost"] = answer.cost_usd
    return known


def by_guard(answers: Sequence[Answer]) -> Mapping[str, Sequence[float]]:
    """Values of several answers, gathered by guard."""
    found: dict[str, list[float]] = {}
    for answer in answers:
        for name, value in measures(answer).items():
            found.setdefault(name, []).append(value)
    return found
