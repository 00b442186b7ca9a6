"""How each kind of guard is measured: evidence of harm, proof of none, and numbers for people.

A meter is what the judge remembers of one guard.  It is frozen; `observe` gives the next.  Values
that were not measured are not-a-number and left out, which is fair as long as whether a value is
missing does not depend on the arm; infinite ones are worst.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ratchet.core.guards import Guard, Kind
from ratchet.stats.betting import MARGINS, RegressionBound
from ratchet.stats.exchangeable import Floats
from ratchet.stats.harm import QUANTILES, Scale, Shift, Slower, YesNo, scale_of

Labels = NDArray[np.bool_]

# Baseline values needed before their spread means anything.  Fewer cost power, not validity.
REFERENCE_UNITS_MIN = 50
# Where the two ends of an interval are looked for, in shares of the metric's range.
_STEPS: Floats = np.geomspace(1e-3, 0.5, 10)
INTERVAL: Floats = np.concatenate((-_STEPS[::-1], _STEPS, [1.0]))
# Of the five quantiles, the one that a latency guard is named after.
P95 = 3
LOG_MAX = 700.0


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Units that were assigned one after the other with one weight."""

    is_canary: Labels
    """Shape (N,)."""
    values: Mapping[str, Floats]
    """By guard, shape (N,); not-a-number where nothing was measured."""
    share: float
    """Of the traffic that was to go to the canary, from 0 to 1."""
    members: Mapping[str, Labels] = field(default_factory=dict)
    """By segment, which units are of it, shape (N,)."""

    def of(self, guard: Guard) -> tuple[Floats, Labels]:
        """Values of one guard that were measured where it looks, and their labels."""
        values = self.values[guard.name]
        seen = ~np.isnan(values)
        if guard.segment:
            seen &= self.members[guard.segment]
        return values[seen], self.is_canary[seen]


@dataclass(frozen=True, slots=True)
class Tally:
    """Units and the sum of their values, of both arms together and of the canary alone."""

    units: int = 0
    canary_units: int = 0
    total: float = 0.0
    canary_total: float = 0.0

    def add(self, values: Floats, is_canary: Labels) -> Tally:
        return Tally(
            self.units + len(values),
            self.canary_units + int(is_canary.sum()),
            self.total + float(values.sum()),
            self.canary_total + float(values[is_canary].sum()),
        )

    @property
    def baseline_units(self) -> int:
        return self.units - self.canary_units

    @property
    def canary_mean(self) -> float:
        return self.canary_total / self.canary_units if self.canary_units else math.nan

    @property
    def baseline_mean(self) -> float:
        total = self.total - self.canary_total
        return total / self.baseline_units if self.baseline_units else math.nan


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """Canary minus baseline of a value from 0 to 1, bounded on both sides at all times."""

    above: RegressionBound
    below: RegressionBound
    """Of the other direction: one minus the value."""

    @classmethod
    def fresh(cls, margins: Floats = INTERVAL) -> Difference:
        return cls(RegressionBound.fresh((), margins), RegressionBound.fresh((), INTERVAL))

    def observe(self, values: Floats, is_canary: Labels, share: float) -> Difference:
        if not 0.0 < share < 1.0 or not len(values):
            return self
        return Difference(
            _observed(self.above, values, is_canary, share),
            _observed(self.below, 1.0 - values, is_canary, share),
        )

    def interval(self, risk: float) -> tuple[float, float]:
        return -float(self.below.upper(risk)), float(self.above.upper(risk))


def _observed(
    bound: RegressionBound, values: Floats, is_canary: Labels, share: float
) -> RegressionBound:
    arms = [values[is_canary], values[~is_canary]]
    sums = [(np.asarray(len(arm)), np.asarray(arm.sum(), dtype=np.float64)) for arm in arms]
    is_yes_or_no = bool(np.all((values == 0.0) | (values == 1.0)))
    each = None if is_yes_or_no else (arms[0], arms[1])
    return bound.observe(np.asarray(share), sums[0], sums[1], each)


@dataclass(frozen=True, slots=True, eq=False)
class RateMeter:
    """Bad or not: which arm did the bad ones come from?"""

    guard: Guard
    harm: YesNo = field(default_factory=YesNo.fresh)
    difference: Difference = field(default_factory=Difference.fresh)
    tally: Tally = field(default_factory=Tally)
    unit: float = 1.0

    @classmethod
    def fresh(cls, guard: Guard) -> RateMeter:
        margins = np.unique(np.append(MARGINS, guard.margin))
        return cls(guard, difference=Difference.fresh(margins))

    @property
    def log_harm(self) -> float:
        return float(self.harm.log_e)

    def log_safe(self) -> float:
        return _log_against(self.difference.above, self.guard.margin)

    def observe(self, block: Block) -> RateMeter:
        values, is_canary = block.of(self.guard)
        if not len(values):
            return self
        bad = values > 0.5
        rates = bad.astype(np.float64)
        return replace(
            self,
            harm=self.harm.observe_units(bad, is_canary),
            difference=self.difference.observe(rates, is_canary, block.share),
            tally=self.tally.add(rates, is_canary),
        )

    def begin_epoch(self) -> RateMeter:
        return replace(self, harm=self.harm.begin_epoch())


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The baseline's spread, frozen before anything is bet on it."""

    scale: Scale | None = None
    warming: tuple[float, ...] = ()
    """Baseline values gathered while there is no scale yet."""

    @classmethod
    def of(cls, values: Sequence[float], *, is_logarithmic: bool) -> Reference:
        """From the baseline's newest values before the release, if they are enough."""
        known = [value for value in values if math.isfinite(value)]
        if len(known) < REFERENCE_UNITS_MIN:
            return cls()
        return cls(scale_of(np.asarray(known, dtype=np.float64), is_logarithmic=is_logarithmic))

    def learn(self, values: Floats, is_canary: Labels, *, is_logarithmic: bool) -> Reference:
        """From a block that is not judged: the bets of a block must be fixed before it."""
        known = values[~is_canary & np.isfinite(values)]
        warming = (*self.warming, *map(float, known))
        warmed = Reference.of(warming, is_logarithmic=is_logarithmic)
        return warmed if warmed.scale else Reference(None, warming)


@dataclass(frozen=True, slots=True, eq=False)
class TimeMeter:
    """Higher is worse: half looks at the whole, half at the baseline's quantiles."""

    guard: Guard
    reference: Reference = field(default_factory=Reference)
    harm: Slower = field(default_factory=Slower.fresh)
    safe: Shift = field(default_factory=Shift.fresh)
    difference: Difference = field(default_factory=Difference.fresh)
    """Of the share that is above the baseline's p95."""
    tally: Tally = field(default_factory=Tally)
    """Of the same."""
    slow: tuple[Tally, ...] = tuple(Tally() for _ in QUANTILES)
    """Above each of the baseline's quantiles, after the tolerance."""
    unit: float = 1.0

    @property
    def log_harm(self) -> float:
        return float(self.harm.log_e)

    def log_safe(self) -> float:
        return float(self.safe.log_e)

    def observe(self, block: Block) -> TimeMeter:
        values, is_canary = block.of(self.guard)
        if not len(values):
            return self
        scale = self.reference.scale
        if scale is None:
            learned = self.reference.learn(values, is_canary, is_logarithmic=True)
            return replace(self, reference=learned)
        scores = scale.scores(_divided(values, is_canary, self.guard.tolerance))
        # Its time divided by one plus the margin: "not slower now" is "not slower by the margin".
        allowed = scale.scores(_divided(values, is_canary, self.guard.margin))
        bounds = np.array(scale.bounds)
        late = (scale.scores(values) > bounds[P95]).astype(np.float64)
        return replace(
            self,
            harm=self.harm.observe(scores, is_canary, bounds),
            safe=self.safe.observe(-allowed, is_canary),
            difference=self.difference.observe(late, is_canary, block.share),
            tally=self.tally.add(late, is_canary),
            slow=tuple(
                tally.add((scores > bound).astype(np.float64), is_canary)
                for tally, bound in zip(self.slow, bounds, strict=True)
            ),
        )

    def begin_epoch(self) -> TimeMeter:
        return replace(self, harm=self.harm.begin_epoch())


@dataclass(frozen=True, slots=True, eq=False)
class AmountMeter:
    """Heavy-tailed, as costs and lengths are: judged on a logarithmic scale, so that no cap and no
    variance is needed.  The interval is of values cut at the baseline's p99; the means are not."""

    guard: Guard
    reference: Reference = field(default_factory=Reference)
    more: Shift = field(default_factory=Shift.fresh)
    less: Shift = field(default_factory=Shift.fresh)
    """Only where less is as bad."""
    not_more: Shift = field(default_factory=Shift.fresh)
    not_less: Shift = field(default_factory=Shift.fresh)
    difference: Difference = field(default_factory=Difference.fresh)
    tally: Tally = field(default_factory=Tally)

    @property
    def unit(self) -> float:
        scale = self.reference.scale
        return math.nan if scale is None else scale.values()[-1]

    @property
    def log_harm(self) -> float:
        if not self.guard.is_two_sided:
            return float(self.more.log_e)
        return float(np.logaddexp(self.more.log_e, self.less.log_e)) - math.log(2.0)

    def log_safe(self) -> float:
        more = float(self.not_more.log_e)
        return min(more, float(self.not_less.log_e)) if self.guard.is_two_sided else more

    def observe(self, block: Block) -> AmountMeter:
        values, is_canary = block.of(self.guard)
        if not len(values):
            return self
        scale = self.reference.scale
        if scale is None:
            learned = self.reference.learn(values, is_canary, is_logarithmic=True)
            return replace(self, reference=learned)

        def scores(share: float) -> Floats:
            return scale.scores(_divided(values, is_canary, share))

        tolerance, margin = self.guard.tolerance, self.guard.margin
        # Nothing at all is the least there is, and no unknown.
        shown = np.clip(np.nan_to_num(values, posinf=np.inf, neginf=0.0) / self.unit, 0.0, 1.0)
        measured = replace(
            self,
            more=self.more.observe(scores(tolerance), is_canary),
            not_more=self.not_more.observe(-scores(margin), is_canary),
            difference=self.difference.observe(shown, is_canary, block.share),
            tally=self.tally.add(np.where(np.isfinite(values), values, self.unit), is_canary),
        )
        if not self.guard.is_two_sided:
            return measured
        # Less by the tolerance is multiplied back: 1 / (1 + t) of it is as much as it was.
        return replace(
            measured,
            less=self.less.observe(-scores(1.0 / (1.0 + tolerance) - 1.0), is_canary),
            not_less=self.not_less.observe(scores(1.0 / (1.0 + margin) - 1.0), is_canary),
        )

    def begin_epoch(self) -> AmountMeter:
        return replace(self, more=self.more.begin_epoch(), less=self.less.begin_epoch())


@dataclass(frozen=True, slots=True, eq=False)
class ScoreMeter:
    """From 0 to 1, lower is worse: a judge's or a person's opinion."""

    guard: Guard
    reference: Reference = field(default_factory=Reference)
    harm: Shift = field(default_factory=Shift.fresh)
    difference: Difference = field(default_factory=Difference.fresh)
    """Of the loss: one minus the score."""
    tally: Tally = field(default_factory=Tally)
    """Of the loss."""
    unit: float = 1.0

    @classmethod
    def fresh(cls, guard: Guard, reference: Reference) -> ScoreMeter:
        margins = np.unique(np.append(INTERVAL, guard.margin))
        return cls(guard, reference, difference=Difference.fresh(margins))

    @property
    def log_harm(self) -> float:
        return float(self.harm.log_e)

    def log_safe(self) -> float:
        return _log_against(self.difference.above, self.guard.margin)

    def observe(self, block: Block) -> ScoreMeter:
        scores, is_canary = block.of(self.guard)
        if not len(scores):
            return self
        loss = 1.0 - np.clip(scores, 0.0, 1.0)
        measured = replace(
            self,
            difference=self.difference.observe(loss, is_canary, block.share),
            tally=self.tally.add(loss, is_canary),
        )
        scale = self.reference.scale
        if scale is None:
            learned = self.reference.learn(loss, is_canary, is_logarithmic=False)
            return replace(measured, reference=learned)
        worse = np.where(is_canary, loss - self.guard.tolerance, loss)
        return replace(measured, harm=self.harm.observe(scale.scores(worse), is_canary))

    def begin_epoch(self) -> ScoreMeter:
        return replace(self, harm=self.harm.begin_epoch())


# One guard's evidence.  `tally` is of what was measured (a rate's values are one for bad);
# `difference` is for people, and one of it is `unit` of the value; `log_harm` is ln of the evidence
# that the canary is worse by more than the tolerance, `log_safe` that it is not by the margin.
Meter = RateMeter | TimeMeter | AmountMeter | ScoreMeter


def _divided(values: Floats, is_canary: Labels, share: float) -> Floats:
    return np.where(is_canary, values / (1.0 + share), values)


def _log_against(bound: RegressionBound, margin: float) -> float:
    """ln of the evidence against "worse by the margin or more".  Larger margins are excluded no
    later, because each one's capital is compared in order."""
    at = int(np.searchsorted(bound.margins, margin * (1.0 - 1e-12)))
    return float(bound.log_evidence()[at:].min())


def fresh(guard: Guard, baseline: Sequence[float]) -> Meter:
    """A meter as a release begins; `baseline` are the baseline's newest values before it."""
    if guard.kind is Kind.RATE:
        return RateMeter.fresh(guard)
    if guard.kind is Kind.SCORE:
        loss = [1.0 - value for value in baseline]
        return ScoreMeter.fresh(guard, Reference.of(loss, is_logarithmic=False))
    reference = Reference.of(baseline, is_logarithmic=True)
    if guard.kind is Kind.TIME:
        return TimeMeter(guard, reference)
    return AmountMeter(guard, reference)
