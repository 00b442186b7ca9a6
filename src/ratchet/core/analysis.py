"""The live judge: evidence in, verdict with `because` out.

The unit is a conversation's first request at a notch (a request without a conversation is its
own).  Units enter in the order in which their records arrived, in blocks that never span a change
of weight; inside a notch every unit was assigned with the same probability, so any grouping that
is blind to the arm keeps the labels exchangeable.  Only first attempts count: what a retry saved
was still a failure.

Guarded are errors and latency, each an e-process (`stats.harm`): errors as a yes-or-no metric;
latency half as a whole and half as "slower than the p50, p75, p90, p95, p99 of the baseline before
the release", after the canary's time is divided by one plus the margin.  Both share one filtration,
so they are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ratchet.core.rollout import Release, Signal, Stage
from ratchet.core.spec import ReleasePlan
from ratchet.stats.exchangeable import SCORE_MAX
from ratchet.stats.harm import QUANTILES, Scale, Slower, YesNo, scale_of

# Chance that a release which is no worse is ever rolled back.
FALSE_ROLLBACK_RATE = 0.01
LOG_THRESHOLD = math.log(1.0 / FALSE_ROLLBACK_RATE)
# Evidence this strong is no proof, but reason enough not to show the canary to more people.
LOG_YELLOW = math.log(3.0)
# Baseline answers needed before their spread means anything.  Fewer cost power, not validity.
REFERENCE_UNITS_MIN = 50
BLOCK_UNITS_MAX = 100
# A regression may begin late: capital is put in anew after so many units.
EPOCH_UNITS = 3_000


@dataclass(frozen=True, slots=True)
class Unit:
    """One judged unit, as the gateway saw it."""

    sequence: int
    """Position in order of arrival."""
    is_canary: bool
    failed: bool
    duration_ms: float


@dataclass(frozen=True, slots=True)
class Tally:
    """Units and bad ones, of both arms together and of the canary alone."""

    units: int = 0
    canary_units: int = 0
    bad: int = 0
    canary_bad: int = 0

    def add(self, bad: NDArray[np.bool_], is_canary: NDArray[np.bool_]) -> Tally:
        return Tally(
            self.units + len(bad),
            self.canary_units + int(is_canary.sum()),
            self.bad + int(bad.sum()),
            self.canary_bad + int((bad & is_canary).sum()),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Everything the judge remembers of a release.  It is stored with the release.

    Two evidences of one release with the same watermark are the same.
    """

    errors: YesNo = field(default_factory=YesNo.fresh)
    latency: Slower = field(default_factory=Slower.fresh)
    failed: Tally = field(default_factory=Tally)
    slow: tuple[Tally, ...] = tuple(Tally() for _ in QUANTILES)
    """Slower than each of the baseline's quantiles."""
    scale: Scale | None = None
    """Of the baseline's durations, frozen; None until enough were seen."""
    warming_ms: tuple[float, ...] = ()
    """Baseline durations gathered while there is no scale yet."""
    watermark: int = 0
    """Sequence of the last unit that was taken."""
    notch_units: int = 0
    """Canary units at the current notch."""
    epochs: int = 0
    """Times that capital was put in anew."""

    @property
    def log_e(self) -> float:
        """ln of the evidence of harm: half errors, half latency."""
        halves = np.logaddexp(self.errors.log_e, self.latency.log_e)
        return float(halves) - math.log(2.0)

    @property
    def log_e_errors(self) -> float:
        return float(self.errors.log_e)

    @property
    def log_e_latency(self) -> float:
        return float(self.latency.log_e)


def freeze_reference(durations_ms: Sequence[float]) -> Scale | None:
    """The baseline's spread, or nothing when there are too few answers to have one."""
    if len(durations_ms) < REFERENCE_UNITS_MIN:
        return None
    return scale_of(np.asarray(durations_ms, dtype=np.float64), is_logarithmic=True)


def observe(evidence: Evidence, units: Sequence[Unit], latency_margin: float) -> Evidence:
    """Take units that were all assigned at the current notch.  Units already taken are skipped."""
    fresh = sorted(
        (unit for unit in units if unit.sequence > evidence.watermark), key=lambda u: u.sequence
    )
    for start in range(0, len(fresh), BLOCK_UNITS_MAX):
        evidence = _observe_block(evidence, fresh[start : start + BLOCK_UNITS_MAX], latency_margin)
    return evidence


def _observe_block(evidence: Evidence, block: Sequence[Unit], latency_margin: float) -> Evidence:
    if evidence.failed.units >= (evidence.epochs + 1) * EPOCH_UNITS:
        evidence = replace(
            evidence,
            errors=evidence.errors.begin_epoch(),
            latency=evidence.latency.begin_epoch(),
            epochs=evidence.epochs + 1,
        )
    is_canary = np.array([unit.is_canary for unit in block])
    failed = np.array([unit.failed for unit in block])
    evidence = replace(
        evidence,
        errors=evidence.errors.observe_units(failed, is_canary),
        failed=evidence.failed.add(failed, is_canary),
        watermark=block[-1].sequence,
        notch_units=evidence.notch_units + int(is_canary.sum()),
    )
    if evidence.scale is None:
        # The bets of a block must be fixed before it, so this block only teaches.
        answered = (u.duration_ms for u in block if not u.is_canary and not u.failed)
        warming = (*evidence.warming_ms, *answered)
        scale = freeze_reference(warming)
        return replace(evidence, scale=scale, warming_ms=() if scale else warming)
    durations = np.array([unit.duration_ms for unit in block], dtype=np.float64)
    allowed = np.where(is_canary, durations / (1.0 + latency_margin), durations)
    # A failure is slower than anything: it never gave an answer.
    scores = np.where(failed, SCORE_MAX, evidence.scale.scores(allowed))
    bounds = np.array(evidence.scale.bounds)
    return replace(
        evidence,
        latency=evidence.latency.observe(scores, is_canary, bounds),
        slow=tuple(
            tally.add(scores > bound, is_canary)
            for tally, bound in zip(evidence.slow, bounds, strict=True)
        ),
    )


def next_notch(evidence: Evidence) -> Evidence:
    """Evidence as the next notch begins: what was learned stays, the count starts again."""
    return replace(evidence, notch_units=0)


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known besides the evidence: telemetry and the canary's engine."""

    seconds_since_record: float
    """Since the newest access record of either arm, or since the release last moved."""
    canary_engine_down_seconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do now, and why.  No signal means: not yet."""

    signal: Signal | None
    because: str
    numbers: dict[str, float]


# A crashed engine restarts in seconds; one that stays away this long is not coming back.
ENGINE_DOWN_SECONDS_MAX = 30.0


def judge(release: Release, plan: ReleasePlan, evidence: Evidence, sight: Sight) -> Verdict:
    """The verdict on a live canary.  Missing metrics are not health."""
    numbers = describe(evidence)
    if sight.canary_engine_down_seconds > ENGINE_DOWN_SECONDS_MAX:
        down = sight.canary_engine_down_seconds
        return Verdict(Signal.DEAD, f"no engine of the canary for {down:.0f} s", numbers)
    if evidence.log_e >= LOG_THRESHOLD:
        return Verdict(Signal.UNHEALTHY, _accuse(evidence), numbers)
    if sight.seconds_since_record > plan.blind_hold_seconds:
        silent = sight.seconds_since_record
        return Verdict(
            Signal.BLIND,
            f"no access record for {silent:.0f} s, the plan allows "
            f"{plan.blind_hold_seconds:.0f} s: nobody can see how the canary does",
            numbers,
        )
    if release.stage is Stage.PAUSED:
        return Verdict(None, "paused by a person", numbers)
    if evidence.notch_units < plan.units_per_notch:
        return Verdict(
            None,
            f"{evidence.notch_units} of {plan.units_per_notch} canary answers "
            f"seen at {release.weight_percent} %",
            numbers,
        )
    if evidence.log_e >= LOG_YELLOW:
        strength = math.exp(evidence.log_e)
        return Verdict(
            None, f"evidence of harm is {strength:.1f}, above 3: no climb until it falls", numbers
        )
    return Verdict(
        Signal.HEALTHY,
        f"{evidence.notch_units} canary answers at {release.weight_percent} % "
        f"and no evidence of harm (e = {math.exp(evidence.log_e):.2f}, limit 100)",
        numbers,
    )


def describe(evidence: Evidence) -> dict[str, float]:
    """The evidence as numbers for people: e-values, units and rates."""
    failed = evidence.failed
    return {
        "e": math.exp(min(evidence.log_e, 700.0)),
        "e_errors": math.exp(min(evidence.log_e_errors, 700.0)),
        "e_latency": math.exp(min(evidence.log_e_latency, 700.0)),
        "threshold": 1.0 / FALSE_ROLLBACK_RATE,
        "canary_units": float(failed.canary_units),
        "canary_failed": float(failed.canary_bad),
        "baseline_units": float(failed.units - failed.canary_units),
        "baseline_failed": float(failed.bad - failed.canary_bad),
    }


def _accuse(evidence: Evidence) -> str:
    """Name the guilty metric and the numbers a person would ask for first."""
    failed = evidence.failed
    strength = math.exp(min(evidence.log_e, 700.0))
    proof = f"evidence {strength:.0f} against a limit of {1 / FALSE_ROLLBACK_RATE:.0f}"
    if evidence.log_e_errors >= evidence.log_e_latency or evidence.scale is None:
        canary = f"{failed.canary_bad} of {failed.canary_units} canary answers failed"
        units, bad = failed.units - failed.canary_units, failed.bad - failed.canary_bad
        return f"errors: {canary}, {bad} of {units} baseline answers; {proof}"
    guilty = int(np.argmax(evidence.latency.tails.log_e))
    tally, bound_ms = evidence.slow[guilty], evidence.scale.values()[guilty]
    units = tally.units - tally.canary_units
    return (
        f"latency: {tally.canary_bad} of {tally.canary_units} canary answers took longer than "
        f"the baseline's p{QUANTILES[guilty] * 100:.0f} of {bound_ms:.0f} ms, "
        f"{tally.bad - tally.canary_bad} of {units} baseline answers; {proof}"
    )
