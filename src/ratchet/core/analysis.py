"""The live judge: evidence in, verdict with `because` out.

The unit is a conversation's first request at a notch (a request without a conversation is its
own).  Units enter in the order in which their records arrived, in blocks that never span a change
of weight; inside a notch every unit was assigned with the same probability, so any grouping that
is blind to the arm keeps the labels exchangeable.  Only first attempts count: what a retry saved
was still a failure.

Guarded are errors and latency, each an e-process (`stats.sequential`).  Latency is five yes-or-no
metrics, "slower than the p50, p75, p90, p95, p99 of the baseline before the release", after the
canary's time is divided by one plus the margin.  All share one filtration, so they are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ratchet.core.rollout import Release, Signal, Stage
from ratchet.core.spec import ReleasePlan
from ratchet.stats.sequential import BinaryEvidence, Block, log_mean

# Chance that a release which is no worse is ever rolled back.
FALSE_ROLLBACK_RATE = 0.01
LOG_THRESHOLD = math.log(1.0 / FALSE_ROLLBACK_RATE)
# Evidence this strong is no proof, but reason enough not to show the canary to more people.
LOG_YELLOW = math.log(3.0)
QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)
# Baseline answers needed before their quantiles mean anything.  Fewer cost power, not validity.
REFERENCE_UNITS_MIN = 50
BLOCK_UNITS_MAX = 100


@dataclass(frozen=True, slots=True)
class Unit:
    """One judged unit, as the gateway saw it."""

    sequence: int
    """Position in order of arrival."""
    is_canary: bool
    failed: bool
    duration_ms: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the judge remembers of a release.  It is stored with the release."""

    errors: BinaryEvidence = field(default_factory=BinaryEvidence)
    latency: tuple[BinaryEvidence, ...] = tuple(BinaryEvidence() for _ in QUANTILES)
    reference_ms: tuple[float, ...] = ()
    """Frozen quantiles of the baseline's durations; empty until enough were seen."""
    warming_ms: tuple[float, ...] = ()
    """Baseline durations gathered while there is no reference yet."""
    watermark: int = 0
    """Sequence of the last unit that was taken."""
    notch_units: int = 0
    """Canary units at the current notch."""

    @property
    def log_e(self) -> float:
        """ln of the evidence of harm: half errors, half latency."""
        return log_mean([self.errors.log_e, self.log_e_latency])

    @property
    def log_e_latency(self) -> float:
        return log_mean([quantile.log_e for quantile in self.latency])


def freeze_reference(durations_ms: Sequence[float]) -> tuple[float, ...]:
    """Quantiles of the baseline, or nothing when there are too few answers to have any."""
    if len(durations_ms) < REFERENCE_UNITS_MIN:
        return ()
    ordered = sorted(durations_ms)
    return tuple(ordered[math.ceil(q * len(ordered)) - 1] for q in QUANTILES)


def observe(evidence: Evidence, units: Sequence[Unit], latency_margin: float) -> Evidence:
    """Take units that were all assigned at the current notch.  Units already taken are skipped."""
    fresh = sorted(
        (unit for unit in units if unit.sequence > evidence.watermark), key=lambda u: u.sequence
    )
    for start in range(0, len(fresh), BLOCK_UNITS_MAX):
        evidence = _observe_block(evidence, fresh[start : start + BLOCK_UNITS_MAX], latency_margin)
    return evidence


def _observe_block(evidence: Evidence, block: Sequence[Unit], latency_margin: float) -> Evidence:
    latency = evidence.latency
    if evidence.reference_ms:
        latency = tuple(
            metric.observe(_block(block, [_slow(u, bound, latency_margin) for u in block]))
            for metric, bound in zip(latency, evidence.reference_ms, strict=True)
        )
        warming: tuple[float, ...] = ()
        reference = evidence.reference_ms
    else:
        # The bets of a block must be fixed before it, so this block only teaches.
        answered = (u.duration_ms for u in block if not u.is_canary and not u.failed)
        warming = (*evidence.warming_ms, *answered)
        reference = freeze_reference(warming)
    return Evidence(
        errors=evidence.errors.observe(_block(block, [u.failed for u in block])),
        latency=latency,
        reference_ms=reference,
        warming_ms=() if reference else warming,
        watermark=block[-1].sequence,
        notch_units=evidence.notch_units + sum(u.is_canary for u in block),
    )


def _slow(unit: Unit, bound_ms: float, latency_margin: float) -> bool:
    """A failure is slower than anything: it never gave an answer."""
    duration = unit.duration_ms / (1.0 + latency_margin) if unit.is_canary else unit.duration_ms
    return unit.failed or duration > bound_ms


def _block(units: Sequence[Unit], bad: Sequence[bool]) -> Block:
    return Block(
        units=len(units),
        canary_units=sum(unit.is_canary for unit in units),
        bad=sum(bad),
        canary_bad=sum(b for unit, b in zip(units, bad, strict=True) if unit.is_canary),
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
    errors = evidence.errors
    baseline_units = errors.units - errors.canary_units
    baseline_bad = errors.bad - errors.canary_bad
    return {
        "e": math.exp(min(evidence.log_e, 700.0)),
        "e_errors": math.exp(min(errors.log_e, 700.0)),
        "e_latency": math.exp(min(evidence.log_e_latency, 700.0)),
        "threshold": 1.0 / FALSE_ROLLBACK_RATE,
        "canary_units": float(errors.canary_units),
        "canary_failed": float(errors.canary_bad),
        "baseline_units": float(baseline_units),
        "baseline_failed": float(baseline_bad),
    }


def _accuse(evidence: Evidence) -> str:
    """Name the guilty metric and the numbers a person would ask for first."""
    errors = evidence.errors
    strength = math.exp(min(evidence.log_e, 700.0))
    proof = f"evidence {strength:.0f} against a limit of {1 / FALSE_ROLLBACK_RATE:.0f}"
    baseline_units = errors.units - errors.canary_units
    if errors.log_e >= evidence.log_e_latency:
        canary = f"{errors.canary_bad} of {errors.canary_units} canary answers failed"
        baseline = f"{errors.bad - errors.canary_bad} of {baseline_units} baseline answers"
        return f"errors: {canary}, {baseline}; {proof}"
    guilty = max(range(len(QUANTILES)), key=lambda i: evidence.latency[i].log_e)
    metric, bound = evidence.latency[guilty], evidence.reference_ms[guilty]
    units = metric.units - metric.canary_units
    return (
        f"latency: {metric.canary_bad} of {metric.canary_units} canary answers took longer than "
        f"the baseline's p{QUANTILES[guilty] * 100:.0f} of {bound:.0f} ms, "
        f"{metric.bad - metric.canary_bad} of {units} baseline answers; {proof}"
    )
