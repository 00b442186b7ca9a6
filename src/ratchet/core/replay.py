"""A release judged again from what is on record: the same numbers, or other rules.

Evidence depends on the units, their order and the weights, and on nothing else.  So from the
evidence at the release's beginning and the units of each weight every verdict's numbers follow, bit
for bit.  And the same units tell what another plan would have decided; not what users would then
have sent, because the weights are those that were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ratchet.core.analysis import (
    BLOCK_UNITS,
    LOG_THRESHOLD,
    Evidence,
    Safety,
    Unit,
    describe,
    next_weight_begins,
    observe,
    still_to_show,
)
from ratchet.core.spec import ReleasePlan


@dataclass(frozen=True, slots=True)
class Recorded:
    """A verdict as it was stored."""

    signal: str
    weight_percent: float
    because: str
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class AtWeight:
    """Units of one weight (of 10,000), in order of arrival."""

    weight: int
    units: Sequence[Unit]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A verdict and what comes out now."""

    recorded: Recorded
    numbers: Mapping[str, float]

    @property
    def differences(self) -> list[str]:
        """Names of numbers that are not the same, bit for bit."""
        known = self.recorded.numbers
        return sorted(name for name in known if self.numbers.get(name) != known[name])


def replay(
    plan: ReleasePlan,
    begun: Evidence,
    history: Sequence[AtWeight],
    verdicts: Sequence[Recorded],
) -> Iterator[Replayed]:
    """Every verdict again, in order."""
    evidence, weights, now = begun, iter(history), AtWeight(0, ())
    before = 0.0
    for verdict in verdicts:
        evidence = _up_to(evidence, now, plan, _units_seen(verdict))
        found = {k: v for k, v in describe(evidence).items() if math.isfinite(v)}
        yield Replayed(verdict, found)
        if verdict.weight_percent != before:
            evidence = next_weight_begins(evidence)
            if 0 < verdict.weight_percent < 100:
                now = next(weights, AtWeight(0, ()))
        before = verdict.weight_percent


def _units_seen(verdict: Recorded) -> int:
    return int(verdict.numbers["canary_units"] + verdict.numbers["baseline_units"])


def _up_to(evidence: Evidence, now: AtWeight, plan: ReleasePlan, total: int) -> Evidence:
    """Take units until so many were taken in all, or there are no more."""
    wanted = total - evidence.failed.units
    fresh = [unit for unit in now.units if unit.sequence > evidence.watermark]
    return observe(evidence, fresh[: max(0, wanted)], plan.latency_margin, now.weight)


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What another plan would have decided first, and when."""

    decision: str
    """rolled back, promoted or undecided: no proof of harm, nor of safety where that is asked."""
    canary_units: int
    units: int


def otherwise(plan: ReleasePlan, begun: Evidence, history: Sequence[AtWeight]) -> Otherwise:
    """The first proof under another plan on the same units: of harm, or, where a plan has a harm
    budget, of safety.  A plan with notches promotes by their length, which is not played."""
    safety = None if plan.harm_budget is None else Safety.against(plan.errors_margin)
    evidence = Evidence(scale=begun.scale, watermark=begun.watermark, safety=safety)
    for part in history:
        for start in range(0, len(part.units), BLOCK_UNITS):
            block = part.units[start : start + BLOCK_UNITS]
            evidence = observe(evidence, block, plan.latency_margin, part.weight)
            decision = _decision(plan, evidence)
            if decision is not None:
                return Otherwise(decision, evidence.failed.canary_units, evidence.failed.units)
    return Otherwise("undecided", evidence.failed.canary_units, evidence.failed.units)


def _decision(plan: ReleasePlan, evidence: Evidence) -> str | None:
    if evidence.log_e >= LOG_THRESHOLD:
        return "rolled back"
    safety = evidence.safety
    if safety is None:
        return None
    return None if still_to_show(plan, evidence.failed, safety) else "promoted"
