"""What the judge remembers of a release, and how units become part of it.

The unit is a conversation's first request under one weight (a request without a conversation is
its own).  Units come in the order in which they were assigned to an arm, and are taken in that
order: one whose answer has not ended keeps back those behind it, until it ends or its deadline
passes, when it counts as failed.  So neither a fast failure nor an answer that never comes moves a
unit from one block to another, and what is known never depends on when one looks.

Blocks are of twenty units and never span a change of weight; what is left when the weight changes
is a smaller block.  Segments of the traffic are judged in blocks ten times as long, and so on
evidence of their own: what is known at other times may not be averaged.  Only first attempts count:
what a retry saved was still a failure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from ratchet.core import meters, shadow
from ratchet.core.guards import ERRORS, LATENCY, Group, group_shares, weights_of
from ratchet.core.meters import Block, Meter, RateMeter, Tally
from ratchet.core.presence import Presence
from ratchet.core.routing import WEIGHT_TOTAL
from ratchet.core.scrapes import Sample, block_between
from ratchet.core.segments import Known, is_of
from ratchet.core.spec import ReleasePlan
from ratchet.stats.exchangeable import log_sum_exp
from ratchet.stats.split import SplitCheck

# Of each block: small enough to be there soon, large enough to hold both arms (blocks of two take
# twice as many canary answers to see a regression, of a hundred no fewer).
BLOCK_UNITS = 20
# Within segments, so that one of a tenth of the traffic still has twenty in a block.
SEGMENT_BLOCK_UNITS = 10 * BLOCK_UNITS
# A regression may begin late: capital is put in anew after so many units.
EPOCH_UNITS = 3_000
EPOCH_SAMPLES = 20
# Every record tells them.
NEVER_MISSING = (ERRORS.name, LATENCY.name, "ttft_p95")


@dataclass(frozen=True, slots=True)
class Unit:
    """One judged unit, as the gateway saw it."""

    sequence: int
    """Position in order of assignment."""
    is_canary: bool
    values: Mapping[str, float]
    """By guard; what is absent was not measured."""
    weight: int = 0
    """The canary's, of 10,000, when it was assigned."""
    revision: int = 0
    """Of the weights; never falls along the order, but for stragglers."""
    waiting_seconds: float | None = None
    """Since it was assigned, if its values are not known yet."""
    is_censored: bool = False
    """Its answer did not end in time."""
    known: Known = field(default_factory=dict)
    """What segments it is of."""


# Of a unit whose answer did not end in time.
CENSORED: Mapping[str, float] = {ERRORS.name: 1.0, LATENCY.name: math.inf, "ttft_p95": math.inf}


@dataclass(frozen=True, slots=True)
class Ready:
    """Units that can be judged, in order."""

    units: tuple[Unit, ...]
    censored: tuple[int, ...]
    """Sequences of those whose deadline passed; to be kept as such, whatever comes later."""


def ready(units: Sequence[Unit], deadline_seconds: float) -> Ready:
    """Units up to the first whose answer may still end in time."""
    taken: list[Unit] = []
    censored: list[int] = []
    for unit in units:
        if unit.waiting_seconds is None:
            taken.append(unit)
        elif unit.waiting_seconds > deadline_seconds:
            censored.append(unit.sequence)
            cut = replace(unit, values=CENSORED, waiting_seconds=None, is_censored=True)
            taken.append(cut)
        else:
            break
    return Ready(tuple(taken), tuple(censored))


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Guards whose values are known at the same time: one filtration."""

    meters: tuple[Meter, ...]
    watermark: int = 0
    """Sequence of the last unit that was taken."""
    revision: int = 0
    """Newest revision of weights that a unit was taken of."""
    units: Tally = field(default_factory=Tally)
    """All that were taken; of counters, how many samples."""
    stragglers: int = 0
    """Canary units of a revision that was over: seen by users, and not judged."""
    epochs: int = 0
    """Times that capital was put in anew."""
    presence: Mapping[str, Presence] = field(default_factory=dict)
    """Of guards whose values may be missing, by name."""

    @property
    def log_harm(self) -> float:
        weights = np.log(weights_of([meter.guard for meter in self.meters]))
        logs = np.array([meter.log_harm for meter in self.meters])
        return float(log_sum_exp(logs + weights))


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Everything the judge remembers of a release.  It is stored with the release.

    Two evidences of one release with the same watermarks are the same.
    """

    streams: Mapping[Group, Stream]
    segments: Mapping[Group, Stream] = field(default_factory=dict)
    """The same guards within each segment; empty where none is judged."""
    spent: float = 0.0
    """Of the error rate, what was bet before the first unit."""
    split: SplitCheck = field(default_factory=SplitCheck)
    censored: Tally = field(default_factory=Tally)
    """Of the fast units: those whose answer did not end in time."""
    notch_units: int = 0
    """Canary units at the current weight."""
    weight_units: int = 0
    """Of both arms, at the current weight."""

    @property
    def fast(self) -> Stream:
        return self.streams[Group.FAST]

    @property
    def presence(self) -> Mapping[str, Presence]:
        """Of all guards whose values may be missing."""
        return {
            name: each for stream in self.streams.values() for name, each in stream.presence.items()
        }

    @property
    def segment_names(self) -> tuple[str, ...]:
        stream = self.segments.get(Group.FAST)
        meters = () if stream is None else stream.meters
        return tuple(dict.fromkeys(meter.guard.segment for meter in meters))

    @property
    def watermark(self) -> int:
        return self.fast.watermark

    @property
    def log_harm(self) -> float:
        """ln of the evidence of harm, of what has most, against one limit for all."""
        shares = self.shares()
        return max(
            math.log(shares[group]) + stream.log_harm
            for streams in (self.streams, self.segments)
            for group, stream in streams.items()
        )

    def shares(self) -> Mapping[Group, float]:
        """Of the error rate, for each stream of a group: where segments are judged, they have as
        much as the whole."""
        left = (1.0 - self.spent) * (0.5 if self.segments else 1.0)
        by_group = group_shares([meter.guard for meter in self.meters])
        return {group: share * left for group, share in by_group.items()}

    def taken(self, group: Group) -> int:
        """Sequence of the last unit that everything of a group has taken."""
        marks = [some[group].watermark for some in (self.streams, self.segments) if group in some]
        return min(marks)

    @property
    def meters(self) -> tuple[Meter, ...]:
        """Of the whole."""
        return tuple(meter for stream in self.streams.values() for meter in stream.meters)

    def meter(self, label: str) -> Meter:
        """One guard's, of the whole or of a segment."""
        within = (meter for stream in self.segments.values() for meter in stream.meters)
        return next(m for m in (*self.meters, *within) if m.guard.label == label)


Values = Mapping[str, Sequence[float]]


def first_evidence(
    plan: ReleasePlan,
    baseline: Values,
    after: int = 0,
    segments: Mapping[str, Values] | None = None,
) -> Evidence:
    """As a release begins.  `baseline` are the baseline's newest values before it, by guard, and
    `segments` the same within each segment that is judged, too; units up to `after` are not the
    release's."""
    streams: dict[Group, Stream] = {}
    within: dict[Group, Stream] = {}
    for group in group_shares(plan.guards):
        guards = [guard for guard in plan.guards if guard.group is group]
        made = tuple(meters.fresh(guard, baseline.get(guard.name, ())) for guard in guards)
        if group is Group.SCRAPED:
            # Samples have an order of their own, from the release's first.
            streams[group] = Stream(made)
            continue
        may_miss = {g.name: Presence() for g in guards if g.name not in NEVER_MISSING}
        streams[group] = Stream(made, watermark=after, presence=may_miss)
        if segments:
            parts = tuple(
                meters.fresh(replace(guard, segment=segment), values.get(guard.name, ()))
                for segment, values in segments.items()
                for guard in guards
            )
            within[group] = Stream(parts, watermark=after)
    return Evidence(streams, within, 0.0 if plan.shadow is None else shadow.SHARE)


def observe(
    evidence: Evidence,
    units: Sequence[Unit],
    weight: int,
    group: Group = Group.FAST,
    *,
    until: int | None = None,
) -> Evidence:
    """Take units of one group in whole blocks; the rest waits for more.  Units that were taken are
    skipped.  `weight` is the present one, of 10,000, that counts are of; with `until`, no block is
    taken that ends behind that unit."""
    for block, stragglers in _blocks(evidence.streams[group], units, BLOCK_UNITS, until):
        evidence = _take(evidence, group, block, stragglers, weight)
    if group not in evidence.segments:
        return evidence
    within = evidence.segments[group]
    for block, stragglers in _blocks(within, units, SEGMENT_BLOCK_UNITS, until):
        within = _grown(within, block, stragglers)
    return replace(evidence, segments={**evidence.segments, group: within})


def count(evidence: Evidence, samples: Sequence[Sample], *, until: int | None = None) -> Evidence:
    """Take what was counted between samples that follow one another; with `until`, up to that
    sample.  Samples that were taken are skipped."""
    if Group.SCRAPED not in evidence.streams:
        return evidence
    stream = evidence.streams[Group.SCRAPED]
    for before, after in pairwise(samples):
        if until is not None and after.sequence > until:
            break
        if after.sequence > stream.watermark:
            stream = _counted(stream, before, after)
    # Counted from here on, although nothing was taken yet.
    first = samples[0].sequence if samples else 0
    if not stream.watermark and (until is None or first <= until):
        stream = replace(stream, watermark=first)
    return replace(evidence, streams={**evidence.streams, Group.SCRAPED: stream})


def _counted(stream: Stream, before: Sample, after: Sample) -> Stream:
    samples, measured, epochs = stream.units.units + 1, stream.meters, stream.epochs
    if samples >= (epochs + 1) * EPOCH_SAMPLES:
        measured, epochs = tuple(meter.begin_epoch() for meter in measured), epochs + 1
    grown = []
    for meter in measured:
        block = block_between(before, after, meter.guard.name)
        grown.append(meter if block is None else meter.observe(block))
    return replace(
        stream,
        meters=tuple(grown),
        watermark=after.sequence,
        revision=after.revision,
        units=Tally(samples),
        epochs=epochs,
    )


def _blocks(
    stream: Stream, units: Sequence[Unit], size: int, until: int | None
) -> Iterator[tuple[list[Unit], int]]:
    """Blocks that a stream has not taken and that do not end behind `until`, each with how many
    canary units between its own came too late to be in one."""
    revision = stream.revision
    block: list[Unit] = []
    # Before the block's last unit, and after it: those will be seen again with the next.
    inside, behind = 0, 0
    for unit in units:
        if unit.sequence <= stream.watermark:
            continue
        if unit.revision < max(revision, block[-1].revision if block else 0):
            behind += unit.is_canary
            continue
        is_whole = bool(block) and (unit.revision > block[-1].revision or len(block) == size)
        if is_whole and (until is None or block[-1].sequence <= until):
            yield block, inside
        if is_whole:
            revision, block, inside = block[-1].revision, [], 0
        block.append(unit)
        inside, behind = inside + behind, 0
    if len(block) == size and (until is None or block[-1].sequence <= until):
        yield block, inside


def _take(
    evidence: Evidence, group: Group, units: Sequence[Unit], stragglers: int, weight: int
) -> Evidence:
    stream = _grown(evidence.streams[group], units, stragglers)
    evidence = replace(evidence, streams={**evidence.streams, group: stream})
    if group is not Group.FAST:
        return evidence
    is_canary = np.array([unit.is_canary for unit in units])
    shown = int(is_canary.sum())
    cut = np.array([unit.is_censored for unit in units], dtype=np.float64)
    is_now = units[0].weight == weight
    return replace(
        evidence,
        split=evidence.split.observe(units[0].weight / WEIGHT_TOTAL, len(units), shown),
        censored=evidence.censored.add(cut, is_canary),
        notch_units=evidence.notch_units + shown * is_now,
        weight_units=evidence.weight_units + len(units) * is_now,
    )


def _block_of(stream: Stream, units: Sequence[Unit]) -> Block:
    guards = [meter.guard for meter in stream.meters]
    return Block(
        np.array([unit.is_canary for unit in units]),
        {
            name: np.array([unit.values.get(name, math.nan) for unit in units])
            for name in {guard.name for guard in guards}
        },
        units[0].weight / WEIGHT_TOTAL,
        {
            segment: np.array([is_of(unit.known, segment) for unit in units])
            for segment in {guard.segment for guard in guards}
        },
    )


def _grown(stream: Stream, units: Sequence[Unit], stragglers: int) -> Stream:
    block = _block_of(stream, units)
    measured, epochs = stream.meters, stream.epochs
    if stream.units.units >= (epochs + 1) * EPOCH_UNITS:
        measured, epochs = tuple(meter.begin_epoch() for meter in measured), epochs + 1
    return replace(
        stream,
        meters=tuple(meter.observe(block) for meter in measured),
        watermark=units[-1].sequence,
        revision=units[-1].revision,
        units=stream.units.add(np.zeros(len(units)), block.is_canary),
        stragglers=stream.stragglers + stragglers,
        epochs=epochs,
        presence=_present(stream, units, block),
    )


def _present(stream: Stream, units: Sequence[Unit], block: Block) -> Mapping[str, Presence]:
    """What failed has no other value, and is counted as that."""
    answered = np.array([not unit.values.get(ERRORS.name, 0.0) for unit in units])
    is_canary = block.is_canary[answered]
    return {
        name: presence.observe(np.isnan(block.values[name][answered]), is_canary)
        for name, presence in stream.presence.items()
    }


def with_references(evidence: Evidence, known: Evidence) -> Evidence:
    """With what another evidence knows of the baseline before the release."""
    references = {
        (meter.guard.label, meter.guard.kind): meter.reference
        for stream in (*known.streams.values(), *known.segments.values())
        for meter in stream.meters
        if not isinstance(meter, RateMeter)
    }

    def learned(meter: Meter) -> Meter:
        found = references.get((meter.guard.label, meter.guard.kind))
        if found is None or isinstance(meter, RateMeter):
            return meter
        return replace(meter, reference=found)

    def of_all(streams: Mapping[Group, Stream]) -> dict[Group, Stream]:
        return {
            group: replace(stream, meters=tuple(map(learned, stream.meters)))
            for group, stream in streams.items()
        }

    return replace(evidence, streams=of_all(evidence.streams), segments=of_all(evidence.segments))


def next_weight_begins(evidence: Evidence) -> Evidence:
    """Evidence as another weight begins: what was learned stays, the counts start again."""
    return replace(evidence, notch_units=0, weight_units=0)
