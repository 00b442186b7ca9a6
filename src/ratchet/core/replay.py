"""A release judged again from what is on record: the same numbers, or other rules.

Evidence depends on the units, their order and what is known of each, and on nothing else.  So from
the evidence at the release's beginning and its units every verdict's numbers follow, bit for bit.
And the same units tell what another plan would have decided; not what users would then have sent,
because the weights are those that were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ratchet.core.analysis import still_to_show
from ratchet.core.evidence import (
    BLOCK_UNITS,
    SEGMENT_BLOCK_UNITS,
    Evidence,
    Unit,
    Values,
    count,
    first_evidence,
    observe,
    with_references,
)
from ratchet.core.findings import LOG_THRESHOLD, describe
from ratchet.core.guards import Group
from ratchet.core.scrapes import Sample
from ratchet.core.segments import dimension_of
from ratchet.core.shadow import Pair, shadowed
from ratchet.core.spec import ReleasePlan

# Enough for a block of a segment, however many stragglers are between.
AHEAD_UNITS = 5 * SEGMENT_BLOCK_UNITS


@dataclass(frozen=True, slots=True)
class Recorded:
    """A verdict as it was stored."""

    signal: str
    weight_percent: float
    because: str
    numbers: Mapping[str, float]
    watermarks: Mapping[Group, int]
    """How far each group's units were taken."""


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
    begun: Evidence,
    units: Mapping[Group, Sequence[Unit]],
    verdicts: Sequence[Recorded],
    pairs: Sequence[Pair | None] = (),
    samples: Sequence[Sample] = (),
) -> Iterator[Replayed]:
    """Every verdict again, in order; `pairs` are those of its shadow, `samples` what was counted
    elsewhere."""
    evidence = begun
    for verdict in verdicts:
        for group, until in verdict.watermarks.items():
            if group is Group.SCRAPED:
                evidence = count(evidence, samples, until=until)
                continue
            # Counts of the present weight are no part of a verdict's numbers.
            evidence = observe(evidence, units.get(group, ()), 0, group, until=until)
        replayed_pairs = int(verdict.numbers.get("shadow.pairs", 0.0))
        shown = shadowed(pairs[:replayed_pairs]).numbers() if replayed_pairs else {}
        yield Replayed(verdict, describe(evidence) | shown)


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What another plan would have decided first, and when."""

    decision: str
    """rolled back, promoted or undecided: no proof of harm, nor of safety where that is asked."""
    canary_units: int
    units: int


def otherwise(
    plan: ReleasePlan,
    begun: Evidence,
    units: Mapping[Group, Sequence[Unit]],
    samples: Sequence[Sample] = (),
) -> Otherwise:
    """The first proof under another plan on the same units: of harm, or, where a plan has a harm
    budget, of safety.  A plan with notches promotes by their length, which is not played; guards
    that this release did not have learn from its first units what is usual."""
    within: dict[str, Values] = {
        segment: {} for segment in begun.segment_names if dimension_of(segment) in plan.segments
    }
    first = first_evidence(plan, {}, begun.watermark, within)
    evidence = with_references(first, begun)
    decision = None
    last = max((some[-1].sequence for some in units.values() if some), default=0)
    steps = [unit.sequence for unit in units.get(Group.FAST, ())][BLOCK_UNITS - 1 :: BLOCK_UNITS]
    places = dict.fromkeys(evidence.streams, 0)
    for until in [*steps, last]:
        evidence = count(evidence, [s for s in samples if s.newest_unit <= until])
        for group in evidence.streams:
            some = units.get(group, ())
            while places[group] < len(some) and some[places[group]].sequence <= evidence.taken(
                group
            ):
                places[group] += 1
            ahead = some[places[group] : places[group] + AHEAD_UNITS]
            evidence = observe(evidence, ahead, 0, group, until=until)
        decision = _decision(plan, evidence)
        if decision is not None:
            break
    fast = evidence.fast.units
    return Otherwise(decision or "undecided", fast.canary_units, fast.units)


def _decision(plan: ReleasePlan, evidence: Evidence) -> str | None:
    if evidence.log_harm >= LOG_THRESHOLD:
        return "rolled back"
    if plan.harm_budget is None:
        return None
    return None if still_to_show(evidence) else "promoted"
