"""Units as a gateway would give them, for tests of who judges them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ratchet.core.evidence import Unit
from ratchet.core.measures import Answer, measures

USUAL: Mapping[str, Sequence[float]] = {
    "latency_p95": [60.0 + number for number in range(100)],
    "ttft_p95": [60.0 + number for number in range(100)],
}


def answered(
    *, failed: bool = False, ms: float = 100.0, tokens: int | None = 10, usd: float | None = None
) -> Mapping[str, float]:
    """Values of an answer, as the gateway's record tells them."""
    return measures(
        Answer(failed=failed, first_byte_ms=ms, duration_ms=ms, completion_tokens=tokens,
               cost_usd=usd)
    )  # fmt: skip


def units(
    count: int,
    *,
    canary_every: int,
    canary_fails: bool = False,
    canary_ms: float = 100.0,
    after: int = 0,
    weight: int = 0,
    revision: int = 1,
    ms: Callable[[int], float] = lambda _: 100.0,
) -> list[Unit]:
    """Units of which every so many is the canary's; the baseline takes 100 ms and never fails."""
    found = []
    for number in range(after + 1, after + count + 1):
        is_canary = number % canary_every == 0
        took = canary_ms if is_canary and canary_ms != 100.0 else ms(number // canary_every)
        found.append(
            Unit(
                sequence=number,
                is_canary=is_canary,
                values=answered(failed=is_canary and canary_fails, ms=took),
                weight=weight or 10_000 // canary_every,
                revision=revision,
            )
        )
    return found


def drawn(
    chance: np.random.Generator,
    count: int,
    weight: int,
    rates: tuple[float, float] = (0.01, 0.01),
    *,
    slower: float = 1.0,
    after: int = 0,
    revision: int = 1,
) -> list[Unit]:
    """Units at random: baseline's and canary's rate of failures, log-normal times."""
    is_canary = chance.random(count) < weight / 10_000
    failed = chance.random(count) < np.where(is_canary, rates[1], rates[0])
    took = chance.lognormal(5.0, 0.4, count) * np.where(is_canary, slower, 1.0)
    return [
        Unit(after + place + 1, bool(c), answered(failed=bool(f), ms=float(ms)), weight, revision)
        for place, (c, f, ms) in enumerate(zip(is_canary, failed, took, strict=True))
    ]
