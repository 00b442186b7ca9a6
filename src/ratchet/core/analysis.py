"""The live judge: evidence in, verdict with `because` out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from ratchet.core import ramp, shadow
from ratchet.core.evidence import Evidence
from ratchet.core.findings import (
    LOG_THRESHOLD,
    Finding,
    accuse,
    claim,
    describe,
    findings,
    regression_max,
)
from ratchet.core.meters import LOG_MAX
from ratchet.core.ramp import Exposure, Ramp, next_weight
from ratchet.core.rollout import Release, Signal, Stage
from ratchet.core.routing import WEIGHT_TOTAL
from ratchet.core.shadow import Shadowed
from ratchet.core.spec import ReleasePlan

# Evidence this strong is no proof, but reason enough not to show the canary to more people.
LOG_YELLOW = math.log(3.0)
# A chosen weight stands for so long at least: every move is a push to all gateways.
MOVE_SECONDS_MIN = 10.0
# And is not worth a move for less than this share.
MOVE_SHARE_MIN = 0.1
# Fewer canary answers are no ground for a promotion, however good they look.
PROOF_UNITS_MIN = 200
# A crashed engine restarts in seconds; one that stays away this long is not coming back.
ENGINE_DOWN_SECONDS_MAX = 30.0
# The split is checked at an error rate of its own.
LOG_SPLIT = math.log(1.0 / 0.001)
# What the shadow alone may roll back by.
LOG_SHADOW = LOG_THRESHOLD - math.log(shadow.SHARE)
# Of the baseline's units, so many may go without a record before nothing is concluded.
CENSORED_SHARE_MAX = 0.05
CENSORED_UNITS_MIN = 100
# A baseline that fails this often is nothing to compare with, and nothing to promote against.
SICK_SHARE = 0.5
SICK_UNITS_MIN = 20
# The breaker: failures in a row, so many that a canary which is no worse gives them once in a
# thousand releases of so many answers.
BREAKER_IN_A_ROW_MIN = 5
BREAKER_RISK = 0.001
BREAKER_UNITS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """The newest records, in the order in which answers ended."""

    canary_failures_in_a_row: int = 0
    baseline_units: int = 0
    baseline_failed: int = 0

    @property
    def is_baseline_sick(self) -> bool:
        enough = self.baseline_units >= SICK_UNITS_MIN
        return enough and self.baseline_failed >= SICK_SHARE * self.baseline_units


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Units that were assigned and are not judged yet."""

    canary_units: int = 0
    weight_units: int = 0
    """Of both arms, at the present weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is known besides the evidence: telemetry, engines, the clock."""

    seconds_since_record: float
    """Since the newest access record of either arm, or since the release last moved."""
    canary_engine_down_seconds: float
    baseline_engine_down_seconds: float = 0.0
    seconds_since_verdict: float = 0.0
    """Since the weight was last chosen."""
    seconds_since_start: float = 0.0
    """Since the canary first got traffic."""
    recent: Recent = field(default_factory=Recent)
    pending: Pending = field(default_factory=Pending)
    capacity_share: float = math.inf
    """Of the traffic, what the canary's engines can take."""
    freeze: str = ""
    """The window in which nothing goes up, as the plan has it; empty outside of one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do now, and why.  No signal means: not yet."""

    signal: Signal | None
    because: str
    numbers: dict[str, float]
    weight: int | None = None
    """Of 10,000, with `MOVE`."""


def judge(release: Release, plan: ReleasePlan, evidence: Evidence, sight: Sight) -> Verdict:
    """The verdict on a live canary.  Missing metrics are not health."""
    verdict = _judge(release, plan, evidence, sight)
    if verdict.signal is not Signal.HEALTHY or not _promotes(release):
        return verdict
    early = plan.min_duration_seconds - sight.seconds_since_start
    if early > 0:
        because = f"{verdict.because}; not promoted before {early:.0f} s more (min_duration)"
        return replace(verdict, signal=None, because=because)
    if plan.needs_approval:
        because = f"{verdict.because}; a person must promote it (approval)"
        return replace(verdict, signal=Signal.PAUSE, because=because)
    return verdict


def _promotes(release: Release) -> bool:
    """Whether health leads to all of the traffic."""
    notches = release.notches_percent
    return not notches or notches[release.notch + 1] == 100


def _judge(release: Release, plan: ReleasePlan, evidence: Evidence, sight: Sight) -> Verdict:
    numbers = describe(evidence)
    if release.stage is Stage.HOLDBACK:
        return _judge_holdback(plan, evidence, sight)
    signal, because = (
        _harm(evidence, sight)
        or _blindness(plan, sight)
        or _reason_to_wait(release, sight)
        or _reason_to_ask(plan, evidence, sight)
        or (None, "")
    )
    if because:
        return Verdict(signal, because, numbers)
    if plan.harm_budget is not None:
        return _judge_ramp(release, plan, evidence, sight)
    return _judge_notch(release, plan, evidence, sight)


def judge_shadow(
    plan: ReleasePlan, seen: Shadowed, evidence: Evidence, sight: Sight, problem: str
) -> Verdict:
    """The verdict on a canary that nobody has met; `problem` is why it waits."""
    numbers = describe(evidence) | seen.numbers()
    if sight.canary_engine_down_seconds > ENGINE_DOWN_SECONDS_MAX:
        down = sight.canary_engine_down_seconds
        return Verdict(Signal.DEAD, f"no engine of the canary for {down:.0f} s", numbers)
    if seen.silence:
        because = f"the canary had no answer to {seen.silence}: {seen.why_silent}"
        return Verdict(Signal.DEAD, because, numbers)
    if seen.log_harm >= LOG_SHADOW:
        strength, limit = math.exp(min(seen.log_harm, LOG_MAX)), math.exp(LOG_SHADOW)
        return Verdict(
            Signal.UNHEALTHY,
            f"{seen.sentence()}; evidence {strength:.0f} against a limit of {limit:.0f}; no user "
            "met it",
            numbers,
        )
    if sight.seconds_since_verdict > plan.max_duration_seconds:
        return Verdict(
            Signal.ASK,
            f"{seen.progress(problem)} after {plan.max_duration_seconds:.0f} s, as long as the "
            "plan allows",
            numbers,
        )
    if seen.left:
        return Verdict(None, seen.progress(problem), numbers)
    if sight.freeze:
        return Verdict(None, f"frozen ({sight.freeze}): the shadow is done, and waits", numbers)
    return Verdict(Signal.HEALTHY, f"{seen.sentence()}: no evidence of harm", numbers)


def _judge_holdback(plan: ReleasePlan, evidence: Evidence, sight: Sight) -> Verdict:
    """Roles are swapped: few have the old version, and the question is still the same."""
    numbers = describe(evidence)
    if sight.baseline_engine_down_seconds > ENGINE_DOWN_SECONDS_MAX:
        down = sight.baseline_engine_down_seconds
        return Verdict(Signal.OVER, f"the old version's engine is down for {down:.0f} s", numbers)
    if found := _harm(evidence, sight):
        return Verdict(*found, numbers)
    if sight.seconds_since_verdict >= plan.holdback_seconds:
        return Verdict(Signal.OVER, "the holdback is over, and nothing spoke against it", numbers)
    left = plan.holdback_seconds - sight.seconds_since_verdict
    return Verdict(
        None,
        f"promoted; {plan.holdback_share:.0%} keep the old version, {left / 60:.0f} minutes more",
        numbers,
    )


Word = tuple[Signal | None, str]


def _harm(evidence: Evidence, sight: Sight) -> Word | None:
    """Away with it, whatever else is."""
    if sight.baseline_engine_down_seconds > 0:
        # Whatever the canary does: nobody is moved to an engine that is not there.
        down = sight.baseline_engine_down_seconds
        return None, f"the baseline's engine is down for {down:.0f} s: nothing moves onto it"
    if sight.canary_engine_down_seconds > ENGINE_DOWN_SECONDS_MAX:
        return Signal.DEAD, f"no engine of the canary for {sight.canary_engine_down_seconds:.0f} s"
    if evidence.log_harm >= LOG_THRESHOLD:
        return Signal.UNHEALTHY, accuse(evidence)
    row, limit = sight.recent.canary_failures_in_a_row, breaker_limit(sight.recent)
    if limit is not None and row >= limit:
        recent = sight.recent
        return Signal.DEAD, (
            f"the last {row} canary answers failed, one after the other; "
            f"{recent.baseline_failed} of the last {recent.baseline_units} baseline answers"
        )
    return None


def breaker_limit(recent: Recent) -> int | None:
    """Failures in a row that open the breaker; None while too little is known of the baseline, or
    it is no better itself."""
    if recent.baseline_units < SICK_UNITS_MIN or recent.is_baseline_sick:
        return None
    rate = (recent.baseline_failed + 1) / (recent.baseline_units + 1)
    needed = math.log(BREAKER_RISK / BREAKER_UNITS) / math.log(rate)
    return max(BREAKER_IN_A_ROW_MIN, math.ceil(needed))


def _blindness(plan: ReleasePlan, sight: Sight) -> Word | None:
    silent = sight.seconds_since_record
    if silent <= plan.blind_hold_seconds:
        return None
    return Signal.BLIND, (
        f"no access record for {silent:.0f} s, the plan allows {plan.blind_hold_seconds:.0f} s: "
        "nobody can see how the canary does"
    )


def _reason_to_wait(release: Release, sight: Sight) -> Word | None:
    """Nothing goes up meanwhile."""
    if release.stage is Stage.PAUSED:
        return None, "paused: it keeps its weight until a person resumes or promotes it"
    if sight.canary_engine_down_seconds > 0:
        return None, f"the canary's engine is down for {sight.canary_engine_down_seconds:.0f} s"
    recent = sight.recent
    if recent.is_baseline_sick:
        return None, (
            f"the baseline itself is ill: {recent.baseline_failed} of its last "
            f"{recent.baseline_units} answers failed; nothing is concluded from that"
        )
    if sight.freeze:
        return None, f"frozen ({sight.freeze}): harm still rolls back, nothing goes up"
    return None


def _reason_to_ask(plan: ReleasePlan, evidence: Evidence, sight: Sight) -> Word | None:
    """No more can be learned like this: a person must decide."""
    if evidence.split.log_e >= LOG_SPLIT:
        split = evidence.split
        return Signal.ASK, (
            f"the traffic is not split as asked: {split.share:.2%} were to go to the canary, "
            f"{split.realised:.2%} of {split.units} did"
        )
    watched = evidence.presence
    for name, presence in watched.items():
        if presence.log_e >= LOG_SPLIT + math.log(len(watched)):
            return Signal.ASK, presence.sentence(name)
    cut = evidence.censored
    if cut.baseline_units >= CENSORED_UNITS_MIN:
        missing = cut.total - cut.canary_total
        if missing > CENSORED_SHARE_MAX * cut.baseline_units:
            return None, (
                f"{missing:.0f} of {cut.baseline_units} baseline answers did not end within "
                f"{plan.deadline_seconds:.0f} s or left no record: nothing is concluded from that"
            )
    if sight.seconds_since_start > plan.max_duration_seconds:
        worst = regression_max(evidence)
        return Signal.ASK, (
            f"undecided for {plan.max_duration_seconds:.0f} s, as long as the plan allows: "
            f"{worst:.2%} more failures are excluded, less is not"
        )
    return None


def _judge_notch(release: Release, plan: ReleasePlan, evidence: Evidence, sight: Sight) -> Verdict:
    numbers = describe(evidence)
    if evidence.notch_units < plan.units_per_notch:
        return Verdict(
            None,
            f"{evidence.notch_units} of {plan.units_per_notch} canary answers "
            f"seen at {release.weight_percent:g} %",
            numbers,
        )
    early = plan.seconds_per_notch - sight.seconds_since_verdict
    if early > 0:
        because = f"{early:.0f} s more at {release.weight_percent:g} % (time_per_notch)"
        return Verdict(None, because, numbers)
    if evidence.log_harm >= LOG_YELLOW:
        strength = math.exp(evidence.log_harm)
        return Verdict(
            None, f"evidence of harm is {strength:.1f}, above 3: no climb until it falls", numbers
        )
    return Verdict(
        Signal.HEALTHY,
        f"{evidence.notch_units} canary answers at {release.weight_percent:g} % "
        f"and no evidence of harm (e = {math.exp(evidence.log_harm):.2f}, limit 100)",
        numbers,
    )


def ramp_of(plan: ReleasePlan) -> Ramp:
    """Raises `Rejected` for a plan with notches."""
    return Ramp(harm_budget=plan.harm_budget or 0.0)


def first_weight(plan: ReleasePlan, per_second: float) -> int:
    """Of 10,000, where the weight is chosen, at so many answers a second; 0 for a plan with
    notches."""
    if plan.harm_budget is None:
        return 0
    first = ramp.first_weight(ramp_of(plan), per_second * MOVE_SECONDS_MIN)
    return max(1, round(first * WEIGHT_TOTAL))


def _judge_ramp(release: Release, plan: ReleasePlan, evidence: Evidence, sight: Sight) -> Verdict:
    """Promote on proof, else choose the weight."""
    numbers = describe(evidence)
    missing = still_to_show(evidence)
    if not missing and sight.capacity_share >= 1.0:
        return Verdict(Signal.HEALTHY, _proven(evidence), numbers)
    if not missing:
        missing = [f"engines for all of the traffic: they can take {sight.capacity_share:.0%}"]
    # Answers that users have had, judged or not.
    shown = evidence.fast.units.canary_units + evidence.fast.stragglers
    exposed = shown + sight.pending.canary_units
    units = evidence.weight_units + sight.pending.weight_units
    step = next_weight(
        ramp_of(plan),
        Exposure(
            weight=release.weight / WEIGHT_TOTAL,
            canary_units=float(exposed),
            judged_units=float(shown),
            regression_max=regression_max(evidence),
            next_units=units / max(sight.seconds_since_verdict, MOVE_SECONDS_MIN)
            * MOVE_SECONDS_MIN,
            capacity_share=sight.capacity_share,
            is_suspect=evidence.log_harm >= LOG_YELLOW,
        ),
    )  # fmt: skip
    if step.is_spent:
        return Verdict(Signal.ASK, step.because, numbers)
    weight = round(step.weight * WEIGHT_TOTAL)
    is_due = sight.seconds_since_verdict >= MOVE_SECONDS_MIN
    if is_due and abs(weight - release.weight) > MOVE_SHARE_MIN * release.weight:
        return Verdict(Signal.MOVE, step.because, numbers, weight)
    return Verdict(
        None, f"{shown} canary answers; still to be shown: {'; '.join(missing)}", numbers
    )


def still_to_show(evidence: Evidence) -> list[str]:
    """What keeps a canary from being promoted by proof, in words; nothing is a proof."""
    missing = [
        f"{claim(finding.guard)}{_how_long(finding)}"
        for finding in findings(evidence)
        if finding.guard.must_be_proven and not finding.is_proven
    ]
    if not missing and evidence.fast.units.canary_units < PROOF_UNITS_MIN:
        missing.append(f"{PROOF_UNITS_MIN} canary answers")
    return missing


def _how_long(finding: Finding) -> str:
    units = finding.units_to_proof
    return f" (some {units:.0f} canary answers more)" if math.isfinite(units) else ""


def _proven(evidence: Evidence) -> str:
    claims = [claim(f.guard) for f in findings(evidence) if f.guard.must_be_proven]
    worst = regression_max(evidence)
    return (
        f"proven after {evidence.fast.units.canary_units} canary answers: {'; '.join(claims)} "
        f"({worst:.2%} more failures are excluded)"
    )
