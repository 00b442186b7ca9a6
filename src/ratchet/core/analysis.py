"""The live judge: evidence in, verdict with `because` out.

The unit is a conversation's first request at a notch (a request without a conversation is its
own).  Units enter in the order in which their records arrived, in blocks of twenty that never span
a change of weight; inside a notch every unit was assigned with the same probability, so any
grouping that is blind to the arm keeps the labels exchangeable.  Only first attempts count: what a
retry saved was still a failure.

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

from ratchet.core.ramp import Exposure, Ramp, next_weight
from ratchet.core.rollout import Release, Signal, Stage
from ratchet.core.routing import WEIGHT_TOTAL
from ratchet.core.spec import ReleasePlan
from ratchet.stats.betting import MARGINS, RegressionBound
from ratchet.stats.exchangeable import SCORE_MAX
from ratchet.stats.harm import QUANTILES, Scale, Shift, Slower, YesNo, scale_of

# Chance that a release which is no worse is ever rolled back.
FALSE_ROLLBACK_RATE = 0.01
LOG_THRESHOLD = math.log(1.0 / FALSE_ROLLBACK_RATE)
# Evidence this strong is no proof, but reason enough not to show the canary to more people.
LOG_YELLOW = math.log(3.0)
# Baseline answers needed before their spread means anything.  Fewer cost power, not validity.
REFERENCE_UNITS_MIN = 50
# Of each block, exactly: small enough to be there soon, large enough to hold both arms (blocks of
# two take twice as many canary answers to see a regression, of a hundred no fewer).  And since a
# block does not depend on when one looks, a judge that was killed decides as one that was not.
BLOCK_UNITS = 20
# A regression may begin late: capital is put in anew after so many units.
EPOCH_UNITS = 3_000
# A chosen weight stands for so long at least: every move is a push to all gateways.
MOVE_SECONDS_MIN = 10.0
# And is not worth a move for less than this share.
MOVE_SHARE_MIN = 0.1
# Fewer canary answers are no ground for a promotion, however good they look.
PROOF_UNITS_MIN = 200


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
class Safety:
    """Evidence that the canary is not worse by more than the margins: what a promotion needs
    where the weight is chosen by a harm budget."""

    errors: RegressionBound
    latency: Shift = field(default_factory=Shift.fresh)
    """Against "slower by the margin or more"."""

    @classmethod
    def against(cls, errors_margin: float) -> Safety:
        return cls(RegressionBound.fresh((), np.unique(np.append(MARGINS, errors_margin))))

    @property
    def regression_max(self) -> float:
        """Upper bound on how much more often the canary fails."""
        return float(self.errors.upper(FALSE_ROLLBACK_RATE))

    @property
    def log_e_latency(self) -> float:
        return float(self.latency.log_e)


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
    """Canary units at the current weight."""
    weight_units: int = 0
    """Of both arms, at the current weight."""
    safety: Safety | None = None
    """Where a release is promoted by proof."""
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


def first_evidence(plan: ReleasePlan, baseline_ms: Sequence[float]) -> Evidence:
    """As a release begins; releases without units learn from the baseline's own past what "slow"
    means."""
    safety = None if plan.harm_budget is None else Safety.against(plan.errors_margin)
    return Evidence(scale=freeze_reference(baseline_ms), safety=safety)


def first_weight(plan: ReleasePlan) -> int:
    """Of 10,000, where the weight is chosen; 0 for a plan with notches."""
    return 0 if plan.harm_budget is None else round(ramp_of(plan).first * WEIGHT_TOTAL)


def observe(
    evidence: Evidence, units: Sequence[Unit], latency_margin: float, weight: int = 0
) -> Evidence:
    """Take units that were all assigned at the current weight, of 10,000, in whole blocks; the rest
    waits for more.  Units already taken are skipped.  The weight is needed for proof only."""
    fresh = sorted(
        (unit for unit in units if unit.sequence > evidence.watermark), key=lambda u: u.sequence
    )
    for start in range(0, len(fresh) - BLOCK_UNITS + 1, BLOCK_UNITS):
        block = fresh[start : start + BLOCK_UNITS]
        evidence = _observe_block(evidence, block, latency_margin, weight / WEIGHT_TOTAL)
    return evidence


def _observe_block(
    evidence: Evidence, block: Sequence[Unit], latency_margin: float, share: float
) -> Evidence:
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
        weight_units=evidence.weight_units + len(block),
        safety=_safer(evidence.safety, failed, is_canary, share),
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
    safety = evidence.safety
    if safety is not None:
        # The canary's time is divided by one plus the margin: "not faster now" is "slower by it".
        safety = replace(safety, latency=safety.latency.observe(-scores, is_canary))
    return replace(
        evidence,
        safety=safety,
        latency=evidence.latency.observe(scores, is_canary, bounds),
        slow=tuple(
            tally.add(scores > bound, is_canary)
            for tally, bound in zip(evidence.slow, bounds, strict=True)
        ),
    )


def _safer(
    safety: Safety | None, failed: NDArray[np.bool_], is_canary: NDArray[np.bool_], share: float
) -> Safety | None:
    if safety is None or not 0 < share < 1:
        return safety
    arms = [
        (np.asarray(mine.sum()), np.asarray((failed & mine).sum(), dtype=np.float64))
        for mine in (is_canary, ~is_canary)
    ]
    return replace(safety, errors=safety.errors.observe(np.asarray(share), arms[0], arms[1]))


def next_weight_begins(evidence: Evidence) -> Evidence:
    """Evidence as another weight begins: what was learned stays, the counts start again."""
    return replace(evidence, notch_units=0, weight_units=0)


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known besides the evidence: telemetry and the canary's engine."""

    seconds_since_record: float
    """Since the newest access record of either arm, or since the release last moved."""
    canary_engine_down_seconds: float
    seconds_since_verdict: float = 0.0
    """Since the weight was last chosen."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do now, and why.  No signal means: not yet."""

    signal: Signal | None
    because: str
    numbers: dict[str, float]
    weight: int | None = None
    """Of 10,000, with `MOVE`."""


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
    if plan.harm_budget is not None:
        return _judge_ramp(release, plan, evidence, sight)
    if evidence.notch_units < plan.units_per_notch:
        return Verdict(
            None,
            f"{evidence.notch_units} of {plan.units_per_notch} canary answers "
            f"seen at {release.weight_percent:g} %",
            numbers,
        )
    if evidence.log_e >= LOG_YELLOW:
        strength = math.exp(evidence.log_e)
        return Verdict(
            None, f"evidence of harm is {strength:.1f}, above 3: no climb until it falls", numbers
        )
    return Verdict(
        Signal.HEALTHY,
        f"{evidence.notch_units} canary answers at {release.weight_percent:g} % "
        f"and no evidence of harm (e = {math.exp(evidence.log_e):.2f}, limit 100)",
        numbers,
    )


def ramp_of(plan: ReleasePlan) -> Ramp:
    """Raises `Rejected` for a plan with notches."""
    return Ramp(harm_budget=plan.harm_budget or 0.0)


def _judge_ramp(release: Release, plan: ReleasePlan, evidence: Evidence, sight: Sight) -> Verdict:
    """Promote on proof, else choose the weight."""
    numbers, safety = describe(evidence), evidence.safety
    assert safety is not None
    worst, shown = safety.regression_max, evidence.failed.canary_units
    missing = still_to_show(plan, evidence.failed, safety)
    if not missing:
        return Verdict(
            Signal.HEALTHY,
            f"proven after {shown} canary answers: at most {worst:.2%} more of them fail (margin "
            f"{plan.errors_margin:.2%}), and they are not slower by {plan.latency_margin:.0%}",
            numbers,
        )
    rate = evidence.weight_units / max(sight.seconds_since_verdict, MOVE_SECONDS_MIN)
    step = next_weight(
        ramp_of(plan),
        Exposure(
            weight=release.weight / WEIGHT_TOTAL,
            canary_units=float(shown),
            regression_max=worst,
            next_units=rate * MOVE_SECONDS_MIN,
            is_suspect=evidence.log_e >= LOG_YELLOW,
        ),
    )
    weight = round(step.weight * WEIGHT_TOTAL)
    is_due = sight.seconds_since_verdict >= MOVE_SECONDS_MIN
    if is_due and abs(weight - release.weight) > MOVE_SHARE_MIN * release.weight:
        return Verdict(Signal.MOVE, step.because, numbers, weight)
    proof = " and ".join(missing)
    return Verdict(None, f"{shown} canary answers; still to be shown: {proof}", numbers)


def still_to_show(plan: ReleasePlan, failed: Tally, safety: Safety) -> list[str]:
    """What keeps a canary from being promoted by proof, in words; nothing is a proof."""
    missing = []
    if safety.regression_max > plan.errors_margin:
        missing.append(f"that at most {plan.errors_margin:.2%} more answers fail")
    if safety.log_e_latency < LOG_THRESHOLD:
        missing.append(f"that they are not slower by {plan.latency_margin:.0%}")
    if not missing and failed.canary_units < PROOF_UNITS_MIN:
        missing.append(f"{PROOF_UNITS_MIN} canary answers")
    return missing


def describe(evidence: Evidence) -> dict[str, float]:
    """The evidence as numbers for people: e-values, units and rates."""
    failed, safety = evidence.failed, evidence.safety
    proof = {}
    if safety is not None:
        proof = {
            "regression_max": safety.regression_max,
            "e_not_slower": math.exp(min(safety.log_e_latency, 700.0)),
        }
    return {
        **proof,
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
